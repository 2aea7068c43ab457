//! The registry that the configuration asks for. Reads the files it names, and nothing else.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::embedded::Embedded;
use super::gossip::frame::ClusterKey;
use super::gossip::mesh::MeshSettings;
use super::gossip::wire::Life;
use super::gossip::{Gossip, GossipSettings};
use super::{HostRow, Limits, Registry};
use crate::config::{Config, RegistryKind};

/// Largest key or certificate that is read, bytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Opens the registry for this host. To be called inside a tokio runtime.
pub async fn open(config: &Config, host: &HostRow) -> anyhow::Result<Arc<dyn Registry>> {
    match config.registry {
        RegistryKind::Embedded => Ok(Arc::new(Embedded::new(Limits::default()))),
        RegistryKind::Gossip => Ok(Arc::new(gossip(config, host).await?)),
        RegistryKind::Etcd => etcd(config, host),
    }
}

async fn gossip(config: &Config, host: &HostRow) -> anyhow::Result<Gossip> {
    let Some(key_file) = &config.gossip.key_file else { bail!("gossip.key_file is not set") };
    let settings = GossipSettings {
        name: host.name.clone(),
        life: Life { start_ns: host.since_ns, epoch: host.epoch },
        listen: config.gossip.listen,
        advertise: config.gossip.advertise,
        join: config.gossip.seeds(),
        key: cluster_key(&read(key_file)?)
            .with_context(|| format!("gossip.key_file {}", key_file.display()))?,
        mesh: MeshSettings::default(),
        limits: Limits::default(),
    };
    Gossip::start(settings).await.context("gossip cannot begin")
}

/// 64 hexadecimal digits.
fn cluster_key(text: &[u8]) -> anyhow::Result<ClusterKey> {
    const RULE: &str = "must hold 64 hexadecimal digits, such as `openssl rand -hex 32` makes";
    let text = std::str::from_utf8(text).ok().map(str::trim).context(RULE)?;
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        bail!(RULE);
    }
    let mut octets = [0; 32];
    for (octet, digits) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
        *octet = std::str::from_utf8(digits)
            .ok()
            .and_then(|two| u8::from_str_radix(two, 16).ok())
            .context(RULE)?;
    }
    Ok(ClusterKey::new(&octets))
}

#[cfg(not(feature = "etcd"))]
fn etcd(_: &Config, _: &HostRow) -> anyhow::Result<Arc<dyn Registry>> {
    bail!(
        "this conmond was built without etcd (cargo feature `etcd`): set `registry: gossip`, or take another build"
    )
}

#[cfg(feature = "etcd")]
fn etcd(config: &Config, host: &HostRow) -> anyhow::Result<Arc<dyn Registry>> {
    use super::etcd::{Etcd, EtcdSettings, EtcdTls};
    /// Where Debian and others keep the certificates of authorities that are generally believed.
    const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

    let keys = &config.etcd;
    let mut settings = EtcdSettings::new(keys.endpoints.clone());
    settings.writer.ttl_ns = u64::from(keys.ttl_seconds) * 1_000_000_000;
    if keys.endpoints.iter().any(|url| url.starts_with("https://")) {
        let identity = match (&keys.cert, &keys.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let ca = read(keys.ca.as_deref().unwrap_or(Path::new(SYSTEM_CA)))?;
        settings.tls = Some(EtcdTls { ca, identity });
    }
    if let (Some(user), Some(file)) = (&keys.user, &keys.password_file) {
        let password = String::from_utf8(read(file)?)
            .with_context(|| format!("etcd.password_file {} is not UTF-8", file.display()))?;
        settings.user = Some((user.clone(), password.trim_end_matches(['\n', '\r']).to_owned()));
    }
    Ok(Arc::new(Etcd::start(settings, host.epoch)))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(FILE_LIMIT_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_key_is_64_digits() {
        assert!(cluster_key(format!("{}\n", "0aF9".repeat(16)).as_bytes()).is_ok());
        for bad in ["", "0a", &"0aF9".repeat(17), &"0aG9".repeat(16), &"ä".repeat(32)] {
            assert!(cluster_key(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
