//! Flow tables that grow, and are cut: the steps that [`tap::Set::resized`] and what goes with it need, and who does them.
//!
//! A thread of its own makes the other table and loads programs for it; the janitor then stands still, the rigger
//! moves the ports, one by one and as reconciling finds them, to the new programs; the janitor moves the records; monitors are handed the
//! new table; and another load gives the ports programs that do not look into the table before any more.

use ippm::measurement::SetCounters;
use tap::{Drained, Extensible};

use super::*;
use crate::mc::janitor::Grow;
use crate::mc::world::{FlowTable, Growth};

/// Pause after something failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What was done.
pub enum Step {
    /// The table of this size and its programs are there, or cannot be had.
    Made(u32, Result<Box<Set>, tap::Error>),
    /// The janitor stands still.
    Ready(Arc<Set>, Sender<bool>),
    /// The records are in the new table.
    Drained(anyhow::Result<Drained>),
    /// Programs without the table before are there, or cannot be had.
    Settled(Result<Box<Set>, tap::Error>),
    /// A table for pairs or histograms has so much room now, or cannot be extended.
    Extended(Extensible, Result<u32, tap::Error>),
}

/// Flow records in use.
pub(super) fn in_use(counters: &SetCounters) -> u64 {
    counters.flows_begun.saturating_sub(counters.flows_ended)
}

impl Work {
    /// As a set's flow table is when the set comes into the controller's hands.
    pub(super) fn flow_table(&self, set: &Set) -> FlowTable {
        let mut table = FlowTable::new(set.spec().flows);
        if let Ok(counters) = set.counters() {
            // what overflowed before is no reason to grow now
            (table.full, table.full_before) = (counters.flow_full, counters.flow_full);
            table.used = in_use(&counters);
        }
        table
    }

    pub(super) fn programs_of(&self, set: SetId) -> u32 {
        self.world.sets.get(&set).map_or(0, |s| s.table.programs)
    }

    /// On a thread of its own: programs take the kernel a while to look through.
    fn load_for(&mut self, id: SetId, work: impl FnOnce() -> Step + Send + 'static) {
        if let Err(error) = self.spawn_for(id, work) {
            self.not_grown(id, Growth::None, &format!("no thread: {error}"));
        }
    }

    pub(super) fn spawn_for(
        &self,
        id: SetId,
        work: impl FnOnce() -> Step + Send + 'static,
    ) -> std::io::Result<()> {
        let events = self.events.clone();
        let spawned = std::thread::Builder::new().name("grower".into()).spawn(move || {
            priority::wait_turn();
            let _ = events.send(Event::Grow(id, work()));
        });
        spawned.map(drop)
    }

    pub(super) fn resize(&mut self, id: SetId, flows: u32) {
        let (Some(hand), Some(seen)) = (self.hands.get(&id), self.world.sets.get_mut(&id)) else { return };
        // monitors are not trusted: the kernel's own word
        match hand.set.counters() {
            Ok(counters) => {
                seen.table.look(in_use(&counters), counters.flow_full, &self.world.wishes.room, monotonic());
            }
            Err(error) => return self.not_grown(id, Growth::None, &chain(&error)),
        }
        if seen.table.wanted(&self.world.wishes.room, monotonic()) != Some(flows) {
            // told otherwise, reconciling comes back with what is right
            return;
        }
        seen.table.stage = Growth::Making;
        let set = hand.set.clone();
        self.load_for(id, move || Step::Made(flows, set.resized(flows).map(Box::new)));
    }

    /// The ports were moved: the janitor may move the records.
    pub(super) fn drain(&mut self, id: SetId) {
        let Some(hand) = self.hands.get(&id) else { return };
        match self.growing.remove(&id) {
            Some(go) => {
                let _ = go.send(true);
            }
            // it failed before
            None => {
                let (go, going) = channel();
                let _ = go.send(true);
                self.send(self.job(id, hand.set.clone(), Box::new(|| {}), going));
            }
        }
        if let Some(seen) = self.world.sets.get_mut(&id) {
            seen.table.stage = Growth::Draining;
        }
    }

    fn job(
        &self,
        id: SetId,
        to: Arc<Set>,
        ready: Box<dyn FnOnce() + Send>,
        go: std::sync::mpsc::Receiver<bool>,
    ) -> Job {
        let events = self.events.clone();
        let done = Box::new(move |drained| {
            let _ = events.send(Event::Grow(id, Step::Drained(drained)));
        });
        Job::Grow(Grow { id, to, ready, go, done })
    }

    pub(super) fn take_growth(&mut self, id: SetId, step: Step) {
        self.dirty = true;
        match step {
            Step::Made(_, Ok(set)) => {
                let (set, (go, going)) = (Arc::<Set>::from(set), channel());
                let (events, to) = (self.events.clone(), set.clone());
                let ready = Box::new(move || {
                    let _ = events.send(Event::Grow(id, Step::Ready(to, go)));
                });
                self.send(self.job(id, set, ready, going));
            }
            Step::Made(flows, Err(error)) => self.not_made(id, flows, &chain(&error)),
            Step::Ready(set, go) => self.take_ready(id, set, go),
            Step::Drained(Ok(drained)) => self.take_drained(id, drained),
            // the records are safe where they are; nobody reads them until they are moved
            Step::Drained(Err(error)) => self.not_drained(id, &format!("{error:#}")),
            Step::Settled(Ok(set)) => {
                let set = Arc::<Set>::from(set);
                self.send(Job::Add(id, set.clone()));
                self.exchange(id, set);
                self.set_stage(id, Growth::None);
            }
            Step::Settled(Err(error)) => {
                // nothing is wrong but the memory of the table before, which goes when the next one is made
                let error = &error as &dyn std::error::Error;
                tracing::warn!(set = %id, error, "the programs keep looking into a flow table that is empty");
                self.set_stage(id, Growth::None);
            }
            Step::Extended(of, done) => self.take_extended(id, of, done),
        }
    }

