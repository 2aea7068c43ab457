//! Checks of keys and certificates, where the API is served over TLS.

use std::time::Duration;

use conmon::api::Check;
use conmon::tls::is_private;
use jiff::Timestamp;

use super::{check, some};
use crate::http::{TlsFiles, TlsState};

/// A certificate that ends sooner should be replaced now.
const SOON: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn checks(state: &TlsState, files: &TlsFiles, now: Timestamp) -> [Check; 3] {
    [certificate(state, files, now), in_force(state), secrets(files)]
}

fn certificate(state: &TlsState, files: &TlsFiles, now: Timestamp) -> Check {
    let (path, facts) = (files.certificate.display(), &state.certificate);
    let left = facts.not_after.duration_since(now);
    let days = left.as_secs() / 86_400;
    let problem = if now < facts.not_before {
        Some(format!("{path} is not valid before {}, and this clock says {now}", facts.not_before))
    } else if left.is_negative() {
        Some(format!("{path} has expired at {}: other hosts do not talk to this one", facts.not_after))
    } else if Duration::try_from(left).is_ok_and(|left| left < SOON) {
        Some(format!("{path} ends in {days} days, at {}", facts.not_after))
    } else {
        None
    };
    let role = facts.role.as_ref().map_or_else(ToString::to_string, ToString::to_string);
    check(
        "certificate",
        problem,
        format!("{path} is that of {role}, for another {days} days"),
        "make a new one with `conmonctl ca host NAME --force` and put it in its place; conmond takes it without a restart",
    )
}

fn in_force(state: &TlsState) -> Check {
    let tokens = match state.tokens {
        None => "no tokens are configured".to_owned(),
        Some(count) => format!("{count} tokens are known"),
    };
    check(
        "tls files",
        state.trouble.clone().map(|why| format!("what was read before goes on: {why}")),
        format!("the files are in force as they are; {tokens}"),
        "mend the files; conmond looks at them every two seconds while it listens",
    )
}

fn secrets(files: &TlsFiles) -> Check {
    let open: Vec<String> = files
        .secret()
        .filter(|path| is_private(path).is_ok_and(|private| !private))
        .map(|path| format!("{} can be read by others than its owner", path.display()))
        .collect();
    check(
        "secrets",
        some(&open),
        "key and tokens are for their owner alone",
        "chmod 600 them; if others may have read them, make new ones",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use conmon::tls::{Facts, Role};

    use super::*;

    fn state(until: &str) -> TlsState {
        TlsState {
            certificate: Facts {
                subject: "CN=web1".to_owned(),
                issuer: "CN=CA".to_owned(),
                role: Ok(Role::Host("web1".to_owned())),
                names: Vec::new(),
                is_ca: false,
                not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
                not_after: until.parse().unwrap(),
            },
            tokens: Some(2),
            trouble: None,
        }
    }

    fn files(key: &str) -> TlsFiles {
        let path = |name: &str| PathBuf::from(name);
        TlsFiles { certificate: path("host.crt"), key: path(key), ca: path("ca.crt"), tokens: None }
    }

    #[test]
    fn certificates_that_end_are_told_in_time() {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        for (until, word) in [
            ("2026-08-01T00:00:00Z", "is that of host web1, for another 61 days"),
            ("2026-06-11T00:00:00Z", "ends in 10 days"),
            ("2026-05-31T00:00:00Z", "has expired at 2026-05-31T00:00:00Z"),
        ] {
            let check = certificate(&state(until), &files("host.key"), now);
            assert!(check.detail.contains(word), "{until}: {check:?}");
            assert_eq!(check.ok, word.contains("another"), "{check:?}");
        }
        let early = certificate(
            &state("2027-01-01T00:00:00Z"),
            &files("host.key"),
            "2025-01-01T00:00:00Z".parse().unwrap(),
        );
        assert!(!early.ok && early.detail.contains("not valid before"), "{early:?}");
    }

    #[test]
    fn keys_that_others_can_read_and_files_that_do_not_fit_are_told() {
        let dir = std::env::temp_dir().join(format!("conmond-secrets-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let key = dir.join("host.key");
        fs::write(&key, "").unwrap();
        let judged = |mode| {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            secrets(&files(key.to_str().unwrap()))
        };
        let (private, open) = (judged(0o600), judged(0o640));
        fs::remove_dir_all(&dir).unwrap();
        assert!(
            private.ok && !open.ok && open.detail.contains("can be read by others"),
            "{private:?} {open:?}"
        );
        let broken = TlsState { trouble: Some("no key".to_owned()), ..state("2027-01-01T00:00:00Z") };
        assert!(
            !in_force(&broken).ok && in_force(&state("2027-01-01T00:00:00Z")).detail.contains("2 tokens")
        );
    }
}
