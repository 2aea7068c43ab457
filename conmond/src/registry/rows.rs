//! What a host says of itself and of its endpoints, and how it is written down.
//!
//! A row is written by its host alone. Times are nanoseconds since the Unix epoch on the clock of the host that wrote
//! them; nobody corrects them, and [`super::Candidate::margin_ns`] says how far two clocks may be apart for an answer to
//! hold. Rows are JSON objects; a reader ignores members it does not know, so that members can be added within one
//! schema version. The version is part of every key ([`super::keys`]).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Longest text of a row that is written or taken, bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// Most addresses of one host that are written or taken.
pub const MAX_HOST_ADDRESSES: usize = 256;

/// A host: one running conmond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its name, the same in every row of its endpoints.
    pub name: String,
    /// Where its API can be asked over TLS, such as `https://10.0.0.1:9443`; none if it listens on its Unix socket alone.
    pub api: Option<String>,
    /// Its own addresses, by which published ports and masqueraded containers are seen elsewhere.
    pub addresses: Vec<IpAddr>,
    /// conmond's version, for people.
    pub version: String,
    /// The oldest and the newest protocol between controllers that it speaks.
    pub protocol: Protocols,
    /// A random number of each start of conmond.
    pub epoch: u64,
    /// When this conmond started.
    pub since_ns: u64,
}

/// Versions of the protocol between controllers, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Protocols {
    /// The newest version that both speak.
    pub fn agreed(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// An address that a container has, or had until lately.
///
/// Host, network, address and `since_ns` tell one row from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The host it runs on.
    pub host: String,
    /// The engine's id of the container.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// Its service.
    pub service: Option<String>,
    /// Its tenant.
    pub tenant: String,
    /// The network in which it has the address.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// The first moment it had it.
    pub since_ns: u64,
    /// The first moment it had it no longer; none while it has it.
    pub until_ns: Option<u64>,
}

/// Why a row is neither written nor taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A text is empty where it must not be, or too long.
    #[error("`{member}` must have 1 to {MAX_TEXT_BYTES} bytes, none of them a control character")]
    Text {
        /// Which.
        member: &'static str,
    },
    /// Too many addresses.
    #[error("a host has at most {MAX_HOST_ADDRESSES} addresses here; this one gives {given}")]
    Addresses {
        /// How many.
        given: usize,
    },
    /// An end that is not after the beginning.
    #[error("`until_ns` must be after `since_ns`")]
    Interval,
    /// No row of this schema.
    #[error("no row: {reason}")]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// A row under a key that is not its own.
    #[error("the row lies under a key that is not its own")]
    Key,
}

/// An address as rows and keys have it: IPv4 is never written as IPv6.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn text(member: &'static str, text: &str) -> Result<(), RowError> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(RowError::Text { member });
    }
    Ok(())
}

impl HostRow {
    /// Whether it can be written and taken.
    pub fn check(&self) -> Result<(), RowError> {
        text("name", &self.name)?;
        text("version", &self.version)?;
        self.api.as_deref().map_or(Ok(()), |api| text("api", api))?;
        if self.addresses.len() > MAX_HOST_ADDRESSES {
            return Err(RowError::Addresses { given: self.addresses.len() });
        }
        Ok(())
    }

    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`encode`](Self::encode) wrote, by this version or a later one.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut row: Self = decode(bytes)?;
        row.addresses.iter_mut().for_each(|address| *address = canonical(*address));
        row.check().map(|()| row)
    }
}

impl EndpointRow {
    /// Whether it can be written and taken.
    pub fn check(&self) -> Result<(), RowError> {
        text("host", &self.host)?;
        text("container_id", &self.container_id)?;
        text("container", &self.container)?;
        text("tenant", &self.tenant)?;
        text("network", &self.network)?;
        self.service.as_deref().map_or(Ok(()), |service| text("service", service))?;
        if self.until_ns.is_some_and(|until| until <= self.since_ns) {
            return Err(RowError::Interval);
        }
        Ok(())
    }

    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`encode`](Self::encode) wrote, by this version or a later one.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut row: Self = decode(bytes)?;
        row.address = canonical(row.address);
        row.check().map(|()| row)
    }

    /// What tells it from all others.
    pub fn id(&self) -> RowId {
        RowId {
            address: canonical(self.address),
            host: self.host.clone(),
            network: self.network.clone(),
            since_ns: self.since_ns,
        }
    }
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, RowError> {
    serde_json::from_slice(bytes).map_err(|error| RowError::Syntax { reason: error.to_string() })
}

/// What tells an endpoint's row from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The address.
    pub address: IpAddr,
    /// The host.
    pub host: String,
    /// The network.
    pub network: String,
    /// The first moment.
    pub since_ns: u64,
}

/// All that a host has to say: what it publishes is made to be just this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The host.
    pub host: HostRow,
    /// Its endpoints, those that ended lately too.
    pub endpoints: Vec<EndpointRow>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn host(name: &str, epoch: u64) -> HostRow {
        HostRow {
            name: name.to_owned(),
            api: Some(format!("https://{name}:9443")),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            version: "0.1.0".to_owned(),
            protocol: Protocols { min: 1, max: 1 },
            epoch,
            since_ns: 1_000 + epoch,
        }
    }

    pub(crate) fn endpoint(
        host: &str,
        container: &str,
        address: &str,
        since_ns: u64,
        until_ns: Option<u64>,
    ) -> EndpointRow {
        EndpointRow {
            host: host.to_owned(),
            container_id: format!("{container}-id"),
            container: container.to_owned(),
            service: None,
            tenant: "default".to_owned(),
            network: "bridge".to_owned(),
            address: address.parse().unwrap(),
            since_ns,
            until_ns,
        }
    }

    #[test]
    fn rows_come_back_as_they_were_and_unknown_members_are_no_mistake() {
        let row = endpoint("a", "web", "::ffff:10.0.0.1", 5, Some(9));
        let back = EndpointRow::decode(&row.encode()).unwrap();
        assert_eq!(back, EndpointRow { address: "10.0.0.1".parse().unwrap(), ..row });
        let mut value: serde_json::Value = serde_json::from_slice(&host("a", 7).encode()).unwrap();
        value["colour"] = "red".into();
        assert_eq!(HostRow::decode(value.to_string().as_bytes()).unwrap(), host("a", 7));
    }

    #[test]
    fn rows_that_cannot_be_are_refused() {
        let good = endpoint("a", "web", "10.0.0.1", 5, None);
        for bad in [
            EndpointRow { host: String::new(), ..good.clone() },
            EndpointRow { container: "x".repeat(257), ..good.clone() },
            EndpointRow { tenant: "a\nb".to_owned(), ..good.clone() },
            EndpointRow { until_ns: Some(5), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
            assert!(EndpointRow::decode(&bad.encode()).is_err());
        }
        assert!(HostRow { addresses: vec![[0; 4].into(); 257], ..host("a", 1) }.check().is_err());
        for bytes in [&b""[..], b"{}", b"[", b"\xff", &[b'['; 100_000]] {
            assert!(matches!(EndpointRow::decode(bytes), Err(RowError::Syntax { .. })));
        }
    }

    #[test]
    fn protocols_agree_on_the_newest_both_speak() {
        let p = |min, max| Protocols { min, max };
        assert_eq!(p(1, 3).agreed(p(2, 5)), Some(3));
        assert_eq!(p(2, 5).agreed(p(1, 3)), Some(3));
        assert_eq!(p(1, 1).agreed(p(2, 5)), None);
    }
}
