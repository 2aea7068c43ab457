//! Two captures compared: which point a pair's packets passed first, how the clocks relate, and what became of packets on
//! the way.

use std::collections::{BTreeMap, HashMap};

use ippm::clock::{Bounded, RelationError, Timeline};
use ippm::histogram::Histogram;
use ippm::metric::{proportion::Z95, reordering, variation};
use ippm::oneway::octets::{match_pieces, segment_size};
use ippm::oneway::packets::{Report, match_reports};
use ippm::oneway::{Listening, Matching, Passage};

use ippm::select::digest::digest;

use super::answer::{Between, ClockRelation, FlowEnds, LossRatio, OneWayDelay, Translation, Variation, Ways};
use super::collect::{Collector, FlowRecords};
use super::pair::PairState;
use super::translated;
use crate::api::{DelayBucket, DelaySummary};

/// One pair's records in both captures.
#[derive(Default)]
struct Records {
    flows: Vec<[Option<FlowRecords>; 2]>,
}

/// A pair, matched.
struct Matched {
    /// From src to dst, and back.
    ways: [Direction; 2],
    src_at_first: bool,
    /// Whether `src_at_first` is known, and not only taken to be so.
    certain: bool,
}

/// A pair's direction, matched.
struct Direction {
    matching: Matching,
    /// Its packets passed the first capture's point first.
    first_to_second: bool,
}

/// What a comparison found.
pub(super) struct Comparison {
    /// By pair of the first capture.
    pub pairs: Vec<Option<Between>>,
    /// By pair of the first capture: what the second saw in its place.
    pub translations: Vec<Vec<Translation>>,
    /// Pairs of the second capture all of whose flows are told there.
    pub told_as_translated: Vec<u32>,
    pub all: Between,
    pub clock: Option<ClockRelation>,
    pub notes: Vec<String>,
}

/// What is known of the clocks beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    /// Nothing: their relation is found from traffic both ways.
    Apart,
    /// Both captures' times are of one clock.
    Same,
}

/// One capture's part.
pub(super) struct Side {
    pub collector: Collector,
    pub listening: Listening,
    pub resolution_ns: u64,
}

/// Compares. `pairs` are those of the first capture.
pub(super) fn compare(mut sides: [Side; 2], pairs: &[PairState], clocks: Clocks) -> Comparison {
    let threshold = sides[0].collector.threshold().max(sides[1].collector.threshold());
    sides.iter_mut().for_each(|side| side.collector.raise(threshold));
    let slack_ns = sides.iter().map(|side| side.resolution_ns).max().unwrap_or(1);
    let refused: u64 = sides.iter().map(|side| side.collector.refused()).sum();
    let [first, second] = sides;
    let listening = [first.listening, second.listening];
    let Joined { records, translations, told_as_translated } =
        by_pair(first.collector, second.collector, pairs.len(), refused > 0);

    let mut matched: Vec<Option<Matched>> =
        records.iter().map(|records| match_pair(records, listening, clocks)).collect();
    let timeline = match clocks {
        Clocks::Same => None,
        Clocks::Apart => {
            // A packet taken for one of the other way would turn a bound round: only what is certain counts.
            let passages = |wanted: bool| -> Vec<Passage> {
                let pairs = matched.iter().flatten().filter(|pair| pair.certain);
                let directions = pairs.flat_map(|pair| &pair.ways);
                let wanted = directions.filter(|direction| direction.first_to_second == wanted);
                wanted.flat_map(|direction| direction.matching.passages.iter().copied()).collect()
            };
            Some(Timeline::find(&passages(true), &passages(false), slack_ns))
        }
    };
    let mut notes = Vec::new();
    if let Some(Err(error)) = &timeline {
        notes.push(match error {
            RelationError::OneDirection => {
                "no delays: traffic both ways is needed to relate the captures' clocks; --same-clock if there is one"
                    .to_owned()
            }
            RelationError::NotEven => format!("no delays: {error}"),
        });
    }
    let translated = translations.iter().filter(|translations| !translations.is_empty()).count();
    if translated > 0 {
        notes.push(format!(
            "addresses are translated between the captures: the flows of {} were found again by what they carry",
            if translated == 1 { "1 pair".to_owned() } else { format!("{translated} pairs") }
        ));
    }
    if refused > 0 {
        notes.push(format!("{refused} flows are not compared: there were too many"));
    }
    if threshold.level() > 0 {
        notes.push(format!(
            "the captures are large: what passed between them is from a sample, one packet of {}",
            1u64 << threshold.level()
        ));
    }
    let truth = Truth { timeline: timeline.and_then(Result::ok), clocks, slack_ns, share: threshold.share() };
    for (pair, records) in matched.iter_mut().zip(&records) {
        if let Some(pair) = pair.as_mut().filter(|pair| !pair.certain) {
            truth.turn(pair, records, listening);
        }
    }
    let answers = matched
        .iter()
        .map(|pair| {
            let [forward, reverse] = &pair.as_ref()?.ways;
            Some(truth.between(Some(forward), Some(reverse)))
        })
        .collect();
    let mut all: [Option<Direction>; 2] = [None, None];
    for direction in matched.into_iter().flatten().flat_map(|pair| pair.ways) {
        let sum = all[usize::from(!direction.first_to_second)].get_or_insert_with(|| Direction {
            matching: Matching::default(),
            first_to_second: direction.first_to_second,
        });
        sum.matching.add(direction.matching);
    }
    for direction in all.iter_mut().flatten() {
        direction.matching.passages.sort_unstable_by_key(|passage| (passage.sent_ns, passage.received_ns));
    }
    let all = truth.between(all[0].as_ref(), all[1].as_ref());
    Comparison { pairs: answers, translations, told_as_translated, all, clock: truth.clock(), notes }
}

