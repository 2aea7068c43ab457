//! Who a certificate says its holder is.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Begins the URI of a host's certificate.
pub const HOST_URI: &str = "conmon://host/";
/// Begins the URI of an operator's certificate.
pub const OPERATOR_URI: &str = "conmon://operator/";

/// What the holder of a certificate may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The conmond of this host: it speaks for that host and no other.
    Host(String),
    /// Somebody who may see everything.
    Operator(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host {name}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

impl Role {
    /// The URI that a certificate carries for it.
    pub fn uri(&self) -> String {
        match self {
            Self::Host(name) => format!("{HOST_URI}{name}"),
            Self::Operator(name) => format!("{OPERATOR_URI}{name}"),
        }
    }
}

/// Why a certificate gives no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It carries no URI of ours.
    #[error("the certificate names neither a host ({HOST_URI}NAME) nor an operator ({OPERATOR_URI}NAME)")]
    None,
    /// It carries more than one: whoever holds it would be two.
    #[error("the certificate has several roles: {}", .0.join(", "))]
    Several(Vec<String>),
    /// Its URI begins like ours and is none.
    #[error("the certificate's role `{0}` is not known")]
    Unknown(String),
}

/// The role that a certificate gives. Says nothing about whether the certificate is to be trusted.
pub fn role(certificate: &[u8]) -> Result<Role, RoleError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| RoleError::Unreadable)?;
    role_of(&parsed)
}

pub(super) fn role_of(parsed: &X509Certificate<'_>) -> Result<Role, RoleError> {
    let names = parsed.subject_alternative_name().map_err(|_| RoleError::Unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("conmon:") => Some(*uri),
            _ => None,
        })
        .collect();
    let uri = match uris[..] {
        [] => return Err(RoleError::None),
        [one] => one,
        _ => return Err(RoleError::Several(uris.into_iter().map(str::to_owned).collect())),
    };
    let named = |prefix: &str| uri.strip_prefix(prefix).filter(|name| check_name(name).is_ok());
    if let Some(name) = named(HOST_URI) {
        Ok(Role::Host(name.to_owned()))
    } else if let Some(name) = named(OPERATOR_URI) {
        Ok(Role::Operator(name.to_owned()))
    } else {
        Err(RoleError::Unknown(uri.to_owned()))
    }
}

/// Why a text cannot name a host, an operator or a tenant in a certificate or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be a name here: use letters, digits, `-`, `_` and `.` as in a DNS name, at most 253 characters, and no address"
)]
pub struct NameError(pub String);

/// Whether a text can be a name in a certificate: it becomes part of a URI and of file names, and hosts are looked for by
/// it in handshakes, where a name must be one of DNS.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let good = name.len() <= 253
        && name.split('.').all(label)
        // what DNS takes for an address
        && !name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) && name.contains('.'))
        && matches!(
            rustls::pki_types::ServerName::try_from(name),
            Ok(rustls::pki_types::ServerName::DnsName(_))
        );
    if good { Ok(()) } else { Err(NameError(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_dns() {
        for name in ["a", "web1", "web-1.example.org", "Node_7", "x1.y2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in
            ["", ".", "a..b", "-a", "a-", "a/b", "a b", "10.0.0.1", "::1", "ü", "a\0", &"x".repeat(64), "a.1"]
        {
            assert_eq!(check_name(name), Err(NameError(name.to_owned())), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_role() {
        for bytes in [&b""[..], b"junk", &[0x30, 0x82, 0xff, 0xff], &[0xff; 300]] {
            assert_eq!(role(bytes), Err(RoleError::Unreadable));
        }
    }
}
