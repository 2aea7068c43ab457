//! Mirror of `bpf/conmon.h`. A test compares every size and offset with the object's own BTF.

use std::net::IpAddr;

use ippm::flow::{Counters, address_from_bytes};

/// `CM_ABI`.
pub const ABI: u64 = 6;
/// `CM_PLACES`.
pub const PLACES: u32 = 16;
/// `CM_NONE`.
pub const NONE: u32 = u32::MAX;
/// `CM_EXTENTS`.
pub const EXTENTS: u32 = 6;
/// `CM_HIST_BUCKETS`.
pub const HIST_BUCKETS: usize = 400;
/// `CM_CMDS`.
pub const CMDS: usize = 64;
/// `CM_TARGETS`.
pub const TARGETS: u32 = 4096;
/// `CM_GROUP`.
pub const GROUP: u32 = 1 << 31;
/// `CM_ELSEWHERE`.
pub const ELSEWHERE: u32 = 1 << 30;
/// `CM_CLASSES`.
pub const CLASSES: usize = 5;

/// `enum cm_slot_state`.
pub mod state {
    /// Nobody's.
    pub const FREE: u32 = 0;
    /// Being filled.
    pub const CLAIMING: u32 = 1;
    /// Matches packets.
    pub const LIVE: u32 = 2;
    /// Matches no packet any more, not folded yet.
    pub const ENDING: u32 = 3;
}

/// `enum cm_settings_flag`.
pub mod flag {
    /// Follow TCP.
    pub const RTT: u32 = 1;
    /// Write every round-trip singleton to the ring.
    pub const SAMPLES: u32 = 2;
    /// Write a record for each new flow.
    pub const NEW_RECORDS: u32 = 4;
    /// There are records in the flow table before yet.
    pub const OLDER: u32 = 8;
    /// Round trips of a busy direction are drawn.
    pub const PACED: u32 = 16;
}

/// `enum cm_record_kind`.
pub mod record {
    /// A flow began.
    pub const NEW_FLOW: u32 = 1;
    /// A flow ended.
    pub const END_FLOW: u32 = 2;
    /// A round-trip singleton.
    pub const RTT_SAMPLE: u32 = 3;
}

/// `enum cm_op`.
pub mod op {
    /// LIVE to ENDING.
    pub const FLOW_END: u32 = 1;
    /// ENDING, folded, FREE.
    pub const FLOW_FREE: u32 = 2;
    /// LIVE to ENDING.
    pub const PAIR_END: u32 = 3;
    /// ENDING to FREE.
    pub const PAIR_FREE: u32 = 4;
    /// ENDING to LIVE.
    pub const PAIR_KEEP: u32 = 5;
    /// LIVE to FREE.
    pub const PORT_FREE: u32 = 6;
    /// Packets are marked and looked at for marks, or not.
    pub const OVERLAP: u32 = 7;
    /// The size of the flow table that all records are in.
    pub const FLOW_SLOTS: u32 = 8;
    /// LIVE in the table before, LIVE in the new one.
    pub const FLOW_MOVE: u32 = 9;
    /// A flow without a pair gets one.
    pub const FLOW_PAIR: u32 = 10;
}

/// Marks records that may be read as plain bytes: `repr(C)`, no padding that matters, every bit pattern valid.
///
/// # Safety
/// The implementor must be `repr(C)` with integer fields and arrays of them only.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($(#[$meta:meta])* pub struct $name:ident $size:literal { $(pub $field:ident: $kind:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            #[allow(missing_docs, reason = "fields are documented in bpf/conmon.h, whose names they bear")]
            pub struct $name { $(pub $field: $kind,)+ }
            const _: () = assert!(size_of::<$name>() == $size);
            // SAFETY: repr(C), integers and arrays of integers or of such structs only.
            unsafe impl Plain for $name {}
        )+

        /// Size and field offsets of every record, for the comparison with BTF.
        #[cfg(test)]
        pub(crate) fn layouts() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
            vec![$((stringify!($name), size_of::<$name>(), vec![$((stringify!($field), std::mem::offset_of!($name, $field)),)+]),)+]
        }
    };
}

