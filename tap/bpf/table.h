/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables: find a slot by key, or claim one. Flows are in buckets, what there are few of in open addressing.
 *
 * Two processors may look for the same new key at once. Both try the same first free slot; the loser waits a
 * moment for the winner to publish it. If a slot before it was freed in between, one key can end up in
 * two slots, as it can where both find its buckets differently crowded: every packet is still counted once, and readers add up slots of
 * equal key.
 */
#ifndef CM_TABLE_H
#define CM_TABLE_H

#include "conmon.h"
#include "kernel.h"

const volatile struct cm_settings cm_settings SEC(".rodata");

MAP(flows, BPF_MAP_TYPE_ARRAY, struct cm_flow);
MAP(older, BPF_MAP_TYPE_ARRAY, struct cm_flow);
MAP(pairs, BPF_MAP_TYPE_ARRAY, struct cm_pair);
MAP(ports, BPF_MAP_TYPE_ARRAY, struct cm_port);
MAP(hists, BPF_MAP_TYPE_ARRAY, struct cm_hist);
MAP(more_pairs, BPF_MAP_TYPE_ARRAY_OF_MAPS, __u32);
MAP(more_hists, BPF_MAP_TYPE_ARRAY_OF_MAPS, __u32);
MAP(ctl, BPF_MAP_TYPE_ARRAY, struct cm_ctl);
MAP(targets, BPF_MAP_TYPE_PROG_ARRAY, __u32);

struct cm_ring_layouts {
	struct cm_record record;
	struct cm_cmds commands;
	struct cm_tags tags;
};

RING(ring, struct cm_ring_layouts);

static always_inline struct cm_flow *flow_at(__u32 i)
{
	return bpf_map_lookup_elem(&flows, &i);
}

static always_inline struct cm_flow *older_at(__u32 i)
{
	return bpf_map_lookup_elem(&older, &i);
}

/* 1 if v is greater than limit; by the borrow, since a comparison would be a branch, and one that nobody can predict. */
#define exceeds(v, limit) (((__u64)(limit) - (v)) >> 63)

/* The extent that a slot is in, of a table that began with `size` records and has it in none of these. */
static always_inline __u32 extent_of(__u32 slot, __u64 size)
{
	return exceeds(slot, 2 * size - 1) + exceeds(slot, 4 * size - 1) + exceeds(slot, 8 * size - 1) +
	       exceeds(slot, 16 * size - 1) + exceeds(slot, 32 * size - 1) + exceeds(slot, 64 * size - 1);
}

/* The record `i` of an extent, if there is that extent. */
static always_inline void *in_extent(void *extents, __u32 extent, __u32 i)
{
	void *records = bpf_map_lookup_elem(extents, &extent);

	return records ? bpf_map_lookup_elem(records, &i) : 0;
}

static always_inline void *beyond(void *extents, __u32 slot, __u32 mask)
{
	__u32 extent = extent_of(slot, (__u64)mask + 1);

	return in_extent(extents, extent, slot - ((mask + 1) << extent));
}

static always_inline struct cm_pair *pair_at(__u32 i)
{
	return likely(i <= cm_settings.pair_mask) ? bpf_map_lookup_elem(&pairs, &i) :
						    beyond(&more_pairs, i, cm_settings.pair_mask);
}

static always_inline struct cm_port *port_at(__u32 i)
{
	return bpf_map_lookup_elem(&ports, &i);
}

static always_inline struct cm_hist *hist_at(__u32 i)
{
	return likely(i <= cm_settings.hist_mask) ? bpf_map_lookup_elem(&hists, &i) :
						    beyond(&more_hists, i, cm_settings.hist_mask);
}

static always_inline struct cm_ctl *ctl_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ctl, &zero);
}

#define COUNT(field)					\
	do {						\
		struct cm_ctl *_c = ctl_get();		\
		if (_c)					\
			add(&_c->field, 1);		\
	} while (0)

noinline __u64 next_tick(__u64 tick)
{
	struct cm_ctl *c = ctl_get();
	__u64 ns = bpf_ktime_get_coarse_ns();

	if (c) {
		WRITE_ONCE(c->tick_ns, ns);
		WRITE_ONCE(c->tick, tick);
	}
	return ns;
}

