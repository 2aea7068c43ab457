//! What may be read in an engine's answer, and what of it may go on: pure, and suspicious.
//!
//! One entry that makes no sense must not hide the others, and one field not its entry: what cannot be read is left
//! out, as deep as it lies. An answer of which nothing can be read is no answer.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most entries of a list: of the least ones, millions would fit in an answer.
const ENTRIES: usize = 100_000;
/// The longest entry of a list, in octets.
const ENTRY: usize = 1 << 20;
/// So deep lies the deepest field that is looked for in an entry.
const DEPTH: usize = 4;
/// The longest identifier; Docker's have 64 digits, Swarm's 25 letters and digits.
const ID: usize = 128;
/// The longest name that is shown; what an engine takes for one is no longer.
const NAME: usize = 255;
/// The most that is shown of the engine's own words.
const WORDS: usize = 500;

/// A list, as far as it can be read.
#[derive(Debug)]
pub struct List<T> {
    pub entries: Vec<T>,
    /// Why entries were left out, and how many.
    pub left_out: Option<(usize, String)>,
}

/// Reads a list. An entry that `is_one` does not take is none.
pub fn list<T: DeserializeOwned>(body: &[u8], is_one: impl Fn(&T) -> bool) -> Result<List<T>, String> {
    let raw = serde_json::from_slice::<Entries>(body).map_err(|error| words(&error.to_string()))?;
    let (mut entries, mut count, mut why) = (Vec::with_capacity(raw.0.len()), 0, None);
    for entry in &raw.0 {
        match read(entry)
            .and_then(|read| if is_one(&read) { Ok(read) } else { Err("it has no name".to_owned()) })
        {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                count += 1;
                why.get_or_insert(error);
            }
        }
    }
    match why {
        Some(why) if entries.is_empty() => Err(why),
        why => Ok(List { entries, left_out: why.map(|why| (count, why)) }),
    }
}

/// Reads an answer that is one thing.
pub fn one<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let error = match serde_json::from_slice(body) {
        Ok(read) => return Ok(read),
        Err(error) => words(&error.to_string()),
    };
    let raw = serde_json::from_slice::<&RawValue>(body).map_err(|_| error.clone())?;
    mended(raw).ok_or(error)
}

/// Whether this is a thing in JSON, whatever it says.
pub fn is_thing(text: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(text).is_ok()
}

fn read<T: DeserializeOwned>(entry: &RawValue) -> Result<T, String> {
    if entry.get().len() > ENTRY {
        return Err(format!("it is longer than {ENTRY} octets"));
    }
    serde_json::from_str(entry.get()).or_else(|error| mended(entry).ok_or_else(|| words(&error.to_string())))
}

/// What can be read of it.
fn mended<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
    let text = without(value, &|text| serde_json::from_str::<T>(text).is_ok(), DEPTH)?;
    // a list is no thing, whatever is in it
    if text.starts_with('[') { None } else { serde_json::from_str(&text).ok() }
}

/// The value without those of its fields and entries that cannot be read, none when it can have none.
fn without(value: &RawValue, reads: &dyn Fn(&str) -> bool, depth: usize) -> Option<String> {
    if let Ok(Entries(entries)) = serde_json::from_str(value.get()) {
        let reads = |text: &str| reads(&format!("[{text}]"));
        let kept = entries.iter().filter_map(|entry| readable(entry, &reads, depth));
        return Some(format!("[{}]", kept.collect::<Vec<_>>().join(",")));
    }
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
    let kept = fields.iter().filter_map(|(name, value)| {
        let name = serde_json::to_string(name).ok()?;
        let reads = |text: &str| reads(&format!("{{{name}:{text}}}"));
        Some(format!("{name}:{}", readable(value, &reads, depth)?))
    });
    Some(format!("{{{}}}", kept.collect::<Vec<_>>().join(",")))
}

fn readable(value: &RawValue, reads: &dyn Fn(&str) -> bool, depth: usize) -> Option<String> {
    match reads(value.get()) {
        true => Some(value.get().to_owned()),
        false if depth == 0 => None,
        false => without(value, reads, depth - 1).filter(|kept| reads(kept)),
    }
}

/// The texts of a list's entries.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if all.len() == ENTRIES {
                        return Err(serde::de::Error::custom(format!("a list of more than {ENTRIES}")));
                    }
                    all.push(entry);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Few).map(Entries)
    }
}

/// Whether this may be an identifier: it becomes a part of paths, of the engine's interface and of the host's.
pub fn is_id(text: &str) -> bool {
    text.len() <= ID
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

/// Whether this may be an interface's name.
pub fn is_interface(text: &str) -> bool {
    // IFNAMSIZ, with the zero at the end
    (1..16).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':'))
        && name(text) == text
}

/// A name that may be shown.
pub fn name(text: &str) -> String {
    clean(text, NAME)
}

/// The engine's own words, to be shown.
pub fn words(text: &str) -> String {
    clean(text.trim(), WORDS)
}

