//! The daemon's keys and certificates: read from files, judged, and read again when they change.
//!
//! What is read is taken whole or not at all: while the files do not fit each other, what was read before goes on, and
//! [`Tls::state`] says what is wrong. When the CA or the tokens change, connections that were let in by the former ones
//! end; a new certificate of our own disturbs nobody.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use conmon::client::Credentials;
use conmon::tls::{self, Facts, Identity, Role, TlsError};
use conmon::token::{TokenError, Tokens};
use jiff::Timestamp;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::sync::watch;

/// Where keys, certificates and tokens lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// This host's certificate, and those between it and the CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose certificates are good.
    pub ca: PathBuf,
    /// Tenants' tokens; none where tenants have none.
    pub tokens: Option<PathBuf>,
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key, &self.ca].into_iter().chain(&self.tokens).map(PathBuf::as_path)
    }

    /// Those that nobody else should read.
    pub fn secret(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.key).chain(&self.tokens).map(PathBuf::as_path)
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Keys or certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A host is who its certificate says.
    #[error(
        "the certificate {} is that of {role}, and this host is called {host}: set `host_name`, or make a certificate with `conmonctl ca host {host}`",
        path.display()
    )]
    Name {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is.
        role: String,
        /// Our name.
        host: String,
    },
    /// The certificate cannot serve.
    #[error("the certificate {} cannot be used: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// What is in force.
pub(super) struct Loaded {
    pub(super) server: Arc<ServerConfig>,
    pub(super) tokens: Arc<Tokens>,
    credentials: Credentials,
    facts: Facts,
    /// What those who were let in were let in by: the trusted CAs and the tokens.
    grounds: (RootCertStore, Arc<Tokens>),
}

/// What the doctor needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsState {
    /// What our certificate says.
    pub certificate: Facts,
    /// How many tokens are good; none where no file is configured.
    pub tokens: Option<usize>,
    /// Why the files as they are now are not in force.
    pub trouble: Option<String>,
}

/// Device, inode, size and time of change of each file; none of one that cannot be looked at.
type Stamps = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// Keys, certificates and tokens in force.
pub struct Tls {
    files: TlsFiles,
    host: String,
    loaded: Mutex<Arc<Loaded>>,
    seen: Mutex<(Stamps, Option<String>)>,
    grounds: watch::Sender<u64>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files for the host of this name.
    pub fn load(files: TlsFiles, host: &str) -> Result<Self, FilesError> {
        let stamps = stamps(&files);
        let loaded = load(&files, host)?;
        Ok(Self {
            files,
            host: host.to_owned(),
            loaded: Mutex::new(Arc::new(loaded)),
            seen: Mutex::new((stamps, None)),
            grounds: watch::channel(0).0,
        })
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What this host shows to others, and whom it trusts. Ask anew for each connection: certificates change.
    pub fn credentials(&self) -> Credentials {
        self.loaded().credentials.clone()
    }

    /// What is in force, and what is not.
    pub fn state(&self) -> TlsState {
        let loaded = self.loaded();
        let trouble = self.seen.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        TlsState {
            certificate: loaded.facts.clone(),
            tokens: self.files.tokens.as_ref().map(|_| loaded.tokens.len()),
            trouble,
        }
    }

    pub(super) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes when those who were let in before are to be asked anew.
    pub(super) fn grounds(&self) -> watch::Receiver<u64> {
        self.grounds.subscribe()
    }

    /// Reads the files again if one has changed.
    pub fn refresh(&self) {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 == now {
            return;
        }
        seen.0 = now;
        match load(&self.files, &self.host) {
            Ok(new) => {
                seen.1 = None;
                let until = new.facts.not_after;
                let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = !same(&loaded.grounds, &new.grounds);
                *loaded = Arc::new(new);
                drop(loaded);
                if changed {
                    self.grounds.send_modify(|number| *number += 1);
                }
                tracing::info!(%until, tokens_or_ca_changed = changed, "keys and certificates were read again");
            }
            Err(error) => {
                tracing::warn!(error = %error, "keys and certificates have changed and cannot be used; those read before go on");
                seen.1 = Some(error.to_string());
            }
        }
    }
}

fn same(one: &(RootCertStore, Arc<Tokens>), other: &(RootCertStore, Arc<Tokens>)) -> bool {
    one.0.roots == other.0.roots && one.1 == other.1
}

fn stamps(files: &TlsFiles) -> Stamps {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    files.all().map(stamp).collect()
}

fn load(files: &TlsFiles, host: &str) -> Result<Loaded, FilesError> {
    let roots = tls::roots(&files.ca)?;
    let identity = tls::identity(&files.certificate, &files.key)?;
    let tokens = files.tokens.as_deref().map(Tokens::read).transpose()?;
    let unusable = |why: String| FilesError::Certificate { path: files.certificate.clone(), why };
    let facts = tls::facts(identity.certificate()).map_err(|error| unusable(error.to_string()))?;
    match &facts.role {
        Ok(Role::Host(name)) if name == host => {}
        Ok(role) => {
            return Err(FilesError::Name {
                path: files.certificate.clone(),
                role: role.to_string(),
                host: host.to_owned(),
            });
        }
        Err(error) => return Err(unusable(error.to_string())),
    }
    judge(&identity, &roots).map_err(unusable)?;
    let demanded = tokens.is_none();
    let credentials = Credentials::new(roots.clone(), Some(&identity), None)?;
    let server = server_config(roots.clone(), &identity, demanded).map_err(unusable)?;
    let tokens = Arc::new(tokens.unwrap_or_default());
    let grounds = (roots, Arc::clone(&tokens));
    Ok(Loaded { server: Arc::new(server), tokens, credentials, facts, grounds })
}

/// Whether others will take our certificate. One that is out of its time is shown all the same: who is refused says why.
fn judge(identity: &Identity, roots: &RootCertStore) -> Result<(), String> {
    match tls::judge_server(identity, roots) {
        Ok(()) => Ok(()),
        Err(rustls::Error::InvalidCertificate(
            error @ (CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Expired
            | CertificateError::NotValidYet),
        )) => {
            let complaint = tls::complain(&error.into(), tls::Side::Client);
            tracing::warn!(
                problem = complaint.problem,
                remedy = complaint.remedy,
                "others will not take this host's certificate"
            );
            Ok(())
        }
        Err(error) => Err(tls::complain(&error, tls::Side::Client).problem),
    }
}

/// `demanded`: nobody gets beyond the handshake without a certificate. Where tenants have tokens, they do, and are told.
fn server_config(roots: RootCertStore, identity: &Identity, demanded: bool) -> Result<ServerConfig, String> {
    let provider = tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = if demanded { verifier } else { verifier.allow_unauthenticated() };
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))));
    // Each connection is judged anew: one that is resumed would be let in by what was good once.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// When the certificate of a client ends.
pub(super) fn end_of(certificate: &[u8]) -> Option<Timestamp> {
    tls::facts(certificate).ok().map(|facts| facts.not_after)
}
