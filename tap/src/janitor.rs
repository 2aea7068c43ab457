//! Ends and frees records in the kernel, where alone they can be written.
//!
//! Ending takes a record out of matching at once. Freeing is allowed only after a grace period, when no packet
//! can still be on its way into the record; [`Janitor::grace_period`] waits for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ippm::flow::EndReason;
use ippm::measurement::SlotTag;
use ippm::time::Timestamp;

use crate::abi::{self, Cmd, Cmds, op};
use crate::error::Error;
use crate::sys;

/// One thing to do to one record. A command whose tag is not the slot's any more does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Takes a flow out of matching if it saw no packet after the time given.
    EndFlow(SlotTag, Timestamp),
    /// Adds an ended flow's counters to its pair, writes its end record, frees it.
    FreeFlow(SlotTag, EndReason),
    /// Gives a flow that began without a pair, for want of room, the one that it can have now.
    PairFlow(SlotTag),
    /// Takes a pair out of matching. Flows may still point to it.
    EndPair(SlotTag),
    /// Puts an ended pair back.
    KeepPair(SlotTag),
    /// Frees an ended pair and its histograms. No flow may point to it any more.
    FreePair(SlotTag),
    /// Frees the record of a port that has gone.
    FreePort {
        /// Its slot.
        slot: u32,
        /// Its interface.
        ifindex: u32,
    },
    /// From now on packets are looked at for having been counted at another hook of the same port, or not any more.
    Overlap(bool),
    /// All flow records are in a table of this size; readers of another one have nothing to tell any more.
    FlowSlots(u32),
}

impl Command {
    fn raw(self) -> Cmd {
        let cmd = |op, id: SlotTag, reason, since| Cmd {
            op,
            slot: id.slot,
            tag: id.tag,
            reason,
            if_idle_since_ns: since,
        };
        match self {
            Self::EndFlow(id, since) => cmd(op::FLOW_END, id, 0, since.as_nanos()),
            Self::FreeFlow(id, reason) => cmd(op::FLOW_FREE, id, u32::from(reason.number()), 0),
            Self::PairFlow(id) => cmd(op::FLOW_PAIR, id, 0, 0),
            Self::EndPair(id) => cmd(op::PAIR_END, id, 0, 0),
            Self::KeepPair(id) => cmd(op::PAIR_KEEP, id, 0, 0),
            Self::FreePair(id) => cmd(op::PAIR_FREE, id, 0, 0),
            Self::FreePort { slot, ifindex } => cmd(op::PORT_FREE, SlotTag { slot, tag: ifindex }, 0, 0),
            Self::Overlap(on) => cmd(op::OVERLAP, SlotTag { slot: 0, tag: u32::from(on) }, 0, 0),
            Self::FlowSlots(n) => cmd(op::FLOW_SLOTS, SlotTag { slot: 0, tag: n }, 0, 0),
        }
    }
}

/// Runs commands on one set.
pub struct Janitor<'a> {
    program: BorrowedFd<'a>,
    one_program: BorrowedFd<'a>,
}

impl<'a> Janitor<'a> {
    pub(crate) fn new(program: BorrowedFd<'a>, one_program: BorrowedFd<'a>) -> Self {
        Self { program, one_program }
    }

    /// Runs the commands; those that free pairs, or give flows one, after all others.
    pub fn run(&self, commands: &[Command]) -> Result<(), Error> {
        let (single, others): (Vec<Command>, Vec<Command>) =
            commands.iter().partition(|c| matches!(c, Command::FreePair(_) | Command::PairFlow(_)));
        // an empty run is a run too: it marks the layout
        if others.is_empty() && single.is_empty() {
            run(self.program, &[])?;
        }
        for some in others.chunks(abi::CMDS) {
            if run(self.program, some)? > 0 {
                for one in some.iter().filter(|c| matches!(c, Command::FreeFlow(..))) {
                    run(self.one_program, std::slice::from_ref(one))?;
                }
            }
        }
        for one in single.chunks(1) {
            run(self.one_program, one)?;
        }
        Ok(())
    }

    /// Returns when no packet that was being counted at the call still is. A few to some tens of milliseconds.
    pub fn grace_period() {
        if let Err(error) = sys::grace_period() {
            // kernels without membarrier(2), or with nohz_full: far longer than any program runs
            tracing::debug!(%error, "no membarrier: waiting instead");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Moves records of these flows out of the table before, as many as a run takes.
pub(crate) fn move_flows(mover: BorrowedFd<'_>, some: &[SlotTag]) -> Result<(), Error> {
    let raw =
        |id: &SlotTag| Cmd { op: op::FLOW_MOVE, slot: id.slot, tag: id.tag, reason: 0, if_idle_since_ns: 0 };
    run_raw(mover, &some.iter().map(raw).collect::<Vec<_>>()).map(drop)
}

fn run(program: BorrowedFd<'_>, some: &[Command]) -> Result<u32, Error> {
    run_raw(program, &some.iter().map(|c| c.raw()).collect::<Vec<_>>())
}

/// Returns how many flows without a pair were left.
fn run_raw(program: BorrowedFd<'_>, some: &[Cmd]) -> Result<u32, Error> {
    const NOTHING: Cmd = Cmd { op: 0, slot: 0, tag: 0, reason: 0, if_idle_since_ns: 0 };
    let mut cmds = Cmds { ether: [0; 16], count: some.len() as u32, _pad: 0, cmd: [NOTHING; abi::CMDS] };
    for (to, from) in cmds.cmd.iter_mut().zip(some) {
        *to = *from;
    }
    let (verdict, _) =
        sys::test_run(program, abi::bytes_of(&cmds), None, 1).map_err(|source| Error::Janitor { source })?;
    let taken = verdict & 0xffff;
    if taken as usize != some.len() {
        let source = io::Error::other(format!("it took {taken} of {} commands", some.len()));
        return Err(Error::Janitor { source });
    }
    Ok(verdict >> 16)
}