plain! {
    /// `struct cm_settings`.
    pub struct Settings 80 {
        pub flow_buckets: u32,
        pub pair_mask: u32,
        pub port_mask: u32,
        pub hist_mask: u32,
        pub secret: [u64; 6],
        pub flags: u32,
        pub older_buckets: u32,
        pub group: u32,
        pub elsewhere: u32,
    }

    /// `struct cm_flow_key`.
    pub struct FlowKey 48 {
        pub local: [u64; 2],
        pub remote: [u64; 2],
        pub ifindex: u32,
        pub local_port: u16,
        pub remote_port: u16,
        pub proto: u8,
        pub _pad0: u8,
        pub vlan: u16,
        pub _pad1: u32,
    }

    /// `struct cm_flow`.
    pub struct Flow 192 {
        pub key: FlowKey,
        pub state: u32,
        pub tag: u32,
        pub last_seen_ns: u64,
        pub bytes: [u64; 2],
        pub packets: [u64; 2],
        pub extra: [u64; 2],
        pub first_seen_ns: u64,
        pub pair: u32,
        pub tcp_flags: [u8; 2],
        pub role: u8,
        pub guessed: u8,
        pub probe_t0: [u64; 2],
        pub probe_end: [u32; 2],
        pub hist: [u32; 2],
        pub right: [u32; 2],
        pub retransmitted: [u32; 2],
        pub reordered: u32,
        pub tsval: u32,
        pub ip_id: u16,
        pub seen: u16,
        pub isn: u32,
    }

    /// `struct cm_tags`.
    pub struct Tags 64 {
        pub tag: [u32; PLACES as usize],
    }

    /// `struct cm_pair_key`.
    pub struct PairKey 40 {
        pub local: [u64; 2],
        pub remote: [u64; 2],
        pub ifindex: u32,
        pub proto: u8,
        pub role: u8,
        pub service: u8,
        pub guessed: u8,
    }

    /// `struct cm_pair`.
    pub struct Pair 192 {
        pub key: PairKey,
        pub state: u32,
        pub tag: u32,
        pub last_seen_ns: u64,
        pub first_seen_ns: u64,
        pub bytes: [u64; 2],
        pub packets: [u64; 2],
        pub extra: [u64; 2],
        pub retransmitted: [u64; 2],
        pub reordered: u64,
        pub flows: u64,
        pub no_slot: u64,
        pub hist: [u32; 4],
        pub _pad: [u64; 3],
    }

    /// `struct cm_count`.
    pub struct Count 24 {
        pub bytes: u64,
        pub packets: u64,
        pub extra: u64,
    }

    /// `struct cm_port`.
    pub struct PortSlot 256 {
        pub state: u32,
        pub ifindex: u32,
        pub count: [[Count; 5]; 2],
        pub _pad: u64,
    }

    /// `struct cm_hist`.
    pub struct Hist 1664 {
        pub state: u32,
        pub tag: u32,
        pub pair: u32,
        pub leg: u32,
        pub sum_ns: u64,
        pub min_ns: u64,
        pub max_ns: u64,
        pub _pad: [u64; 3],
        pub bucket: [u32; 400],
    }

    /// `struct cm_ctl`.
    pub struct Ctl 256 {
        pub abi: u64,
        pub fold_seq: u64,
        pub flows_begun: u64,
        pub flows_ended: u64,
        pub flow_full: u64,
        pub pair_full: u64,
        pub hist_full: u64,
        pub port_full: u64,
        pub ring_full: u64,
        pub rtt_freed: u64,
        pub probes_cancelled: u64,
        pub no_port: [Count; 2],
        pub _pad: [u64; 3],
        pub flow_slots: u64,
        pub overlap: u64,
        pub tick: u64,
        pub tick_ns: u64,
        pub pairs_begun: u64,
        pub pairs_ended: u64,
        pub hists_begun: u64,
        pub hists_ended: u64,
        pub no_pair: u64,
        pub no_pair_over: u64,
        pub rtt_unpaired: u64,
        pub _pad1: u64,
    }

    /// `struct cm_record`.
    pub struct Record 152 {
        pub key: FlowKey,
        pub kind: u32,
        pub slot: u32,
        pub tag: u32,
        pub role: u8,
        pub reason: u8,
        pub leg: u8,
        pub guessed: u8,
        pub time_ns: u64,
        pub first_seen_ns: u64,
        pub last_seen_ns: u64,
        pub bytes: [u64; 2],
        pub packets: [u64; 2],
        pub extra: [u64; 2],
        pub rtt_ns: u64,
        pub ack: u32,
        pub tcp_flags: [u8; 2],
        pub unpaired: u8,
        pub _pad: u8,
    }

    /// `struct cm_cmd`.
    pub struct Cmd 24 {
        pub op: u32,
        pub slot: u32,
        pub tag: u32,
        pub reason: u32,
        pub if_idle_since_ns: u64,
    }

    /// `struct cm_cmds`.
    pub struct Cmds 1560 {
        pub ether: [u8; 16],
        pub count: u32,
        pub _pad: u32,
        pub cmd: [Cmd; 64],
    }
}

