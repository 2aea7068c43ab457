/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The whole contract between the kernel side and user space: every map's record, every constant.
 * tap/src/abi.rs mirrors these structs; a test compares sizes and offsets with the object's own BTF.
 *
 * One *set* of maps and programs serves one tenant (or the nursery, where ports wait for their name).
 *
 *   flows  array of cm_flow   in buckets by flow key            full -> the flow's packets count in its pair
 *   pairs  array of cm_pair   open-addressed by pair key        full -> they count in their port's `overflow`
 *   ports  array of cm_port   open-addressed by ifindex         full -> they count in ctl's `no_port`
 *   hists  array of cm_hist   open-addressed by (pair, leg)     full -> the RTT sample counts in ctl's `hist_full`
 *   more_pairs, more_hists   arrays of up to CM_EXTENTS further arrays, each twice as large as the one before
 *   ctl    array of one cm_ctl                                  counters, and the fold sequence lock
 *   ring   ring buffer of cm_record                             full -> counted in ctl's `ring_full`
 *
 * A packet is counted in exactly one place: its flow, its pair, its port or ctl. So for every port
 *   sum(flows) + sum(pairs) + port classes (+ no_port) == packets seen by the programs.
 *
 * A *port* is an interface, by its index, or a control group, by CM_GROUP and the low bits of its number: what has no interface
 * of its own is counted where its sockets send and receive. An interface of another network namespace, whose index may be another's
 * here, is a port by CM_ELSEWHERE and the index plus a number that is the namespace's own.
 *
 * All arrays are mmapable and frozen: user space reads them without a system call and cannot write them.
 * Slots are released by the `cm_janitor` program, which the controller runs; life of a slot:
 *   FREE -> CLAIMING -> LIVE -> ENDING -(RCU grace period)-> folded into its pair -> FREE
 * A packet matches LIVE slots only, so after the grace period nobody writes to an ENDING one.
 *
 * Flow slots are in buckets of CM_PLACES. Behind the records, in the same array, each bucket has a line of tags (cm_tags):
 * one look at it tells where in the bucket a key is, or that it is not, whatever the bucket's records are. A key's place is the one
 * that its tag names, else any free one of its bucket, or of its other buckets. So a table can be filled to seven eighths.
 *
 * The flow table is enlarged, or cut to what is needed, by being replaced: other programs over another one, and the same other maps, take the ports
 * over. While records are in the table of before, `older`, a flow's first packet in the new one takes over what the
 * older record knows; the `cm_mover` program then moves the older records, counters and all.
 *
 * The tables for pairs and histograms grow by *extents*: further arrays of the same records, put into `more_pairs` and `more_hists`
 * while the programs run. Extent e has `size` << e records, from that slot on: a record never changes its slot.
 */
#ifndef CM_CONMON_H
#define CM_CONMON_H

#include <linux/types.h>

enum cm_const {
	CM_ABI = 6,		/* changes whenever a record's layout or meaning does */
	CM_PROBES = 8,		/* slots looked at for a pair or a histogram, in the table and in each of its extents */
	CM_PORT_PROBES = 64,	/* for a port, whose table does not grow */
	CM_PLACES = 16,		/* flow slots in a bucket */
	CM_BUCKETS = 4,		/* buckets that a flow may be in */
	CM_GONE = 1,		/* no record's tag, whose highest bit is set */
	CM_CROWDED = 2,		/* a bucket with so few free slots leaves newcomers to their second one, if that has more */
	CM_NONE = 0xffffffff,	/* no pair */
	CM_EXTENTS = 6,		/* by so many can a table for pairs or histograms be enlarged, each time to twice its size */
	CM_HIST_SUB_BITS = 4,	/* 16 sub-buckets per octave: relative half-width 1/32 */
	CM_HIST_UNIT_BITS = 6,	/* the smallest bucket is 64 ns wide */
	CM_HIST_BUCKETS = 400,	/* up to 2^34 ns (17 s); the last bucket also takes what is longer */
	CM_TARGETS = 4096,	/* places of ports that share a block of filters, by interface */
	CM_TIME_BITS = 57,	/* of a probe's time; what is above them is in CM_THIN, CM_RESTING and CM_HANDSHAKE */
	CM_PACE_BITS = 22,	/* from one RTT probe of a busy direction to the next 2^this ns (4.2 ms), more or less */
	CM_THINNEST = 20,	/* at least one of 2^this new segments begins one */
	CM_CMDS = 64,		/* commands in one run of the janitor */
	CM_GROUP = 0x80000000,	/* set in the number of a port that is a control group */
	CM_ELSEWHERE = 0x40000000, /* set, without CM_GROUP, in that of an interface of another network namespace */
};

