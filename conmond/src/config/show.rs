//! The configuration in force, as YAML that could be loaded again.

use std::fmt::Write as _;

use serde_json::Value;

use super::Config;
use super::schema::KEYS;

pub(super) fn show(config: &Config) -> String {
    // Plain data with text keys: writing it as JSON cannot fail.
    let values = serde_json::to_value(config).unwrap_or_default();
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (inside, name) = key.rsplit_once('.').unwrap_or(("", key));
        if inside != section {
            section = inside;
            if !section.is_empty() {
                let _ = writeln!(out, "{section}:");
            }
        }
        let indent = if inside.is_empty() { "" } else { "  " };
        let value = values.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
        // JSON's way to write a value is YAML's too.
        let line = format!("{indent}{name}: {value}");
        let _ = writeln!(out, "{line:<44} # {}", config.origin(key));
    }
    out
}
