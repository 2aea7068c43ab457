//! A host: the product's writer and reader, and a driver that does what the etcd backend's does (`registry/etcd/driver.rs`): when it
//! asks, how it loses a connection and makes a new one. No store, no time of its own.

use std::collections::HashMap;
use std::net::IpAddr;

use conmond::registry::backoff::Backoff;
use conmond::registry::cache::Asked;
use conmond::registry::reader::{self, Reader, Reading, Target};
use conmond::registry::writer::{self, Told, Writer};
use conmond::registry::{Answer, Limits, Now, Own, WriterSettings};
use conmond::system::{Lookups, Outcome, Sighting};
use ippm::time::Timestamp;

/// A question that has one answer.
#[derive(Clone, Debug)]
pub enum Call {
    /// Whether the store is there.
    Probe,
    /// What a writer asks.
    Write(writer::Ask),
    /// A range.
    Read(Target, i64),
}

/// What a call brought; none if nothing.
#[derive(Clone, Debug)]
pub enum Got {
    /// It is there.
    Probed,
    /// What came of what the writer asked.
    Told(Told),
    /// A range.
    Read(Reading),
}

/// What goes to the store.
#[derive(Clone, Debug)]
pub enum Out {
    /// With an answer.
    Call(Call),
    /// On the stream of watches.
    Stream(reader::Ask),
    /// The connection has ended, and its stream.
    Lost,
}

/// The half that knows of others.
pub struct Far {
    /// The product's.
    pub reader: Reader,
    /// What is looked for in vain so far; the controller's.
    pub lookups: Lookups,
    /// Places of those this host's containers talk to.
    pub peers: Vec<(u32, u32)>,
    /// Who is asked for next.
    pub turn: usize,
    /// Who waits for an answer, and for which time.
    waiting: HashMap<IpAddr, u64>,
    /// When each address was last asked for, because somebody talked to it or because it changed hands, steady.
    pub asked: HashMap<IpAddr, u64>,
}

