//! What is simulated: sizes, times and shares. Owns no logic.

/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const S: u64 = 1000 * MS;
/// A minute.
pub const MIN: u64 = 60 * S;
/// Wall time of the simulation's beginning, nanoseconds since the Unix epoch.
pub const EPOCH_NS: u64 = 1_700_000_000 * S;

/// A system and how it is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Hosts. Each has a writer.
    pub hosts: u32,
    /// Of so many of them, evenly spread, the readers are simulated, too. Figures of all readers are theirs, times hosts by readers.
    pub readers: u32,
    /// Containers of each host.
    pub containers: u32,
    /// Addresses that each host's containers take in turn.
    pub pool: u32,
    /// Percent of all containers that are replaced in a minute, at random moments.
    pub churn_percent: f64,
    /// Containers anywhere that each host's containers talk to.
    pub peers: u32,
    /// Of those, percent that are among the popular: one container in a hundred. The others are drawn from all alike.
    pub popular_percent: u64,
    /// How often each address in use is asked for, ns; none: once, when it is seen first.
    pub asked_every_ns: Option<u64>,
    /// From a question to etcd to its answer, ns, when etcd is not busy.
    pub answer_ns: u64,
    /// Where everything begins.
    pub seed: u64,
}

impl Plan {
    /// So many hosts as the goal has them, at so many percent a minute.
    pub const fn goal(hosts: u32, churn_percent: f64) -> Self {
        Self {
            hosts,
            readers: 50,
            containers: 200,
            pool: 2048,
            churn_percent,
            peers: 1000,
            popular_percent: 20,
            asked_every_ns: Some(MIN),
            answer_ns: MS,
            seed: 1,
        }
    }

    /// What one simulated reader stands for.
    pub fn weight(&self) -> f64 {
        f64::from(self.hosts) / f64::from(self.readers)
    }

    /// The host of a reader.
    pub const fn reader_host(&self, reader: u32) -> u32 {
        (reader as u64 * self.hosts as u64 / self.readers as u64) as u32
    }
}

/// A number that is random enough, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 20) % bound.max(1)
    }

    /// A wait until the next of events that come at random, `mean` apart.
    pub fn exponential(&mut self, mean: f64) -> u64 {
        let unit = ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (-unit.ln() * mean) as u64
    }
}
