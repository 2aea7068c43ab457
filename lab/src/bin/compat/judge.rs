//! Reads a machine's console and says which steps passed.

use crate::machine::End;
use crate::suite::Step;
use std::fmt;

/// How often the console's last lines are shown with a failure.
const TAIL: usize = 40;

/// What one kernel's run came to.
#[derive(Debug)]
pub struct Verdict {
    release: String,
    rows: Vec<Row>,
    /// What is wrong with the machine as a whole.
    faults: Vec<String>,
    /// What tests said they left out.
    skipped: Vec<String>,
    /// From power on to power off, in seconds.
    seconds: f64,
    tail: String,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    passed: u64,
    failed: u64,
    /// Seconds by the machine's own clock; none where it did not end.
    seconds: Option<f64>,
    /// Why it failed.
    why: Vec<String>,
}

impl Verdict {
    /// Tests and checks that passed.
    pub fn passed(&self) -> u64 {
        self.rows.iter().map(|r| r.passed).sum()
    }

    /// Tests, steps and machines that failed.
    pub fn failed(&self) -> u64 {
        self.rows.iter().map(|r| r.failed).sum::<u64>() + self.faults.len() as u64
    }
}

/// What of a kernel's own words is a fault.
const KERNEL_FAULTS: [&str; 5] = ["Oops", "BUG:", "WARNING: CPU", "Kernel panic", "cannot load /modules/"];

/// Judges what a machine printed.
pub fn judge(release: &str, steps: &[Step], console: &str, end: &End) -> Verdict {
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let mut faults = Vec::new();
    if end.stopped {
        faults.push("its time was up, and it was stopped".to_string());
    } else if !lines.contains(&"compat: all") {
        faults.push("it ended before the last step".to_string());
    }
    if !lines.iter().any(|l| l.starts_with(&format!("compat: booted {release} "))) {
        faults.push(format!("it did not boot Linux {release}"));
    }
    for word in KERNEL_FAULTS {
        faults.extend(lines.iter().find(|l| l.contains(word)).map(|l| format!("the console says {l:?}")));
    }
    let rows = steps.iter().map(|step| judge_step(step, &lines)).collect();
    let mut skipped: Vec<String> =
        lines.iter().filter_map(|l| Some(format!("SKIPPED{}", l.split_once("SKIPPED")?.1))).collect();
    skipped.dedup();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Verdict { release: release.to_string(), rows, faults, skipped, seconds: end.took.as_secs_f64(), tail }
}

fn judge_step(step: &Step, lines: &[&str]) -> Row {
    let mut row = Row { name: step.name, passed: 0, failed: 0, seconds: None, why: Vec::new() };
    let begin = format!("compat: begin {} ", step.name);
    let Some((at, begun)) = lines.iter().enumerate().find_map(|(n, l)| Some((n, l.strip_prefix(&begin)?)))
    else {
        return Row { failed: 1, why: vec!["it did not begin".to_string()], ..row };
    };
    let own = &lines[at + 1..];
    let end = format!("compat: end {} ", step.name);
    // a last line without an end may stand before the mark
    let Some((until, ended)) = own.iter().enumerate().find_map(|(n, l)| Some((n, l.split_once(&end)?.1)))
    else {
        return Row { failed: 1, why: vec!["it did not end".to_string()], ..row };
    };
    let (code, ended) = ended.split_once(' ').unwrap_or((ended, ""));
    let seconds = |text: &str| text.parse::<f64>().ok();
    row.seconds = seconds(ended).zip(seconds(begun)).map(|(b, a)| b - a);
    let own = &own[..until];
    if step.is_tests {
        match own.iter().rev().find_map(|l| totals(l)) {
            Some((passed, failed)) => (row.passed, row.failed) = (passed, failed),
            None => row.why.push("it closed without a result".to_string()),
        }
        let failures = own.iter().skip_while(|l| **l != "failures:").filter_map(|l| l.strip_prefix("    "));
        row.why.extend(failures.filter(|l| !l.contains(' ')).map(str::to_string));
        if row.passed == 0 && row.failed == 0 {
            row.why.push("no test ran".to_string());
        }
    } else if code == "0" {
        row.passed = 1;
    }
    match code {
        "0" => {}
        "137" => row.why.push(format!("stopped after {} s", step.limit_seconds)),
        _ => row.why.push(format!("exit code {code}")),
    }
    if !row.why.is_empty() {
        row.failed = row.failed.max(1);
    }
    row
}

