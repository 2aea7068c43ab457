//! Counters that come from outside: a histogram's wire form, tables of names, aggregators.
#![no_main]

use std::collections::BTreeSet;

use ippm::difference::NameTable;
use ippm::histogram::Histogram;
use ippm::lda::{FlowLda, Lda};
use ippm::select::Digest;
use libfuzzer_sys::fuzz_target;

type Input<'a> = (&'a [u8], Vec<(u64, u8)>, BTreeSet<u16>, BTreeSet<u16>, Vec<(u64, u64, u8)>);

fuzz_target!(|input: Input| {
    let (wire, values, mine, theirs, packets) = input;
    let mut histogram = histograms(wire, &values);
    histogram.merge(&histogram.clone());
    names(&mine, &theirs);
    aggregators(&packets);
});

fn histograms(wire: &[u8], values: &[(u64, u8)]) -> Histogram {
    let mut own = Histogram::new();
    for (ns, times) in values {
        own.record_many(*ns, u64::from(*times));
    }
    let count: u64 = values.iter().map(|(_, times)| u64::from(*times)).sum();
    assert_eq!(own.count(), count);
    let Ok(other) = postcard::from_bytes::<Histogram>(wire) else { return own };
    let again = postcard::to_stdvec(&other).expect("a histogram can be written");
    assert_eq!(postcard::from_bytes::<Histogram>(&again).as_ref(), Ok(&other));
    let mut both = own.clone();
    both.merge(&other);
    let mut turned = other.clone();
    turned.merge(&own);
    assert_eq!(both, turned);
    assert_eq!(both.count(), own.count().saturating_add(other.count()));
    for h in [&other, &both, &both.subtract(&other), &own.subtract(&other)] {
        let (min, max) = (h.min_ns().unwrap_or(0), h.max_ns().unwrap_or(0));
        let mut last = min;
        for q in [0.0, 0.5, 0.99, 1.0] {
            let quantile = h.quantile(q).unwrap_or(max);
            assert!((last..=max).contains(&quantile));
            last = quantile;
        }
    }
    both
}

fn names(mine: &BTreeSet<u16>, theirs: &BTreeSet<u16>) {
    let (mut a, mut b) = (NameTable::new(20, 3), NameTable::new(20, 3));
    mine.iter().for_each(|name| a.add(u64::from(*name)));
    theirs.iter().for_each(|name| b.add(u64::from(*name)));
    let found = a.difference(&b).expect("tables of one kind");
    let is_in = |set: &BTreeSet<u16>, name: u64| u16::try_from(name).is_ok_and(|name| set.contains(&name));
    assert!(found.first_only.iter().all(|name| is_in(mine, *name) && !is_in(theirs, *name)));
    assert!(found.second_only.iter().all(|name| is_in(theirs, *name) && !is_in(mine, *name)));
    if found.complete {
        assert_eq!(found.first_only.len(), mine.difference(theirs).count());
        assert_eq!(found.second_only.len(), theirs.difference(mine).count());
    }
}

fn aggregators(packets: &[(u64, u64, u8)]) {
    let (mut sender, mut receiver) = (Lda::new(3), Lda::new(3));
    let (mut one, mut other) = (FlowLda::default(), FlowLda::default());
    let mut arrived = 0;
    for (select, ns, took) in packets {
        let digest = Digest { select: *select, name: select.rotate_left(32) };
        sender.add(digest, *ns);
        one.add(digest, *ns);
        // A delay of 0 is a packet that was lost.
        if *took > 0 {
            arrived += 1;
            receiver.add(digest, ns.wrapping_add(u64::from(*took)));
            other.add(digest, ns.wrapping_add(u64::from(*took)));
        }
    }
    for estimate in [sender.compare(&receiver), one.compare(&other)].into_iter().flatten() {
        assert!((1.0..=255.0).contains(&estimate.mean_ns), "{estimate:?}");
        assert!(estimate.packets <= arrived);
        assert_eq!(estimate.loss.trials, packets.len() as u64);
        assert_eq!(estimate.loss.hits, packets.len() as u64 - arrived);
    }
}
