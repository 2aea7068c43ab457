//! Level-triggered waiting: ask for the state wanted until it is there or the time is up. Nothing in the lab sleeps
//! for a guessed time.

use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Pause between two looks at the state waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks `look` until it gives a value, and returns that; fails when `timeout` has passed without one. An error of
/// `look` ends the waiting at once, so only report what cannot get better.
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            bail!("{what}: not reached within {:.1} s", timeout.as_secs_f64());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks `check` until it finds nothing wrong; what it found last is told when `timeout` has passed.
pub fn wait_until(what: &str, timeout: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let mut wrong = String::new();
    let reached = wait_for(what, timeout, || match check() {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            wrong = format!("{error:#}");
            Ok(None)
        }
    });
    reached.context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_or_says_what_was_missing() {
        let mut looks = 0;
        let got = wait_for("third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some("here"))
        });
        assert_eq!(got.ok(), Some("here"));
        let missing = wait_for::<()>("the impossible", Duration::ZERO, || Ok(None)).unwrap_err().to_string();
        assert!(missing.contains("the impossible"), "{missing}");
        let broken =
            wait_for::<()>("x", Duration::from_secs(60), || bail!("broken")).unwrap_err().to_string();
        assert_eq!(broken, "broken");
    }

    #[test]
    fn checks_until_nothing_is_wrong_or_tells_what_is() {
        let mut looks = 0;
        let third = wait_until("third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(()) } else { bail!("too early") }
        });
        assert!(third.is_ok() && looks == 3);
        let wrong = wait_until("the impossible", Duration::ZERO, || bail!("a cause")).unwrap_err();
        let told = format!("{wrong:#}");
        assert!(told.contains("a cause") && told.contains("the impossible"), "{told}");
    }
}
