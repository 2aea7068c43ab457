//! A small certificate authority: its own certificate, and those of hosts and operators. Pure: keys and certificates come
//! back as PEM texts, the time and the files are the caller's.
//!
//! Keys are ECDSA over P-256. A certificate begins an hour before it is made, for clocks that are behind. The role lies in
//! a URI ([`crate::tls::Role`]); a host's certificate can serve and ask, an operator's can only ask.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::ServerName;

use crate::tls::{NameError, Role, check_name, provider};

/// How long the CA's own certificate is valid, days: ten years.
pub const CA_DAYS: u32 = 3650;
/// How long a host's certificate is valid unless said otherwise, days.
pub const HOST_DAYS: u32 = 730;
/// How long an operator's certificate is valid unless said otherwise, days.
pub const OPERATOR_DAYS: u32 = 365;
/// No certificate is made for longer, days: a hundred years.
pub const MAX_DAYS: u32 = 36_500;

/// For clocks that are behind.
const EARLY: Duration = Duration::from_secs(3600);
const DAY_SECONDS: u64 = 86_400;

/// A key and its certificate, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An address that cannot be one.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Address(String),
    /// The time cannot be written in a certificate.
    #[error("a certificate cannot be valid for {0} days from now: give 1 to {MAX_DAYS}")]
    Time(u32),
    /// No random numbers are to be had.
    #[error("the system gives no random numbers")]
    Random,
    /// The CA's files are not those of a CA.
    #[error("the CA's certificate and key cannot be used: {0}")]
    Ca(rcgen::Error),
    /// The certificate cannot be made.
    #[error("cannot make the certificate: {0}")]
    Make(rcgen::Error),
}

/// A certificate authority that can sign.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Validity {
    /// From an hour before `now` for so many days after it.
    pub fn days(now: Timestamp, days: u32) -> Result<Self, CaError> {
        let until = now.checked_add(Duration::from_secs(u64::from(days) * DAY_SECONDS));
        match (now.checked_sub(EARLY), until) {
            (Ok(from), Ok(until)) if (1..=MAX_DAYS).contains(&days) => Ok(Self { from, until }),
            _ => Err(CaError::Time(days)),
        }
    }
}

impl Ca {
    /// A new CA, called `name` with some random digits after it, so that two are never taken for one another.
    pub fn make(name: &str, validity: Validity) -> Result<Pair, CaError> {
        let mut digits = [0; 4];
        provider().secure_random.fill(&mut digits).map_err(|_| CaError::Random)?;
        let name = format!("{name} {:08x}", u32::from_be_bytes(digits));
        let mut params = params(&name, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let certificate = params.self_signed(&key).map_err(CaError::Make)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A CA from its certificate and key, PEM.
    pub fn open(pair: &Pair) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(&pair.key).map_err(CaError::Ca)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key).map_err(CaError::Ca)?;
        Ok(Self { issuer })
    }

