//! Checks of what binds this host to the others, where there are any.

use std::time::Duration;

use conmon::api::{Check, HostClock};

use super::check;
use crate::registry::Health;
use crate::system::SystemCounters;

/// What is known of the registry is told to be old from then on.
const OLD: Duration = Duration::from_secs(30);

/// `now_ns` is this host's clock, as the registry's times are.
pub(super) fn checks(
    health: &Health,
    counters: &SystemCounters,
    clocks_known: &[HostClock],
    others: usize,
    now_ns: u64,
) -> [Check; 3] {
    [registry(health, others, now_ns), far_ends(counters), clocks(clocks_known, counters.clocks_left_out)]
}

fn clocks(known: &[HostClock], left_out: u64) -> Check {
    let silent: Vec<String> = known
        .iter()
        .filter_map(|clock| Some(format!("{}: {}", clock.host, clock.problem.as_deref()?)))
        .collect();
    let without = match left_out {
        0 => String::new(),
        n => format!("; {n} more are not, for want of room"),
    };
    let bounds = known.iter().filter_map(|clock| clock.bound_seconds);
    let widest = bounds.reduce(f64::max).map_or(String::new(), |bound| {
        format!("; offsets are known to within {:.3} ms at most", bound * 1e3)
    });
    check(
        "other clocks",
        (!silent.is_empty()).then(|| silent.join("; ")),
        format!("{} hosts that talk with this one are compared{widest}{without}", known.len() - silent.len()),
        "names, counts and round trips need no clock of others; `conmonctl clocks` shows what is known of each",
    )
}

fn registry(health: &Health, others: usize, now_ns: u64) -> Check {
    let name = health.backend;
    let age = health.known_as_of_ns.map(|known| Duration::from_nanos(now_ns.saturating_sub(known)));
    let since =
        age.map_or("it never answered".to_owned(), |age| format!("heard of {:.0} s ago", age.as_secs_f64()));
    let why = health.problem.as_deref().map_or(String::new(), |why| format!(": {why}"));
    let problem = if health.superseded {
        Some("another conmond that was started later speaks as this host; this one's containers are not told to the others".to_owned())
    } else if !health.reachable {
        Some(format!(
            "{name} does not answer, {since}{why}; what was known is still answered, and what is new is told when it is back"
        ))
    } else if age.is_none_or(|age| age > OLD) {
        Some(format!("{name} is silent, {since}{why}"))
    } else {
        None
    };
    let remedy = if health.superseded {
        "end one of the two, or give each host its own `host_name` and certificate"
    } else {
        "see that it runs and that this host reaches it; docs/registry.md says what each fault does"
    };
    let pending = match health.pending_rows {
        0 => "all of this host's addresses are written".to_owned(),
        n => format!("{n} rows of this host are on their way"),
    };
    let detail =
        format!("{name} tells of {others} other hosts; {} addresses are held; {pending}", health.addresses);
    check("registry", problem, detail, remedy)
}

fn far_ends(counters: &SystemCounters) -> Check {
    let SystemCounters { resolver, waiting, lookups, sought, offers_dropped, ends_full, answered, .. } =
        counters;
    let lost = [
        ("addresses found no room to be looked up", lookups.full),
        ("conversations found no room to wait", resolver.full),
        ("far ends found no room", *ends_full),
        ("reports found no room and are told again with the next", *offers_dropped),
    ];
    let lost: Vec<String> =
        lost.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    let problem = (lookups.full + resolver.full + ends_full > 0).then(|| lost.join(", "));
    let mut detail = format!(
        "{} far ends behind other hosts' addresses were learnt, {waiting} are being asked for, {} were given up; {sought} addresses are being looked up, {} were nobody's; {answered} questions of others were answered",
        resolver.learnt, resolver.given_up, lookups.given_up
    );
    if resolver.refused > 0 {
        detail.push_str(&format!("; {} answers made no sense and were refused", resolver.refused));
    }
    check(
        "far ends",
        problem,
        detail,
        "their pairs bear the other host's address instead of its container's name; totals are not touched",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100_000_000_000;

    fn health() -> Health {
        Health {
            backend: "etcd",
            reachable: true,
            known_as_of_ns: Some(NOW - 1),
            addresses: 7,
            ..Health::default()
        }
    }

    #[test]
    fn each_trouble_with_the_registry_is_a_sentence() {
        let well = registry(&health(), 3, NOW);
        assert!(well.ok && well.detail.contains("3 other hosts; 7 addresses"), "{well:?}");
        for (health, words) in [
            (Health { superseded: true, ..health() }, "started later speaks as this host"),
            (
                Health { reachable: false, problem: Some("refused".to_owned()), ..health() },
                "etcd does not answer, heard of 0 s ago: refused",
            ),
            (Health { reachable: false, known_as_of_ns: None, ..health() }, "it never answered"),
            (Health { known_as_of_ns: Some(1), ..health() }, "is silent, heard of 100 s ago"),
        ] {
            let told = registry(&health, 0, NOW);
            assert!(!told.ok && told.detail.contains(words) && told.remedy.is_some(), "{told:?}");
        }
    }

    #[test]
    fn a_host_whose_clock_cannot_be_compared_is_named() {
        let known = |host: &str, bound, problem: Option<&str>| HostClock {
            host: host.to_owned(),
            bound_seconds: bound,
            problem: problem.map(str::to_owned),
            ..HostClock::default()
        };
        let mut all = vec![known("b", Some(0.001), None), known("c", Some(0.0005), None)];
        let told = clocks(&all, 0);
        assert!(told.ok && told.detail.contains("2 hosts") && told.detail.contains("1.000 ms"), "{told:?}");
        all.push(known("d", None, Some("no answer")));
        let told = clocks(&all, 0);
        assert!(!told.ok && told.detail.contains("d: no answer"), "{told:?}");
    }

    #[test]
    fn what_found_no_room_is_told() {
        let mut counters = SystemCounters { waiting: 2, answered: 5, ..SystemCounters::default() };
        counters.resolver.learnt = 9;
        let told = far_ends(&counters);
        assert!(told.ok && told.detail.contains("9 far ends") && told.detail.contains("2 are being asked"));
        counters.resolver.full = 4;
        let told = far_ends(&counters);
        assert!(!told.ok && told.detail.contains("4 conversations found no room"), "{told:?}");
    }
}
