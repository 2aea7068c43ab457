//! The configuration's JSON Schema, and what it says about a value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::layers::{Kind, Node};
use super::{Config, Prefix, suggest};

/// The JSON Schema of the configuration file.
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Every key that holds a value, in the order of the documentation. A test holds it against the schema.
pub(super) const KEYS: &[&str] = &[
    "instance",
    "engine",
    "run_dir",
    "host_name",
    "opt_in",
    "pool",
    "tap",
    "scan_interval_ms",
    "retention_seconds",
    "metrics_listen",
    "metrics_level",
    "max_series",
    "listen",
    "tls.certificate",
    "tls.key",
    "tls.ca",
    "tls.tokens",
    "external_prefixes",
    "registry",
    "tables.flows",
    "tables.max_flows",
    "tables.calm_seconds",
    "tables.pairs",
    "tables.max_pairs",
    "tables.ports",
    "tables.hists",
    "tables.max_hists",
    "tables.ring_bytes",
    "timeouts.idle_seconds",
    "timeouts.active_seconds",
    "timeouts.end_linger_ms",
    "timeouts.pair_idle_seconds",
    "timeouts.tenant_linger_seconds",
    "monitor.memory_bytes",
    "monitor.cpu_millicores",
    "monitor.pids",
    "etcd.endpoints",
    "etcd.ca",
    "etcd.cert",
    "etcd.key",
    "etcd.user",
    "etcd.password_file",
    "etcd.ttl_seconds",
    "gossip.listen",
    "gossip.advertise",
    "gossip.join",
    "gossip.key_file",
    "log.level",
    "log.format",
];

/// The schema of each key, sections too.
pub(super) struct Keys(BTreeMap<String, Value>);

pub(super) fn keys() -> Keys {
    let mut all = BTreeMap::new();
    collect("", &json_schema(), &mut all);
    Keys(all)
}

fn collect(path: &str, schema: &Value, all: &mut BTreeMap<String, Value>) {
    if let Some(properties) = properties(schema) {
        for (name, inner) in properties {
            collect(&join(path, name), inner, all);
        }
    }
    all.insert(path.to_owned(), schema.clone());
}

fn properties(schema: &Value) -> Option<&serde_json::Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// The key `name` in the section `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Keys {
    /// The schema of a key that holds a value.
    pub(super) fn leaf(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|schema| !key.is_empty() && properties(schema).is_none())
    }

    /// Whether it is a section, with keys of its own.
    pub(super) fn is_section(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|schema| properties(schema).is_some())
    }

    /// Every key that holds a value.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|key| self.leaf(key).is_some())
    }

    /// What may have been meant by `key`: a key spelt like it, or the one of its name in another section.
    pub(super) fn suggestion(&self, key: &str) -> Option<String> {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let here = self.0.keys().filter(|known| known.rsplit_once('.').map_or("", |(s, _)| s) == section);
        suggest::nearest(key, here.map(String::as_str).filter(|known| !known.is_empty()))
            .or_else(|| self.leaves().find(|known| known.rsplit('.').next() == Some(name)))
            .or_else(|| suggest::nearest(key, self.leaves()))
            .map(str::to_owned)
    }

    /// Whether texts are taken as they stand, not read as YAML.
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.leaf(key).is_some_and(|schema| allows(schema, "string"))
    }

    /// Whether `null` may be given.
    pub(super) fn is_nullable(&self, key: &str) -> bool {
        self.leaf(key).is_some_and(|schema| allows(schema, "null"))
    }

    /// What the documentation says.
    pub(super) fn description(&self, key: &str) -> String {
        self.0.get(key).map(description).unwrap_or_default()
    }
}

/// A violation: where, of which key, and what is wrong.
pub(super) struct Violation {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) key: String,
    pub(super) what: Wrong,
}

pub(super) enum Wrong {
    /// There is no such key; perhaps this one was meant.
    Unknown(Option<String>),
    /// This value cannot be, for this reason.
    Value(String, String),
}

/// Holds a value against the schema.
pub(super) fn check(key: &str, node: &Node, schema: &Value) -> Result<(), Violation> {
    let violation = |what| Violation { line: node.line, column: node.column, key: key.to_owned(), what };
    let refuse = |reason: String| Err(violation(Wrong::Value(node.to_string(), reason)));
    match &node.kind {
        Kind::Map(entries) if properties(schema).is_some() => {
            let known = properties(schema).into_iter().flatten();
            for (name, inner) in entries {
                let Some(schema) = properties(schema).and_then(|all| all.get(&name.text)) else {
                    let suggestion = suggest::nearest(&name.text, known.map(|(name, _)| name.as_str()));
                    return Err(Violation {
                        line: name.line,
                        column: name.column,
                        key: join(key, &name.text),
                        what: Wrong::Unknown(suggestion.map(str::to_owned)),
                    });
                };
                check(&join(key, &name.text), inner, schema)?;
            }
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            match required
                .filter_map(Value::as_str)
                .find(|name| !entries.iter().any(|(given, _)| given.text == *name))
            {
                Some(missing) => refuse(format!("`{missing}` is missing")),
                None => Ok(()),
            }
        }
        Kind::List(items) if allows(schema, "array") => {
            let Some(inner) = schema.get("items") else { return Ok(()) };
            items.iter().enumerate().try_for_each(|(i, item)| check(&format!("{key}[{i}]"), item, inner))
        }
        Kind::Null if allows(schema, "null") => Ok(()),
        Kind::Bool(_) if allows(schema, "boolean") => Ok(()),
        Kind::Integer(number) if allows(schema, "integer") => {
            let bound = |name| schema.get(name).and_then(Value::as_u64).map(i128::from);
            let low = bound("minimum").is_some_and(|minimum| *number < minimum);
            let high = bound("maximum").is_some_and(|maximum| *number > maximum);
            let power = schema.get("x-power-of-two").is_some();
            let odd = power && !u64::try_from(*number).is_ok_and(u64::is_power_of_two);
            if low || high || odd { refuse(wanted(schema)) } else { Ok(()) }
        }
        Kind::Text(text) if allows(schema, "string") => {
            let words = words(schema);
            if !words.is_empty() && !words.contains(&text.as_str()) {
                let suggestion = suggest::nearest(text, words.iter().copied());
                return refuse(wanted(schema) + &suggest::sentence(suggestion));
            }
            match schema.get("format").and_then(Value::as_str) {
                Some("socket-address") if text.parse::<SocketAddr>().is_err() => refuse(wanted(schema)),
                Some("address-prefix") => {
                    text.parse::<Prefix>().map_or_else(|e| refuse(e.to_string()), |_| Ok(()))
                }
                _ => Ok(()),
            }
        }
        _ => refuse(wanted(schema)),
    }
}