/// `test result: ok. 6 passed; 0 failed; …`
fn totals(line: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.strip_prefix("test result: ")?.split_whitespace().collect();
    let before = |word: &str| words[..words.iter().position(|w| *w == word)?].last()?.parse().ok();
    Some((before("passed;")?, before("failed;")?))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}: {:.0} s in all", self.release, self.seconds)?;
        for row in &self.rows {
            let seconds = row.seconds.map_or("-".to_string(), |s| format!("{s:.0} s"));
            write!(f, "  {:10} {:3} passed, {} failed, {seconds}", row.name, row.passed, row.failed)?;
            writeln!(f, "{}{}", if row.why.is_empty() { "" } else { ": " }, row.why.join(", "))?;
        }
        for line in &self.skipped {
            writeln!(f, "  {line}")?;
        }
        for fault in &self.faults {
            writeln!(f, "  FAULT: {fault}")?;
        }
        if self.failed() > 0 {
            writeln!(f, "  the console's end:\n{}", self.tail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn steps() -> Vec<Step> {
        let step = |name, is_tests| Step { name, line: String::new(), limit_seconds: 9, is_tests };
        vec![step("alone", false), step("tap", true)]
    }

    const END: End = End { took: Duration::from_secs(60), stopped: false };

    const GOOD: &str = "compat: booted 6.1.0 4.0\ncompat: begin alone 4.00\nfine\ncompat: end alone 0 5.50\n\
                        compat: begin tap 6.00\ntest a ... ok\nSKIPPED TCX in a: none\n\
                        test result: ok. 6 passed; 0 failed; 0 ignored; 0 measured\ncompat: end tap 0 9.00\r\n\
                        compat: all\n";

    #[test]
    fn a_good_console_passes() {
        let v = judge("6.1.0", &steps(), GOOD, &END);
        assert_eq!((v.passed(), v.failed()), (7, 0), "{v:?}");
        let said = v.to_string();
        assert!(
            said.contains("tap          6 passed, 0 failed, 3 s") && said.contains("SKIPPED TCX in a"),
            "{said}"
        );
    }

    #[test]
    fn everything_else_fails() {
        let failed = |console: &str| judge("6.1.0", &steps(), console, &END).failed();
        let without = |a: &str, b: &str| {
            assert!(GOOD.contains(a), "{a}");
            failed(&GOOD.replace(a, b))
        };
        assert_eq!(without("compat: all\n", ""), 1);
        assert_eq!(without("booted 6.1.0", "booted 6.18.5"), 1);
        assert_eq!(without("end alone 0", "end alone 1"), 1);
        assert_eq!(without("end tap 0", "end tap 137"), 1);
        assert_eq!(without("ok. 6 passed; 0 failed", "FAILED. 4 passed; 2 failed"), 2);
        assert_eq!(without("ok. 6 passed", "ok. 0 passed"), 1);
        assert_eq!(without("test result: ok. 6", "tests: 6"), 1);
        assert_eq!(without("compat: begin tap 6.00\n", ""), 1);
        assert_eq!(without("fine", "[   3.1] BUG: unable to handle page fault"), 1);
        assert_eq!(without("fine", "compat: cannot load /modules/001-veth.ko"), 1);
        assert_eq!(failed(""), 4, "two steps, no boot, no end");
        let stopped = End { stopped: true, ..END };
        assert_eq!(judge("6.1.0", &steps(), GOOD, &stopped).failed(), 1);
    }

    #[test]
    fn a_failure_names_its_tests() {
        let console = GOOD.replace("ok. 6 passed; 0", "FAILED. 5 passed; 1").replace(
            "test result",
            "failures:\n\n---- ports::root_x stdout ----\nwords here\n\nfailures:\n    ports::root_x\n\ntest result",
        );
        let said = judge("6.1.0", &steps(), &console, &END).to_string();
        assert!(said.contains("5 passed, 1 failed, 3 s: ports::root_x"), "{said}");
    }
}