/// Flows of both captures put together.
struct Joined {
    /// By pair of the first.
    records: Vec<Records>,
    translations: Vec<Vec<Translation>>,
    told_as_translated: Vec<u32>,
}

fn by_pair(first: Collector, second: Collector, pairs: usize, some_refused: bool) -> Joined {
    let mut records: Vec<Records> = std::iter::repeat_with(Records::default).take(pairs).collect();
    let mut places = HashMap::new();
    for (key, flow) in first.into_flows() {
        if let Some(pair) = records.get_mut(flow.pair as usize) {
            places.insert(key, (flow.pair as usize, pair.flows.len()));
            pair.flows.push([Some(flow), None]);
        }
    }
    // Whose flow is only in the second capture belongs to no pair of the first, and is no loss: it was never sent there.
    let mut strangers = Vec::new();
    for (key, flow) in second.into_flows() {
        let place = places.get(&key).and_then(|(pair, at)| records.get_mut(*pair)?.flows.get_mut(*at));
        match place {
            Some(both) => both[1] = Some(flow),
            None => strangers.push(flow),
        }
    }
    let (translations, told_as_translated) = join_translated(&mut records, strangers);
    if some_refused {
        // What one capture alone has a place for is no loss.
        records.iter_mut().for_each(|pair| pair.flows.retain(|both| both[1].is_some()));
    }
    Joined { records, translations, told_as_translated }
}

