//! Checks with remedies.

use conmon::api::DoctorAnswer;

use super::{View, ledger};
use crate::format::harmless;

/// A line for each check, and its remedy below it where one is needed.
pub fn doctor(answer: &DoctorAnswer, wide: bool) -> View {
    let width = answer.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &answer.checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        text.push_str(&format!("{mark}  {:width$}  {}\n", harmless(&check.name), harmless(&check.detail)));
        if let Some(remedy) = check.remedy.as_ref().filter(|_| wide || !check.ok) {
            text.push_str(&format!("      {:width$}  → {}\n", "", harmless(remedy)));
        }
    }
    if let Some(ledger) = &answer.ledger {
        text.push_str("\nLedger, packets:\n");
        for line in ledger::lines(ledger).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    let failed = answer.checks.iter().filter(|check| !check.ok).count();
    let verdict = match (failed, answer.checks.len()) {
        (0, checks) => format!("all {checks} checks passed"),
        (failed, checks) => format!("{failed} of {checks} checks failed"),
    };
    text.push_str(&format!("\n{verdict}\n"));
    View::new(text)
}
