//! Tenants' tokens: who shows one sees that tenant's rows. A token is 256 random bits; the daemon keeps its SHA-256 only,
//! so that a file of tokens that leaks opens nothing.
//!
//! The file has a line for each token, `TENANT sha256:HEX`; empty lines and those that begin with `#` are passed over. A
//! tenant may have several, so that one can be replaced by the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::tls::{TlsError, provider, read_text};

/// Begins a token, so that a search for leaked secrets finds it.
pub const PREFIX: &str = "conmon_tenant_";
/// Random octets in a token.
const SECRET_BYTES: usize = 32;
/// A file holds at most so many tokens.
pub const MAX_TOKENS: usize = 4096;
const ALGORITHM: &str = "sha256:";

type Hash = [u8; 32];

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] TlsError),
    /// A line is none of a token.
    #[error(
        "{}:{line}: {why}; a line is `TENANT sha256:` and 64 hexadecimal digits, as `conmonctl ca tenant-token TENANT` makes it",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too many.
    #[error("{} holds more than {MAX_TOKENS} tokens", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// A name that cannot be a tenant's.
    #[error("`{0}` cannot name a tenant: give 1 to 253 characters without spaces and control characters")]
    Tenant(String),
    /// No random numbers are to be had.
    #[error("the system gives no random numbers")]
    Random,
}

/// A token that was just made: the secret itself, and the line for the daemon's file.
pub struct NewToken {
    /// What its holder shows.
    pub secret: String,
    /// What the daemon keeps.
    pub line: String,
}

/// Makes a token.
pub fn make(tenant: &str) -> Result<NewToken, TokenError> {
    if !is_tenant(tenant) {
        return Err(TokenError::Tenant(tenant.to_owned()));
    }
    let mut bytes = [0; SECRET_BYTES];
    provider().secure_random.fill(&mut bytes).map_err(|_| TokenError::Random)?;
    let secret = format!("{PREFIX}{}", hex(&bytes));
    let line = format!("{tenant} {ALGORITHM}{}", hex(&hash(&secret)));
    Ok(NewToken { secret, line })
}

fn is_tenant(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with('#')
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The tokens of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    all: Vec<(Arc<str>, Hash)>,
}

impl Tokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Self::parse(&read_text("tenants' tokens", path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, TokenError> {
        let mut all: Vec<(Arc<str>, Hash)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| TokenError::Line { path: path.to_owned(), line: at + 1, why };
            let mut words = line.split_whitespace();
            let (Some(tenant), Some(hash), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("it has not two words"));
            };
            if !is_tenant(tenant) {
                return Err(wrong("the first word cannot name a tenant"));
            }
            if hash.starts_with(PREFIX) {
                return Err(wrong("the token itself stands there, not its hash"));
            }
            let hash = hash.strip_prefix(ALGORITHM).and_then(unhex);
            let hash = hash.ok_or_else(|| wrong("the second word is no SHA-256"))?;
            if all.iter().any(|(other, known)| *known == hash && **other != *tenant) {
                return Err(wrong("the same token is another tenant's, too"));
            }
            if all.len() == MAX_TOKENS {
                return Err(TokenError::TooMany { path: path.to_owned() });
            }
            all.push((tenant.into(), hash));
        }
        Ok(Self { all })
    }

    /// Whose token it is. Takes the same time wherever in the file it stands, and if it stands nowhere.
    pub fn tenant(&self, secret: &str) -> Option<Arc<str>> {
        let hash = hash(secret);
        let mut found = u32::MAX;
        for (at, (_, known)) in (0..).zip(&self.all) {
            found.conditional_assign(&at, hash.ct_eq(known));
        }
        self.all.get(usize::try_from(found).ok()?).map(|(tenant, _)| Arc::clone(tenant))
    }

    /// The tenants with a token, and how many each has.
    pub fn counts(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for (tenant, _) in &self.all {
            *counts.entry(Arc::clone(tenant)).or_default() += 1;
        }
        counts
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tokens, TokenError> {
        Tokens::parse(text, Path::new("tokens"))
    }

    #[test]
    fn a_token_opens_its_tenant_and_no_other() {
        let (shop, blog, next) = (make("shop").unwrap(), make("blog").unwrap(), make("shop").unwrap());
        let file = format!("# tokens\n\n{}\n  {}  \n{}\n", shop.line, blog.line, next.line);
        assert!(!file.contains(&shop.secret), "the file does not hold the secret");
        let tokens = parse(&file).unwrap();
        assert_eq!(tokens.tenant(&shop.secret).as_deref(), Some("shop"));
        assert_eq!(tokens.tenant(&next.secret).as_deref(), Some("shop"));
        assert_eq!(tokens.tenant(&blog.secret).as_deref(), Some("blog"));
        assert_eq!(tokens.counts(), [("blog".into(), 1), ("shop".into(), 2)].into());
        for secret in [
            "",
            PREFIX,
            "shop",
            &shop.secret.to_uppercase(),
            &shop.secret[..20],
            &format!("{} ", shop.secret),
        ] {
            assert_eq!(tokens.tenant(secret), None, "{secret:?}");
        }
        // What stands in the file is no token.
        let hash = shop.line.split(':').nth(1).unwrap();
        assert_eq!(tokens.tenant(hash), None);
        assert_eq!(parse("").unwrap().tenant(&shop.secret), None);
        assert_ne!(shop.secret, next.secret);
    }

    #[test]
    fn slips_are_told_with_their_line() {
        let token = make("shop").unwrap();
        let hash = token.line.split(' ').nth(1).unwrap();
        for (text, why) in [
            ("shop".to_owned(), "tokens:1: it has not two words"),
            (format!("\nshop x {hash}"), "tokens:2: it has not two words"),
            (format!("shop {}", token.secret), "tokens:1: the token itself stands there"),
            ("shop sha256:12".to_owned(), "tokens:1: the second word is no SHA-256"),
            (format!("shop md5:{hash}"), "tokens:1: the second word is no SHA-256"),
            (format!("shop sha256:{}", "é".repeat(32)), "tokens:1: the second word is no SHA-256"),
            (format!("shop {hash}\nblog {hash}"), "tokens:2: the same token is another tenant's"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(!error.contains(&token.secret));
        }
        for tenant in ["", "a b", "#x", "a\n", "a\u{7f}"] {
            assert!(make(tenant).is_err(), "{tenant:?}");
        }
        assert_eq!(parse(&format!("shop {hash}\nshop {hash}")).unwrap().len(), 2);
    }
}
