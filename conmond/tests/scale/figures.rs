//! What came out of a simulation, as one readable table: a row for each figure, a column for each plan.

use std::collections::BTreeMap;

use crate::plan::{MS, Plan, S};
use crate::store::Counts;
use crate::world::World;

/// What follows the restart of a store.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Calls that the store answers in a second; none: however many come, each after [`Plan::answer_ns`].
    pub calls_per_second: Option<u32>,
    /// From the store's return until half of the readers were in step again, and until all were; none: they were not in time.
    pub in_step_ns: (Option<u64>, Option<u64>),
    /// From a host's new connection until its reader was in step, of half of them and of all, as far as they were.
    pub reading_ns: (u64, u64),
    /// How long was waited.
    pub waited_ns: u64,
    /// Counts from the store's return to then.
    pub counts: Counts,
}

impl Restart {
    /// Restarts the store and waits until all readers are in step again, or `patience_ns`. Looks every `look_ns`.
    pub fn watch(
        world: &mut World,
        down_ns: u64,
        calls: Option<u32>,
        look_ns: u64,
        patience_ns: u64,
    ) -> Self {
        world.restart_store(down_ns);
        world.service.calls_per_second = calls;
        world.run_until(world.now_ns + down_ns);
        let (before, up_ns) = (world.store.counts, world.now_ns);
        let mut since_up = BTreeMap::new();
        let mut connected = BTreeMap::new();
        let mut in_step = BTreeMap::new();
        while in_step.len() < world.plan.readers as usize && world.now_ns < up_ns + patience_ns {
            world.run_until(world.now_ns + look_ns);
            for host in world.readers() {
                if !world.hosts[host as usize].connected {
                    connected.remove(&host);
                    continue;
                }
                connected.entry(host).or_insert(world.now_ns);
                if world.is_in_step(host) {
                    in_step.entry(host).or_insert(world.now_ns - connected[&host]);
                    since_up.entry(host).or_insert(world.now_ns - up_ns);
                }
            }
        }
        let waited_ns = world.now_ns - up_ns;
        let sorted = |times: BTreeMap<u32, u64>| {
            let mut times: Vec<u64> = times.into_values().collect();
            times.sort_unstable();
            times
        };
        let (since_up, reading) = (sorted(since_up), sorted(in_step));
        let readers = world.plan.readers as usize;
        Self {
            calls_per_second: calls,
            in_step_ns: (since_up.get(readers / 2).copied(), since_up.get(readers - 1).copied()),
            reading_ns: (
                reading.get(reading.len() / 2).copied().unwrap_or(0),
                reading.last().copied().unwrap_or(0),
            ),
            waited_ns,
            counts: world.store.counts.since(&before),
        }
    }
}

impl Counts {
    /// What was counted since.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            puts: self.puts - before.puts,
            deletes: self.deletes - before.deletes,
            written_bytes: self.written_bytes - before.written_bytes,
            keep_alives: self.keep_alives - before.keep_alives,
            seal_reads: self.seal_reads - before.seal_reads,
            leases_lost: self.leases_lost - before.leases_lost,
            lease_deletes: self.lease_deletes - before.lease_deletes,
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            events: self.events - before.events,
            event_bytes: self.event_bytes - before.event_bytes,
            watches_begun: self.watches_begun - before.watches_begun,
            watches_ended: self.watches_ended - before.watches_ended,
            progress: self.progress - before.progress,
        }
    }
}

/// What a plan costs in its steady state.
#[derive(Clone, Debug)]
pub struct Figures {
    plan: Plan,
    seconds: f64,
    counts: Counts,
    live: (u64, u64),
    watches: f64,
    most_watched: usize,
    held_addresses: f64,
    held_rows: f64,
    replaced: u64,
    /// Bytes that one reader holds, if they were counted.
    pub held_bytes: Option<u64>,
    /// After a restart of the store.
    pub restarts: Vec<Restart>,
}

