//! One look at a set's flows as they are now, for whoever wants to list them: the table is mapped for as long as that takes,
//! and nothing is remembered.

use std::mem::offset_of;
use std::os::fd::AsFd;

use ippm::measurement::FlowMeasurement;

use crate::abi::{Flow, state};
use crate::error::Error;
use crate::mmap::Table;
use crate::reader::flow_measurement;
use crate::set::Set;

/// Calls `each` with every flow record in use, in the order of their slots. Each counter is exact when it is read; the
/// counters of one record may be a packet apart.
pub fn each_flow(set: &Set, mut each: impl FnMut(FlowMeasurement)) -> Result<(), Error> {
    let table: Table<Flow> = Table::new(set.flows().as_fd(), set.spec().flows)
        .map_err(|source| Error::Descriptor { name: "flows", source })?;
    for slot in 0..table.len() {
        if table.u32(slot, offset_of!(Flow, state)) < state::LIVE {
            continue;
        }
        let flow = table.get(slot);
        // a record that is freed meanwhile is zero in parts
        if flow.tag != 0
            && flow.state >= state::LIVE
            && let Some(flow) = flow_measurement(slot, &flow)
        {
            each(flow);
        }
    }
    Ok(())
}
