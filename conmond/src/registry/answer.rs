//! Who had an address at a time, out of all who say they had it.

use std::sync::Arc;

use super::rows::EndpointRow;

/// What is known of an address at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who had the address then. Several hosts may have one address, each on a network of its own (172.17.0.2 is on every host with
    /// Docker): one candidate for each, by host and network.
    pub candidates: Vec<Candidate>,
    /// The time, on this host's clock, up to which the registry's word is known; none if it was never heard: then there
    /// being no candidate means nothing.
    pub known_as_of_ns: Option<u64>,
    /// Whether it was known already, and nobody had to be asked.
    pub from_cache: bool,
    /// Whether there are more rows of this address than are kept (`Limits::rows_per_address`).
    pub truncated: bool,
}

/// One who had the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The row.
    pub row: Arc<EndpointRow>,
    /// The first moment no longer, also by what is known beside the row: the next on the same network, or the loss of its host.
    pub until_ns: Option<u64>,
    /// How far, in nanoseconds, the time asked for lies within the interval. The answer holds while the clocks of both hosts are
    /// not farther apart. Negative: the time lies outside by so much, but nobody else had the address on that network
    /// then.
    pub margin_ns: i64,
}

/// A row as it is kept.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The row.
    pub row: Arc<EndpointRow>,
    /// When it vanished without having had an end: its host was lost, or does not know of it any more. This host's clock.
    pub gone_ns: Option<u64>,
    /// The store's revision that wrote it; 0 where the store has none.
    pub revision: i64,
}

impl Claim {
    /// Where it belongs in a list of claims.
    pub fn order(&self) -> (&str, &str, u64) {
        (&self.row.host, &self.row.network, self.row.since_ns)
    }

    /// Whether it vanished without having had an end.
    pub fn vanished(&self) -> bool {
        self.gone_ns.is_some() && self.row.until_ns.is_none()
    }

    /// Its end, as far as it knows itself.
    pub fn end_ns(&self) -> Option<u64> {
        match (self.row.until_ns, self.gone_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Who had the address at `at_ns`, out of claims in [`Claim::order`]. Where nobody on a network had it, one who had it at most `slack_ns` before or after is
/// a candidate with a negative margin.
pub fn resolve(claims: &[Claim], at_ns: u64, slack_ns: u64) -> Vec<Candidate> {
    let same = |a: &Claim, b: &Claim| a.row.host == b.row.host && a.row.network == b.row.network;
    claims.chunk_by(same).filter_map(|of_one| on_one_network(of_one, at_ns, slack_ns)).collect()
}

fn on_one_network(claims: &[Claim], at_ns: u64, slack_ns: u64) -> Option<Candidate> {
    let next = claims.partition_point(|claim| claim.row.since_ns <= at_ns);
    // Whoever has it later ends the time of whoever had it before, whatever the former's host managed to say of it: unless the later one
    // vanished, and the former stands.
    let passed = |claim: &Claim| claim.vanished() && claim.end_ns().is_some_and(|end| end <= at_ns);
    let until = |i: usize| {
        let after = claims[i + 1..].iter().find(|claim| !passed(claim)).map(|after| after.row.since_ns);
        match (claims[i].end_ns(), after) {
            (Some(end), Some(after)) => Some(end.min(after)),
            (end, after) => end.or(after),
        }
    };
    let candidate =
        |i: usize, margin_ns| Candidate { row: Arc::clone(&claims[i].row), until_ns: until(i), margin_ns };
    for i in (0..next).rev() {
        let within = at_ns - claims[i].row.since_ns;
        match until(i) {
            Some(end) if end <= at_ns => {}
            Some(end) => return Some(candidate(i, signed(within.min(end - at_ns)))),
            None => return Some(candidate(i, signed(within))),
        }
        if !passed(&claims[i]) {
            break;
        }
    }
    let late = next.checked_sub(1).and_then(|i| Some((at_ns - until(i)?, i)));
    let early = claims.get(next).map(|after| (after.row.since_ns - at_ns, next));
    // Right at an end the time is outside already: by nothing, which is still not inside.
    let (outside, i) = late.into_iter().chain(early).min()?;
    (outside <= slack_ns).then(|| candidate(i, -signed(outside.max(1))))
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::endpoint;
    use super::*;

    fn claims(rows: &[(&str, &str, u64, Option<u64>)]) -> Vec<Claim> {
        let claim = |&(host, name, since, until)| Claim {
            row: Arc::new(endpoint(host, name, "10.0.0.1", since, until)),
            gone_ns: None,
            revision: 0,
        };
        rows.iter().map(claim).collect()
    }

    fn names(claims: &[Claim], at: u64, slack: u64) -> Vec<(String, i64)> {
        resolve(claims, at, slack).into_iter().map(|c| (c.row.container.clone(), c.margin_ns)).collect()
    }

    #[test]
    fn an_address_is_whose_it_was_then() {
        let rows = claims(&[("h", "a", 100, Some(200)), ("h", "b", 200, Some(300)), ("h", "c", 350, None)]);
        for (at, name, margin) in
            [(100, "a", 0), (199, "a", 1), (200, "b", 0), (250, "b", 50), (1000, "c", 650)]
        {
            assert_eq!(names(&rows, at, 0), [(name.to_owned(), margin)], "{at}");
        }
        assert_eq!(names(&rows, 99, 0), []);
        assert_eq!(names(&rows, 320, 10), []);
        assert_eq!(names(&rows, 320, 20), [("b".to_owned(), -20)]);
        assert_eq!(names(&rows, 340, 20), [("c".to_owned(), -10)]);
        assert_eq!(names(&rows, 300, 0), [("b".to_owned(), -1)]);
    }

    #[test]
    fn an_end_nobody_told_is_the_next_one_s_beginning() {
        let rows = claims(&[("h", "a", 100, None), ("h", "b", 200, None)]);
        assert_eq!(names(&rows, 150, 0)[0].0, "a");
        assert_eq!(names(&rows, 200, 0)[0].0, "b");
        let late = claims(&[("h", "a", 100, Some(250)), ("h", "b", 200, None)]);
        assert_eq!(
            names(&late, 220, 0)[0].0,
            "b",
            "two at once on one network cannot be: the later one has it"
        );
    }

    #[test]
    fn one_who_vanished_gives_it_back_to_one_who_stands() {
        let mut rows = claims(&[("h", "a", 100, None), ("h", "b", 200, None)]);
        rows[1].gone_ns = Some(300);
        assert_eq!(names(&rows, 150, 0)[0].0, "a");
        assert_eq!(names(&rows, 250, 0)[0].0, "b");
        assert_eq!(names(&rows, 350, 0)[0].0, "a");
        rows[0].gone_ns = Some(300);
        assert_eq!(names(&rows, 350, 0), []);
    }

    #[test]
    fn each_host_is_a_candidate_of_its_own() {
        let rows = claims(&[("g", "a", 100, None), ("h", "b", 150, Some(180)), ("h", "c", 500, None)]);
        assert_eq!(names(&rows, 160, 0), [("a".to_owned(), 60), ("b".to_owned(), 10)]);
        assert_eq!(names(&rows, 200, 0), [("a".to_owned(), 100)]);
    }

    #[test]
    fn a_lost_host_s_container_had_it_until_then() {
        let mut rows = claims(&[("h", "a", 100, None)]);
        rows[0].gone_ns = Some(400);
        assert_eq!(names(&rows, 399, 0), [("a".to_owned(), 1)]);
        assert_eq!(names(&rows, 400, 0), [("a".to_owned(), -1)]);
        assert_eq!(names(&rows, 500, 10), []);
    }
}
