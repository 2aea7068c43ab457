//! Which versions of the API two sides have in common.
//!
//! The API grows: answers gain fields, which those who do not know them pass over. What an older version would
//! misunderstand makes a new *protocol*: a number that both sides tell in the header `conmon-protocol`, with the oldest
//! that they still speak. Sides without a number in common do not use each other's answers, and say so.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The protocols that one side speaks, from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protocol {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Protocol {
    /// What this version speaks.
    pub const OURS: Self = Self { min: 1, max: 1 };
    /// What those speak who do not tell: they were made before there was a choice.
    pub const FIRST: Self = Self { min: 1, max: 1 };

    /// The newest that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// A text that gives no protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocols are written MIN-MAX, such as 1-2")]
pub struct ProtocolError;

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let (min, max) = text.split_once('-').ok_or(ProtocolError)?;
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten().ok_or(ProtocolError)
        };
        let protocol = Self { min: number(min)?, max: number(max)? };
        if protocol.min <= protocol.max { Ok(protocol) } else { Err(ProtocolError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_speak_is_used() {
        let p = |min, max| Protocol { min, max };
        assert_eq!(p(1, 3).common(p(2, 5)), Some(3));
        assert_eq!(p(2, 5).common(p(1, 3)), Some(3));
        assert_eq!(p(1, 1).common(p(1, 1)), Some(1));
        assert_eq!(p(1, 2).common(p(3, 4)), None);
        assert_eq!(p(3, 4).common(p(1, 2)), None);
    }

    #[test]
    fn protocols_are_read_and_written() {
        assert_eq!("1-3".parse(), Ok(Protocol { min: 1, max: 3 }));
        assert_eq!(Protocol { min: 1, max: 3 }.to_string(), "1-3");
        for text in ["", "1", "-", "1-", "-1", "3-1", "1-2-3", "+1-2", "a-b", "1-99999999999"] {
            assert_eq!(text.parse::<Protocol>(), Err(ProtocolError), "{text}");
        }
    }
}