/// The bytes of a record.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: Plain types are repr(C) integers without uninitialised bytes; the slice borrows `value`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// A record from the beginning of `bytes`, `None` if they are too few.
pub(crate) fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: enough bytes are there, every bit pattern is valid, the read is unaligned.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}

/// The kernel side's address words as an address.
pub(crate) fn address(words: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    address_from_bytes(bytes)
}

/// One direction's counters.
pub(crate) fn counters(bytes: u64, packets: u64, extra: u64) -> Counters {
    Counters::new(bytes, packets, extra)
}

/// What a port counted in no flow and no pair, one direction, by class.
pub(crate) fn classes(counts: &[Count; CLASSES]) -> [Counters; CLASSES] {
    counts.map(|c| counters(c.bytes, c.packets, c.extra))
}

impl FlowKey {
    /// As the pure crate's key.
    pub(crate) fn to_ippm(self) -> ippm::flow::FlowKey {
        ippm::flow::FlowKey {
            local: address(self.local),
            remote: address(self.remote),
            local_port: self.local_port,
            remote_port: self.remote_port,
            proto: self.proto,
            vlan: self.vlan,
            ifindex: self.ifindex,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Reads struct sizes and member offsets out of raw BTF (the format of linux/btf.h).
    fn btf_structs(btf: &[u8]) -> HashMap<String, (usize, HashMap<String, usize>)> {
        let u32_at = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap()) as usize;
        let (header, types, type_len, strings) = (u32_at(4), u32_at(8), u32_at(12), u32_at(16));
        let name = |offset: usize| {
            let start = header + strings + offset;
            let end = start + btf[start..].iter().position(|b| *b == 0).unwrap();
            String::from_utf8(btf[start..end].to_vec()).unwrap()
        };
        let mut found = HashMap::new();
        let mut at = header + types;
        let end = at + type_len;
        while at < end {
            let (name_off, info, size) = (u32_at(at), u32_at(at + 4), u32_at(at + 8));
            let (kind, vlen) = (info >> 24 & 0x1f, info & 0xffff);
            at += 12;
            match kind {
                4 | 5 => {
                    let members = (0..vlen)
                        .map(|i| (name(u32_at(at + 12 * i)), (u32_at(at + 12 * i + 8) & 0xff_ffff) / 8))
                        .collect();
                    found.insert(name(name_off), (size, members));
                    at += 12 * vlen;
                }
                1 | 14 | 17 => at += 4,
                3 => at += 12,
                6 | 13 => at += 8 * vlen,
                15 | 19 => at += 12 * vlen,
                _ => {}
            }
        }
        found
    }

    #[test]
    fn records_are_laid_out_as_the_object_says() {
        let object = aya_obj::Object::parse(crate::object::BYTES).unwrap();
        let btf = btf_structs(&object.btf.unwrap().to_bytes());
        for (rust, size, fields) in layouts() {
            let c = match rust {
                "PortSlot" => "cm_port".to_owned(),
                "FlowKey" => "cm_flow_key".to_owned(),
                "PairKey" => "cm_pair_key".to_owned(),
                other => format!("cm_{}", other.to_lowercase()),
            };
            // commands reach the janitor as packet bytes: the pointer type may be all that BTF keeps of them
            let Some((c_size, c_fields)) = btf.get(&c) else { panic!("{c} is not in the object's BTF") };
            assert_eq!(size, *c_size, "size of {c}");
            assert_eq!(fields.len(), c_fields.len(), "number of fields of {c}");
            for (field, offset) in fields {
                assert_eq!(Some(&offset), c_fields.get(field), "offset of {c}.{field}");
            }
        }
    }

    #[test]
    fn histogram_buckets_are_those_of_the_pure_crate() {
        assert_eq!(HIST_BUCKETS, ippm::histogram::BUCKETS);
        assert_eq!(CLASSES, ippm::flow::PortClass::ALL.len());
    }
}
