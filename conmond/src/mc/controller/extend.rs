//! Tables for pairs and histograms that grow: when, and who is told. [`tap::Set::extend`] does it.
//!
//! Nothing is moved and no program is exchanged, so it may be done at any time, a flow table's growing included. The kernel's own
//! counters decide. Flows that began while there was no room for their pair are given one by the janitor when there is.

use tap::Extensible;

use super::*;
use crate::mc::world::{Extending, Growth};

/// Pause after something failed, or was tried and may help later.
const AGAIN: Duration = Duration::from_secs(10);

impl Work {
    /// As a set's tables are when the set comes into the controller's hands.
    pub(super) fn extending(&self, set: &Set) -> [Extending; 2] {
        let (spec, counters) = (set.spec(), set.counters().unwrap_or_default());
        Extensible::ALL.map(|of| {
            let mut table = Extending::default();
            table.look(of, &spec, &counters);
            // what found no room before is no reason to grow now; nor a fault, if that is to end
            table.has_size();
            if !table.has_more(of, &self.world.wishes.room) {
                table.lost_before = 0;
            }
            table
        })
    }

    /// Has the tables extended that are short of room, and flows without a pair given one where there is room.
    pub(super) fn look_at_extents(&mut self, id: SetId, counters: &SetCounters) {
        let (Some(hand), Some(seen)) = (self.hands.get(&id), self.world.sets.get_mut(&id)) else { return };
        let (set, spec, now, room) = (hand.set.clone(), hand.set.spec(), monotonic(), self.world.wishes.room);
        let mut wanted = Vec::new();
        for (of, table) in Extensible::ALL.into_iter().zip(&mut seen.extending) {
            table.look(of, &spec, counters);
            if table.wanted(of, &room, now) {
                table.busy = true;
                wanted.push(of);
            }
        }
        let mends = seen.extending[Extensible::Pairs as usize].mends(counters, &room, now, AGAIN);
        if mends {
            self.send(Job::Pair(id));
        }
        for of in wanted {
            let (set, dir) = (set.clone(), self.set_dir(id));
            let spawned = self.spawn_for(id, move || grow::Step::Extended(of, set.extend(of, Some(&dir))));
            if let Err(error) = spawned {
                self.not_extended(id, of, format!("no thread: {error}"));
            }
        }
        self.hand_out_extents(id);
    }

    pub(super) fn take_extended(&mut self, id: SetId, of: Extensible, done: Result<u32, tap::Error>) {
        let (Some(hand), Some(seen)) = (self.hands.get(&id), self.world.sets.get_mut(&id)) else { return };
        let slots = match done {
            Ok(slots) => slots,
            Err(error) => return self.not_extended(id, of, chain(&error)),
        };
        tracing::info!(set = %id, table = ?of, slots, "a table has room for more records");
        let table = &mut seen.extending[of as usize];
        (table.busy, table.error) = (false, None);
        table.has_size();
        seen.to_hand_out = true;
        // it may be short still
        match hand.set.counters() {
            Ok(counters) => self.look_at_extents(id, &counters),
            Err(_) => self.hand_out_extents(id),
        }
    }

    /// Gives whoever reads the set its extents, once no more are on their way. While a flow table is exchanged nobody may read the new
    /// one; all are handed everything when that is done.
    fn hand_out_extents(&mut self, id: SetId) {
        let (Some(hand), Some(seen)) = (self.hands.get(&id), self.world.sets.get_mut(&id)) else { return };
        let free = matches!(seen.table.stage, Growth::None | Growth::Making | Growth::Settling);
        if !seen.to_hand_out || !free || seen.extending.iter().any(|table| table.busy) {
            return;
        }
        match hand.hand_out() {
            Ok(()) => seen.to_hand_out = false,
            Err(error) => {
                let error = error.as_ref() as &dyn std::error::Error;
                tracing::error!(set = %id, error, "a set with larger tables cannot be handed out; it is tried again");
            }
        }
    }

    fn not_extended(&mut self, id: SetId, of: Extensible, error: String) {
        tracing::error!(set = %id, table = ?of, error, again_after = ?AGAIN, "a table cannot be extended");
        if let Some(seen) = self.world.sets.get_mut(&id) {
            let table = &mut seen.extending[of as usize];
            (table.busy, table.not_before, table.error) = (false, monotonic() + AGAIN, Some(error));
        }
    }

    /// What is wrong with extending tables, and what that means.
    pub(super) fn extend_problem(&self) -> Option<String> {
        let error =
            self.world.sets.values().flat_map(|set| &set.extending).find_map(|t| t.error.as_deref())?;
        Some(format!(
            "a table for pairs or histograms cannot be extended ({error}); what finds no record there is in no row of pairs, or has no round \
             trips, until it can"
        ))
    }
}