/* CLOCK_MONOTONIC_COARSE, read once in a tick. Where processors meet, one may get the tick before. */
static always_inline __u64 coarse_ns(struct cm_ctl *c)
{
	__u64 tick = bpf_jiffies64();

	if (likely(READ_ONCE(c->tick) == tick))
		return READ_ONCE(c->tick_ns);
	return next_tick(tick);
}

/* A linear hash with secret odd multipliers, then one round of mixing. Never 0. */
static always_inline __u32 mix(__u64 h)
{
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15ull;
	h >>= 32;
	return (__u32)h | 1u << 31;
}

static always_inline __u32 flow_tag(const struct cm_flow_key *k)
{
	const __u64 *w = (const __u64 *)k;

	return mix(w[0] * cm_settings.secret[0] + w[1] * cm_settings.secret[1] + w[2] * cm_settings.secret[2] +
		   w[3] * cm_settings.secret[3] + w[4] * cm_settings.secret[4] + w[5] * cm_settings.secret[5]);
}

static always_inline int flow_is(const struct cm_flow *f, const struct cm_flow_key *k)
{
	const __u64 *a = (const __u64 *)&f->key, *b = (const __u64 *)k;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

/* A flow's first bucket, of so many: by the tag's upper bits; the lower four name the place in it. */
static always_inline __u32 first_bucket(__u32 tag, __u32 buckets)
{
	return (__u64)((tag & 0x7fffffff) >> 4) * buckets >> 27;
}

/* And where else it may be: `turn` counts from 0, the first. */
static always_inline __u32 bucket_of_turn(__u32 tag, __u32 turn, __u32 buckets)
{
	const __u32 odd = 0x9e3779b1;
	__u32 h = tag * (turn == 1 ? odd : turn == 2 ? odd * odd : odd * odd * odd);

	return turn ? (__u64)(h >> 5) * buckets >> 27 : first_bucket(tag, buckets);
}

/* A bucket's tags are behind the records, three buckets' in the room of one. */
static always_inline struct cm_tags *tags_in(struct cm_flow *room, __u64 third)
{
	/* the verifier does not know what a remainder can be, and the compiler is not to use that it does */
	asm volatile("" : "+r"(third));
	if (!room || third > 2)
		return 0;
	/* nor to add before it has looked */
	asm volatile("" : "+r"(room));
	return (struct cm_tags *)room + third;
}

static always_inline struct cm_tags *flow_tags(__u32 bucket)
{
	return tags_in(flow_at(cm_settings.flow_buckets * CM_PLACES + bucket / 3), bucket % 3);
}

static always_inline struct cm_tags *older_tags(__u32 bucket)
{
	return tags_in(older_at(cm_settings.older_buckets * CM_PLACES + bucket / 3), bucket % 3);
}

static always_inline int flow_matches(const struct cm_flow *f, const struct cm_flow_key *k, __u32 tag)
{
	return f->tag == tag && READ_ONCE(f->state) == CM_LIVE && flow_is(f, k);
}

/* 1 if x, below 2^63, is 0. The compiler would make a comparison of it, and that a branch; the verifier walks all ways of those. */
static always_inline __u32 is_zero(__u64 x)
{
	x--;
	asm volatile("" : "+r"(x));
	return x >> 63;
}

/* Which of a bucket's places have this tag, a bit for each. */
static always_inline __u32 places_of(const struct cm_tags *tags, __u32 tag)
{
	__u32 places = 0;

	for (int i = 0; i < CM_PLACES; i++) {
		places |= is_zero(READ_ONCE(tags->tag[i]) ^ tag) << i;
		/* one after the other: the compiler would keep all sixteen, on the stack */
		asm volatile("" : "+r"(places));
	}
	return places;
}

/* Both, of one look: who would put the same key there is seen in one or meets us in the other. */
static always_inline __u32 places_and_free(const struct cm_tags *tags, __u32 tag, __u32 *free)
{
	__u32 places = 0, empty = 0;

	for (int i = 0; i < CM_PLACES; i++) {
		__u32 t = READ_ONCE(tags->tag[i]);

		places |= is_zero(t ^ tag) << i;
		empty |= is_zero(t) << i;
		asm volatile("" : "+r"(places), "+r"(empty));
	}
	*free = empty;
	return places;
}

/* The lowest of some places. */
static always_inline __u32 lowest(__u32 places)
{
	places &= 0 - places;
	/* by halves, quarters, ... in which it is not */
	return is_zero(places & 0x00ff) << 3 | is_zero(places & 0x0f0f) << 2 | is_zero(places & 0x3333) << 1 |
	       is_zero(places & 0x5555);
}

/*
 * Looks through the buckets that a key may be in. Returns its slot, or CM_NONE. Of places with equal tags in one bucket two
 * are looked at: another is found when the flow would be placed.
 */
#define SEARCH(at, tags_at, buckets, k, t)						\
	do {										\
		ROLLED for (__u32 turn = 0; turn < CM_BUCKETS; turn++) {		\
			__u32 bucket = bucket_of_turn(t, turn, buckets);		\
			struct cm_tags *tags = tags_at(bucket);				\
			__u32 places = tags ? places_of(tags, t) : 0;			\
											\
			ROLLED for (int i = 0; places && i < 2; i++) {			\
				__u32 slot = bucket * CM_PLACES + lowest(places);	\
				struct cm_flow *f = at(slot);				\
											\
				if (f && flow_matches(f, k, t))				\
					return slot;					\
				places &= places - 1;					\
			}								\
		}									\
		return CM_NONE;								\
	} while (0)

noinline __u32 flow_search(struct cm_flow_key *k, __u32 tag)
{
	if (!k)
		return CM_NONE;
	SEARCH(flow_at, flow_tags, cm_settings.flow_buckets, k, tag);
}

noinline __u32 older_search(struct cm_flow_key *k, __u32 tag)
{
	if (!k)
		return CM_NONE;
	SEARCH(older_at, older_tags, cm_settings.older_buckets, k, tag);
}

/*
 * Nearly always the place that the tag names is the one, and cold: its other lines are loaded here so that the processor
 * fetches them at the same time as the first. (There is no prefetch instruction.)
 */
static always_inline struct cm_flow *flow_find(struct cm_flow_key *k, __u32 tag, __u32 *slot, int tcp)
{
	__u32 at = first_bucket(tag, cm_settings.flow_buckets) * CM_PLACES + (tag & (CM_PLACES - 1));
	struct cm_flow *f = flow_at(at);

	if (f) {
		READ_ONCE(f->pair);
		if (tcp)
			READ_ONCE(f->seen);
		if (flow_matches(f, k, tag)) {
			*slot = at;
			return f;
		}
	}
	at = flow_search(k, tag);
	if (at == CM_NONE)
		return 0;
	*slot = at;
	return flow_at(at);
}

/* Some 100 ns, in which who claimed a slot writes a cache line or two. A loop would be dear to verify. */
static always_inline void a_moment(void)
{
	bpf_ktime_get_ns();
	bpf_ktime_get_ns();
	bpf_ktime_get_ns();
}

/* Claims the state word of a slot. 1: it is ours. 0: not free. 2: somebody published it while we waited. */
static always_inline int claim(__u32 *state)
{
	__u32 was = __sync_val_compare_and_swap(state, CM_FREE, CM_CLAIMING);

	if (was == CM_FREE)
		return 1;
	if (was == CM_CLAIMING) {
		a_moment();
		was = READ_ONCE(*state);
	}
	return was == CM_LIVE ? 2 : 0;
}

/* An exchange is a full barrier: the slot's fields are visible before its state. */
static always_inline void publish(__u32 *state)
{
	barrier();
	__sync_lock_test_and_set(state, CM_LIVE);
}

/* With a slot: the flow is there already. Slots are far fewer. */
#define CM_FOUND (1u << 31)

static always_inline __u32 number_of(__u32 places)
{
	places -= places >> 1 & 0x5555;
	places = (places & 0x3333) + (places >> 2 & 0x3333);
	places = (places + (places >> 4)) & 0x0f0f;
	return (places + (places >> 8)) & 0x1f;
}

/*
 * Whether somebody has just put the key in this slot, whose tag is its own. Who did writes two lines that may be far away
 * before it publishes them.
 */
noinline int came_first(__u32 slot, struct cm_flow_key *k, __u32 tag)
{
	struct cm_flow *f = flow_at(slot);

	if (!f || !k)
		return 0;
	ROLLED for (int i = 0; i < 16; i++) {
		__u32 state = READ_ONCE(f->state);

		if (state != CM_FREE && state != CM_CLAIMING)
			break;
		a_moment();
	}
	return flow_matches(f, k, tag);
}

/* The place that the tag names, or the next free one of the bucket; of free ones there is one at least. */
static always_inline __u32 place_in(__u32 free, __u32 tag)
{
	__u32 home = tag & (CM_PLACES - 1);

	return (home + lowest((free | free << CM_PLACES) >> home)) & (CM_PLACES - 1);
}

/*
 * A slot for a new flow, claimed, with its key and tag in it: the caller writes the rest and publishes it. Or, with
 * CM_FOUND, the slot that another processor has put the flow in meanwhile. CM_NONE if there is no room.
 */
noinline __u32 flow_place(struct cm_flow_key *k, __u32 tag)
{
	struct cm_tags *first = flow_tags(bucket_of_turn(tag, 0, cm_settings.flow_buckets));
	struct cm_tags *second = flow_tags(bucket_of_turn(tag, 1, cm_settings.flow_buckets));
	__u32 swap = 0;

	if (!k || !first || !second)
		return CM_NONE;
	if (READ_ONCE(first->tag[tag & (CM_PLACES - 1)])) {
		__u32 free, there, same = places_and_free(first, tag, &free);

		/* who puts the same key in one of them makes it the more crowded one: there it is found */
		if (!same && number_of(free) <= CM_CROWDED) {
			same = places_and_free(second, tag, &there);
			swap = same || number_of(there) > number_of(free);
		}
	}
	ROLLED for (__u32 turn = 0; turn < CM_BUCKETS; turn++) {
		__u32 bucket = bucket_of_turn(tag, turn < 2 ? turn ^ swap : turn, cm_settings.flow_buckets);
		struct cm_tags *tags = flow_tags(bucket);
		__u32 same, free;

		if (!tags)
			return CM_NONE;
		same = places_and_free(tags, tag, &free);
		ROLLED for (int i = 0; same && i < CM_PLACES; i++) {
			__u32 slot = bucket * CM_PLACES + lowest(same);

			if (came_first(slot, k, tag))
				return slot | CM_FOUND;
			same &= same - 1;
		}
		/* others may take the place that looks free, but not often */
		ROLLED for (int i = 0; i < 3; i++) {
			__u32 place = place_in(free, tag), was;
			__u32 slot = bucket * CM_PLACES + place;
			struct cm_flow *f = flow_at(slot);

			if (!free || !f)
				break;
			was = __sync_val_compare_and_swap(&tags->tag[place], 0, tag);
			if (was == tag && came_first(slot, k, tag))
				return slot | CM_FOUND;
			if (!was) {
				WRITE_ONCE(f->state, CM_CLAIMING);
				f->key = *k;
				f->tag = tag;
				return slot;
			}
			free &= ~(1u << place);
		}
	}
	return CM_NONE;
}

static always_inline void set_tag(__u32 slot, __u32 tag)
{
	struct cm_tags *tags = flow_tags(slot / CM_PLACES);

	if (tags)
		__sync_lock_test_and_set(&tags->tag[slot & (CM_PLACES - 1)], tag);
}

/* Takes a record out of matching, and out of the way of who looks for others of its key. It is freed a grace period later. */
static always_inline void flow_ends(struct cm_flow *f, __u32 slot)
{
	if (__sync_val_compare_and_swap(&f->state, CM_LIVE, CM_ENDING) == CM_LIVE)
		set_tag(slot, CM_GONE);
}

/* A command's record: what is behind the records is none. */
static always_inline struct cm_flow *flow_of(__u32 slot)
{
	return slot < cm_settings.flow_buckets * CM_PLACES ? flow_at(slot) : 0;
}

static always_inline __u32 pair_tag(const struct cm_pair_key *k)
{
	const __u64 *w = (const __u64 *)k;

	/* without `guessed`, the last byte */
	return mix(w[0] * cm_settings.secret[0] + w[1] * cm_settings.secret[1] + w[2] * cm_settings.secret[2] +
		   w[3] * cm_settings.secret[3] + (w[4] & 0x00ffffffffffffffull) * cm_settings.secret[4]);
}

static always_inline int pair_is(const struct cm_pair *p, const struct cm_pair_key *k)
{
	const __u64 *a = (const __u64 *)&p->key, *b = (const __u64 *)k;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) |
		 ((a[4] ^ b[4]) & 0x00ffffffffffffffull));
}

