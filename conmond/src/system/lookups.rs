//! Addresses that were seen and are nobody's yet, and when the registry is asked for each again. Pure: no I/O and no clock.
//!
//! A container may send before its host's row has come to the registry, and may be over by then: whoever asks only once, when the
//! packet is seen, leaves its conversation with an address for ever.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use ippm::time::Timestamp;

/// Addresses that are looked for at one time.
const ROOM: usize = 16_384;
/// When an address that nobody has is asked for again: just after the registry's cache would ask anew itself.
const AGAIN: [Duration; 10] = [
    Duration::from_millis(25),
    Duration::from_millis(45),
    Duration::from_millis(85),
    Duration::from_millis(165),
    Duration::from_millis(330),
    Duration::from_millis(650),
    Duration::from_millis(1_300),
    Duration::from_millis(2_600),
    Duration::from_millis(5_200),
    Duration::from_millis(10_400),
];
/// An address that nobody has after all that is left alone for this long.
const GIVEN_UP: Duration = Duration::from_secs(30);
/// An address that was not seen for so long is looked for no longer while the registry does not answer.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// A registry that does not answer is asked again after this, at first; then after twice as long each time.
const UNHEARD: Duration = Duration::from_millis(200);
/// And at most.
const UNHEARD_MOST: Duration = Duration::from_secs(5);

/// What came of asking for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is known whose it was.
    Known,
    /// The registry answered, and knows nobody.
    Nobody,
    /// The registry did not answer.
    Unheard,
}

/// An address to ask for, and from when to when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address.
    pub address: IpAddr,
    /// The first packet.
    pub first: Timestamp,
    /// The newest packet.
    pub last: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Sought {
    first: Timestamp,
    last: Timestamp,
    /// Answers that named nobody.
    tries: usize,
    /// Questions without an answer, one after the other.
    unheard: u32,
    /// When somebody saw it last.
    seen_at: Timestamp,
    /// When it is asked for; none while it is being asked for.
    due: Option<Timestamp>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupCounters {
    /// Addresses that nobody had.
    pub given_up: u64,
    /// Addresses not asked for, for want of room.
    pub full: u64,
}

/// The addresses that are looked for.
#[derive(Debug)]
pub struct Lookups {
    sought: HashMap<IpAddr, Sought>,
    /// Those that wait, by when they are due.
    due: BTreeSet<(Timestamp, IpAddr)>,
    room: usize,
    /// What it did.
    pub counters: LookupCounters,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::new(ROOM)
    }
}

impl Lookups {
    /// With room for so many addresses.
    pub fn new(room: usize) -> Self {
        Self { sought: HashMap::new(), due: BTreeSet::new(), room, counters: LookupCounters::default() }
    }

    /// An address was seen, and nobody knows whose it was then.
    pub fn seen(&mut self, sighting: Sighting, now: Timestamp) {
        let Sighting { address, first, last } = sighting;
        if let Some(sought) = self.sought.get_mut(&address) {
            sought.first = sought.first.min(first);
            sought.last = sought.last.max(last);
            sought.seen_at = now;
        } else if self.sought.len() >= self.room {
            self.counters.full += 1;
        } else {
            self.sought
                .insert(address, Sought { first, last, tries: 0, unheard: 0, seen_at: now, due: Some(now) });
            self.due.insert((now, address));
        }
    }

