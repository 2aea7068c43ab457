//! Where rows lie in a store of keys and values.
//!
//! ```text
//! /conmon/1/host/HOST                              the host's row
//! /conmon/1/seal/HOST                              who writes its rows, and how far (super::writer)
//! /conmon/1/at/ADDRESS/HOST/SINCE/NETWORK          an endpoint's row; SINCE as 16 hexadecimal digits
//! ```
//!
//! All rows of one address are one range, so a look-up is one read, and a watch of it one watch. The 1 is the schema's
//! version: rows of another one are other keys.

use std::net::IpAddr;

use super::rows::{EndpointRow, HostRow, RowError, RowId, canonical};

/// Before every key.
pub const ROOT: &str = "/conmon/1/";
/// Before the keys of hosts' rows.
pub const HOSTS: &str = "/conmon/1/host/";
const SEALS: &str = "/conmon/1/seal/";
const ADDRESSES: &str = "/conmon/1/at/";

/// The key of a host's row.
pub fn host(name: &str) -> String {
    format!("{HOSTS}{}", escape(name))
}

/// The key of a host's seal.
pub fn seal(name: &str) -> String {
    format!("{SEALS}{}", escape(name))
}

/// Before the keys of all rows of an address.
pub fn address(address: IpAddr) -> String {
    format!("{ADDRESSES}{}/", canonical(address))
}

/// The key of an endpoint's row.
pub fn endpoint(id: &RowId) -> String {
    format!("{}{}/{:016x}/{}", address(id.address), escape(&id.host), id.since_ns, escape(&id.network))
}

/// What a host's key says.
pub fn parse_host(key: &str) -> Option<String> {
    unescape(key.strip_prefix(HOSTS)?)
}

/// What an endpoint's key says.
pub fn parse_endpoint(key: &str) -> Option<RowId> {
    let mut parts = key.strip_prefix(ADDRESSES)?.split('/');
    let (address, host) = (parts.next()?.parse().ok()?, unescape(parts.next()?)?);
    let since_ns = u64::from_str_radix(parts.next()?, 16).ok()?;
    let network = unescape(parts.next()?)?;
    parts.next().is_none().then_some(RowId { address, host, network, since_ns })
}

/// An endpoint's row, if it lies under its own key.
pub fn endpoint_row(key: &str, value: &[u8]) -> Result<EndpointRow, RowError> {
    let row = EndpointRow::decode(value)?;
    if endpoint(&row.id()) == key { Ok(row) } else { Err(RowError::Key) }
}

/// A host's row, if it lies under its own key.
pub fn host_row(key: &str, value: &[u8]) -> Result<HostRow, RowError> {
    let row = HostRow::decode(value)?;
    if host(&row.name) == key { Ok(row) } else { Err(RowError::Key) }
}

/// Without slashes, and so that it can be taken back.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(match after.get(..2)? {
            "25" => '%',
            "2F" => '/',
            _ => return None,
        });
        rest = after.get(2..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::{endpoint as row, host as host_row_of};
    use super::*;

    #[test]
    fn keys_come_back_as_they_were() {
        for host in ["a", "a/b", "%2F", "ä%/"] {
            let mut row = row(host, "web", "2001:db8::1", 5, None);
            row.network = "net/%25".to_owned();
            let key = endpoint(&row.id());
            assert!(key.starts_with(&address(row.address)), "{key}");
            assert_eq!(parse_endpoint(&key), Some(row.id()));
            assert_eq!(endpoint_row(&key, &row.encode()), Ok(row.clone()));
            let other = EndpointRow { host: "x".to_owned(), ..row.clone() };
            assert_eq!(
                endpoint_row(&key, &other.encode()),
                Err(RowError::Key),
                "a host writes its own rows only"
            );
        }
        assert_eq!(host_row(&host("a"), &host_row_of("b", 1).encode()), Err(RowError::Key));
        assert_ne!(host("a/b"), host("a%2Fb"));
    }

    #[test]
    fn one_address_is_no_prefix_of_another() {
        let (one, ten) = ("10.0.0.1".parse().unwrap(), "10.0.0.10".parse().unwrap());
        assert!(!address(ten).starts_with(&address(one)));
        assert_eq!(address("::ffff:10.0.0.1".parse().unwrap()), address(one));
    }

    #[test]
    fn what_is_no_key_is_none() {
        for key in [
            "",
            "/conmon/1/at/",
            "/conmon/1/at/x/h/0/n",
            "/conmon/1/at/10.0.0.1/h%/0/n",
            "/conmon/1/at/10.0.0.1/h/0/n/m",
        ] {
            assert_eq!(parse_endpoint(key), None, "{key}");
        }
    }
}