/* Direction, as the container sees it. Index of every two-element array below. */
enum cm_dir {
	CM_TX = 0,		/* from the container: the host-side port's ingress, or its control group's egress */
	CM_RX = 1,		/* to the container: the host-side port's egress, or its control group's ingress */
};

enum cm_slot_state {
	CM_FREE = 0,
	CM_CLAIMING = 1,
	CM_LIVE = 2,
	CM_ENDING = 3,
};

/* Who opened the conversation, seen from the port. */
enum cm_role {
	CM_LOCAL_OPENED = 1,	/* the port's container */
	CM_REMOTE_OPENED = 2,
};

/* What a conversation is for, where the pair must tell it after its flows have gone. */
enum cm_service {
	CM_SERVICE_NONE = 0,
	CM_SERVICE_DNS = 1,	/* the opened side's port is 53 */
};

/* What a packet that belongs to no flow is counted as, per port. */
enum cm_class {
	CM_CLASS_OVERFLOW = 0,	/* a good IP packet, but the tables for flows and pairs were full around its key */
	CM_CLASS_ARP = 1,
	CM_CLASS_OTHER = 2,	/* neither IP nor ARP: LLDP, STP, PPPoE, MPLS, … */
	CM_CLASS_MALFORMED = 3,	/* claims to be IP and is not: too short, wrong version or length */
	CM_CLASS_ND = 4,	/* what ARP and IGMP are for IPv4: neighbour discovery (RFC 4861), multicast listener discovery (RFC 3810) */
	CM_CLASSES = 5,
};

enum cm_leg {
	CM_LEG_AWAY = 0,	/* data from the container, acknowledged by the remote end */
	CM_LEG_NEAR = 1,	/* data to the container, acknowledged by it */
	CM_LEG_AWAY_HANDSHAKE = 2,	/* SYN or SYN/ACK from the container until its acknowledgement */
	CM_LEG_NEAR_HANDSHAKE = 3,	/* SYN or SYN/ACK to the container until its acknowledgement */
	CM_LEGS = 4,
};

enum cm_record_kind {
	CM_NEW_FLOW = 1,
	CM_END_FLOW = 2,
	CM_RTT_SAMPLE = 3,	/* only from sets loaded with CM_FLAG_SAMPLES */
};

/* IPFIX flowEndReason (IE 136, RFC 5102 section 5.11.3). */
enum cm_end_reason {
	CM_END_IDLE = 1,
	CM_END_ACTIVE = 2,
	CM_END_DETECTED = 3,
	CM_END_FORCED = 4,
	CM_END_RESOURCES = 5,
};

enum cm_settings_flag {
	CM_FLAG_RTT = 1,	/* follow TCP: RTT, retransmission, reordering */
	CM_FLAG_SAMPLES = 2,	/* write every RTT singleton to the ring (truth tests) */
	CM_FLAG_NEW_RECORDS = 4,	/* write a record for each new flow */
	CM_FLAG_OLDER = 8,	/* there are records in `older` yet */
	CM_FLAG_PACED = 16,	/* a busy direction of a flow begins an RTT probe of data every 4 ms or so, not one after the other */
};

/* Set once, before load; the verifier sees them as constants. Masks are table sizes less one. */
struct cm_settings {
	__u32 flow_buckets;	/* any number: how many there are is in no power of two */
	__u32 pair_mask;
	__u32 port_mask;
	__u32 hist_mask;
	__u64 secret[6];	/* of the hash: nobody outside can choose keys that collide */
	__u32 flags;
	__u32 older_buckets;	/* with CM_FLAG_OLDER: of the table before */
	__u32 group;		/* the port's number, for the programs of a control group */
	__u32 elsewhere;	/* for the programs of another network namespace: what its interfaces' indices are counted from */
};

/* Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are in host order. */
struct cm_flow_key {
	__u64 local[2];
	__u64 remote[2];
	__u32 ifindex;
	__u16 local_port;	/* ICMP echo: identifier; other ICMP: type << 8 | code; no ports or a later fragment: 0 */
	__u16 remote_port;
	__u8 proto;		/* the last header: IPPROTO_* */
	__u8 _pad0;
	__u16 vlan;		/* VLAN id, 0 for none */
	__u32 _pad1;
};

/* Counters of one direction: bytes from the link header on, as interface counters count (at a control group, which is
 * above the link: from the IP header on); packets as the stack handles them; wire segments are packets + extra. */
struct cm_flow {
	/* line 0: identity; written when claimed (last_seen_ns: once per clock tick) */
	struct cm_flow_key key;
	__u32 state;
	__u32 tag;		/* of the key, never 0; with slot and first_seen_ns it names one life of the slot */
	__u64 last_seen_ns;	/* CLOCK_MONOTONIC_COARSE: up to one tick (1/HZ) old */