/// Whether a value may have this JSON type.
fn allows(schema: &Value, kind: &str) -> bool {
    let here = match schema.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    };
    here || alternatives(schema).any(|one| allows(one, kind))
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|name| schema.get(name)?.as_array()).flatten()
}

/// The words a value must be one of; empty if it may be any.
fn words(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let single = schema.get("const").and_then(Value::as_str);
    listed.chain(single).chain(alternatives(schema).flat_map(words)).collect()
}

/// What a value must be, a sentence without a full stop.
fn wanted(schema: &Value) -> String {
    let words = words(schema);
    let mut text = String::from("give ");
    if let Some((last, others)) = words.split_last() {
        let _ = match others {
            [] => write!(text, "`{last}`"),
            others => write!(text, "`{}` or `{last}`", others.join("`, `")),
        };
    } else if allows(schema, "integer") {
        let power = if schema.get("x-power-of-two").is_some() { "a power of two" } else { "a whole number" };
        text += power;
        let bound = |name| schema.get(name).and_then(Value::as_u64);
        if let (Some(minimum), Some(maximum)) = (bound("minimum"), bound("maximum")) {
            let _ = write!(text, " from {minimum} to {maximum}");
        }
    } else if allows(schema, "boolean") {
        text += "`true` or `false`";
    } else if allows(schema, "array") {
        text += "a list";
    } else if properties(schema).is_some() {
        let names: Vec<&str> =
            properties(schema).into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let _ = write!(text, "a section with the keys `{}`", names.join("`, `"));
    } else if schema.get("format").is_some_and(|format| format == "socket-address") {
        text += "an address and a port, such as 127.0.0.1:9477 or \"[::1]:9477\"";
    } else {
        text += "a text; put it in quotes if it looks like something else";
    }
    if allows(schema, "null") {
        text += ", or null";
    }
    text
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// A file with every key, its meaning and its default, in comments. Without the first # of a line a key is set; what
/// stands before the keys remains a comment.
pub fn example() -> String {
    let keys = keys();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut out = String::from(
        "# Configuration of conmond: every key with its default. To set a key, take away the # at the beginning of its\n\
         # line, and of the line of its section. `conmond config show` tells what is in force and where it came from:\n\
         # environment variables (CONMON_ and the key in capitals, CONMON_TABLES_FLOWS) win over this file, flags over\n\
         # both.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (inside, name) = key.rsplit_once('.').unwrap_or(("", key));
        if inside != section {
            section = inside;
            out.push('\n');
            comment(&mut out, "#", &keys.description(section));
            let _ = writeln!(out, "#{section}:");
        } else if inside.is_empty() {
            out.push('\n');
        }
        let (prose, indent) = if inside.is_empty() { ("#", "") } else { ("#  #", "  ") };
        comment(&mut out, prose, &keys.description(key));
        for line in keys.leaf(key).map(meanings).unwrap_or_default() {
            comment(&mut out, prose, &line);
        }
        let value = defaults.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        let _ = writeln!(out, "#{indent}{name}: {value}");
    }
    out
}

/// What the words mean that a value may be.
fn meanings(schema: &Value) -> Vec<String> {
    alternatives(schema)
        .filter_map(|one| Some(format!("- {}: {}", one.get("const")?.as_str()?, description(one))))
        .collect()
}

/// Prose behind `mark`, in lines of at most 100 characters.
fn comment(out: &mut String, mark: &str, text: &str) {
    out.push_str(mark);
    let mut width = mark.len();
    for word in text.split(' ') {
        if width + 1 + word.len() > 100 {
            let _ = write!(out, "\n{mark}");
            width = mark.len();
        }
        let _ = write!(out, " {word}");
        width += 1 + word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_the_schema_s() {
        let keys = keys();
        let mut listed = KEYS.to_vec();
        listed.sort_unstable();
        let mut found: Vec<&str> = keys.leaves().collect();
        found.sort_unstable();
        assert_eq!(listed, found);
        for key in KEYS {
            assert!(keys.description(key).ends_with('.'), "{key} has no documentation");
        }
    }
}
