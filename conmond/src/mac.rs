//! Ethernet addresses: what a port of the switch and an endpoint of the engine are matched by.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Text that is not an Ethernet address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an Ethernet address: '{0}' (expected six bytes as in 02:42:ac:11:00:02)")]
pub struct BadMac(String);

impl Mac {
    /// The address in the first six bytes, none when there are not exactly six or all are zero.
    pub fn from_slice(bytes: &[u8]) -> Option<Mac> {
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        (bytes != [0; 6]).then_some(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Mac(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mac = Mac([2, 0x42, 0xac, 0x11, 0, 0xfe]);
        assert_eq!(mac.to_string(), "02:42:ac:11:00:fe");
        assert_eq!("02:42:AC:11:00:fe".parse(), Ok(mac));
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42:ac:11:00:+2", "2:42:ac:11:00:02", "02-42"]
        {
            assert_eq!(text.parse::<Mac>(), Err(BadMac(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_link_without_hardware_address_has_none() {
        assert_eq!(Mac::from_slice(&[0; 6]), None);
        assert_eq!(Mac::from_slice(&[1; 4]), None);
        assert_eq!(Mac::from_slice(&[1; 20]), None, "InfiniBand");
        assert_eq!(Mac::from_slice(&[1, 2, 3, 4, 5, 6]), Some(Mac([1, 2, 3, 4, 5, 6])));
    }
}
