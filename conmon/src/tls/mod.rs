//! TLS between ConMon's parts: who a certificate says its holder is, reading keys and certificates from files, and what
//! went wrong in words. Owns no socket; the client and the daemon's listener do.
//!
//! A certificate's *role* is a URI among its subject alternative names: `conmon://host/NAME` is the conmond of the host
//! NAME, `conmon://operator/NAME` a person or program that may see everything. Nothing else in a certificate counts.

mod files;
mod inspect;
mod role;
mod verifier;
mod words;

pub use files::{Identity, TlsError, identity, is_private, read_text, roots};
pub use inspect::{Facts, facts};
pub use role::{HOST_URI, NameError, OPERATOR_URI, Role, RoleError, check_name, role};
pub use verifier::judge_server;
pub(crate) use verifier::{Names, client_config};
pub use words::{Complaint, Side, complain, find};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The port of the API over TLS where none is given.
pub const DEFAULT_PORT: u16 = 9478;

/// The one provider of cryptography: ring.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
