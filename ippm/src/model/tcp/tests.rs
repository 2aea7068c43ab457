use super::*;
use crate::model::law::Delay;

fn lossy(seed: u64) -> Connection {
    let path = Path::clean(Delay::Exponential { base: 100_000, mean: 20_000 })
        .losing(0.02)
        .duplicating(0.002, 5_000);
    Connection::over(path.reordering(0.005, 300_000), path, seed)
}

/// Octets of one direction that arrived, as a set.
fn received(outcome: &Outcome, forward: bool, isn: u32) -> u64 {
    let mut seen = BTreeMap::new();
    for j in outcome.journeys.iter().filter(|j| j.forward == forward && j.arrival_ns.is_some() && !j.syn) {
        let from = j.seq.wrapping_sub(isn).wrapping_sub(1);
        let to = seen.entry(from).or_insert(0);
        *to = (*to).max(from + j.payload);
    }
    let (mut reached, mut sum) = (0, 0);
    for (from, to) in seen {
        sum += u64::from(to.saturating_sub(from.max(reached)));
        reached = reached.max(to);
    }
    sum
}

#[test]
fn everything_arrives_whatever_the_network_does() {
    for seed in 0..20 {
        for law in [lossy(seed), lossy(seed).offloaded()] {
            let outcome = run(&law);
            assert_eq!(received(&outcome, true, law.isn.0), law.forward_bytes, "seed {seed}");
            assert_eq!(received(&outcome, false, law.isn.1), law.reverse_bytes, "seed {seed}");
            assert!(outcome.journeys.iter().any(|j| j.again), "loss leads to sending again");
        }
    }
}

#[test]
fn offload_changes_what_is_seen_and_not_what_crosses() {
    let path = Path::clean(Delay::Constant(50_000));
    let plain = Connection::over(path, path, 1);
    let (one, many) = (run(&plain), run(&plain.offloaded()));
    assert_eq!(one.client.len(), one.server.len());
    let octets = |seen: &[Captured]| seen.iter().map(|c| u64::from(c.packet.payload)).sum::<u64>();
    for outcome in [&one, &many] {
        assert_eq!(octets(&outcome.client), plain.forward_bytes + plain.reverse_bytes);
        assert_eq!(octets(&outcome.server), plain.forward_bytes + plain.reverse_bytes);
    }
    assert!(many.client.iter().any(|c| c.packet.payload > 10 * plain.mss));
    assert!(many.client.len() * 5 < one.client.len() * 2);
}