/* The turns of a search: so many places in the table, then in each of its extents. */
#define TURNS (CM_PROBES * (1 + CM_EXTENTS))

/* The slot that a key may be in at this turn, in a table that began with `mask` + 1 records. */
static always_inline __u32 slot_of_turn(__u32 tag, __u32 turn, __u32 mask)
{
	__u32 probe = turn % CM_PROBES, extent = turn / CM_PROBES;
	__u32 size;

	if (!extent)
		return (tag + probe) & mask;
	size = (mask + 1) << (extent - 1);
	/* other neighbours in each: what meets in one does not meet in the next */
	tag *= 0x9e3779b1 + extent * 0x3c6ef372;
	return size + ((((__u64)tag * size >> 32) + probe) & (size - 1));
}

/* The pair's slot, claimed if need be; CM_NONE if there is no room. */
noinline __u32 pair_get(struct cm_pair_key *k, __u64 now)
{
	__u32 tag;

	if (!k)
		return CM_NONE;
	tag = pair_tag(k);
	ROLLED for (__u32 turn = 0; turn < TURNS; turn++) {
		__u32 at = slot_of_turn(tag, turn, cm_settings.pair_mask);
		struct cm_pair *p = pair_at(at);

		if (!p)
			break;
		if (p->tag == tag && READ_ONCE(p->state) == CM_LIVE && pair_is(p, k))
			return at;
	}
	ROLLED for (__u32 turn = 0; turn < TURNS; turn++) {
		__u32 at = slot_of_turn(tag, turn, cm_settings.pair_mask);
		struct cm_pair *p = pair_at(at);
		int got;

		if (!p)
			break;
		got = claim(&p->state);
		if (got == 2 && p->tag == tag && pair_is(p, k))
			return at;
		if (got != 1)
			continue;
		p->key = *k;
		p->tag = tag;
		p->first_seen_ns = now;
		p->last_seen_ns = now;
		publish(&p->state);
		COUNT(pairs_begun);
		return at;
	}
	return CM_NONE;
}

