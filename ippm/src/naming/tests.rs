use proptest::prelude::*;

use super::*;

const A: &str = "a";
const B: &str = "b";

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds)
}

fn one() -> IpAddr {
    IpAddr::from([172, 17, 0, 2])
}

#[test]
fn an_address_used_again_names_each_packet_by_its_time() {
    let mut map = AddressMap::default();
    map.insert(one(), A, at(10));
    assert!(map.close(&one(), &A, at(20)));
    map.insert(one(), B, at(23));
    assert_eq!(map.lookup_at(&one(), at(9)), None);
    assert_eq!(map.lookup_at(&one(), at(10)), Some(&A));
    assert_eq!(map.lookup_at(&one(), at(19)), Some(&A));
    assert_eq!(map.lookup_at(&one(), at(20)), None);
    assert_eq!(map.lookup_at(&one(), at(u64::MAX - 1)), Some(&B));
    assert_eq!(map.lookup_range(&one(), at(5), at(9)), Lookup::None);
    assert_eq!(map.lookup_range(&one(), at(5), at(22)), Lookup::Single(&A));
    assert_eq!(map.lookup_range(&one(), at(19), at(23)), Lookup::Mixed);
    assert_eq!(map.lookup_range(&one(), at(24), at(19)), Lookup::Mixed, "order does not matter");
    assert_eq!(map.lookup_range(&IpAddr::from([1; 4]), at(0), at(99)), Lookup::None);
}

#[test]
fn a_late_end_of_a_former_owner_changes_nothing() {
    let mut map = AddressMap::default();
    map.insert(one(), A, at(10));
    map.insert(one(), B, at(20));
    assert!(!map.close(&one(), &A, at(25)));
    assert!(map.close(&one(), &A, at(15)), "an earlier end than the one assumed is taken");
    assert_eq!(map.lookup_at(&one(), at(17)), None);
    assert_eq!(map.lookup_at(&one(), at(30)), Some(&B));
}

#[test]
fn a_beginning_learnt_late_fills_the_time_before_the_next_owner() {
    let mut map = AddressMap::default();
    map.insert(one(), B, at(20));
    map.insert(one(), A, at(10));
    map.insert(one(), B, at(18));
    assert_eq!(
        map.intervals(&one()),
        [
            Interval { since: at(10), until: at(18), owner: A },
            Interval { since: at(18), until: Timestamp::MAX, owner: B }
        ]
    );
}

#[test]
fn a_beginning_repeated_after_the_end_does_not_revive() {
    let mut map = AddressMap::default();
    map.insert(one(), A, at(10));
    map.close(&one(), &A, at(20));
    map.insert(one(), A, at(10));
    assert_eq!(map.lookup_at(&one(), at(20)), None);
    map.insert(one(), A, at(20));
    assert_eq!(map.intervals(&one()), [Interval { since: at(10), until: Timestamp::MAX, owner: A }]);
}

#[test]
fn memory_is_bounded_and_the_loss_is_counted() {
    let mut map = AddressMap::new(3);
    for i in 0..10u64 {
        map.insert(one(), i, at(i));
    }
    assert_eq!(map.intervals(&one()).len(), 3);
    assert_eq!(map.forgotten(), 7);
    assert_eq!(map.lookup_at(&one(), at(9)), Some(&9));
    assert_eq!(map.prune(at(8)), 1);
    assert_eq!(map.prune(Timestamp::MAX), 1, "what has no known end stays");
    assert!(map.close(&one(), &9, at(12)));
    assert_eq!(map.prune(at(12)), 1);
    assert!(map.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64),
    Close(u8, u64),
    Resume(u8, u64),
    Prune(u64),
}

const END: u64 = 40;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u8..4, 0..END).prop_map(|(o, t)| Step::Insert(o, t)),
        3 => (0u8..4, 0..END).prop_map(|(o, t)| Step::Close(o, t)),
        2 => (0u8..4, 0..END).prop_map(|(o, t)| Step::Resume(o, t)),
        1 => (0..END).prop_map(Step::Prune),
    ];
    prop::collection::vec(step, 0..40)
}

/// One owner per moment, moments 0 to END; the last stands for all that follow.
#[derive(Clone, Debug, PartialEq)]
struct Model(Vec<Option<u8>>);

