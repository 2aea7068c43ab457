//! A host's pairs in few octets, as hosts tell them each other: each text, each end and each list of addresses once, and numbers for them
//! everywhere else. Of a system of thousands of hosts a million pairs come together in one of them.
//!
//! What a [`Sheet`] says is what [`Pair`]s say, to the last digit; who does not know the form is told pairs in JSON.

use std::hash::Hash;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use conmon::api::{Count, DelaySummary, Endpoint, EndpointKind, ObservedAt, Pair, PairsAnswer};
use foldhash::quality::RandomState;
use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

/// The media type of a sheet; another layout is another version.
pub const MEDIA_TYPE: &str = "application/vnd.conmon.pairs-v1";

/// Things that are held once, each by its number. Millions are looked up for one answer, so the hash is a quick one, with a seed of the
/// process's own.
#[derive(Clone, Debug)]
pub struct Numbered<T>(IndexSet<T, RandomState>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(IndexSet::default())
    }
}

impl<T: Eq + Hash> Numbered<T> {
    /// The thing's number, a new one if it is new.
    pub fn number(&mut self, thing: T) -> u32 {
        self.0.insert_full(thing).0 as u32
    }

    /// The thing of this number, which is one of ours.
    pub fn get(&self, number: u32) -> &T {
        &self.0[number as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_all(self) -> Vec<T> {
        self.0.into_iter().collect()
    }
}

/// An end, its texts by their numbers. Two are the same if kind, name, id and host are: what a host knows of another's container may lack
/// the rest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct End {
    /// What it is.
    pub kind: EndpointKind,
    /// Its name.
    pub name: u32,
    /// The container's id.
    pub id: Option<u32>,
    /// The service.
    pub service: Option<u32>,
    /// The tenant.
    pub tenant: Option<u32>,
    /// The host.
    pub host: Option<u32>,
}

impl End {
    fn identity(&self) -> (EndpointKind, u32, Option<u32>, Option<u32>) {
        (self.kind, self.name, self.id, self.host)
    }
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for End {}

impl Hash for End {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// A delay's statistics, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    count: u64,
    method: u32,
    relative_error_ratio: Option<f64>,
}

/// The four delays of a pair: round trip, near, and their handshakes'.
pub type Delays = Option<Box<[Option<Delay>; 4]>>;

/// A pair, everything that is long by its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Ends: who opened, who was called.
    pub ends: [u32; 2],
    /// Their addresses, as lists.
    pub addresses: [u32; 2],
    /// Protocols, as a list of texts.
    pub protocols: u32,
    /// What was seen in the other end's place, as a list of texts.
    pub via: u32,
    /// The first and the last packet, nanoseconds since 1970 UTC.
    pub seen_ns: [i64; 2],
    /// From src to dst, and back.
    pub counts: [Count; 2],
    /// Segments sent again (all, from src, from dst), and late ones.
    pub segments: [Option<u64>; 4],
    /// Delays.
    pub delays: Delays,
    /// Flow records begun, and open.
    pub flows: [u64; 2],
    /// Who opened was inferred.
    pub guessed: bool,
    /// At whose port.
    pub observed_at: ObservedAt,
    /// Bytes each way, packets each way, per second.
    pub rates: [Option<f64>; 4],
}

/// What lines say by numbers.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// Texts.
    pub texts: Numbered<String>,
    /// Ends.
    pub ends: Numbered<End>,
    /// Lists of addresses.
    pub addresses: Numbered<Vec<IpAddr>>,
    /// Lists of texts.
    pub lists: Numbered<Vec<u32>>,
}

impl Words {
    /// The number of an end. Of service and tenant the word of the end's own host counts, and another's where that has said nothing.
    pub fn number_of(&mut self, end: End, by_its_host: bool) -> u32 {
        let number = self.ends.number(end);
        let held = *self.ends.get(number);
        let (first, second) = if by_its_host { (end, held) } else { (held, end) };
        let (service, tenant) = (first.service.or(second.service), first.tenant.or(second.tenant));
        if (service, tenant) != (held.service, held.tenant) {
            // it is the same by its identity, and stays where it is
            self.ends.0.replace(End { service, tenant, ..held });
        }
        number
    }