/* The port's slot, claimed if need be; CM_NONE if there is no room. */
noinline __u32 port_get(__u32 ifindex)
{
	__u32 tag = mix(ifindex * cm_settings.secret[4]);
	/* neighbours in the table are none here: nearly all of it can be used */
	__u32 step = tag >> 16 | 1;

	ROLLED for (__u32 i = 0; i < CM_PORT_PROBES; i++) {
		__u32 at = (tag + i * step) & cm_settings.port_mask;
		struct cm_port *p = port_at(at);

		if (p && p->ifindex == ifindex && READ_ONCE(p->state) == CM_LIVE)
			return at;
	}
	ROLLED for (__u32 i = 0; i < CM_PORT_PROBES; i++) {
		__u32 at = (tag + i * step) & cm_settings.port_mask;
		struct cm_port *p = port_at(at);
		int got;

		if (!p)
			continue;
		got = claim(&p->state);
		if (got == 2 && p->ifindex == ifindex)
			return at;
		if (got != 1)
			continue;
		p->ifindex = ifindex;
		publish(&p->state);
		return at;
	}
	return CM_NONE;
}

/* Direction and class in one argument: a BPF call takes five. */
#define PORT_CLASS(dir, class) ((dir) * 8 + (class))

/* Adds to what a port counts outside of flows and pairs. */
noinline int port_count(__u32 ifindex, __u32 port_class, __u64 bytes, __u64 packets, __u64 extra)
{
	__u32 at = port_get(ifindex);
	struct cm_port *p = at == CM_NONE ? 0 : port_at(at);
	__u32 dir = port_class / 8 & 1, class = port_class & 7;
	struct cm_count *c;

	if (class >= CM_CLASSES)
		return 0;
	if (p) {
		c = &p->count[dir][class];
	} else {
		struct cm_ctl *t = ctl_get();

		if (!t)
			return 0;
		add(&t->port_full, packets);
		c = &t->no_port[dir];
	}
	add(&c->bytes, bytes);
	add(&c->packets, packets);
	if (extra)
		add(&c->extra, extra);
	return 0;
}

