//! How large a flow table is: its records, in whole buckets, and behind them the buckets' tags.

use crate::abi::{self, Flow, PLACES};

/// Buckets whose tags take the room of one record.
const TAGS_IN_A_RECORD: u32 = (size_of::<Flow>() / size_of::<abi::Tags>()) as u32;

/// The nearest size of a flow table that has room for so many records, and one bucket at least.
pub fn table_size(records: u64) -> u32 {
    let most = u64::from(u32::MAX / 2 / PLACES);
    (records.div_ceil(u64::from(PLACES)).clamp(1, most) as u32) * PLACES
}

/// Whether a flow table can have so many records.
pub(crate) fn is_size(flows: u32) -> bool {
    flows > 0 && table_size(u64::from(flows)) == flows
}

/// Bytes of kernel memory of a table of so many records, tags included.
pub fn table_bytes(flows: u32) -> u64 {
    u64::from(entries(flows)) * size_of::<Flow>() as u64
}

/// Elements of the array that has room for so many records.
pub(crate) fn entries(flows: u32) -> u32 {
    flows + (flows / PLACES).div_ceil(TAGS_IN_A_RECORD)
}

/// For how many records an array of so many elements was made; none if it cannot have been one of ours.
pub(crate) fn flows_in(entries_of_array: u32) -> Option<u32> {
    let a_bucket = u64::from(PLACES * TAGS_IN_A_RECORD + 1);
    let buckets = u64::from(entries_of_array) * u64::from(TAGS_IN_A_RECORD) / a_bucket;
    let flows = u32::try_from(buckets).ok()?.checked_mul(PLACES)?;
    (is_size(flows) && entries(flows) == entries_of_array).then_some(flows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_from_its_array() {
        for flows in (PLACES..100_000).step_by(PLACES as usize).chain([1 << 19, 1 << 22, 1 << 26]) {
            assert!(is_size(flows));
            assert_eq!(flows_in(entries(flows)), Some(flows), "{flows}");
        }
        for entries in [0, 1, 16, 18, 4096, u32::MAX] {
            assert_eq!(flows_in(entries), None, "{entries}");
        }
    }

    #[test]
    fn sizes_are_whole_buckets() {
        assert_eq!([0, 1, 16, 17, 250_000].map(table_size), [16, 16, 16, 32, 250_000]);
        assert!(is_size(table_size(u64::MAX)));
        assert!(![0, 8, 100, u32::MAX].into_iter().any(is_size));
        // 196 bytes a record: 192 and a tag
        assert_eq!(table_bytes(48), 49 * 192);
        assert_eq!(table_bytes(16), 17 * 192);
    }
}
