//! What went wrong in a handshake, in sentences that say what to do.

use std::error::Error as StdError;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Whose words they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's, about the server.
    Client,
    /// The server's, about the client.
    Server,
}

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// A short name, for counters.
    pub kind: &'static str,
    /// A sentence that ends a line like "web1:9478: …".
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// The handshake's error somewhere in a chain of errors.
pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        // an io::Error's source is its content's source: the content itself is only had this way
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(found) = find(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Says what `error` means to `side`.
pub fn complain(error: &Error, side: Side) -> Complaint {
    let its = match side {
        Side::Client => "its certificate",
        Side::Server => "the client's certificate",
    };
    let anew =
        "make a new one with `conmonctl ca` and put it in its place: conmond takes it without a restart";
    let make = |kind, problem: String, remedy: &str| Complaint { kind, problem, remedy: remedy.to_owned() };
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::ExpiredContext { time, not_after } => make(
                "expired",
                format!(
                    "{its} has expired: it was valid until {}, and this clock says {}",
                    utc(*not_after),
                    utc(*time)
                ),
                &format!("{anew}; if the time is wrong, set this clock"),
            ),
            CertificateError::Expired => make("expired", format!("{its} has expired"), anew),
            CertificateError::NotValidYetContext { time, not_before } => make(
                "not_yet_valid",
                format!("{its} is not valid before {}, and this clock says {}", utc(*not_before), utc(*time)),
                "one of the two clocks is wrong: set it (NTP), then try again",
            ),
            CertificateError::NotValidYet => make(
                "not_yet_valid",
                format!("{its} is not valid yet"),
                "one of the two clocks is wrong: set it (NTP), then try again",
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => make(
                "unknown_ca",
                format!("{its} was signed by a CA that is not trusted here"),
                "both sides need certificates of one CA, and that CA's certificate (ca.crt): `conmonctl ca show` tells who signed which",
            ),
            CertificateError::NotValidForNameContext { expected, presented } => make(
                "wrong_name",
                format!(
                    "{its} is not that of `{}`: it is for {}",
                    expected.to_str(),
                    if presented.is_empty() { "nobody by name".to_owned() } else { presented.join(", ") }
                ),
                "ask for it by one of its names, or make one that has this name (`conmonctl ca host NAME --address NAME_OR_ADDRESS`)",
            ),
            CertificateError::NotValidForName => make(
                "wrong_name",
                format!("{its} is for another name"),
                "ask for it by one of its names, or make one that has this name",
            ),
            CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => make(
                "wrong_purpose",
                format!("{its} is not meant for this: an operator's cannot serve, a server's cannot ask"),
                "give conmond a certificate of `conmonctl ca host`, a person one of `conmonctl ca operator`",
            ),
            other => make("bad_certificate", format!("{its} cannot be used: {other}"), anew),
        },
        Error::NoCertificatesPresented => make(
            "no_certificate",
            "the client showed no certificate".to_owned(),
            "give it one (conmonctl --cert and --key)",
        ),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => make(
                "refused",
                "it wants a certificate".to_owned(),
                "give one with --cert and --key (`conmonctl ca operator NAME` makes it)",
            ),
            AlertDescription::CertificateExpired => make(
                "refused",
                "it says that our certificate has expired, or is not valid yet by its clock".to_owned(),
                "make a new one with `conmonctl ca`, or set the clock that is wrong",
            ),
            AlertDescription::UnknownCA => make(
                "refused",
                "it does not know the CA of our certificate".to_owned(),
                "both sides need certificates of one CA: `conmonctl ca show` tells who signed which",
            ),
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => make(
                "refused",
                format!("it refuses our certificate ({alert:?})"),
                "its log says why; `conmonctl ca show` tells what stands in a certificate",
            ),
            AlertDescription::ProtocolVersion => make(
                "protocol",
                "it speaks neither TLS 1.3 nor 1.2".to_owned(),
                "is it conmond that listens there?",
            ),
            other => make("refused", format!("it ended the handshake ({other:?})"), "its log may say why"),
        },
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )
        | Error::InappropriateMessage { .. }
        | Error::InvalidMessage(_) => make(
            "not_tls",
            match side {
                Side::Client => "it does not speak TLS".to_owned(),
                Side::Server => "the client does not speak TLS".to_owned(),
            },
            "is that the port of conmond's `listen`? `metrics_listen` and others speak plain HTTP",
        ),
        Error::PeerIncompatible(why) => {
            make("protocol", format!("no common TLS version or cipher ({why:?})"), "use TLS 1.3 or 1.2")
        }
        other => make("tls", format!("TLS failed: {other}"), "its log may say why"),
    }
}

fn utc(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}