/* Bucket of the log-linear histogram. */
static always_inline __u32 bucket_of(__u64 ns)
{
	__u64 v = ns >> CM_HIST_UNIT_BITS, t, s;
	__u32 e, i;

	if (v >= 1ull << (34 - CM_HIST_UNIT_BITS))
		return CM_HIST_BUCKETS - 1;
	t = v >> CM_HIST_SUB_BITS;
	if (!t)
		return v;
	/* e = floor(log2 v) - 4, v below 2^28 */
	s = exceeds(t, 0xffff) << 4; e = s; t >>= s;
	s = exceeds(t, 0xff) << 3; e += s; t >>= s;
	s = exceeds(t, 0xf) << 2; e += s; t >>= s;
	s = exceeds(t, 3) << 1; e += s; t >>= s;
	e += exceeds(t, 1);
	i = 16 * (e + 1) + ((v >> e) & 15);
	return i < CM_HIST_BUCKETS ? i : CM_HIST_BUCKETS - 1;
}

/* Slot + 1 of the pair's histogram for a leg, claimed if need be; 0 if there is no room. */
noinline __u32 hist_slot(__u32 pair, __u32 leg)
{
	struct cm_pair *p = pair_at(pair);
	__u32 at, tag;

	leg &= CM_LEGS - 1;
	if (!p) {
		COUNT(rtt_unpaired);
		return 0;
	}
	if (p->hist[leg])
		return p->hist[leg];
	tag = mix((pair * (__u64)CM_LEGS + leg + 1) * cm_settings.secret[5]);
	ROLLED for (__u32 turn = 0; turn < TURNS; turn++) {
		struct cm_hist *h;

		at = slot_of_turn(tag, turn, cm_settings.hist_mask);
		h = hist_at(at);
		if (!h)
			break;
		if (claim(&h->state) != 1)
			continue;
		h->tag = p->tag;
		h->pair = pair;
		h->leg = leg;
		h->min_ns = ~0ull;
		publish(&h->state);
		/* lost the race for this leg's first singleton: use the other's, give ours back */
		if (__sync_val_compare_and_swap(&p->hist[leg], 0, at + 1) != 0)
			__sync_lock_test_and_set(&h->state, CM_FREE);
		else
			COUNT(hists_begun);
		return p->hist[leg];
	}
	COUNT(hist_full);
	return 0;
}

static always_inline void hist_put(struct cm_hist *h, __u64 rtt)
{
	__u32 b = bucket_of(rtt);

	if (!h)
		return;
	add(&h->sum_ns, rtt);
	/* Two processors may write an extreme at once and the lesser one win: it is then still in its bucket. */
	if (rtt < h->min_ns)
		h->min_ns = rtt;
	if (rtt > h->max_ns)
		h->max_ns = rtt;
	if (b < CM_HIST_BUCKETS)
		add(&h->bucket[b], 1);
}

/* Out of line: the path that all but the largest sets take stays short. */
noinline int hist_add_beyond(__u32 at, __u64 rtt)
{
	hist_put(beyond(&more_hists, at, cm_settings.hist_mask), rtt);
	return 0;
}

static always_inline void hist_add(__u32 at, __u64 rtt)
{
	if (likely(at <= cm_settings.hist_mask))
		hist_put(bpf_map_lookup_elem(&hists, &at), rtt);
	else
		hist_add_beyond(at, rtt);
}

#endif