    fn end(&mut self, end: &Endpoint) -> u32 {
        let mut text = |text: &Option<String>| text.as_ref().map(|text| self.texts.number(text.clone()));
        let (id, service, tenant, host) =
            (text(&end.id), text(&end.service), text(&end.tenant), text(&end.host));
        let name = self.texts.number(end.name.clone());
        self.number_of(End { kind: end.kind, name, id, service, tenant, host }, false)
    }

    fn list(&mut self, texts: &[String]) -> u32 {
        let list = texts.iter().map(|text| self.texts.number(text.clone())).collect();
        self.lists.number(list)
    }

    /// A pair as a line.
    pub fn line(&mut self, pair: &Pair) -> Line {
        let mut delay = |delay: &Option<DelaySummary>| {
            delay.as_ref().map(|d| Delay {
                min: d.min,
                p50: d.p50,
                p90: d.p90,
                p99: d.p99,
                max: d.max,
                count: d.count,
                method: self.texts.number(d.method.clone()),
                relative_error_ratio: d.relative_error_ratio,
            })
        };
        let delays = [
            delay(&pair.rtt_seconds),
            delay(&pair.near_rtt_seconds),
            delay(&pair.handshake_rtt_seconds),
            delay(&pair.near_handshake_rtt_seconds),
        ];
        // a time that nanoseconds since 1970 do not hold in 63 bits is in no record of ours
        let ns = |at: jiff::Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or_default();
        Line {
            ends: [self.end(&pair.src), self.end(&pair.dst)],
            addresses: [
                self.addresses.number(pair.src.addresses.clone()),
                self.addresses.number(pair.dst.addresses.clone()),
            ],
            protocols: self.list(&pair.protocols),
            via: self.list(&pair.via),
            seen_ns: [ns(pair.first_seen), ns(pair.last_seen)],
            counts: [pair.sent, pair.received],
            segments: [
                pair.retransmitted_segments,
                pair.sent_retransmitted_segments,
                pair.received_retransmitted_segments,
                pair.reordered_segments,
            ],
            delays: delays.iter().any(Option::is_some).then(|| Box::new(delays)),
            flows: [pair.flows, pair.active_flows],
            guessed: pair.role_guessed,
            observed_at: pair.observed_at,
            rates: [
                pair.sent_bytes_per_second,
                pair.received_bytes_per_second,
                pair.sent_packets_per_second,
                pair.received_packets_per_second,
            ],
        }
    }

    fn text(&self, number: u32) -> String {
        self.texts.get(number).clone()
    }

    /// An end with the addresses of a list.
    pub fn endpoint(&self, end: u32, addresses: u32) -> Endpoint {
        let end = self.ends.get(end);
        let text = |number: Option<u32>| number.map(|number| self.text(number));
        Endpoint {
            kind: end.kind,
            name: self.text(end.name),
            id: text(end.id),
            service: text(end.service),
            tenant: text(end.tenant),
            host: text(end.host),
            addresses: self.addresses.get(addresses).clone(),
        }
    }

    fn texts_of(&self, list: u32) -> Vec<String> {
        self.lists.get(list).iter().map(|number| self.text(*number)).collect()
    }

    /// A line as a pair.
    pub fn pair(&self, line: &Line) -> Pair {
        let delay = |at: usize| {
            let delay = line.delays.as_ref().and_then(|all| all[at])?;
            Some(DelaySummary {
                min: delay.min,
                p50: delay.p50,
                p90: delay.p90,
                p99: delay.p99,
                max: delay.max,
                count: delay.count,
                method: self.text(delay.method),
                relative_error_ratio: delay.relative_error_ratio,
                buckets: None,
            })
        };
        let at = |ns: i64| jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
        let [rtt_seconds, near_rtt_seconds, handshake_rtt_seconds, near_handshake_rtt_seconds] =
            [0, 1, 2, 3].map(delay);
        Pair {
            src: self.endpoint(line.ends[0], line.addresses[0]),
            dst: self.endpoint(line.ends[1], line.addresses[1]),
            protocols: self.texts_of(line.protocols),
            first_seen: at(line.seen_ns[0]),
            last_seen: at(line.seen_ns[1]),
            sent: line.counts[0],
            received: line.counts[1],
            retransmitted_segments: line.segments[0],
            sent_retransmitted_segments: line.segments[1],
            received_retransmitted_segments: line.segments[2],
            reordered_segments: line.segments[3],
            rtt_seconds,
            near_rtt_seconds,
            handshake_rtt_seconds,
            near_handshake_rtt_seconds,
            flows: line.flows[0],
            active_flows: line.flows[1],
            role_guessed: line.guessed,
            observed_at: line.observed_at,
            via: self.texts_of(line.via),
            sent_bytes_per_second: line.rates[0],
            received_bytes_per_second: line.rates[1],
            sent_packets_per_second: line.rates[2],
            received_packets_per_second: line.rates[3],
        }
    }
}