    /// From now on the set counts in the new table. The janitor waits: if that cannot be, `go` is dropped, which tells it.
    fn take_ready(&mut self, id: SetId, set: Arc<Set>, go: Sender<bool>) {
        if self.is_outgrown(id, set.spec().flows) {
            self.put_off(id);
            let _ = go.send(false);
            return;
        }
        if let Err(error) = set.pin(&self.set_dir(id)) {
            return self.not_grown(id, Growth::None, &chain(&error));
        }
        fault::point("grow.pinned");
        self.exchange(id, set);
        self.growing.insert(id, go);
        self.set_stage(id, Growth::Moving);
    }

    /// Whether a table that is to be cut to so many records has too many by now: between the decision and this there may be a storm.
    fn is_outgrown(&self, id: SetId, flows: u32) -> bool {
        let Some((hand, seen)) = self.hands.get(&id).zip(self.world.sets.get(&id)) else { return false };
        let used = hand.set.counters().map_or(0, |counters| in_use(&counters));
        flows < seen.table.slots && used > u64::from(flows - flows / 8)
    }

    /// The table is left as large as it is, for a while.
    fn put_off(&mut self, id: SetId) {
        if let Some(seen) = self.world.sets.get_mut(&id) {
            seen.table.stage = Growth::None;
            seen.table.not_cut_again(&self.world.wishes.room, monotonic());
        }
    }

    /// Other programs and perhaps another table: ports are moved to them as reconciling finds them.
    fn exchange(&mut self, id: SetId, set: Arc<Set>) {
        self.shared.set_loaded(id, Some(set.clone()));
        if let Some(seen) = self.world.sets.get_mut(&id) {
            seen.table.programs += 1;
            seen.table.has_size(set.spec().flows, &self.world.wishes.room, monotonic());
        }
        if let Some(hand) = self.hands.get_mut(&id) {
            hand.set = set;
        }
        self.tell_reflex();
    }

    fn set_stage(&mut self, id: SetId, stage: Growth) {
        if let Some(seen) = self.world.sets.get_mut(&id) {
            seen.table.stage = stage;
        }
    }

    fn take_drained(&mut self, id: SetId, drained: Drained) {
        let Some(hand) = self.hands.get(&id) else { return };
        if let Err(error) = Set::unpin_older(&self.set_dir(id)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(set = %id, error, "the pin of an emptied flow table remains");
        }
        fault::point("grow.drained");
        if let Err(error) = hand.hand_out() {
            // whoever reads the table before has nothing to tell; a monitor that is silent is replaced, and the new one reads this
            tracing::error!(set = %id, error = error.as_ref() as &dyn std::error::Error, "a set with another flow table cannot be handed out");
        }
        let (counters, flows) = (hand.set.counters(), hand.set.spec().flows);
        let Drained { moved, folded } = drained;
        tracing::info!(set = %id, flows, moved, folded, "a flow table has another size");
        self.grow_error = None;
        if let (Some(seen), Ok(counters)) = (self.world.sets.get_mut(&id), counters) {
            (seen.table.full, seen.table.full_before) = (counters.flow_full, counters.flow_full);
        }
        self.settle_growth(id);
    }

    /// The table before is empty: it goes with the programs that look into it.
    pub(super) fn settle_growth(&mut self, id: SetId) {
        let Some(set) = self.hands.get(&id).map(|h| h.set.clone()) else { return };
        self.set_stage(id, Growth::Settling);
        self.load_for(id, move || Step::Settled(set.drained().map(Box::new)));
    }

    fn not_drained(&mut self, id: SetId, error: &str) {
        let began = self.hands.get(&id).is_some_and(|h| h.set.older_flows().is_some());
        self.not_grown(id, if began { Growth::Left } else { Growth::None }, error);
    }

    fn not_made(&mut self, id: SetId, flows: u32, error: &str) {
        if self.world.sets.get(&id).is_some_and(|seen| flows < seen.table.slots) {
            tracing::warn!(set = %id, flows, error, "a flow table that is larger than needed cannot be cut");
            self.put_off(id);
        } else {
            self.not_grown(id, Growth::None, error);
        }
    }

    fn not_grown(&mut self, id: SetId, stage: Growth, error: &str) {
        tracing::error!(set = %id, error, again_after = ?AGAIN, "a flow table cannot be exchanged");
        self.grow_error = Some(error.to_owned());
        if let Some(seen) = self.world.sets.get_mut(&id) {
            (seen.table.stage, seen.table.grow_at) = (stage, monotonic() + AGAIN);
        }
    }

    /// What is wrong with exchanging flow tables, and what that means.
    pub(super) fn grow_problem(&self) -> Option<String> {
        let error = self.grow_error.as_deref()?;
        Some(format!(
            "a flow table cannot be exchanged for one of another size ({error}); what finds no record of its own is counted in its pair"
        ))
    }
}

impl Hand {
    /// Gives whoever reads the set the table that it has now.
    pub(super) fn hand_out(&self) -> anyhow::Result<()> {
        if let Some(served) = &self.served {
            served.replace(self.set.descriptors()?);
        }
        if let Some(inline) = &self.inline {
            inline.replace(self.set.descriptors()?)?;
        }
        Ok(())
    }
}
