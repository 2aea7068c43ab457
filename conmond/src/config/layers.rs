//! Defaults, file, environment and command line, put together value by value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::schema::{self, Keys, Violation, Wrong};
use super::{Config, ConfigError, Origin, Overrides};

/// The largest file that is read, bytes. With every key it is some 5,000.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// A YAML value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) line: u64,
    pub(super) column: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Name, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Node {
    fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => Value::Null,
            },
            Kind::Float(value) => (*value).into(),
            Kind::Text(text) => text.as_str().into(),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|(name, node)| (name.text.clone(), node.to_json())).collect(),
            ),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Null => f.write_str("empty"),
            Kind::Bool(value) => write!(f, "`{value}`"),
            Kind::Integer(value) => write!(f, "{value}"),
            Kind::Float(value) => write!(f, "{value}"),
            Kind::Text(text) if text.chars().count() > 64 => {
                write!(f, "`{}…`", text.chars().take(64).collect::<String>())
            }
            Kind::Text(text) => write!(f, "`{text}`"),
            Kind::List(_) => f.write_str("a list"),
            Kind::Map(_) => f.write_str("a section"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        let at = spanned.referenced;
        Ok(Self { kind: spanned.value, line: at.line(), column: at.column() })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyKind;
        impl<'de> Visitor<'de> for AnyKind {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }

            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
                Ok(Kind::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
                Ok(Kind::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
                Ok(Kind::Integer(value.into()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Kind, E> {
                Ok(Kind::Integer(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
                Ok(Kind::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
                Ok(Kind::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Kind::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<Spanned<String>>()? {
                    let at = name.referenced;
                    let name = Name { text: name.value, line: at.line(), column: at.column() };
                    entries.push((name, map.next_value()?));
                }
                Ok(Kind::Map(entries))
            }
        }
        deserializer.deserialize_any(AnyKind)
    }
}

/// The values given so far, by key, each with the last to give it.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
}

impl Settings {
    pub(super) fn read_file(&mut self, path: &Path, keys: &Keys) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_LIMIT_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit_bytes: FILE_LIMIT_BYTES });
        }
        let at = |line, column| Origin::File { path: path.to_owned(), line, column };
        let root = parse(&text)
            .map_err(|(line, column, reason)| ConfigError::Syntax { at: at(line, column), reason })?;
        self.take_section("", root, keys, &at)
    }

    fn take_section(
        &mut self,
        path: &str,
        section: Node,
        keys: &Keys,
        at: &dyn Fn(u64, u64) -> Origin,
    ) -> Result<(), ConfigError> {
        let entries = match section.kind {
            Kind::Map(entries) => entries,
            // A section of which every key is a comment.
            Kind::Null => return Ok(()),
            _ => {
                let key = if path.is_empty() { "the whole file" } else { path };
                return Err(ConfigError::Value {
                    at: at(section.line, section.column),
                    key: key.to_owned(),
                    value: section.to_string(),
                    reason: "give a section: lines of the form `key: value`".to_owned(),
                });
            }
        };
        for (name, node) in entries {
            let key = schema::join(path, &name.text);
            if keys.is_section(&key) {
                self.take_section(&key, node, keys, at)?;
            } else if keys.leaf(&key).is_some() {
                let origin = at(node.line, node.column);
                self.take(&key, node, origin, keys, at)?;
            } else {
                let suggestion = keys.suggestion(&key);
                return Err(ConfigError::UnknownKey { at: at(name.line, name.column), key, suggestion });
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        key: &str,
        node: Node,
        origin: Origin,
        keys: &Keys,
        at: &dyn Fn(u64, u64) -> Origin,
    ) -> Result<(), ConfigError> {
        if let Some(schema) = keys.leaf(key) {
            schema::check(key, &node, schema).map_err(|violation| {
                let Violation { line, column, key, what } = violation;
                let at = at(line, column);
                match what {
                    Wrong::Unknown(suggestion) => ConfigError::UnknownKey { at, key, suggestion },
                    Wrong::Value(value, reason) => ConfigError::Value { at, key, value, reason },
                }
            })?;
        }
        self.values.insert(key.to_owned(), (node.to_json(), origin));
        Ok(())
    }

    pub(super) fn read_environment(
        &mut self,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        keys: &Keys,
    ) -> Result<(), ConfigError> {
        let mut given: BTreeMap<String, OsString> = env
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        for key in keys.leaves() {
            let own = format!("CONMON_{}", key.replace('.', "_").to_uppercase());
            let other = (key == "engine").then_some("DOCKER_HOST".to_owned());
            for name in [other, Some(own)].into_iter().flatten() {
                let Some(value) = given.remove(&name) else { continue };
                let origin = Origin::Variable(name);
                let Ok(text) = value.into_string() else {
                    return Err(ConfigError::Value {
                        at: origin,
                        key: key.to_owned(),
                        value: "text that is not UTF-8".to_owned(),
                        reason: "write it in UTF-8".to_owned(),
                    });
                };
                self.take_text(key, &text, origin, keys)?;
            }
        }
        Ok(())
    }

    pub(super) fn read_flags(&mut self, flags: &Overrides, keys: &Keys) -> Result<(), ConfigError> {
        for flag in &flags.values {
            let origin = Origin::Flag(flag.flag.clone());
            if keys.leaf(&flag.key).is_none() {
                let suggestion = keys.suggestion(&flag.key);
                return Err(ConfigError::UnknownKey { at: origin, key: flag.key.clone(), suggestion });
            }
            self.take_text(&flag.key, &flag.value, origin, keys)?;
        }
        Ok(())
    }

    /// Takes a value written on one line: texts as they stand, everything else as YAML.
    fn take_text(&mut self, key: &str, text: &str, origin: Origin, keys: &Keys) -> Result<(), ConfigError> {
        let plain = |kind| Node { kind, line: 1, column: 1 };
        let node = if keys.is_nullable(key) && text == "null" {
            plain(Kind::Null)
        } else if keys.is_text(key) {
            plain(Kind::Text(text.to_owned()))
        } else {
            parse(text).unwrap_or_else(|_| plain(Kind::Text(text.to_owned())))
        };
        self.take(key, node, origin.clone(), keys, &|_, _| origin.clone())
    }

    /// The configuration that these values make. Each of them has been checked against the schema.
    pub(super) fn assemble(self) -> Result<Config, ConfigError> {
        let mut root = serde_json::Map::new();
        let mut origins = BTreeMap::new();
        for (key, (value, origin)) in self.values {
            match key.split_once('.') {
                None => {
                    root.insert(key.clone(), value);
                }
                Some((section, name)) => {
                    let section =
                        root.entry(section).or_insert_with(|| Value::Object(serde_json::Map::new()));
                    if let Value::Object(section) = section {
                        section.insert(name.to_owned(), value);
                    }
                }
            }
            origins.insert(key, origin);
        }
        let mut config: Config =
            serde_json::from_value(Value::Object(root)).map_err(|source| ConfigError::Whole { source })?;
        config.origins = origins;
        Ok(config)
    }
}

/// Reads one YAML document; an empty one is `null`. Errors come with line and column.
fn parse(text: &str) -> Result<Node, (u64, u64, String)> {
    let empty = text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#')));
    if empty {
        return Ok(Node { kind: Kind::Null, line: 1, column: 1 });
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let reason = error.without_snippet().to_string();
        // The place stands before the message already.
        let place = format!(" at line {line}, column {column}");
        (line, column, reason.strip_suffix(&place).map(str::to_owned).unwrap_or(reason))
    })
}