impl Model {
    /// The first moment after `t` when another stretch ends or begins, with END + 1 for none.
    fn run_end(&self, t: usize) -> usize {
        (t + 1..self.0.len()).find(|&i| self.0[i] != self.0[t]).unwrap_or(self.0.len())
    }

    /// Who had it last, up to `t`.
    fn had(&self, t: usize) -> Option<u8> {
        self.0[..=t].iter().flatten().last().copied()
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Insert(owner, since) => {
                let since = since as usize;
                if self.0[since] == Some(owner) {
                    return;
                }
                let next = (since + 1..self.0.len())
                    .find(|&i| self.0[i].is_some() && self.0[i] != self.0[i - 1])
                    .unwrap_or(self.0.len());
                self.0[since..next].fill(Some(owner));
            }
            Step::Close(owner, until) => {
                let until = until as usize;
                if self.0[until] == Some(owner) {
                    let end = self.run_end(until);
                    self.0[until..end].fill(None);
                }
            }
            Step::Resume(owner, at) => {
                let at = at as usize;
                if self.had(at) == Some(owner) && self.0[at].is_none() {
                    let from = (0..at).rfind(|&i| self.0[i].is_some()).unwrap_or(0);
                    let until = (at..self.0.len()).find(|&i| self.0[i].is_some()).unwrap_or(self.0.len());
                    self.0[from..until].fill(Some(owner));
                }
            }
            Step::Prune(before) => {
                let mut i = 0;
                while i < self.0.len() {
                    let end = self.run_end(i);
                    if end <= before as usize {
                        self.0[i..end].fill(None);
                    }
                    i = end;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn behaves_as_one_owner_per_moment(steps in steps(), ranges in prop::collection::vec((0..=END, 0..=END), 20)) {
        let mut map = AddressMap::new(1000);
        let mut model = Model(vec![None; END as usize + 1]);
        for step in &steps {
            match step {
                Step::Insert(owner, since) => map.insert(one(), *owner, at(*since)),
                Step::Close(owner, until) => {
                    let had = model.0[*until as usize] == Some(*owner);
                    prop_assert_eq!(map.close(&one(), owner, at(*until)), had);
                }
                Step::Resume(owner, t) => {
                    let had = model.had(*t as usize) == Some(*owner);
                    prop_assert_eq!(map.resume(&one(), owner, at(*t)), had);
                }
                Step::Prune(before) => {
                    let before_count = map.intervals(&one()).len();
                    let pruned = map.prune(at(*before));
                    prop_assert_eq!(before_count - pruned, map.intervals(&one()).len());
                }
            }
            model.apply(step);
            let list = map.intervals(&one());
            prop_assert!(list.iter().all(|i| i.since < i.until));
            prop_assert!(list.windows(2).all(|w| w[0].until < w[1].since
                || (w[0].until == w[1].since && w[0].owner != w[1].owner)), "{:?}", list);
            for t in 0..=END {
                prop_assert_eq!(map.lookup_at(&one(), at(t)), model.0[t as usize].as_ref(), "at {} after {:?}", t, step);
            }
        }
        for (a, b) in ranges {
            let (first, last) = (a.min(b) as usize, a.max(b) as usize);
            let mut owners: Vec<_> = model.0[first..=last].iter().flatten().collect();
            owners.sort();
            owners.dedup();
            let expected = match owners[..] {
                [] => Lookup::None,
                [owner] => Lookup::Single(owner),
                _ => Lookup::Mixed,
            };
            prop_assert_eq!(map.lookup_range(&one(), at(a), at(b)), expected);
        }
    }

    #[test]
    fn saying_it_twice_changes_nothing(steps in steps()) {
        let mut once = AddressMap::new(1000);
        let mut twice = AddressMap::new(1000);
        for step in &steps {
            for (map, times) in [(&mut once, 1), (&mut twice, 2)] {
                for _ in 0..times {
                    match step {
                        Step::Insert(owner, since) => map.insert(one(), *owner, at(*since)),
                        Step::Close(owner, until) => { map.close(&one(), owner, at(*until)); }
                        Step::Resume(owner, t) => { map.resume(&one(), owner, at(*t)); }
                        Step::Prune(before) => { map.prune(at(*before)); }
                    }
                }
            }
            prop_assert_eq!(once.intervals(&one()), twice.intervals(&one()));
        }
    }
}