impl Far {
    fn new(peers: Vec<(u32, u32)>, seed: u64) -> Self {
        Self {
            reader: Reader::new(
                Limits::default(),
                WriterSettings::default().retry_max_ns,
                seed.rotate_left(17),
            ),
            lookups: Lookups::default(),
            peers,
            turn: 0,
            waiting: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// A container of this host talks to an address. `again`: the registry is asked whether or not its name is known.
    pub fn talks_to(&mut self, address: IpAddr, again: bool, now: Now) {
        self.asked.insert(address, now.steady_ns);
        if again {
            self.find(address, now.wall_ns, now);
        } else {
            let at = Timestamp(now.steady_ns);
            self.lookups.seen(Sighting { address, first: at, last: at }, at);
        }
    }

    fn find(&mut self, address: IpAddr, at_ns: u64, now: Now) {
        match self.reader.find(address, at_ns, now) {
            Some(answer) => self.learn(address, &answer, now),
            None => {
                self.waiting.insert(address, at_ns);
            }
        }
    }

    fn learn(&mut self, address: IpAddr, answer: &Answer, now: Now) {
        let outcome = match (answer.candidates.is_empty(), answer.known_as_of_ns) {
            (false, _) => Outcome::Known,
            (true, Some(_)) => Outcome::Nobody,
            (true, None) => Outcome::Unheard,
        };
        self.lookups.answered(address, |_, _| outcome, Timestamp(now.steady_ns));
    }

    /// What the controller does with what the reader tells: whoever waited is answered, an address that changed is asked for.
    fn hear(&mut self, now: Now) {
        for address in self.reader.take_answered() {
            let Some(at_ns) = self.waiting.remove(&address) else { continue };
            let (Asked::Hit(answer) | Asked::Miss(Some(answer))) = self.reader.ask(address, at_ns, now)
            else {
                continue;
            };
            self.learn(address, &answer, now);
        }
        for address in self.reader.take_changed() {
            self.asked.insert(address, now.steady_ns);
            self.find(address, now.wall_ns, now);
        }
        let due: Vec<IpAddr> =
            self.lookups.questions(Timestamp(now.steady_ns)).into_iter().map(|s| s.address).collect();
        due.into_iter().for_each(|address| self.find(address, now.wall_ns, now));
    }
}

/// A host.
pub struct Host {
    /// The product's.
    pub writer: Writer,
    /// Its reader, if that is simulated.
    pub far: Option<Box<Far>>,
    /// Whether there is a connection.
    pub connected: bool,
    connecting: bool,
    /// Numbers connections.
    pub number: u64,
    backoff: Backoff,
    /// When it is to be woken.
    pub wake_ns: u64,
    /// Whether its rows changed since it published.
    pub unpublished: bool,
}

impl Host {
    /// A host that has said nothing yet. With `peers` it reads, too.
    pub fn new(peers: Option<Vec<(u32, u32)>>, seed: u64) -> Self {
        let settings = WriterSettings::default();
        Self {
            writer: Writer::new(settings, seed),
            far: peers.map(|peers| Box::new(Far::new(peers, seed))),
            connected: false,
            connecting: false,
            number: 0,
            backoff: Backoff::new(settings.retry_max_ns, seed.rotate_left(31)),
            wake_ns: u64::MAX,
            unpublished: true,
        }
    }

    /// Says all there is to say.
    pub fn publish(&mut self, own: Own, now: Now) {
        self.unpublished = false;
        self.writer.publish(own, now);
    }

    /// All that is due.
    pub fn work(&mut self, now: Now) -> Vec<Out> {
        let mut out = Vec::new();
        if !self.connected && !self.connecting && !self.backoff.waits(now) {
            self.connecting = true;
            self.number += 1;
            out.push(Out::Call(Call::Probe));
        }
        if let Some(far) = &mut self.far {
            far.hear(now);
        }
        while let Some(ask) = self.far.as_mut().and_then(|far| far.reader.poll(now)) {
            match ask {
                reader::Ask::Read { target, ticket } => out.push(Out::Call(Call::Read(target, ticket))),
                reader::Ask::Reconnect => {
                    self.lose(now);
                    out.push(Out::Lost);
                }
                ask => out.push(Out::Stream(ask)),
            }
        }
        if self.connected
            && let Some(ask) = self.writer.poll(now)
        {
            out.push(Out::Call(Call::Write(ask)));
        }
        out
    }

    /// When there is more to do if nothing happens, steady.
    pub fn deadline(&self, now: Now) -> u64 {
        let mut next = u64::MAX;
        if self.connected {
            next = self.writer.deadline(now).unwrap_or(u64::MAX);
        } else if !self.connecting {
            next = self.backoff.until_ns();
        }
        if let Some(far) = &self.far {
            next = next.min(far.reader.deadline());
            next = next.min(far.lookups.due().map_or(u64::MAX, |due| due.0));
        }
        next
    }

    /// There is no connection any more. Returns whether there was one.
    pub fn lose(&mut self, now: Now) -> bool {
        let had = std::mem::take(&mut self.connected);
        if had {
            self.number += 1;
            self.backoff.failed(now);
            if let Some(far) = &mut self.far {
                far.reader.disconnect(now);
            }
        }
        had
    }

    /// What came of a call on connection `number`. Returns whether the connection was lost with it.
    pub fn answered(&mut self, number: u64, call: &Call, got: Option<Got>, now: Now) -> bool {
        let current = number == self.number;
        if got.is_some() && current && !matches!(call, Call::Probe) {
            self.backoff.succeeded();
        }
        let failed = got.is_none();
        let lost = failed && current && !matches!(call, Call::Probe) && self.lose(now);
        match (call, got) {
            (Call::Probe, _) if !current => {}
            (Call::Probe, Some(_)) => {
                self.connecting = false;
                self.connected = true;
                if let Some(far) = &mut self.far {
                    far.reader.connect(now);
                }
            }
            (Call::Probe, None) => {
                self.connecting = false;
                self.backoff.failed(now);
            }
            (Call::Write(_), Some(Got::Told(told))) => self.writer.told(told, now),
            (Call::Write(_), _) => self.writer.told(Told::Failed, now),
            (Call::Read(target, ticket), got) => {
                let reading = match got {
                    Some(Got::Read(reading)) => Some(reading),
                    _ => None,
                };
                if let Some(far) = &mut self.far {
                    far.reader.read(*target, *ticket, reading, now);
                }
            }
        }
        lost
    }
}