/// Finds flows that only the second capture has, by key, among those that only the first has. Tells each pair's
/// translations, and which of the second's pairs have no other flows.
fn join_translated(
    records: &mut [Records],
    strangers: Vec<FlowRecords>,
) -> (Vec<Vec<Translation>>, Vec<u32>) {
    let mut alone: Vec<(usize, usize)> = Vec::new();
    for (pair, of) in records.iter().enumerate() {
        alone.extend(
            of.flows
                .iter()
                .enumerate()
                .filter(|(_, both)| matches!(both, [Some(_), None]))
                .map(|(at, _)| (pair, at)),
        );
    }
    let sketch = |(pair, at): &(usize, usize)| {
        records.get(*pair).and_then(|of| Some(&of.flows.get(*at)?[0].as_ref()?.sketch))
    };
    let first: Vec<_> = alone.iter().filter_map(sketch).collect();
    let second: Vec<_> = strangers.iter().map(|flow| &flow.sketch).collect();
    let same = translated::find(&first, &second);
    let mut strangers: Vec<Option<FlowRecords>> = strangers.into_iter().map(Some).collect();
    let mut found: Vec<BTreeMap<_, Translation>> = vec![BTreeMap::new(); records.len()];
    let mut told: BTreeMap<u32, bool> = BTreeMap::new();
    for one in same {
        let (Some((pair, at)), Some(mut flow)) = (alone.get(one.first), strangers[one.second].take()) else {
            continue;
        };
        if one.turned {
            flow.reports.swap(0, 1);
            flow.pieces.swap(0, 1);
            if let Some(ends) = &mut flow.ends {
                ends.swap(0, 1);
            }
        }
        let both = &mut records[*pair].flows[*at];
        let before = both[0].as_ref().and_then(|flow| Some((flow.ends?, flow.src_first)));
        if let (Some((before, src_first)), Some(behind)) = (before, flow.ends) {
            let from_src = |ends: [(_, _); 2]| if src_first { ends } else { [ends[1], ends[0]] };
            let [before, behind] = [before, behind].map(|ends| {
                let [src, dst] = from_src(ends);
                FlowEnds { src: src.into(), dst: dst.into() }
            });
            let (src, dst) = (behind.src.ip(), behind.dst.ip());
            let told = Translation { src, dst, flows: 0, example: [before, behind] };
            found[*pair].entry((src, dst)).or_insert(told).flows += 1;
        }
        told.insert(flow.pair, true);
        both[1] = Some(flow);
    }
    for flow in strangers.into_iter().flatten() {
        told.insert(flow.pair, false);
    }
    let found = found.into_iter().map(|of| of.into_values().collect()).collect();
    (found, told.into_iter().filter(|(_, all)| *all).map(|(pair, _)| pair).collect())
}

/// Matches both directions of a pair; `None` where the captures share no packet of it, so that it did not pass both
/// points.
fn match_pair(records: &Records, listening: [Listening; 2], clocks: Clocks) -> Option<Matched> {
    let from_first = |src_way: bool| match_way(records, src_way, true, listening);
    let (forward, reverse) = (from_first(true), from_first(false));
    let (src_at_first, certain) = match (median(&forward), median(&reverse), clocks) {
        (None, None, _) => return None,
        (Some(there), _, Clocks::Same) => (there >= 0, true),
        (None, Some(back), Clocks::Same) => (back < 0, true),
        // Raw differences are the clocks' plus the delay one way and less the delay the other.
        (Some(there), Some(back), Clocks::Apart) => (there >= back, true),
        // Of one direction alone nobody can say; the point that saw more is taken for the sender's.
        (Some(_), None, Clocks::Apart) => (forward.lost >= forward.unsent, false),
        (None, Some(_), Clocks::Apart) => (reverse.lost < reverse.unsent, false),
    };
    let ways = [(true, forward), (false, reverse)].map(|(src_way, matching)| {
        let first_to_second = src_way == src_at_first;
        let matching = if first_to_second { matching } else { match_way(records, src_way, false, listening) };
        Direction { matching, first_to_second }
    });
    Some(Matched { ways, src_at_first, certain })
}