/// What the engine says beside its no.
pub fn refusal(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => words(&refusal.message),
        Err(_) => words(&String::from_utf8_lossy(&body[..body.len().min(4 * WORDS)])),
    }
}

/// Without what changes a terminal's state or the direction of writing, and not too long.
fn clean(text: &str, most: usize) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut cleaned: String =
        text.chars().take(most).map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        cleaned.push('…');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerSummary, NetworkInspect};

    use super::*;

    fn summaries(body: &str) -> Result<List<ContainerSummary>, String> {
        list(body.as_bytes(), |summary: &ContainerSummary| summary.id.is_some())
    }

    #[test]
    fn a_bad_entry_hides_no_other_and_a_bad_field_not_its_entry() {
        let body = r#"[{"Id": "a", "Names": ["/aa"], "State": "levitating", "Created": "now"}, 7, null, {"Id": 9}, [],
            {"Id": "b", "Labels": {"good": "1", "bad": 2}, "NetworkSettings": {"Networks": {
                "front": {"NetworkID": "n", "IPAddress": 7}, "back": 8}}, "Names": [1, "/bb", {}]}]"#;
        let all = summaries(body).expect("a list");
        let [a, b] = &all.entries[..] else { panic!("{all:?}") };
        assert_eq!((a.id.as_deref(), a.state, a.created), (Some("a"), None, None));
        assert_eq!(a.names.as_deref(), Some(&["/aa".to_owned()][..]));
        assert_eq!(b.labels.as_ref().map(|l| l.len()), Some(1));
        assert_eq!(b.names.as_deref(), Some(&["/bb".to_owned()][..]));
        let networks = b.network_settings.as_ref().and_then(|s| s.networks.as_ref()).expect("networks");
        assert_eq!(networks.len(), 1);
        assert_eq!(networks["front"].network_id.as_deref(), Some("n"));
        assert_eq!(all.left_out.map(|(count, _)| count), Some(4));
    }

    #[test]
    fn what_is_no_list_is_an_error_and_an_empty_one_is_none() {
        assert!(summaries("[]").expect("a list").entries.is_empty());
        for body in
            ["", "null", "{}", "7", "<html>", "[null]", "[{},{}]", "[{\"Id\":\"a\"}", "[{\"Id\":\"a\"}] x"]
        {
            let error = summaries(body).expect_err(body);
            assert!(!error.is_empty());
        }
        let many = format!("[{}7]", "7,".repeat(ENTRIES));
        assert!(summaries(&many).expect_err("many").contains("a list of more than 100000"));
        let long = format!(r#"[{{"Id":"a"}},{{"Id":"b","Image":"{}"}}]"#, "x".repeat(ENTRY));
        let all = summaries(&long).expect("a list");
        assert_eq!((all.entries.len(), all.left_out.map(|(count, _)| count)), (1, Some(1)));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep =
            format!(r#"[{{"Id":"a"}},{{"Id":"b","Names":{}"x"{}}}]"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(summaries(&deep).expect("a list").entries.len(), 2);
        let deep = "[".repeat(1 << 20);
        assert!(summaries(&deep).is_err());
        assert!(one::<NetworkInspect>(deep.as_bytes()).is_err());
        let deep = "{\"Containers\":".repeat(1 << 16);
        assert!(one::<NetworkInspect>(deep.as_bytes()).is_err());
    }

    #[test]
    fn one_thing_is_read_as_far_as_it_can_be() {
        let body =
            br#"{"Id": "n", "Name": 7, "Containers": {"a": {"MacAddress": "02:42:0a:05:00:02"}, "b": 9}}"#;
        let network: NetworkInspect = one(body).expect("a network");
        assert_eq!((network.id.as_deref(), network.name.as_deref()), (Some("n"), None));
        assert_eq!(network.containers.expect("containers").into_keys().collect::<Vec<_>>(), ["a"]);
        for body in ["null", "[]", "7", "\"x\"", "", "{", "<html></html>"] {
            assert!(one::<NetworkInspect>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn identifiers_and_interfaces_are_no_paths() {
        for id in ["d29f0837dd96", "4o2xc5b9sbuhjb4ozi4y8ew2o", "a_b.c-d", &"a".repeat(128)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", ".", "..", "../../x", "a/b", "a b", "a\n", "a?b", "a%2fb", "-a", "é", &"a".repeat(129)]
        {
            assert!(!is_id(id), "{id}");
        }
        for name in ["br-8e5bc990c0a8", "docker0", "a.b"] {
            assert!(is_interface(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a\u{7f}", "a:b", &"x".repeat(16)] {
            assert!(!is_interface(name), "{name}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(name("a\u{1b}[2Jb\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(name(&"é".repeat(300)).chars().count(), 256);
        assert_eq!(refusal(br#"{"message":"no such\nthing"}"#), "no such\u{fffd}thing");
        assert_eq!(refusal(b"<html>\xff</html>\n"), "<html>\u{fffd}</html>");
        assert!(refusal(&[b'x'; 1 << 20]).len() < 600);
    }
}
