//! The keys of the registry, and what they must be together.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, suggest};

/// The port of gossip that is taken where none is given.
pub const GOSSIP_PORT: u16 = 9479;

/// How hosts know of each other's containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistryKind {
    /// They do not; this host knows its own.
    #[default]
    Embedded,
    /// They tell each other, without a database: some to some hundred hosts.
    Gossip,
    /// In an etcd: up to thousands of hosts.
    Etcd,
}

/// The etcd of `registry: etcd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdConfig {
    /// URLs of its members, such as [https://10.0.0.1:2379].
    pub endpoints: Vec<String>,
    /// File with the certificates (PEM) of those who may sign etcd's; null takes the system's.
    #[schemars(with = "Option<String>")]
    pub ca: Option<PathBuf>,
    /// File with this host's certificate (PEM), if etcd asks for one.
    #[schemars(with = "Option<String>")]
    pub cert: Option<PathBuf>,
    /// File with the certificate's key (PEM).
    #[schemars(with = "Option<String>")]
    pub key: Option<PathBuf>,
    /// Name of a user of etcd's own.
    pub user: Option<String>,
    /// File with the user's password.
    #[schemars(with = "Option<String>")]
    pub password_file: Option<PathBuf>,
    /// A host that etcd does not hear for so long is lost, seconds.
    #[schemars(range(min = 2, max = 3600))]
    pub ttl_seconds: u32,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca: None,
            cert: None,
            key: None,
            user: None,
            password_file: None,
            ttl_seconds: 15,
        }
    }
}

/// The gossip of `registry: gossip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GossipConfig {
    /// Address and UDP port on which other hosts are heard.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub listen: SocketAddr,
    /// Address and port by which others reach this host; null takes its address on the way to the first it joins.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub advertise: Option<SocketAddr>,
    /// Hosts that are there already, as HOST or HOST:PORT; the others are learnt from them.
    pub join: Vec<String>,
    /// File with the key that all hosts share: 64 hexadecimal digits, such as `openssl rand -hex 32` makes.
    #[schemars(with = "Option<String>")]
    pub key_file: Option<PathBuf>,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self { listen: ([0, 0, 0, 0], GOSSIP_PORT).into(), advertise: None, join: Vec::new(), key_file: None }
    }
}

impl GossipConfig {
    /// [`join`](Self::join) with ports.
    pub fn seeds(&self) -> Vec<String> {
        self.join.iter().map(|host| with_port(host)).collect()
    }
}

fn with_port(host: &str) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{host}]:{GOSSIP_PORT}");
    }
    match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{GOSSIP_PORT}"),
    }
}

/// What does not fit: key, value, reason.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String, String)> {
    let etcd = &config.etcd;
    let refuse = |key, value: &str, reason: &str| Err((key, value.to_owned(), reason.to_owned()));
    if config.registry == RegistryKind::Etcd && etcd.endpoints.is_empty() {
        let reason = "give the URLs of etcd's members, such as [https://10.0.0.1:2379]";
        return refuse("etcd.endpoints", "empty", reason);
    }
    for url in &etcd.endpoints {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            let reason = "give URLs that begin with https:// or http://, such as https://10.0.0.1:2379";
            return refuse("etcd.endpoints", &format!("`{url}`"), reason);
        }
        if etcd.user.is_some() && url.starts_with("http://") && !is_loopback(url) {
            let reason = "a password would cross the network in the clear: give an https:// URL";
            return refuse("etcd.endpoints", &format!("`{url}`"), reason);
        }
    }
    for (key, one, other_key, other) in
        [("etcd.cert", &etcd.cert, "etcd.key", &etcd.key), ("etcd.key", &etcd.key, "etcd.cert", &etcd.cert)]
    {
        if let (Some(path), None) = (one, other) {
            let reason = format!("`{other_key}` is missing: give both or neither");
            return refuse(key, &format!("`{}`", path.display()), &reason);
        }
    }
    match (&etcd.user, &etcd.password_file) {
        (Some(user), None) => {
            let reason = "`etcd.password_file` is missing: give both or neither";
            return refuse("etcd.user", &format!("`{user}`"), reason);
        }
        (None, Some(path)) => {
            let reason = "`etcd.user` is missing: give both or neither";
            return refuse("etcd.password_file", &format!("`{}`", path.display()), reason);
        }
        _ => {}
    }
    if config.registry == RegistryKind::Gossip && config.gossip.key_file.is_none() {
        let reason = "give the file with the key that all hosts share; make one with `openssl rand -hex 32`";
        return refuse("gossip.key_file", "empty", reason);
    }
    for host in &config.gossip.join {
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            let reason = "give hosts as HOST or HOST:PORT, such as 10.0.0.1 or node-1:9479";
            return refuse("gossip.join", &format!("`{host}`"), reason);
        }
    }
    // Somebody who names members or hosts to join wants them used.
    for (word, given) in [("etcd", !etcd.endpoints.is_empty()), ("gossip", !config.gossip.join.is_empty())] {
        if given && config.registry == RegistryKind::Embedded {
            let meant = format!("registry: {word}");
            let reason = format!("`{word}` is configured and not used{}", suggest::sentence(Some(&meant)));
            return refuse("registry", "`embedded`", &reason);
        }
    }
    Ok(())
}

fn is_loopback(url: &str) -> bool {
    let host = url.strip_prefix("http://").unwrap_or(url);
    ["127.", "localhost", "[::1]"].iter().any(|name| host.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_to_join_get_the_usual_port() {
        let join = ["10.0.0.1", "10.0.0.1:7", "node-1", "node-1:9", "2001:db8::1", "[2001:db8::1]:8"];
        let config = GossipConfig { join: join.map(str::to_owned).to_vec(), ..GossipConfig::default() };
        assert_eq!(
            config.seeds(),
            [
                "10.0.0.1:9479",
                "10.0.0.1:7",
                "node-1:9479",
                "node-1:9",
                "[2001:db8::1]:9479",
                "[2001:db8::1]:8"
            ]
        );
    }
}