    /// A certificate for `role`. A host's is also for its name and for `addresses`: DNS names and IP addresses at which it
    /// is asked for.
    pub fn sign(&self, role: &Role, addresses: &[String], validity: Validity) -> Result<Pair, CaError> {
        let (name, host) = match role {
            Role::Host(name) => (name, true),
            Role::Operator(name) => (name, false),
        };
        check_name(name)?;
        let mut params = params(name, validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(SanType::URI(text(&role.uri())?));
        if host {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.push(SanType::DnsName(text(name)?));
            for address in addresses.iter().filter(|address| *address != name) {
                params.subject_alt_names.push(address_name(address)?);
            }
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Make)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn address_name(text_: &str) -> Result<SanType, CaError> {
    if let Ok(address) = text_.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    match ServerName::try_from(text_) {
        Ok(ServerName::DnsName(_)) => Ok(SanType::DnsName(text(text_)?)),
        _ => Err(CaError::Address(text_.to_owned())),
    }
}

fn text(text: &str) -> Result<Ia5String, CaError> {
    Ia5String::try_from(text).map_err(CaError::Make)
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "ConMon");
    params.distinguished_name.push(DnType::CommonName, name);
    let at = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    params.not_before = at(validity.from);
    params.not_after = at(validity.until);
    params
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::tls::{Facts, facts};

    fn now() -> Timestamp {
        "2026-05-04T10:00:00Z".parse().unwrap()
    }

    fn read(pair: &Pair) -> Facts {
        facts(&CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn certificates_say_what_they_were_made_for() {
        let ca = Ca::make("Test", Validity::days(now(), CA_DAYS).unwrap()).unwrap();
        let of_ca = read(&ca);
        assert!(of_ca.is_ca && of_ca.subject == of_ca.issuer && of_ca.subject.contains("Test "), "{of_ca:?}");
        let open = Ca::open(&ca).unwrap();
        let addresses = ["10.0.0.1", "web1.example.org", "2001:db8::1", "web1"].map(str::to_owned);
        let host = Role::Host("web1".to_owned());
        let host = open.sign(&host, &addresses, Validity::days(now(), 10).unwrap()).unwrap();
        let of_host = read(&host);
        assert_eq!(of_host.role, Ok(Role::Host("web1".to_owned())));
        assert_eq!(of_host.names, ["web1", "10.0.0.1", "web1.example.org", "2001:db8::1"]);
        assert_eq!((of_host.issuer, of_host.is_ca), (of_ca.subject, false));
        assert_eq!(of_host.not_before, "2026-05-04T09:00:00Z".parse().unwrap());
        assert_eq!(of_host.not_after, "2026-05-14T10:00:00Z".parse().unwrap());
        let operator = Role::Operator("alice".to_owned());
        let of_operator = read(&open.sign(&operator, &[], Validity::days(now(), 1).unwrap()).unwrap());
        assert_eq!((of_operator.role, of_operator.names), (Ok(operator), vec![]));
    }

    #[test]
    fn two_cas_are_never_called_the_same() {
        let make = || read(&Ca::make("Test", Validity::days(now(), 1).unwrap()).unwrap()).subject;
        assert_ne!(make(), make());
    }

    #[test]
    fn slips_are_told() {
        let ca = Ca::make("Test", Validity::days(now(), 1).unwrap()).unwrap();
        let open = Ca::open(&ca).unwrap();
        let sign = |name: &str, address: &str| {
            let host = Role::Host(name.to_owned());
            open.sign(&host, &[address.to_owned()], Validity::days(now(), 1).unwrap())
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(sign("a/b", "10.0.0.1").contains("`a/b` cannot be a name here"));
        assert_eq!(sign("a", "not an address"), "`not an address` is neither a DNS name nor an IP address");
        for days in [0, MAX_DAYS + 1, u32::MAX] {
            assert!(Validity::days(now(), days).is_err());
        }
        let host = open.sign(&Role::Host("a".into()), &[], Validity::days(now(), 1).unwrap()).unwrap();
        let other = Pair { certificate: host.certificate, key: "-----BEGIN nothing".to_owned() };
        assert!(Ca::open(&other).is_err());
    }

    /// Certificates that no CA of ours makes, but another may.
    #[test]
    fn a_certificate_gives_one_role_or_none() {
        use crate::tls::{RoleError, role};
        let with = |uris: &[&str]| {
            let mut params = params("x", Validity::days(now(), 1).unwrap());
            params.subject_alt_names = uris.iter().map(|uri| SanType::URI(text(uri).unwrap())).collect();
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            role(params.self_signed(&key).unwrap().der())
        };
        assert_eq!(with(&["https://example.org", "conmon://host/a"]), Ok(Role::Host("a".to_owned())));
        assert_eq!(with(&[]), Err(RoleError::None));
        assert_eq!(with(&["https://example.org/conmon://host/a"]), Err(RoleError::None));
        assert!(matches!(with(&["conmon://host/a", "conmon://operator/a"]), Err(RoleError::Several(_))));
        assert!(matches!(with(&["conmon://host/a", "conmon://host/b"]), Err(RoleError::Several(_))));
        for uri in [
            "conmon://host/",
            "conmon://host/a/b",
            "conmon://Host/a",
            "conmon:host/a",
            "conmon://host/a?b",
            "conmon://root/a",
        ] {
            assert_eq!(with(&[uri]), Err(RoleError::Unknown(uri.to_owned())));
        }
    }
}
