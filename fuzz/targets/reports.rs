//! Matching of reports: whatever two points claim, nothing is counted twice or not at all, and their order says nothing.
#![no_main]

use ippm::metric::reordering;
use ippm::oneway::Listening;
use ippm::oneway::packets::{Report, match_reports};
use libfuzzer_sys::fuzz_target;

type Reports = Vec<(u8, u64)>;

fuzz_target!(|input: (Reports, Reports, [u64; 4], Option<(i64, i64)>)| {
    let (sent, received, [a, b, c, d], known) = input;
    let list = |from: &Reports| -> Vec<Report> {
        from.iter().map(|(name, ns)| Report { name: u64::from(*name), ns: *ns }).collect()
    };
    let here = Listening { first_ns: a, last_ns: b };
    let there = Listening { first_ns: c, last_ns: d };
    let m = match_reports(&mut list(&sent), &mut list(&received), here, there, known);
    let passages = m.passages.len() as u64;
    assert_eq!(m.sent, sent.len() as u64);
    assert_eq!(m.sent, passages + m.ambiguous + m.lost + m.undecided);
    assert!(passages + m.ambiguous + m.duplicates + m.unsent <= received.len() as u64);
    for passage in &m.passages {
        let at = |list: &Reports, name: u8, ns| list.iter().filter(|r| r.0 == name && r.1 == ns).count();
        assert!(sent.iter().any(|(name, ns)| {
            *ns == passage.sent_ns
                && sent.iter().filter(|other| other.0 == *name).count() == 1
                && at(&received, *name, passage.received_ns) > 0
        }));
    }
    let (mut turned, mut back) = (list(&sent), list(&received));
    turned.reverse();
    back.reverse();
    assert_eq!(m, match_reports(&mut turned, &mut back, here, there, known));
    let found = reordering::judge(m.passages.iter().map(|p| (p.sent_ns, p.received_ns)));
    assert_eq!((found.arrived, found.reordered), (passages, 0));
    if let Some((low, high)) = m.loss().wilson(1.96) {
        assert!(0.0 <= low && low <= high && high <= 1.0);
    }
});
