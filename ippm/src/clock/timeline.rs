//! Relations one after another, for clocks that are set or steered meanwhile.

use super::{Bounded, Relation, RelationError};
use crate::oneway::Passage;

/// How many halvings at most: 1,024 windows.
const MAX_DEPTH: u32 = 10;

/// Relations over windows that follow each other: as few as explain the packets.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Each with the first moment (A's clock) that is its own.
    windows: Vec<(u64, Relation)>,
}

impl Timeline {
    /// One relation if clocks ran evenly all the time; else time is halved until they did in each part. A part with
    /// packets of one direction alone, or that is still not even after ten halvings, has no relation of its own and
    /// makes the whole an error: bounds that do not hold are worse than none.
    ///
    /// A change of rate that no packet was near enough to show is not found, and cannot be.
    pub fn find(forward: &[Passage], reverse: &[Passage], slack_ns: u64) -> Result<Self, RelationError> {
        let mut timeline = Self { windows: Vec::new() };
        let mut forward = forward.to_vec();
        let mut reverse = reverse.to_vec();
        forward.sort_unstable_by_key(|p| p.sent_ns);
        reverse.sort_unstable_by_key(|p| p.received_ns);
        timeline.split(&forward, &reverse, slack_ns, 0)?;
        Ok(timeline)
    }

    fn split(
        &mut self,
        forward: &[Passage],
        reverse: &[Passage],
        slack_ns: u64,
        depth: u32,
    ) -> Result<(), RelationError> {
        match Relation::find(forward, reverse, slack_ns) {
            Ok(relation) => {
                let first = forward.first().map(|p| p.sent_ns).into_iter();
                let first = first.chain(reverse.first().map(|p| p.received_ns)).min().unwrap_or(0);
                self.windows.push((first, relation));
                Ok(())
            }
            Err(RelationError::NotEven) if depth < MAX_DEPTH => {
                let times = |from: fn(&[Passage]) -> Option<&Passage>| {
                    [from(forward).map(|p| p.sent_ns), from(reverse).map(|p| p.received_ns)]
                        .into_iter()
                        .flatten()
                };
                let first = times(<[Passage]>::first).min().unwrap_or(0);
                let last = times(<[Passage]>::last).max().unwrap_or(0);
                let middle = first.midpoint(last);
                let (f0, f1) = forward.split_at(forward.partition_point(|p| p.sent_ns < middle));
                let (r0, r1) = reverse.split_at(reverse.partition_point(|p| p.received_ns < middle));
                self.split(f0, r0, slack_ns, depth + 1)?;
                self.split(f1, r1, slack_ns, depth + 1)
            }
            Err(error) => Err(error),
        }
    }

    /// The relation at a moment of A's clock.
    pub fn at(&self, ns: u64) -> &Relation {
        let at = self.windows.partition_point(|(first, _)| *first <= ns).saturating_sub(1);
        &self.windows[at].1
    }

    /// How many windows there are; more than one means that a clock was set or steered.
    pub fn windows(&self) -> impl ExactSizeIterator<Item = &Relation> {
        self.windows.iter().map(|(_, relation)| relation)
    }

    /// The hard bound of offsets over all the time that packets were seen in, nanoseconds.
    pub fn worst_error_ns(&self) -> f64 {
        self.windows().map(Relation::worst_error_ns).fold(0.0, f64::max)
    }

    /// One-way delay of a packet from A's side to B's.
    pub fn forward_delay(&self, passage: &Passage) -> Bounded {
        self.at(passage.sent_ns).forward_delay(passage)
    }

    /// One-way delay of a packet from B's side to A's.
    pub fn reverse_delay(&self, passage: &Passage) -> Bounded {
        self.at(passage.received_ns).reverse_delay(passage)
    }
}
