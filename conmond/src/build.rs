//! Which build of ConMon runs.

use std::fmt;

/// A build, as its executable tells. The library is the same in builds that differ in the revision alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// The release it is made of.
    pub version: &'static str,
    /// What tells it from other builds of that release: `CONMON_REVISION` when it was compiled, none where that was
    /// not set.
    pub revision: Option<&'static str>,
}

/// As semantic versioning writes a build of a release.
impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision {
            Some(revision) if !revision.is_empty() => write!(f, "{}+{revision}", self.version),
            _ => f.write_str(self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_follows_the_release() {
        let build = |revision| Build { version: "0.1.0", revision }.to_string();
        assert_eq!(build(Some("abc")), "0.1.0+abc");
        assert_eq!([build(None), build(Some(""))], ["0.1.0", "0.1.0"]);
    }
}