	/* line 1: counters, indexed by cm_dir */
	__u64 bytes[2];
	__u64 packets[2];
	__u64 extra[2];		/* sum of gso_segs - 1 */
	__u64 first_seen_ns;	/* CLOCK_MONOTONIC */
	__u32 pair;		/* slot of its pair or CM_NONE */
	__u8 tcp_flags[2];	/* all flags seen, indexed by cm_dir */
	__u8 role;
	__u8 guessed;		/* the role was inferred from port numbers, not seen */

	/* line 2: TCP */
	__u64 probe_t0[2];	/* when the outstanding probe left, 0 for none; by direction of its data; with CM_HANDSHAKE, CM_RESTING, CM_THIN */
	__u32 probe_end[2];	/* the sequence number whose acknowledgement ends it */
	__u32 hist[2];		/* slot of its pair's histogram for data of that direction, + 1; 0 if not known yet */
	__u32 right[2];		/* highest sequence number seen + 1 */
	__u32 retransmitted[2];	/* segments; [CM_RX]: not told apart from reordering by id or time stamp */
	__u32 reordered;	/* segments to the container that were sent before ones seen earlier */
	__u32 tsval;		/* newest time stamp option to the container */
	__u16 ip_id;		/* newest IPv4 identification to the container */
	__u16 seen;		/* enum cm_seen */
	__u32 isn;		/* sequence number of the SYN without ACK */
};

/* A bucket's tags, by place; 0 for a free one, CM_GONE for one whose record has ended. Slot s is in bucket s / CM_PLACES. Three buckets' tags are as long as a record. */
struct cm_tags {
	__u32 tag[CM_PLACES];
};

/* In probe_t0: the probe is a SYN or SYN/ACK. The clock does not reach that bit. */
#define CM_HANDSHAKE (1ull << 63)
/* In probe_t0: none is outstanding; when the last one left. */
#define CM_RESTING (1ull << 62)
/* In probe_t0, paced: of 2^this new segments one begins a probe. */
#define CM_THIN(word) ((word) >> CM_TIME_BITS & 31)
#define CM_THINNED(thin) ((__u64)(thin) << CM_TIME_BITS)
/* In probe_t0, the rest: CLOCK_MONOTONIC, over after four and a half years, which does not matter for differences. */
#define CM_TIME ((1ull << CM_TIME_BITS) - 1)

enum cm_seen {
	CM_SEEN_RIGHT = 1,	/* << direction: `right` holds a value */
	CM_SEEN_NEWEST = 4,	/* ip_id and tsval hold values */
	CM_SEEN_ISN = 8,	/* << direction: isn is that direction's */
};

struct cm_pair_key {
	__u64 local[2];
	__u64 remote[2];
	__u32 ifindex;
	__u8 proto;
	__u8 role;
	__u8 service;
	__u8 guessed;		/* not compared */
};

struct cm_pair {
	struct cm_pair_key key;
	__u32 state;
	__u32 tag;
	__u64 last_seen_ns;	/* of packets counted here, not of live flows; CLOCK_MONOTONIC_COARSE */
	__u64 first_seen_ns;

	__u64 bytes[2];		/* of ended flows, and of packets that found no flow slot */
	__u64 packets[2];
	__u64 extra[2];
	__u64 retransmitted[2];

	__u64 reordered;
	__u64 flows;		/* flow records begun */
	__u64 no_slot;		/* packets counted here because no flow slot was free */
	__u32 hist[4];		/* slot of the histogram by cm_leg, + 1; 0 for none */
	__u64 _pad[3];
};

struct cm_count {
	__u64 bytes;
	__u64 packets;
	__u64 extra;
};

struct cm_port {
	__u32 state;
	__u32 ifindex;
	struct cm_count count[2][CM_CLASSES];	/* [cm_dir][cm_class] */
	__u64 _pad;
};

struct cm_hist {
	__u32 state;
	__u32 tag;
	__u32 pair;
	__u32 leg;
	__u64 sum_ns;
	__u64 min_ns;
	__u64 max_ns;
	__u64 _pad[3];
	__u32 bucket[CM_HIST_BUCKETS];	/* their sum is the number of samples */
};

