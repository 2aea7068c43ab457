//! What was refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection or a request over TLS got no answer of the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// As many connections or handshakes as there may be.
    Busy,
    /// The handshake took too long.
    Slow,
    /// It did not speak TLS, or no version or cipher in common.
    NotTls,
    /// It showed no certificate, and no tokens are configured.
    NoCertificate,
    /// Its certificate is not good.
    BadCertificate,
    /// Neither a certificate nor a token.
    NoCredentials,
    /// A token that is none.
    BadToken,
    /// Known, but asks for what it may not.
    NotAllowed,
    /// A version with no protocol in common.
    Protocol,
}

impl Reason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Busy,
        Self::Slow,
        Self::NotTls,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::NoCredentials,
        Self::BadToken,
        Self::NotAllowed,
        Self::Protocol,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Slow => "slow",
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::NoCredentials => "no_credentials",
            Self::BadToken => "bad_token",
            Self::NotAllowed => "not_allowed",
            Self::Protocol => "protocol",
        }
    }
}

/// How many were refused, by reason.
#[derive(Debug, Default)]
pub(super) struct Refusals([AtomicU64; Reason::ALL.len()]);

impl Refusals {
    pub(super) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

/// What the HTTP server counts itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpTotals {
    /// Live streams that were ended because their reader had stopped reading.
    pub dropped_streams: u64,
    /// Connections and requests over TLS that were refused, by [`Reason`]; none without a listener for TLS.
    pub refused: Option<[u64; Reason::ALL.len()]>,
}
