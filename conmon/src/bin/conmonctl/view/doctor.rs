//! Checks with remedies.

use conmon::api::DoctorAnswer;

use super::{View, ledger};
use crate::format::harmless;
use crate::look::{Look, wrap};
use crate::tone::Tone;

/// A line for each check, and its remedy below it where one is needed.
pub fn doctor(answer: &DoctorAnswer, look: Look) -> View {
    let width = answer.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    // Only a terminal needs lines of its width; elsewhere a check is one line.
    let indent = 6 + width + 2;
    let room = look.width.unwrap_or(usize::MAX).max(indent + 20);
    let mut text = String::new();
    for check in &answer.checks {
        let (mark, tone) = if check.ok { ("ok  ", Tone::Good) } else { ("FAIL", Tone::Bad) };
        let name = look.paint(Tone::Strong, &format!("{:width$}", harmless(&check.name)));
        let detail = wrap(&harmless(&check.detail), room - indent, 0);
        let detail = detail.replace('\n', &format!("\n{:indent$}", ""));
        text.push_str(&format!("{}  {name}  {detail}\n", look.paint(tone, mark)));
        if let Some(remedy) = check.remedy.as_ref().filter(|_| look.wide || !check.ok) {
            let remedy = wrap(&harmless(remedy), room - indent - 2, 0);
            let remedy = remedy.replace('\n', &format!("\n{:indent$}  ", ""));
            text.push_str(&format!("{:indent$}{} {remedy}\n", "", look.paint(Tone::Accent, "→")));
        }
    }
    if let Some(ledger) = &answer.ledger {
        text.push_str(&format!("\n{}\n", look.paint(Tone::Strong, "Ledger, packets:")));
        for line in ledger::lines(ledger, look).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    let failed = answer.checks.iter().filter(|check| !check.ok).count();
    let (verdict, tone) = match (failed, answer.checks.len()) {
        (0, checks) => (format!("all {checks} checks passed"), Tone::Good),
        (failed, checks) => (format!("{failed} of {checks} checks failed"), Tone::Bad),
    };
    text.push_str(&format!("\n{}\n", look.paint(tone, &verdict)));
    View::new(text)
}