/// What a host says of its pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// Everything that the host knows is in it.
    pub complete: bool,
    texts: Vec<String>,
    ends: Vec<End>,
    addresses: Vec<Vec<IpAddr>>,
    lists: Vec<Vec<u32>>,
    lines: Vec<Line>,
}

impl Sheet {
    /// Of what a host answered.
    pub fn of(answer: &PairsAnswer) -> Self {
        let mut words = Words::default();
        let lines = answer.pairs.iter().map(|pair| words.line(pair)).collect();
        Self {
            complete: answer.hosts.iter().all(|host| host.complete),
            texts: words.texts.into_all(),
            ends: words.ends.into_all(),
            addresses: words.addresses.into_all(),
            lists: words.lists.into_all(),
            lines,
        }
    }

    /// In octets.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        postcard::to_stdvec(self).context("the pairs cannot be written")
    }

    /// From another host's octets.
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let sheet: Self = postcard::from_bytes(bytes).context("the pairs cannot be read")?;
        let has = |len: usize, number: u32| (number as usize) < len;
        let (texts, ends) = (sheet.texts.len(), sheet.ends.len());
        let sound_end = |end: &End| {
            let mut others = [end.id, end.service, end.tenant, end.host].into_iter().flatten();
            has(texts, end.name) && others.all(|number| has(texts, number))
        };
        let sound_line = |line: &Line| {
            let mut delays = line.delays.iter().flat_map(|all| all.iter().flatten());
            line.ends.iter().all(|end| has(ends, *end))
                && line.addresses.iter().all(|list| has(sheet.addresses.len(), *list))
                && [line.protocols, line.via].iter().all(|list| has(sheet.lists.len(), *list))
                && delays.all(|delay| has(texts, delay.method))
        };
        let sound = sheet.ends.iter().all(sound_end)
            && sheet.lists.iter().flatten().all(|number| has(texts, *number))
            && sheet.lines.iter().all(sound_line);
        ensure!(sound, "the pairs speak of things that are not there");
        Ok(sheet)
    }

    /// The lines, in the words of a larger whole, in which the host that tells has this number.
    pub fn into_lines(self, words: &mut Words, teller: Option<u32>) -> impl Iterator<Item = Line> {
        let texts: Vec<u32> = self.texts.into_iter().map(|text| words.texts.number(text)).collect();
        let text = move |number: u32| texts[number as usize];
        let some = |number: Option<u32>| number.map(&text);
        let ends: Vec<u32> = self
            .ends
            .iter()
            .map(|end| {
                let end = End {
                    kind: end.kind,
                    name: text(end.name),
                    id: some(end.id),
                    service: some(end.service),
                    tenant: some(end.tenant),
                    host: some(end.host),
                };
                words.number_of(end, end.host.is_some() && end.host == teller)
            })
            .collect();
        let addresses: Vec<u32> =
            self.addresses.into_iter().map(|list| words.addresses.number(list)).collect();
        let lists: Vec<u32> = self
            .lists
            .into_iter()
            .map(|list| words.lists.number(list.into_iter().map(&text).collect()))
            .collect();
        self.lines.into_iter().map(move |mut line| {
            line.ends = line.ends.map(|end| ends[end as usize]);
            line.addresses = line.addresses.map(|list| addresses[list as usize]);
            line.protocols = lists[line.protocols as usize];
            line.via = lists[line.via as usize];
            for delay in line.delays.iter_mut().flat_map(|all| all.iter_mut().flatten()) {
                delay.method = text(delay.method);
            }
            line
        })
    }
}

#[cfg(test)]
mod tests;
