//! Settles records that are over: ends them, waits for a grace period, folds or retires them, frees them.
//!
//! One thread, because the wait may take tens of milliseconds, which the controller's thread must not. Jobs that came
//! meanwhile share the next wait.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ippm::flow::{Both, EndReason};
use ippm::measurement::{Expiry, ExpiryOf, SlotTag};
use ippm::time::{Timestamp, nanos};
use tap::{Command, Drained, Set, fault};

use super::shared::Delays;
use super::world::SetId;
use crate::store::{
    Journal, Names, PairLife, PairRecord, RetiredPair, Snapshots, Store, far_end, is_copy, split,
};
use crate::{clock, priority};

/// So many flows are given a pair at a time: meanwhile no reader gets a whole picture.
const PAIRED_AT_ONCE: usize = 8192;

/// Something to settle.
pub enum Job {
    /// A set to look after.
    Add(SetId, Arc<Set>),
    /// A set to look after no more, once everything in it is settled. The sender learns when that is.
    Drop(SetId, Sender<()>),
    /// Records whose monitor proposes to end them.
    Expire(SetId, Vec<Expiry>),
    /// A port has gone; with the time of the kernel's message about it, if that is to be measured.
    Port(u32, Option<Timestamp>),
    /// An address is given up: no record of it may go on under another owner.
    Address(IpAddr),
    /// Ended pairs that nobody asks for any more are to be forgotten, by the store and the journal.
    Sweep,
    /// A set's flows that have no pair, for want of room, are to get one.
    Pair(SetId),
    /// A set's flow table is exchanged.
    Grow(Grow),
}

/// A flow table of another size for a set. From `ready` until `go` the janitor does nothing else, so that nothing ends while records are
/// in two tables.
pub struct Grow {
    /// The set.
    pub id: SetId,
    /// The set with the new table.
    pub to: Arc<Set>,
    /// Called when nothing is under way: the ports may be moved to `to`.
    pub ready: Box<dyn FnOnce() + Send>,
    /// They were, or are to stay after all, or (closed) could not be.
    pub go: Receiver<bool>,
    /// Called, unless the ports stay, when all records are in the new table, or could not be moved there.
    pub done: Box<dyn FnOnce(anyhow::Result<Drained>) + Send>,
}

