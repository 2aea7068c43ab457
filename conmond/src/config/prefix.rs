//! Address prefixes, as written: `192.0.2.0/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It has another form.
    #[error(
        "`{0}` is no address prefix: write an address, a slash and the number of bits, such as 192.0.2.0/24"
    )]
    Form(String),
    /// More bits than the address has.
    #[error("`{text}` asks for more bits than an address of its kind has: {most}")]
    Length {
        /// What was written.
        text: String,
        /// The most there can be.
        most: u8,
    },
    /// An address inside the prefix instead of its first.
    #[error("`{text}` has bits set behind the prefix: write {meant}")]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix that holds it.
        meant: String,
    },
}

impl Prefix {
    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether the address begins with the prefix. IPv4 and IPv6 never match each other.
    pub fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.address) && first(address, self.length) == bits(self.address)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of bits.
    pub fn length(&self) -> u8 {
        self.length
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address's bits with those behind the first `length` cleared.
fn first(address: IpAddr, length: u8) -> u128 {
    let behind = u32::from(width(address).saturating_sub(length));
    bits(address).checked_shr(behind).unwrap_or(0).checked_shl(behind).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let form = || PrefixError::Form(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(form());
        }
        let most = width(address);
        let length = length
            .parse()
            .ok()
            .filter(|&length| length <= most)
            .ok_or_else(|| PrefixError::Length { text: text.to_owned(), most })?;
        let start = first(address, length);
        if start != bits(address) {
            let address = match address {
                IpAddr::V4(_) => IpAddr::V4((start as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(start.into()),
            };
            let meant = Self { address, length }.to_string();
            return Err(PrefixError::HostBits { text: text.to_owned(), meant });
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_what_begins_with_them() {
        for (prefix, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1/128", "::1", "::2"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "ffff::", "1.2.3.4"),
        ] {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(parsed.to_string(), prefix);
            assert!(parsed.contains(inside.parse().unwrap()), "{prefix} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{prefix} {outside}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_what_is() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/-1", "x/8", "1.2.3.4/8/8"]
        {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Form(text.to_owned())), "{text}");
        }
        for (text, most) in [("10.0.0.0/33", 32), ("::/129", 128), ("10.0.0.0/99999", 32)] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Length { text: text.to_owned(), most }));
        }
        assert!("10.1.2.3/8".parse::<Prefix>().unwrap_err().to_string().ends_with("write 10.0.0.0/8"));
        assert!("2001:db8::1/32".parse::<Prefix>().unwrap_err().to_string().ends_with("write 2001:db8::/32"));
    }
}
