//! How two clocks relate: any times are related or refused, and the bounds hold for clocks that do run evenly.
#![no_main]

use ippm::clock::{Minimum, Relation, Timeline};
use ippm::model::EPOCH_NS;
use ippm::model::law::Clock;
use ippm::oneway::Passage;
use libfuzzer_sys::fuzz_target;

type Times = Vec<(u64, u64)>;

fuzz_target!(|input: (Times, Times, u64, u64, [(i32, i16); 2], Vec<(bool, u32, u32)>)| {
    let (forward, reverse, slack, at, clocks, packets) = input;
    any(&forward, &reverse, slack, at);
    even(clocks, &packets);
});

fn any(forward: &Times, reverse: &Times, slack: u64, at: u64) {
    let list = |times: &Times| -> Vec<Passage> {
        times
            .iter()
            .map(|(sent_ns, received_ns)| Passage { sent_ns: *sent_ns, received_ns: *received_ns })
            .collect()
    };
    let (forward, reverse) = (list(forward), list(reverse));
    if let Ok(relation) = Relation::find(&forward, &reverse, slack) {
        relation.bounds_at(at);
        relation.other_time(at);
        relation.worst_error_ns();
    }
    if let Ok(timeline) = Timeline::find(&forward, &reverse, slack) {
        assert!(timeline.windows().len() >= 1);
        for passage in forward.iter().chain(&reverse) {
            timeline.forward_delay(passage);
            timeline.reverse_delay(passage);
        }
    }
    let mut minimum = Minimum::default();
    forward.iter().for_each(|p| minimum.forward(p.raw_delay_ns(), p.sent_ns));
    reverse.iter().for_each(|p| minimum.reverse(p.raw_delay_ns(), p.received_ns));
    minimum.offset(1e-4);
}

/// Clocks up to 2 s apart and 328 ppm fast or slow, packets within 4 s, delays up to 4 s.
fn even(clocks: [(i32, i16); 2], packets: &[(bool, u32, u32)]) {
    let [a, b] = clocks.map(|(offset, skew)| Clock {
        offset_ns: offset.into(),
        skew_ppm: f64::from(skew) / 100.0,
        resolution_ns: 1,
    });
    let (mut forward, mut reverse) = (Vec::new(), Vec::new());
    for (way, after, took) in packets {
        let sent = EPOCH_NS + u64::from(*after);
        let received = sent + u64::from(*took);
        if *way {
            forward.push(Passage { sent_ns: a.reading(sent), received_ns: b.reading(received) });
        } else {
            reverse.push(Passage { sent_ns: b.reading(sent), received_ns: a.reading(received) });
        }
    }
    if forward.is_empty() || reverse.is_empty() {
        return;
    }
    let relation = Relation::find(&forward, &reverse, 1).expect("these clocks run evenly");
    for i in 0..5 {
        let now = EPOCH_NS + i * 1_000_000_000;
        let truth = b.error_at(now) - a.error_at(now) - relation.base_ns() as f64;
        let (low, high) = relation.bounds_at(a.reading(now));
        // Where the bounds are an hour wide, a double's rounding is no matter.
        assert!(low - 1.0 <= truth && truth <= high + 1.0, "{low} {truth} {high}");
    }
}