/// The thread.
pub struct Janitor {
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    /// Starts it.
    pub fn start(
        store: Arc<Mutex<Store>>,
        names: Snapshots<Names>,
        delays: Arc<Mutex<Delays>>,
        journal: Journal,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        let mut work = Work { store, names, delays, journal, sets: BTreeMap::new(), gone: Vec::new() };
        let thread = std::thread::Builder::new().name("janitor".into()).spawn(move || {
            priority::wait_turn();
            work.run(&inbox);
        })?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// Hands in a job; it never waits.
    pub fn send(&self, job: Job) {
        // the thread ends only after this sender went
        let _ = self.jobs.send(job);
    }

    /// Where jobs go, for others that hand them in.
    pub fn jobs(&self) -> Sender<Job> {
        self.jobs.clone()
    }

    /// Waits until every job handed in is done.
    pub fn finish(mut self) {
        drop(std::mem::replace(&mut self.jobs, channel().0));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    store: Arc<Mutex<Store>>,
    names: Snapshots<Names>,
    delays: Arc<Mutex<Delays>>,
    journal: Journal,
    sets: BTreeMap<SetId, Arc<Set>>,
    /// When the ports went whose records are about to be ended.
    gone: Vec<Timestamp>,
}

/// What is to be settled in one set.
#[derive(Default)]
struct Plan {
    /// Flows, why, and how idle they must be.
    flows: Vec<(SlotTag, EndReason, Timestamp)>,
    /// Pairs, and how idle they must be.
    pairs: Vec<(SlotTag, Timestamp)>,
    /// Ports that have gone.
    ports: Vec<u32>,
    /// Told when the set is done with.
    drop: Option<Sender<()>>,
}

impl Work {
    fn run(&mut self, inbox: &Receiver<Job>) {
        while let Ok(first) = inbox.recv() {
            let mut plans: BTreeMap<SetId, Plan> = BTreeMap::new();
            let mut next = Some(first);
            let mut growing = None;
            while let Some(job) = next.take() {
                match job {
                    // what came before is settled first
                    Job::Grow(grow) => growing = Some(grow),
                    job => {
                        if let Err(error) = self.plan(job, &mut plans) {
                            let error = error.as_ref() as &dyn std::error::Error;
                            tracing::error!(error, "a set cannot be looked through; its records stay");
                        }
                        next = inbox.try_recv().ok();
                    }
                }
            }
            if let Err(error) = self.settle(plans) {
                tracing::error!(
                    error = error.as_ref() as &dyn std::error::Error,
                    "records could not be settled; they stay in the kernel"
                );
            }
            if let Some(grow) = growing {
                self.grow(grow);
            }
        }
    }

    fn grow(&mut self, grow: Grow) {
        let Grow { id, to, ready, go, done } = grow;
        ready();
        match go.recv() {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return done(Err(anyhow::anyhow!("its ports were not moved"))),
        }
        // the set counts there from now on, whatever comes
        self.sets.insert(id, to.clone());
        done(self.move_records(id, &to));
    }

    fn move_records(&self, id: SetId, to: &Set) -> anyhow::Result<Drained> {
        let drained = to.drain()?;
        let mut store = self.lock();
        if store.has_translated(id) {
            let mut flows = Vec::new();
            tap::each_flow(to, |flow| flows.push((flow.key, flow.id, flow.first_seen)))?;
            store.moved(id, clock::monotonic(), flows);
        } else {
            store.moved(id, clock::monotonic(), Vec::new());
        }
        Ok(drained)
    }

    fn plan(&mut self, job: Job, plans: &mut BTreeMap<SetId, Plan>) -> anyhow::Result<()> {
        match job {
            Job::Add(id, set) => {
                self.sets.insert(id, set);
            }
            Job::Drop(id, done) => {
                let Some(set) = self.sets.get(&id) else { return Ok(()) };
                let found = set.find(|_, _, _| true)?;
                let plan = plans.entry(id).or_default();
                plan.take(found);
                plan.drop = Some(done);
            }
            Job::Expire(id, expiries) => {
                let plan = plans.entry(id).or_default();
                for e in expiries {
                    match e.of {
                        ExpiryOf::Flow(reason) => plan.flows.push((e.id, reason, e.if_idle_since)),
                        ExpiryOf::Pair => plan.pairs.push((e.id, e.if_idle_since)),
                    }
                }
            }
            Job::Port(ifindex, gone_at) => {
                self.gone.extend(gone_at);
                for (id, set) in &self.sets {
                    let plan = plans.entry(*id).or_default();
                    plan.take(set.find(|i, _, _| i == ifindex)?);
                    plan.ports.push(ifindex);
                }
            }
            Job::Sweep => {
                // what a storm needed; here nobody waits
                tap::heap::trim();
                let mut store = self.lock();
                if !store.expire(clock::monotonic()) {
                    return Ok(());
                }
                let retired = store.retired().to_vec();
                drop(store);
                if let Err(error) = self.journal.rewrite(&retired) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the journal keeps what is forgotten"
                    );
                }
            }
            Job::Address(address) => {
                for (id, set) in &self.sets {
                    plans.entry(*id).or_default().take(set.find(|_, _, remote| remote == address)?);
                }
            }
            Job::Pair(id) => {
                let Some(set) = self.sets.get(&id) else { return Ok(()) };
                let flows = set.unpaired(PAIRED_AT_ONCE)?;
                set.janitor().run(&flows.into_iter().map(Command::PairFlow).collect::<Vec<_>>())?;
            }
            // the caller's
            Job::Grow(_) => {}
        }
        Ok(())
    }