impl Figures {
    /// Of the next `window_ns`.
    pub fn of(world: &mut World, window_ns: u64) -> Self {
        let (before, begun) = (world.store.counts, world.cast.begun);
        world.run_until(world.now_ns + window_ns);
        let fars = || world.hosts.iter().filter_map(|host| host.far.as_deref());
        let mean = |of: fn(&crate::host::Far) -> usize| {
            fars().map(of).sum::<usize>() as f64 / f64::from(world.plan.readers)
        };
        Self {
            plan: world.plan,
            seconds: window_ns as f64 / S as f64,
            counts: world.store.counts.since(&before),
            live: world.store.live(),
            watches: mean(|far| far.reader.watching()),
            most_watched: world.store.most_watched(),
            held_addresses: mean(|far| far.reader.cache().len()),
            held_rows: mean(|far| far.reader.cache().rows()),
            replaced: world.cast.begun - begun,
            held_bytes: None,
            restarts: Vec::new(),
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let (c, hosts, weight) = (&self.counts, f64::from(self.plan.hosts), self.plan.weight());
        let rate = |count: u64| count as f64 / self.seconds;
        let all = |count: u64| rate(count) * weight;
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        row("containers replaced, /s", short(rate(self.replaced)));
        row("etcd: transactions, /s", short(rate(c.transactions)));
        row("etcd: puts of rows, /s (and a seal with each transaction)", short(rate(c.puts)));
        row("etcd: deletes of rows, /s", short(rate(c.deletes)));
        row("etcd: bytes written, /s", bytes(rate(c.written_bytes)));
        row("etcd: keep-alives, /s", short(rate(c.keep_alives)));
        row("etcd: readings of seals, /s", short(rate(c.seal_reads)));
        row("etcd: readings of addresses, all hosts, /s", short(all(c.reads)));
        row("  of one host, /s", short(all(c.reads) / hosts));
        row("etcd: signs of life of streams, /s", short(all(c.progress)));
        row("etcd: watch events told, all hosts, /s", short(all(c.events)));
        row("  to one host, /s", short(all(c.events) / hosts));
        row("etcd: bytes of watch events, all hosts, /s", bytes(all(c.event_bytes)));
        row("  to one host, /s", bytes(all(c.event_bytes) / hosts));
        row("etcd: watches begun, all hosts, /s", short(all(c.watches_begun)));
        row("etcd: watches there are", short(self.watches * hosts));
        row("  of one host", short(self.watches));
        row("  most of one address", short(self.most_watched as f64 * weight));
        row("etcd: keys", short(self.live.0 as f64));
        row("etcd: bytes of keys and values", bytes(self.live.1 as f64));
        row("one host: addresses held", short(self.held_addresses));
        row("one host: rows held", short(self.held_rows));
        let held = self.held_bytes.map_or("-".to_owned(), |held| bytes(held as f64));
        row("one host: bytes held by its reader", held);
        for restart in &self.restarts {
            let name = match restart.calls_per_second {
                None => format!("restart, each answer after {} ms", self.plan.answer_ns as f64 / MS as f64),
                Some(calls) => format!("restart, etcd answers {}/s", short(f64::from(calls))),
            };
            row(&format!("{name}: half in step after"), waited(restart.in_step_ns.0, restart.waited_ns));
            row("  all in step after", waited(restart.in_step_ns.1, restart.waited_ns));
            let (half, last) = restart.reading_ns;
            row("  of one host, from its connection, half", waited(Some(half), 0));
            row("  of one host, from its connection, longest", waited(Some(last), 0));
            row("  readings answered, all hosts", short(restart.counts.reads as f64 * weight));
            row("  hosts lost meanwhile", short(restart.counts.leases_lost as f64));
        }
        rows
    }
}

/// All of them side by side.
pub fn table(all: &[Figures]) -> String {
    let mut out = format!("{:<62}", "hosts x containers, replaced a minute (readers simulated)");
    for figures in all {
        let p = &figures.plan;
        let head =
            format!("{}x{}, {}% ({})", short(p.hosts.into()), p.containers, p.churn_percent, p.readers);
        out += &format!("{head:>22}");
    }
    let columns: Vec<_> = all.iter().map(Figures::rows).collect();
    let longest = columns.iter().max_by_key(|rows| rows.len());
    for (i, (name, _)) in longest.into_iter().flatten().enumerate() {
        out += &format!("\n{name:<62}");
        for rows in &columns {
            out += &format!("{:>22}", rows.get(i).map_or("-", |(_, value)| value));
        }
    }
    out
}

fn waited(ns: Option<u64>, patience_ns: u64) -> String {
    let text = |ns: u64| match ns {
        0..S => format!("{} ms", ns / MS),
        _ => format!("{:.1} s", ns as f64 / S as f64),
    };
    ns.map_or(format!("not within {}", text(patience_ns)), text)
}

/// With commas, and as many digits as mean something.
fn short(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let parts: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|p| str::from_utf8(p).ok()).collect();
            parts.join(",")
        }
    }
}

fn bytes(value: f64) -> String {
    match value {
        0.0..1e3 => format!("{value:.0} B"),
        1e3..1e6 => format!("{:.1} kB", value / 1e3),
        1e6..1e9 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}
