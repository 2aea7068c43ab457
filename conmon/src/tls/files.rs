//! Keys and certificates in files, PEM. Each trouble names its file.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::provider;

/// No key, chain or bundle of CAs is larger.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what}{}: give a PEM file, such as `conmonctl ca` makes", path.display(), reason(why))]
    Content {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The key belongs to another certificate.
    #[error("the key {} does not belong to the certificate {}: they were made apart", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is not one for its use.
    #[error("the certificate {} cannot be used: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

fn reason(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

/// A certificate with its key and the certificates between it and its CA.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What TLS needs.
    pub key: Arc<CertifiedKey>,
    /// Where the certificate was read.
    pub path: PathBuf,
}

impl Identity {
    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |certificate| certificate.as_ref())
    }
}

/// A file's text. `what` says what it should hold.
pub fn read_text(what: &'static str, path: &Path) -> Result<String, TlsError> {
    let failed = |source| TlsError::Read { what, path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        let why = format!("it has more than {FILE_LIMIT_BYTES} bytes");
        return Err(TlsError::Content { what, path: path.to_owned(), why });
    }
    Ok(text)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_text(what, path)?;
    let wrong = |why| TlsError::Content { what, path: path.to_owned(), why };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong(String::new())) } else { Ok(all) }
}

/// The CAs that are trusted.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let what = "CA certificate";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::Content { what, path: path.to_owned(), why: error.to_string() })?;
    }
    Ok(roots)
}

/// A certificate and its key.
pub fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let what = "private key";
    let text = read_text(what, key)?;
    let wrong = |why: String| TlsError::Content { what, path: key.to_owned(), why };
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => wrong(String::new()),
        error => wrong(error.to_string()),
    })?;
    let signer = provider().key_provider.load_private_key(der).map_err(|error| wrong(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        Err(error) => {
            return Err(TlsError::Certificate { path: certificate.to_owned(), why: error.to_string() });
        }
    }
    Ok(Identity { key: Arc::new(certified), path: certificate.to_owned() })
}

/// Whether nobody but its owner can read the file: a key or a token that others can read is theirs.
pub fn is_private(path: &Path) -> io::Result<bool> {
    std::fs::metadata(path).map(|file| file.mode() & 0o077 == 0)
}
