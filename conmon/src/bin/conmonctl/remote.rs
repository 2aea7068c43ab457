//! Whom to ask: this host's conmond by its socket, or another host's over TLS.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use conmon::client::{Client, Credentials};
use conmon::instance::Instance;
use conmon::tls::{Identity, identity, read_text, roots};

use crate::args::Cli;

/// Where keys and certificates are looked for when none are named: an operator's own, then this host's.
const FOLDERS: [(Folder, &str); 2] = [(Folder::OfUser, "operator"), (Folder::OfHost, "host")];

#[derive(Clone, Copy)]
enum Folder {
    OfUser,
    OfHost,
}

impl Folder {
    fn path(self) -> Option<PathBuf> {
        match self {
            Self::OfHost => Some(PathBuf::from("/etc/conmon/tls")),
            Self::OfUser => {
                let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
                let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
                Some(config?.join("conmon"))
            }
        }
    }
}

/// The client that the command line asks for.
pub fn client(cli: &Cli, instance: &Instance) -> anyhow::Result<Client> {
    let Some(host) = cli.remote.host.as_deref().filter(|host| !host.is_empty()) else {
        ensure!(
            cli.remote.token_file.is_none(),
            "--token-file goes with --host: on this host's socket there are no tenants"
        );
        return Ok(Client::new(cli.socket.clone().unwrap_or_else(|| instance.socket())));
    };
    ensure!(cli.socket.is_none(), "--socket and --host (or CONMON_HOST) are two places to ask: give one");
    Ok(Client::https(host, &credentials(cli)?)?)
}

fn credentials(cli: &Cli) -> anyhow::Result<Credentials> {
    let given = &cli.remote;
    let usual = FOLDERS.iter().find_map(|(folder, name)| {
        let folder = folder.path()?;
        folder.join("ca.crt").is_file().then_some((folder, *name))
    });
    let ca = given.ca.clone().or_else(|| usual.as_ref().map(|(folder, _)| folder.join("ca.crt")));
    let ca = ca.context(
        "whom to trust is not known: give the CA's certificate with --ca (or CONMON_CA), or put ca.crt, operator.crt and \
         operator.key into ~/.config/conmon",
    )?;
    let token = match &given.token_file {
        Some(path) => {
            let text = read_text("a tenant's token", path)?;
            let token = text.trim();
            ensure!(!token.is_empty(), "{} holds no token", path.display());
            Some(token.to_owned())
        }
        None => None,
    };
    let identity = match (&given.cert, &given.key) {
        (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
        (Some(_), None) => {
            anyhow::bail!("--cert goes with --key (or CONMON_KEY): the certificate's private key")
        }
        (None, Some(_)) => anyhow::bail!("--key goes with --cert (or CONMON_CERT): the key's certificate"),
        // whoever shows a token means to be that tenant
        (None, None) if token.is_some() => None,
        (None, None) => usual.map(|(folder, name)| in_folder(&folder, name)).transpose()?.flatten(),
    };
    ensure!(
        identity.is_some() || token.is_some(),
        "who asks is not known: give a certificate and its key (--cert and --key), or a tenant's token (--token-file)"
    );
    Ok(Credentials::new(roots(&ca)?, identity.as_ref(), token.as_deref())?)
}

fn in_folder(folder: &Path, name: &str) -> anyhow::Result<Option<Identity>> {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    if !certificate.exists() {
        return Ok(None);
    }
    Ok(Some(identity(&certificate, &key)?))
}
