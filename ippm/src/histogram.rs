//! A mergeable log-linear histogram of delays, with exactly the buckets the tap counts into (`CM_HIST_*` of
//! `tap/bpf/conmon.h`), so kernel counts are taken over without loss.
//!
//! Buckets are 64 ns wide below 2,048 ns and double their width every octave above, 16 buckets to the octave.
//! A bucket is therefore never wider than 1/16 of the values in it (from 1,024 ns on), and its middle is never
//! farther than 1/32 from any of them. The last bucket also holds all that is longer than its start (16.6 s).
//!
//! Counts, not quantiles, are what is stored, sent and summed: quantiles of several pairs come from the merged
//! counts, never from an average of quantiles.

mod recorder;

pub use recorder::Recorder;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Buckets in a histogram.
pub const BUCKETS: usize = 400;

/// log2 of the sub-buckets in one octave.
const SUB_BITS: u32 = 4;
/// log2 of the smallest bucket's width in nanoseconds.
const UNIT_BITS: u32 = 6;
/// Sub-buckets in one octave.
const SUBS: usize = 1 << SUB_BITS;

/// Octaves: the first is what lies below 1,024 ns.
const OCTAVES: usize = BUCKETS / SUBS;

/// The largest relative error of [`Histogram::quantile`] for values from 1,024 ns to 2^34 ns: half a bucket.
pub const RELATIVE_ERROR: f64 = 1.0 / 32.0;
/// The largest error of [`Histogram::quantile`] for values below 1,024 ns: half a bucket.
pub const ABSOLUTE_ERROR_NS: u64 = 32;

/// The bucket that counts a delay of `ns` nanoseconds.
#[inline]
pub const fn bucket_of(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    if units < SUBS as u64 {
        return units as usize;
    }
    // A double's exponent and the first bits of its fraction are the octave and its part, and are had for less than a
    // logarithm. Below 2^34, where buckets end, no double is rounded.
    let ns = if ns < END_NS { ns } else { END_NS - 1 };
    let place = (ns as i64 as f64).to_bits() >> (f64::MANTISSA_DIGITS - 1 - SUB_BITS);
    (place as usize).wrapping_sub(FIRST_PLACE)
}

/// The first delay beyond all buckets.
const END_NS: u64 = 1 << (UNIT_BITS + SUB_BITS + (BUCKETS / SUBS - 1) as u32);
/// What [`bucket_of`] finds in a double for the first delay of octave 1, less that octave's first bucket.
const FIRST_PLACE: usize = ((f64::MAX_EXP - 1) as usize + (UNIT_BITS + SUB_BITS) as usize) * SUBS - SUBS;

/// The delays that bucket `index` counts, in nanoseconds: from the first, up to but without the second.
///
/// The last bucket reaches to `u64::MAX`, and so do the bounds of an index that does not exist.
pub const fn bucket_bounds(index: usize) -> (u64, u64) {
    let low = bucket_start(index);
    if index + 1 >= BUCKETS { (low, u64::MAX) } else { (low, bucket_start(index + 1)) }
}

const fn bucket_start(index: usize) -> u64 {
    let index = if index < BUCKETS { index } else { BUCKETS - 1 };
    if index < SUBS {
        return (index as u64) << UNIT_BITS;
    }
    let e = (index / SUBS - 1) as u32;
    ((SUBS + index % SUBS) as u64) << (e + UNIT_BITS)
}

/// Why counts cannot be a histogram. Only counts that come from outside can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// A bucket number beyond the last bucket.
    #[error("bucket {0} does not exist: a histogram has {BUCKETS}, numbered from 0")]
    NoSuchBucket(u16),
    /// Bucket numbers must ascend, each at most once.
    #[error("bucket {0} is out of order: send each bucket once, in ascending order")]
    OutOfOrder(u16),
}