struct cm_ctl {
	__u64 abi;		/* 0 until the janitor ran once */
	__u64 fold_seq;		/* odd while the janitor moves counters from one slot to another */
	__u64 flows_begun;
	__u64 flows_ended;
	__u64 flow_full;	/* packets that found no flow slot */
	__u64 pair_full;	/* packets that found no pair slot either */
	__u64 hist_full;	/* RTT samples that found no histogram slot */
	__u64 port_full;	/* packets whose port had no slot */
	__u64 ring_full;	/* records that found no room in the ring */
	__u64 rtt_freed;	/* RTT samples of histograms that have been freed */
	__u64 probes_cancelled;	/* RTT probes given up because of a retransmission (Karn) */
	struct cm_count no_port[2];	/* [cm_dir] */
	__u64 _pad[3];
	__u64 flow_slots;	/* size of the flow table that all records are in; 0 if nobody told */
	__u64 overlap;		/* a port of the set runs its program at two hooks: a packet is marked by the first */
	__u64 tick;		/* jiffies when tick_ns was read; both change once in a tick */
	__u64 tick_ns;		/* CLOCK_MONOTONIC_COARSE */
	__u64 pairs_begun;	/* pair records */
	__u64 pairs_ended;
	__u64 hists_begun;	/* histogram records */
	__u64 hists_ended;
	__u64 no_pair;		/* flow records that began without a pair, for want of room */
	__u64 no_pair_over;	/* of these: given a pair later, or ended */
	__u64 rtt_unpaired;	/* RTT samples of flows without a pair */
	__u64 _pad1;
};

struct cm_record {
	struct cm_flow_key key;
	__u32 kind;		/* cm_record_kind */
	__u32 slot;
	__u32 tag;
	__u8 role;
	__u8 reason;		/* cm_end_reason, in CM_END_FLOW */
	__u8 leg;		/* cm_leg, in CM_RTT_SAMPLE */
	__u8 guessed;
	__u64 time_ns;		/* CLOCK_MONOTONIC: when written; of the acknowledgement in CM_RTT_SAMPLE */
	__u64 first_seen_ns;
	__u64 last_seen_ns;
	__u64 bytes[2];
	__u64 packets[2];
	__u64 extra[2];
	__u64 rtt_ns;		/* in CM_RTT_SAMPLE */
	__u32 ack;		/* in CM_RTT_SAMPLE: the acknowledgement number that ended it */
	__u8 tcp_flags[2];
	__u8 unpaired;		/* in CM_END_FLOW: it had no pair, what it counted is its port's */
	__u8 _pad;
};

/* What the controller asks of the janitor: a packet of this header and up to CM_CMDS commands. */
enum cm_op {
	CM_OP_FLOW_END = 1,	/* LIVE -> ENDING */
	CM_OP_FLOW_FREE = 2,	/* ENDING -> folded into its pair, END_FLOW record -> FREE */
	CM_OP_PAIR_END = 3,	/* LIVE -> ENDING */
	CM_OP_PAIR_FREE = 4,	/* ENDING -> FREE, with its histograms; one in a run, by `cm_janitor_one` */
	CM_OP_PAIR_KEEP = 5,	/* ENDING -> LIVE: somebody still needs it */
	CM_OP_PORT_FREE = 6,	/* LIVE -> FREE; the caller has let a grace period pass since the port's last packet */
	CM_OP_OVERLAP = 7,	/* ctl's `overlap` is set to `tag` */
	CM_OP_FLOW_SLOTS = 8,	/* ctl's `flow_slots` is set to `tag` */
	CM_OP_FLOW_PAIR = 10,	/* a flow without a pair gets one, if there is room now; by `cm_janitor_one` */
	CM_OP_FLOW_MOVE = 9,	/* LIVE in `older` -> LIVE in `flows`; by `cm_mover`, when nothing counts in `older` any more */
};

struct cm_cmd {
	__u32 op;
	__u32 slot;
	__u32 tag;		/* must be the slot's: a command never hits a later life of the slot */
	__u32 reason;		/* cm_end_reason */
	__u64 if_idle_since_ns;	/* FLOW_END: only if last_seen_ns is not later; ~0 for always */
};

struct cm_cmds {
	__u8 ether[16];		/* room for a link header: test runs insist on one */
	__u32 count;
	__u32 _pad;
	struct cm_cmd cmd[CM_CMDS];
};

_Static_assert(sizeof(struct cm_flow_key) == 48, "flow key");
_Static_assert(sizeof(struct cm_flow) == 192, "a flow is three cache lines");
_Static_assert(sizeof(struct cm_tags) == 64 && sizeof(struct cm_flow) == 3 * sizeof(struct cm_tags), "a bucket's tags are a line");
_Static_assert(sizeof(struct cm_pair_key) == 40, "pair key");
_Static_assert(sizeof(struct cm_pair) == 192, "a pair is three cache lines");
_Static_assert(sizeof(struct cm_port) == 256, "port");
_Static_assert(sizeof(struct cm_hist) == 1664, "histogram");
_Static_assert(sizeof(struct cm_ctl) == 256, "ctl");
_Static_assert(sizeof(struct cm_record) == 152, "record");
_Static_assert(sizeof(struct cm_cmds) == 24 + 24 * CM_CMDS, "commands");

#endif