    /// When something is due next.
    pub fn due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is to be asked for now. Each is to be [`answered`](Self::answered).
    pub fn questions(&mut self, now: Timestamp) -> Vec<Sighting> {
        let mut questions = Vec::new();
        while let Some((due, address)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, address));
            let Some(sought) = self.sought.get_mut(&address) else { continue };
            let is_forgotten = sought.unheard > 0 && now - sought.seen_at > FORGOTTEN;
            self.counters.given_up += u64::from(is_forgotten);
            if is_forgotten || sought.tries > AGAIN.len() {
                // whoever sees it from now on asks for it anew
                self.sought.remove(&address);
                continue;
            }
            sought.due = None;
            questions.push(Sighting { address, first: sought.first, last: sought.last });
        }
        questions
    }

    /// Something was heard of an address; `outcome` tells what that is to who had it from a time to another. An address that is not looked for is
    /// none of ours.
    pub fn answered(
        &mut self,
        address: IpAddr,
        outcome: impl FnOnce(Timestamp, Timestamp) -> Outcome,
        now: Timestamp,
    ) {
        let Some(sought) = self.sought.get_mut(&address) else { return };
        let pause = match outcome(sought.first, sought.last) {
            Outcome::Known => {
                if let Some(due) = sought.due {
                    self.due.remove(&(due, address));
                }
                self.sought.remove(&address);
                return;
            }
            // the registry spoke of it unasked
            _ if sought.due.is_some() => return,
            Outcome::Nobody => {
                sought.unheard = 0;
                sought.tries += 1;
                AGAIN.get(sought.tries - 1).copied().unwrap_or_else(|| {
                    self.counters.given_up += 1;
                    GIVEN_UP
                })
            }
            Outcome::Unheard => {
                sought.unheard = sought.unheard.saturating_add(1);
                UNHEARD.saturating_mul(1 << (sought.unheard - 1).min(16)).min(UNHEARD_MOST)
            }
        };
        sought.due = Some(now + pause);
        self.due.insert((now + pause, address));
    }

    /// Addresses that are looked for; those that were given up are not.
    pub fn waiting(&self) -> usize {
        self.sought.values().filter(|sought| sought.tries <= AGAIN.len()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn sighting(last: u8, from: u64, to: u64) -> Sighting {
        Sighting { address: address(last), first: Timestamp(from), last: Timestamp(to) }
    }

    /// Answers all questions alike until the clock is at `end`, from the first that is due on; when they were asked.
    fn asked(lookups: &mut Lookups, outcome: Outcome, end: Timestamp) -> Vec<Timestamp> {
        let mut at = Vec::new();
        while let Some(due) = lookups.due().filter(|due| *due <= end) {
            for question in lookups.questions(due) {
                lookups.answered(question.address, |_, _| outcome, due);
                at.push(due);
            }
        }
        at
    }

    #[test]
    fn who_nobody_has_is_asked_for_again_ever_more_seldom_then_left_alone() {
        let mut l = Lookups::default();
        l.seen(sighting(1, 5, 6), Timestamp(10));
        let at = asked(&mut l, Outcome::Nobody, Timestamp(10) + 20 * SECOND + SECOND);
        assert_eq!(at.len(), AGAIN.len() + 1);
        assert!(at.windows(3).all(|w| w[2] - w[1] > w[1] - w[0]), "{at:?}");
        assert_eq!((l.counters.given_up, l.waiting(), l.sought.len()), (1, 0, 1));
        // seen again meanwhile: not asked for
        l.seen(sighting(1, 5, 99), Timestamp(10) + 22 * SECOND);
        assert_eq!(asked(&mut l, Outcome::Nobody, Timestamp(10) + 100 * SECOND), []);
        assert_eq!(l.sought.len(), 0);
        l.seen(sighting(1, 5, 99), Timestamp(10) + 100 * SECOND);
        assert_eq!(l.questions(Timestamp(10) + 100 * SECOND), [sighting(1, 5, 99)]);
    }

    #[test]
    fn a_registry_that_does_not_answer_is_asked_for_as_long_as_it_takes() {
        let mut l = Lookups::default();
        l.seen(sighting(1, 5, 6), Timestamp(10));
        let later = Timestamp(10) + 800 * SECOND;
        let at = asked(&mut l, Outcome::Unheard, later);
        assert!((160..175).contains(&at.len()) && l.counters.given_up == 0, "{}", at.len());
        assert!(l.due().unwrap() - later <= UNHEARD_MOST);
        // it is back: as if it had been there at once
        assert_eq!(asked(&mut l, Outcome::Nobody, later + 60 * SECOND).len(), AGAIN.len() + 1);
        // for a conversation that was over long ago it is given up
        l.seen(sighting(2, 5, 6), Timestamp(10));
        asked(&mut l, Outcome::Unheard, Timestamp(10) + FORGOTTEN + 2 * UNHEARD_MOST);
        assert_eq!((l.sought.len(), l.counters.given_up), (0, 2));
    }

    #[test]
    fn all_sightings_of_an_address_are_one_question_and_its_name_ends_it() {
        let mut l = Lookups::default();
        l.seen(sighting(1, 50, 60), Timestamp(100));
        l.seen(sighting(1, 40, 70), Timestamp(100));
        l.seen(sighting(2, 1, 2), Timestamp(100));
        assert_eq!(l.questions(Timestamp(99)), []);
        assert_eq!(l.questions(Timestamp(100)), [sighting(1, 40, 70), sighting(2, 1, 2)]);
        assert_eq!((l.due(), l.questions(Timestamp(200))), (None, vec![]), "on their way");
        l.answered(address(1), |_, _| Outcome::Known, Timestamp(101));
        l.answered(address(2), |_, _| Outcome::Nobody, Timestamp(101));
        l.answered(address(2), |_, _| Outcome::Nobody, Timestamp(102));
        assert_eq!(l.due(), Some(Timestamp(101) + AGAIN[0]), "what was said unasked does not count");
        // the registry tells of it before it is asked again
        l.answered(address(2), |_, _| Outcome::Known, Timestamp(103));
        assert_eq!((l.due(), l.waiting()), (None, 0));
        l.answered(address(3), |_, _| Outcome::Nobody, Timestamp(103));
        assert_eq!(l.waiting(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut l = Lookups::new(1);
        l.seen(sighting(1, 5, 6), Timestamp(10));
        l.seen(sighting(2, 5, 6), Timestamp(10));
        l.seen(sighting(1, 5, 7), Timestamp(10));
        assert_eq!((l.waiting(), l.counters.full), (1, 1));
    }
}
