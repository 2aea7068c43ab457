//! Options as `--name value` pairs. Parsed by hand: this program's first packet must not wait for anything.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::str::FromStr;

pub struct Args(BTreeMap<String, String>);

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else { bail!("{word:?} is not an option") };
            let value = words.next().with_context(|| format!("--{name} wants a value"))?;
            pairs.insert(name.to_string(), value);
        }
        Ok(Self(pairs))
    }

    /// An option's text, taken out.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// An option that must be there.
    pub fn need(&mut self, name: &str) -> Result<String> {
        self.text(name).with_context(|| format!("--{name} is missing"))
    }

    /// An option as a number, or what stands for its absence.
    pub fn number<T: FromStr>(&mut self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(value) => value.parse().ok().with_context(|| format!("--{name} {value:?} is not a number")),
        }
    }

    /// A rate or time: finite, not negative, at most a thousand million.
    pub fn real(&mut self, name: &str, default: f64) -> Result<f64> {
        let value = self.number(name, default)?;
        if !(0.0..=1e9).contains(&value) {
            bail!("--{name} {value} is out of range");
        }
        Ok(value)
    }

    /// Refuses options nobody took.
    pub fn finish(&self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => bail!("unknown option --{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args> {
        Args::parse(line.split_ascii_whitespace().map(str::to_string))
    }

    #[test]
    fn options_are_taken_once_and_the_rest_refused() {
        let mut found = args("--to host:1 --rate 2.5 --odd x").unwrap();
        assert_eq!(found.need("to").unwrap(), "host:1");
        assert_eq!(found.real("rate", 0.0).unwrap(), 2.5);
        assert_eq!(found.number("count", 7u64).unwrap(), 7);
        assert!(found.finish().unwrap_err().to_string().contains("--odd"));
        assert!(found.need("to").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(args("--to").is_err());
        assert!(args("to x").is_err());
        assert!(args("--rate NaN").unwrap().real("rate", 0.0).is_err());
        assert!(args("--rate -1").unwrap().real("rate", 0.0).is_err());
        assert!(args("--count x").unwrap().number("count", 0u64).is_err());
    }
}
