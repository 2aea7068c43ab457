//! What stands in a certificate, for people.

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::role::{Role, RoleError, role_of};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The holder's name, as the issuer wrote it.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// What the holder may be.
    pub role: Result<Role, RoleError>,
    /// DNS names and addresses at which the holder may be reached.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// Reads a certificate (DER).
pub fn facts(certificate: &[u8]) -> Result<Facts, RoleError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| RoleError::Unreadable)?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| RoleError::Unreadable);
    let names = parsed.subject_alternative_name().map_err(|_| RoleError::Unreadable)?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    Ok(Facts {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        role: role_of(&parsed),
        names: names.collect(),
        is_ca: parsed.is_ca(),
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after: time(parsed.validity().not_after.timestamp())?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