    fn settle(&mut self, plans: BTreeMap<SetId, Plan>) -> anyhow::Result<()> {
        let mut any = false;
        for (id, plan) in &plans {
            let Some(set) = self.sets.get(id) else { continue };
            let mut commands: Vec<Command> =
                plan.flows.iter().map(|(id, _, since)| Command::EndFlow(*id, *since)).collect();
            commands.extend(plan.pairs.iter().map(|(id, _)| Command::EndPair(*id)));
            if !commands.is_empty() {
                any = true;
                set.janitor().run(&commands)?;
                fault::point("settle.ended");
            }
        }
        for gone_at in self.gone.drain(..) {
            let took = nanos(clock::monotonic() - gone_at);
            self.delays.lock().unwrap_or_else(PoisonError::into_inner).end.record(took);
        }
        if any {
            tap::Janitor::grace_period();
        }
        for (id, plan) in plans {
            self.settle_set(id, plan)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the grace period: flows into their pairs, pairs into the journal and the store.
    fn settle_set(&mut self, id: SetId, plan: Plan) -> anyhow::Result<()> {
        let Some(set) = self.sets.get(&id) else { return Ok(()) };
        // the ring tells of their ends later than their pairs go: who was at the far ends has to be settled now
        if !plan.pairs.is_empty() && self.lock().has_far_ends() {
            for (flow, _, _) in &plan.flows {
                if let Some(flow) = set.flow_now(*flow)? {
                    self.lock().last_word(id, &flow, clock::monotonic());
                }
            }
        }
        let commands: Vec<Command> =
            plan.flows.iter().map(|(id, reason, _)| Command::FreeFlow(*id, *reason)).collect();
        if !commands.is_empty() {
            set.janitor().run(&commands)?;
            fault::point("settle.folded");
        }

        let pairs: HashSet<u32> = plan.pairs.iter().map(|(pair, _)| pair.slot).collect();
        let pointed_to = set.pointed_to(&pairs)?;
        let mut seen = HashSet::new();
        let (mut keep, mut free, mut retired) = (Vec::new(), Vec::new(), Vec::new());
        for (pair, if_idle_since) in plan.pairs {
            if !seen.insert(pair) {
                continue;
            }
            let Some((measurement, rtts)) = set.pair_now(pair.slot)?.filter(|(p, _)| p.id == pair) else {
                continue;
            };
            if measurement.last_seen > if_idle_since || pointed_to.contains(&pair.slot) {
                keep.push(Command::KeepPair(pair));
                continue;
            }
            let (key, first, last) = (measurement.key, measurement.first_seen, measurement.last_seen);
            let record = PairRecord { pair: measurement, rtts };
            let is_copy = is_copy(&self.names.now(), &record.pair);
            let shares = self.lock().shares_of(id, &key);
            let names = self.names.now();
            free.push(Command::FreePair(pair));
            for part in split(&record, Both::default(), Some(&shares)) {
                retired.push(RetiredPair {
                    life: PairLife { set: id.0, id: pair, first_seen: first },
                    local: names.local(key.ifindex, key.local),
                    remote: far_end(&names, &key, part.real.as_ref(), (first, last)),
                    via: part.via,
                    partial: part.partial,
                    is_copy,
                    record: part.record.into_owned(),
                });
            }
        }
        if !keep.is_empty() {
            set.janitor().run(&keep)?;
        }
        if !retired.is_empty() {
            // the journal first: a death between the two is found out by the slot being alive
            if let Err(error) = self.journal.append(&retired) {
                tracing::warn!(error = &error as &dyn std::error::Error, "the journal is not written");
            }
            fault::point("settle.journalled");
            // one step for whoever asks: never both live and retired, never neither
            let mut store = self.lock();
            set.janitor().run(&free)?;
            fault::point("settle.freed");
            for r in retired {
                store.retire(r);
            }
        }
        for ifindex in &plan.ports {
            if let Some(slot) = set.port_slot(*ifindex)? {
                set.janitor().run(&[Command::FreePort { slot, ifindex: *ifindex }])?;
            }
        }
        let mut store = self.lock();
        for ifindex in &plan.ports {
            store.drop_port(id, *ifindex);
        }
        let mut freed = Vec::new();
        for (flow, _, _) in plan.flows.iter().filter(|(flow, _, _)| store.is_translated(id, *flow)) {
            if set.flow_now(*flow)?.is_none() {
                freed.push(*flow);
            }
        }
        store.drop_flows(id, &freed, clock::monotonic());
        if let Some(done) = plan.drop {
            store.drop_set(id);
            drop(store);
            self.sets.remove(&id);
            let _ = done.send(());
        }
        Ok(())
    }
}

impl Plan {
    fn take(&mut self, found: tap::Found) {
        self.flows.extend(found.flows.iter().map(|id| (*id, EndReason::ForcedEnd, Timestamp::MAX)));
        self.pairs.extend(found.pairs.iter().map(|id| (*id, Timestamp::MAX)));
    }
}
