//! The sender's side of a session.

use std::collections::VecDeque;

use super::packet::{ErrorEstimate, ReflectorPacket, SenderPacket};
use crate::clock::{RelationError, Timeline};
use crate::oneway::Passage;

/// Probes that an answer is waited for; older ones are forgotten, and answers to them refused.
pub(super) const MOST_OPEN: usize = 1_024;
/// Exchanges that are kept, however long the window is.
pub(super) const MOST_KEPT: usize = 4_096;

/// Why an answer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Of another session.
    #[error("a STAMP answer of another session")]
    Session,
    /// To a probe that was not sent, is answered already, or was sent too long ago.
    #[error("a STAMP answer to no probe that waits for one")]
    Unknown,
    /// Its T1 is not the one that the probe was sent with.
    #[error("a STAMP answer that quotes another time of sending")]
    Sent,
    /// It came before the probe was sent, or was sent before the probe arrived.
    #[error("a STAMP answer with times in an order that cannot be")]
    Order,
}

/// What became of a session's probes since it began. Probes without an answer are lost or still on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Probes.
    pub sent: u64,
    /// Answers taken: at most one for each probe.
    pub answered: u64,
    /// Answers not taken, duplicates among them.
    pub refused: u64,
}

/// A probe and its answer: T1 and T2, T3 and T4.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    forward: Passage,
    reverse: Passage,
}

impl Exchange {
    /// `None` if the reflector claims to have kept the probe for longer than it was away.
    const fn round_trip_ns(&self) -> Option<u64> {
        let away = self.reverse.received_ns - self.forward.sent_ns;
        away.checked_sub(self.reverse.sent_ns - self.forward.received_ns)
    }
}

/// The sender's side of one session: sends, takes answers once each, and keeps those of a window for clock estimation.
///
/// Bounded: the 1,024 newest probes wait for an answer, and at most 4,096 exchanges are kept, the newest ones.
#[derive(Clone, Debug)]
pub struct Exchanges {
    ssid: u16,
    window_ns: u64,
    next: u32,
    /// T1 of the newest probes in the order of their numbers, the last of which is `next - 1`; `None` once answered.
    open: VecDeque<Option<u64>>,
    /// By T4.
    kept: VecDeque<Exchange>,
    counters: Counters,
}

impl Exchanges {
    /// A session without probes. Exchanges that ended more than `window_ns` before the newest are dropped.
    pub const fn new(ssid: u16, window_ns: u64) -> Self {
        let counters = Counters { sent: 0, answered: 0, refused: 0 };
        Self { ssid, window_ns, next: 0, open: VecDeque::new(), kept: VecDeque::new(), counters }
    }

    /// The next probe, sent at `now_ns` (T1) of this host's monotonic clock.
    pub fn next(&mut self, now_ns: u64) -> SenderPacket {
        let seq = self.next;
        self.next = seq.wrapping_add(1);
        if self.open.len() == MOST_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(Some(now_ns));
        self.counters.sent += 1;
        SenderPacket { seq, sent_ns: now_ns, error: ErrorEstimate::MONOTONIC, ssid: self.ssid }
    }

    /// Takes an answer that arrived at `now_ns` (T4). A probe whose answer is refused still waits for one.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; the answer is counted and forgotten.
    pub fn answered(&mut self, packet: &ReflectorPacket, now_ns: u64) -> Result<(), Refused> {
        let taken = self.take(packet, now_ns);
        *(if taken.is_ok() { &mut self.counters.answered } else { &mut self.counters.refused }) += 1;
        taken
    }

    fn take(&mut self, packet: &ReflectorPacket, now_ns: u64) -> Result<(), Refused> {
        if packet.ssid != self.ssid {
            return Err(Refused::Session);
        }
        // 1 is the newest probe; numbers not sent yet are so old that none of them waits.
        let age = self.next.wrapping_sub(packet.sender_seq) as usize;
        let waits = self.open.len().checked_sub(age).and_then(|at| self.open.get_mut(at));
        let Some((waits, sent_ns)) = waits.and_then(|waits| waits.map(|sent_ns| (waits, sent_ns))) else {
            return Err(Refused::Unknown);
        };
        if packet.sender_sent_ns != sent_ns {
            return Err(Refused::Sent);
        }
        if now_ns < sent_ns || packet.sent_ns < packet.received_ns {
            return Err(Refused::Order);
        }
        *waits = None;
        self.keep(Exchange {
            forward: Passage { sent_ns, received_ns: packet.received_ns },
            reverse: Passage { sent_ns: packet.sent_ns, received_ns: now_ns },
        });
        Ok(())
    }

    fn keep(&mut self, exchange: Exchange) {
        let ended = exchange.reverse.received_ns;
        // The end, unless the caller hands in answers out of order.
        let at = self.kept.partition_point(|kept| kept.reverse.received_ns <= ended);
        self.kept.insert(at, exchange);
        let newest = self.kept.back().map_or(ended, |kept| kept.reverse.received_ns);
        let oldest = newest.saturating_sub(self.window_ns);
        let old = self.kept.partition_point(|kept| kept.reverse.received_ns < oldest);
        self.kept.drain(..old.max(self.kept.len().saturating_sub(MOST_KEPT)));
    }

    /// The window's probes (T1, T2) and answers (T3, T4), each list in the order in which the answers arrived: what
    /// [`Timeline::find`] takes, with this host as A.
    pub fn passages(&self) -> [Vec<Passage>; 2] {
        let way = |of: fn(&Exchange) -> Passage| self.kept.iter().map(of).collect();
        [way(|exchange| exchange.forward), way(|exchange| exchange.reverse)]
    }

    /// How the reflector's clock relates to this host's in the window. `slack_ns` is the coarser of their resolutions.
    ///
    /// # Errors
    ///
    /// [`RelationError::OneDirection`] without any exchange; [`RelationError::NotEven`] if a clock was set or steered in a
    /// way that cannot be told apart.
    pub fn timeline(&self, slack_ns: u64) -> Result<Timeline, RelationError> {
        let [forward, reverse] = self.passages();
        Timeline::find(&forward, &reverse, slack_ns)
    }

    /// The least round trip of the window, without the reflector's part: (T4 - T1) - (T3 - T2), nanoseconds.
    pub fn round_trip_ns(&self) -> Option<u64> {
        self.kept.iter().filter_map(Exchange::round_trip_ns).min()
    }

    /// What was sent and came back since the session began.
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}