/// Matches one direction, given which point its packets passed first.
fn match_way(records: &Records, src_way: bool, first_to_second: bool, listening: [Listening; 2]) -> Matching {
    let (sender, receiver) = if first_to_second { (0, 1) } else { (1, 0) };
    let (from, to) = (listening[sender], listening[receiver]);
    let empty = FlowRecords::default();
    let mut reports: [Vec<Report>; 2] = Default::default();
    // The role in a flow is what the first capture says; the second's may have begun in the middle.
    let way = |flow: &[Option<FlowRecords>; 2]| {
        let src_first = flow[0].as_ref().is_some_and(|flow| flow.src_first);
        usize::from(src_first != src_way)
    };
    for (number, flow) in records.flows.iter().enumerate() {
        let way = way(flow);
        // What looks alike in two flows is not the same.
        let named = |report: &Report| Report { name: digest(number as u64, &[report.name]), ns: report.ns };
        for (list, point) in reports.iter_mut().zip([sender, receiver]) {
            list.extend(flow[point].as_ref().unwrap_or(&empty).reports[way].iter().map(named));
        }
    }
    let [mut sent, mut received] = reports;
    let mut all = match_reports(&mut sent, &mut received, from, to, None);
    let mut raw = all.raw_range_ns();
    // A flow all of whose data was lost has no passage of its own to tell how the points' times relate.
    for pass in 0..2 {
        for flow in &records.flows {
            let way = way(flow);
            let [sent, received] =
                [sender, receiver].map(|point| &flow[point].as_ref().unwrap_or(&empty).pieces[way]);
            if sent.is_empty() && received.is_empty() {
                continue;
            }
            let unit = segment_size(sent.iter().chain(received));
            let matching = match_pieces(sent, received, unit, from, to, raw);
            if pass == 1 {
                all.add(matching);
            } else if let Some((low, high)) = matching.raw_range_ns() {
                raw = Some(raw.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
            }
        }
    }
    all.passages.sort_unstable_by_key(|passage| (passage.sent_ns, passage.received_ns));
    all
}

fn median(matching: &Matching) -> Option<i64> {
    let mut raw: Vec<i64> = matching.passages.iter().map(Passage::raw_delay_ns).collect();
    let middle = raw.len() / 2;
    (!raw.is_empty()).then(|| *raw.select_nth_unstable(middle).1)
}

/// What turns raw delays into delays.
struct Truth {
    timeline: Option<Timeline>,
    clocks: Clocks,
    slack_ns: u64,
    share: f64,
}

impl Truth {
    fn clock(&self) -> Option<ClockRelation> {
        let timeline = self.timeline.as_ref()?;
        let longest = timeline.windows().last()?;
        let at = longest.offset_at(longest.middle_ns());
        Some(ClockRelation {
            offset_seconds: longest.base_ns() as f64 / 1e9 + at.ns / 1e9,
            skew_ppm: longest.skew().0 * 1e6,
            bound_seconds: timeline.worst_error_ns() / 1e9,
            windows: timeline.windows().len() as u64,
        })
    }

    /// Turns a pair whose packets would have arrived before they were sent.
    fn turn(&self, pair: &mut Matched, records: &Records, listening: [Listening; 2]) {
        let each = pair.ways.iter().filter_map(|way| self.each_delay(way)).flatten();
        let mut delays: Vec<f64> = each.map(|delay| delay.ns).collect();
        let middle = delays.len() / 2;
        if delays.is_empty() || *delays.select_nth_unstable_by(middle, f64::total_cmp).1 >= 0.0 {
            return;
        }
        pair.src_at_first = !pair.src_at_first;
        pair.ways = [true, false].map(|src_way| {
            let first_to_second = src_way == pair.src_at_first;
            let matching = match_way(records, src_way, first_to_second, listening);
            Direction { matching, first_to_second }
        });
    }

    fn between(&self, forward: Option<&Direction>, reverse: Option<&Direction>) -> Between {
        // A direction in which nothing was sent says nothing.
        let used = |direction: Option<&Direction>| direction.is_some_and(|d| d.matching.sent > 0);
        let forward = forward.filter(|d| used(Some(d)));
        let reverse = reverse.filter(|d| used(Some(d)));
        Between {
            one_way_delay_seconds: each(forward, reverse, |d| self.delays(d)),
            lost_packets: each(forward, reverse, |d| known(&d.matching).then_some(d.matching.lost)),
            loss_ratio: each(forward, reverse, |d| loss_ratio(&d.matching)),
            duplicated_packets: each(forward, reverse, |d| {
                known(&d.matching).then_some(d.matching.duplicates)
            }),
            reordered_packets: each(forward, reverse, |d| reordered(&d.matching)),
            delay_variation_seconds: each(forward, reverse, |d| self.variation(d)),
        }
    }

    /// Each passage's delay with its hard bound, by order of sending.
    fn each_delay(&self, direction: &Direction) -> Option<Vec<Bounded>> {
        let passages = direction.matching.passages.iter();
        match (&self.timeline, self.clocks) {
            (_, Clocks::Same) => {
                let error_ns = self.slack_ns as f64;
                Some(passages.map(|p| Bounded { ns: p.raw_delay_ns() as f64, error_ns }).collect())
            }
            (Some(timeline), Clocks::Apart) if direction.first_to_second => {
                Some(passages.map(|p| timeline.forward_delay(p)).collect())
            }
            (Some(timeline), Clocks::Apart) => Some(passages.map(|p| timeline.reverse_delay(p)).collect()),
            (None, Clocks::Apart) => None,
        }
    }

    fn delays(&self, direction: &Direction) -> Option<OneWayDelay> {
        let each = self.each_delay(direction)?;
        // Packets before and after those that relate the clocks have wider bounds: the widest is told.
        let error_ns = each.iter().map(|delay| delay.error_ns).fold(0.0, f64::max);
        let mut delays: Vec<f64> = each.iter().map(|delay| delay.ns).collect();
        // No packet arrives before it is sent: an estimate below zero is wrong by as much, within its bound.
        delays.iter_mut().for_each(|delay| *delay = delay.max(0.0));
        delays.sort_unstable_by(f64::total_cmp);
        let mut distribution = Histogram::new();
        delays.iter().for_each(|delay| distribution.record(delay.round() as u64));
        let count = delays.len();
        let rank = |q: f64| ((q * count as f64).ceil() as usize).clamp(1, count.max(1)) - 1;
        let at = |q: f64| delays.get(rank(q)).map(|ns| ns / 1e9);
        let summary = DelaySummary {
            min: at(0.0)?,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            max: at(1.0)?,
            count: count as u64,
            method: match self.clocks {
                Clocks::Same => "passive_two_captures_one_clock",
                Clocks::Apart => "passive_two_captures_clocks_by_hull",
            }
            .to_owned(),
            relative_error_ratio: None,
            buckets: Some(DelayBucket::all(&distribution)),
        };
        let coverage_ratio = direction.matching.coverage()? * self.share;
        Some(OneWayDelay { summary, error_bound: error_ns / 1e9, coverage_ratio })
    }

    fn variation(&self, direction: &Direction) -> Option<Variation> {
        let delays: Vec<i64> = match self.each_delay(direction) {
            Some(delays) => delays.iter().map(|delay| delay.ns.round() as i64).collect(),
            // The offset cancels; skew is in it, and is said to be.
            None => direction.matching.passages.iter().map(Passage::raw_delay_ns).collect(),
        };
        let pdv = variation::pdv(delays.iter().copied());
        let ipdv = variation::ipdv(delays.iter().copied().map(Some));
        let mut arrivals: Vec<&Passage> = direction.matching.passages.iter().collect();
        arrivals.sort_by_key(|passage| passage.received_ns);
        let mut jitter = variation::Jitter::default();
        arrivals.iter().for_each(|passage| jitter.arrive(passage.sent_ns, passage.received_ns));
        Some(Variation {
            pdv_p50: pdv.quantile(0.5)? as f64 / 1e9,
            pdv_p99: pdv.quantile(0.99)? as f64 / 1e9,
            ipdv_mean: ipdv.mean_ns()? / 1e9,
            rtp_jitter: jitter.ns() / 1e9,
        })
    }
}

fn each<T>(
    forward: Option<&Direction>,
    reverse: Option<&Direction>,
    value: impl Fn(&Direction) -> Option<T>,
) -> Option<Ways<T>> {
    Ways::of(forward.and_then(&value), reverse.and_then(&value))
}

/// Whether the fate of any packet is known.
fn known(matching: &Matching) -> bool {
    matching.loss().trials > 0
}

fn loss_ratio(matching: &Matching) -> Option<LossRatio> {
    let loss = matching.loss();
    let (low, high) = loss.wilson(Z95)?;
    Some(LossRatio { value: loss.ratio()?, low, high })
}

fn reordered(matching: &Matching) -> Option<u64> {
    let mut arrivals: Vec<(u64, u64)> =
        matching.passages.iter().map(|passage| (passage.received_ns, passage.sent_ns)).collect();
    arrivals.sort_unstable();
    let found = reordering::judge(arrivals.iter().map(|(received, sent)| (*sent, *received)));
    (found.arrived > 0).then_some(found.reordered)
}
