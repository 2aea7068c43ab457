//! The steps that a conmond has logged (`CONMON_LOG_FILTER=discovery=trace`, `CONMON_LOG_FORMAT=json`).

use anyhow::{Context, Result};
use lab::Conmond;
use serde_json::Value;
use std::fs;

/// A step, by its fields.
pub struct Step(Value);

impl Step {
    /// Whether it is the one of this name.
    pub fn is(&self, name: &str) -> bool {
        self.0["step"] == name
    }

    /// A field as text.
    pub fn text(&self, field: &str) -> Option<String> {
        match &self.0[field] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A field that is a time.
    pub fn at(&self, field: &str) -> Option<u64> {
        self.0[field].as_u64()
    }
}

/// All of a conmond so far.
pub fn of(conmond: &Conmond) -> Result<Vec<Step>> {
    let path = conmond.log();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // a line that is being written is there the next time
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps = lines.filter(|line| line["target"] == "discovery");
    Ok(steps.map(|mut line| Step(line["fields"].take())).collect())
}