/// Counts of delays, with their exact sum and extremes.
///
/// Only octaves that hold something take room (128 bytes each); a pair's round-trip delays usually fill three to six. Where
/// a bucket's count lies is looked up and not searched for: recording costs the same however many buckets are filled. For more
/// speed still there is [`Recorder`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// For each octave one more than the place of its counts, 0 for none.
    places: [u8; OCTAVES],
    /// Ascending by octave; in none all counts are zero.
    octaves: Vec<[u64; SUBS]>,
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Histogram {
    /// A histogram of nothing.
    pub const fn new() -> Self {
        Self { places: [0; OCTAVES], octaves: Vec::new(), count: 0, sum_ns: 0, min_ns: 0, max_ns: 0 }
    }

    /// Takes over counts made elsewhere: `(bucket, count)` in ascending order, zero counts allowed and dropped.
    ///
    /// The number of values is the sum of the counts. A reader that does not stop the writer may see a count
    /// without its sum or extremes; extremes that contradict the counts are moved to the nearest value that
    /// the first and last bucket allow.
    pub fn from_counts(
        counts: impl IntoIterator<Item = (u16, u64)>,
        sum_ns: u64,
        min_ns: u64,
        max_ns: u64,
    ) -> Result<Self, HistogramError> {
        let mut h = Self::new();
        let mut next = 0;
        for (bucket, count) in counts {
            if usize::from(bucket) >= BUCKETS {
                return Err(HistogramError::NoSuchBucket(bucket));
            }
            if bucket < next {
                return Err(HistogramError::OutOfOrder(bucket));
            }
            next = bucket + 1;
            if count > 0 {
                h.put(usize::from(bucket), count);
            }
        }
        h.sum_ns = sum_ns;
        h.settle(min_ns, max_ns);
        Ok(h)
    }

    /// Counts one delay.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Counts `times` delays of the same length.
    #[inline]
    pub fn record_many(&mut self, ns: u64, times: u64) {
        if times == 0 {
            return;
        }
        self.min_ns = if self.count == 0 { ns } else { self.min_ns.min(ns) };
        self.max_ns = self.max_ns.max(ns);
        self.count = self.count.saturating_add(times);
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(times));
        let bucket = bucket_of(ns);
        let count = &mut self.octave(bucket / SUBS)[bucket % SUBS];
        *count = count.saturating_add(times);
    }

    /// Puts a count into a bucket that holds nothing.
    fn put(&mut self, bucket: usize, count: u64) {
        self.octave(bucket / SUBS)[bucket % SUBS] = count;
        self.count = self.count.saturating_add(count);
    }

    /// The counts of an octave, zeros if nothing was in it; the caller puts something in.
    #[inline]
    fn octave(&mut self, octave: usize) -> &mut [u64; SUBS] {
        if self.places[octave] == 0 {
            self.open_octave(octave);
        }
        &mut self.octaves[usize::from(self.places[octave]) - 1]
    }

    /// Makes room for an octave between its neighbours.
    #[cold]
    fn open_octave(&mut self, octave: usize) {
        let at = self.places[..octave].iter().filter(|place| **place > 0).count();
        self.octaves.reserve_exact(1);
        self.octaves.insert(at, [0; SUBS]);
        for place in self.places[octave..].iter_mut().filter(|place| **place > 0) {
            *place += 1;
        }
        self.places[octave] = at as u8 + 1;
    }

    /// Adds all that `other` counted. The result is what one histogram of all the values would be.
    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        self.min_ns = if self.count == 0 { other.min_ns } else { self.min_ns.min(other.min_ns) };
        self.max_ns = self.max_ns.max(other.max_ns);
        self.count = self.count.saturating_add(other.count);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);

        for (octave, counts) in other.filled() {
            for (ours, theirs) in self.octave(octave).iter_mut().zip(counts) {
                *ours = ours.saturating_add(*theirs);
            }
        }
    }

    /// What was counted since `earlier`, an older state of this same histogram.
    ///
    /// The extremes of the difference are exact when they are new extremes of the whole; otherwise they are the
    /// bounds that the counts leave: the start of the first bucket and the last value of the last one (at most
    /// one bucket away from the truth). When `earlier` counted more, as after a restart of the counter,
    /// differences stop at zero.
    #[must_use]
    pub fn subtract(&self, earlier: &Histogram) -> Histogram {
        if earlier.count == 0 {
            return self.clone();
        }
        let mut difference = Histogram::new();
        for (octave, counts) in self.filled() {
            let before = match usize::from(earlier.places[octave]) {
                0 => &[0; SUBS],
                place => &earlier.octaves[place - 1],
            };
            for (sub, (count, before)) in counts.iter().zip(before).enumerate() {
                if count > before {
                    difference.put(octave * SUBS + sub, count - before);
                }
            }
        }
        let Some((first, last)) = difference.ends() else { return difference };
        difference.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        let min =
            if self.min_ns < earlier.min_ns { self.min_ns } else { bucket_start(first).max(self.min_ns) };
        let max = if self.max_ns > earlier.max_ns { self.max_ns } else { last_value(last).min(self.max_ns) };
        difference.settle(min, max);
        difference
    }

    /// Sets the extremes to the values nearest to the given ones that the first and last bucket can hold.
    fn settle(&mut self, min_ns: u64, max_ns: u64) {
        let Some((first, last)) = self.ends() else {
            *self = Self::new();
            return;
        };
        self.min_ns = min_ns.clamp(bucket_start(first), last_value(first));
        self.max_ns = max_ns.clamp(bucket_start(last), last_value(last)).max(self.min_ns);
    }

    /// Octaves that hold something, with their counts, ascending.
    fn filled(&self) -> impl Iterator<Item = (usize, &[u64; SUBS])> {
        let octaves = (0..OCTAVES).filter(|octave| self.places[*octave] > 0);
        octaves.zip(&self.octaves)
    }

    /// The first and the last bucket that hold something.
    fn ends(&self) -> Option<(usize, usize)> {
        let first = self.places.iter().position(|place| *place > 0)?;
        let last = self.places.iter().rposition(|place| *place > 0)?;
        let holds = |count: &u64| *count > 0;
        let low = self.octaves.first()?.iter().position(holds)?;
        let high = self.octaves.last()?.iter().rposition(holds)?;
        Some((first * SUBS + low, last * SUBS + high))
    }

    /// How many values were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was counted.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The exact sum of the values in nanoseconds, at most `u64::MAX`.
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The smallest value in nanoseconds; exact except in a difference, see [`Histogram::subtract`].
    pub const fn min_ns(&self) -> Option<u64> {
        if self.count == 0 { None } else { Some(self.min_ns) }
    }

    /// The largest value in nanoseconds; exact except in a difference, see [`Histogram::subtract`].
    pub const fn max_ns(&self) -> Option<u64> {
        if self.count == 0 { None } else { Some(self.max_ns) }
    }

    /// The exact mean in nanoseconds.
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }

    /// The `q`-quantile in nanoseconds: an estimate of the value of rank `ceil(q * count)` in ascending order.
    ///
    /// The estimate is the middle of the part of the value's bucket that lies between the extremes. It is off by
    /// at most [`RELATIVE_ERROR`] of the value, or [`ABSOLUTE_ERROR_NS`] below 1,024 ns; only for values in the
    /// last bucket (above 16.6 s) the bound is that bucket's start and the maximum. Linear interpolation in the
    /// bucket would look smoother and double the bound. `q` is cut to `0.0..=1.0`; 0 gives the minimum and 1 the
    /// maximum. `None` when nothing was counted or `q` is not a number.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count == 0 || q.is_nan() {
            return None;
        }
        if q <= 0.0 {
            return Some(self.min_ns);
        }
        if q >= 1.0 {
            return Some(self.max_ns);
        }
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0u64;
        for (bucket, count) in self.iter() {
            below = below.saturating_add(count);
            if below >= rank {
                let low = bucket_start(bucket.into()).max(self.min_ns);
                let high = last_value(bucket.into()).min(self.max_ns);
                return Some(low + high.saturating_sub(low) / 2);
            }
        }
        Some(self.max_ns)
    }

    /// How many values were below `ns`: exact when `ns` is a bucket's start, else counted as if it were the start
    /// of its bucket, so never too many.
    pub fn count_below(&self, ns: u64) -> u64 {
        let limit = bucket_of(ns);
        self.iter()
            .take_while(|(bucket, _)| usize::from(*bucket) < limit)
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The buckets that hold something: `(bucket, count)`, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.filled().flat_map(|(octave, counts)| {
            let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            filled.map(move |(sub, count)| ((octave * SUBS + sub) as u16, *count))
        })
    }

    /// The buckets that hold something with the delays they count: `(low, high, count)` in nanoseconds, `high`
    /// not included, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.iter().map(|(b, count)| {
            let (low, high) = bucket_bounds(b.into());
            (low, high, count)
        })
    }
}

/// The largest value that bucket `index` counts.
const fn last_value(index: usize) -> u64 {
    let (_, high) = bucket_bounds(index);
    if high == u64::MAX { high } else { high - 1 }
}

/// The form on the wire: counts ascending, and no number that follows from the others.
#[derive(Serialize, Deserialize)]
struct Wire {
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
    buckets: Buckets,
}

struct Buckets(Vec<(u16, u64)>);

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Buckets;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {BUCKETS} pairs of bucket and count")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Buckets, A::Error> {
                // The length a sender claims is not believed: neither for room nor for how far to read.
                let mut all = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(BUCKETS));
                while let Some(one) = seq.next_element()? {
                    if all.len() == BUCKETS {
                        return Err(de::Error::invalid_length(BUCKETS + 1, &self));
                    }
                    all.push(one);
                }
                Ok(Buckets(all))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            sum_ns: self.sum_ns,
            min_ns: self.min_ns,
            max_ns: self.max_ns,
            buckets: Buckets(self.iter().collect()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Histogram::from_counts(wire.buckets.0, wire.sum_ns, wire.min_ns, wire.max_ns)
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
