//! What a container's labels ask of ConMon.
//!
//! | label | meaning |
//! |---|---|
//! | `conmon.enable` | `false` opts out, `true` opts in |
//! | `conmon.tenant` | the tenant; else the compose project, else `default` |
//! | `conmon.monitor` | `shared` (default) or `dedicated` monitoring container |
//! | `conmon.vnf` | `true`: it forwards other containers' packets |
//! | `com.docker.compose.project`, `.service` | read as they stand |
//!
//! A value that means nothing is passed over and told in [`Policy::problems`], never guessed.

use std::collections::BTreeMap;

/// The tenant of containers that name none.
pub const DEFAULT_TENANT: &str = "default";
/// Compose's label for the project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// Compose's label for the service.
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Longer names would only break tables; no tool makes them.
const NAME_BYTES: usize = 128;

/// What a container's labels ask of ConMon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Watch it or not, none when it leaves that to the configuration.
    pub enable: Option<bool>,
    /// Whose it is.
    pub tenant: String,
    /// The service that it is an instance of, where it says.
    pub service: Option<String>,
    /// It wants a monitoring container of its own.
    pub dedicated: bool,
    /// It forwards other containers' packets.
    pub vnf: bool,
    /// One sentence for each label that could not be understood.
    pub problems: Vec<String>,
}

impl Policy {
    /// Reads the labels.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Policy {
        let mut problems = Vec::new();
        let enable = boolean(labels, "conmon.enable", &mut problems);
        let tenant = name(labels, "conmon.tenant", &mut problems)
            .or_else(|| name(labels, COMPOSE_PROJECT, &mut problems))
            .unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        let service = name(labels, COMPOSE_SERVICE, &mut problems);
        let dedicated = match labels.get("conmon.monitor").map(|v| v.trim()) {
            Some("dedicated") => true,
            None | Some("shared") => false,
            Some(other) => {
                problems.push(problem("conmon.monitor", other, "'shared' or 'dedicated'"));
                false
            }
        };
        let vnf = boolean(labels, "conmon.vnf", &mut problems).unwrap_or(false);
        Policy { enable, tenant, service, dedicated, vnf, problems }
    }
}

fn boolean(labels: &BTreeMap<String, String>, key: &str, problems: &mut Vec<String>) -> Option<bool> {
    let value = labels.get(key)?.trim();
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => {
            problems.push(problem(key, value, "'true' or 'false'"));
            None
        }
    }
}

/// A name that may be shown on a terminal and used as a label.
fn name(labels: &BTreeMap<String, String>, key: &str, problems: &mut Vec<String>) -> Option<String> {
    let value = labels.get(key)?.trim();
    if value.is_empty() || value.len() > NAME_BYTES || value.chars().any(char::is_control) {
        problems.push(problem(key, value, "1 to 128 bytes without control characters"));
        return None;
    }
    Some(value.to_owned())
}

fn problem(key: &str, value: &str, expected: &str) -> String {
    let shown: String = value.chars().take(40).collect();
    format!("label {key}={shown:?} is ignored: expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: &[(&str, &str)]) -> Policy {
        Policy::from_labels(&labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn no_labels_mean_the_default_tenant_and_a_shared_monitor() {
        let p = policy(&[("maintainer", "somebody")]);
        let want = Policy {
            enable: None,
            tenant: "default".into(),
            service: None,
            dedicated: false,
            vnf: false,
            problems: vec![],
        };
        assert_eq!(p, want);
    }

    #[test]
    fn our_tenant_wins_over_the_compose_project() {
        let compose = [(COMPOSE_PROJECT, "shop"), (COMPOSE_SERVICE, "db")];
        let p = policy(&compose);
        assert_eq!((p.tenant.as_str(), p.service.as_deref()), ("shop", Some("db")));
        let p = policy(&[compose[0], compose[1], ("conmon.tenant", "blue")]);
        assert_eq!((p.tenant.as_str(), p.service.as_deref()), ("blue", Some("db")));
    }

    #[test]
    fn switches() {
        for (value, want) in
            [("false", Some(false)), ("No", Some(false)), (" TRUE ", Some(true)), ("1", Some(true))]
        {
            assert_eq!(policy(&[("conmon.enable", value)]).enable, want, "{value}");
        }
        assert!(policy(&[("conmon.monitor", "dedicated")]).dedicated);
        assert!(!policy(&[("conmon.monitor", "shared")]).dedicated);
        assert!(policy(&[("conmon.vnf", "true")]).vnf);
    }

    #[test]
    fn nonsense_is_passed_over_and_told() {
        let p = policy(&[
            ("conmon.enable", "perhaps"),
            ("conmon.monitor", "two"),
            ("conmon.tenant", "a\u{1b}[2Jb"),
            (COMPOSE_PROJECT, "shop"),
        ]);
        assert_eq!((p.enable, p.dedicated, p.tenant.as_str()), (None, false, "shop"));
        assert_eq!(p.problems.len(), 3);
        assert_eq!(p.problems[0], "label conmon.enable=\"perhaps\" is ignored: expected 'true' or 'false'");
        assert!(p.problems.iter().all(|p| !p.contains('\u{1b}')), "safe to print: {:?}", p.problems);
        assert_eq!(policy(&[("conmon.tenant", "")]).tenant, "default");
        assert_eq!(policy(&[("conmon.tenant", &"x".repeat(129))]).tenant, "default");
    }
}
