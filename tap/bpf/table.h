/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The open-addressed tables: find a slot by key, or claim one.
 *
 * Two processors may look for the same new key at once. Both try the same first free slot; the loser waits a
 * moment for the winner to publish it. If a slot before it was freed in between, one key can end up in
 * two slots: every packet is still counted once, and readers add up slots of equal key.
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
MAP(ctl, BPF_MAP_TYPE_ARRAY, struct cm_ctl);
MAP(targets, BPF_MAP_TYPE_PROG_ARRAY, __u32);

struct cm_ring_layouts {
	struct cm_record record;
	struct cm_cmds commands;
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

static always_inline struct cm_pair *pair_at(__u32 i)
{
	return bpf_map_lookup_elem(&pairs, &i);
}

static always_inline struct cm_port *port_at(__u32 i)
{
	return bpf_map_lookup_elem(&ports, &i);
}

static always_inline struct cm_hist *hist_at(__u32 i)
{
	return bpf_map_lookup_elem(&hists, &i);
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

/*
 * Nearly always the first slot is the one, and cold: its other lines are loaded here so that the processor fetches them
 * at the same time as the first. (There is no prefetch instruction.)
 */
static always_inline struct cm_flow *flow_find(const struct cm_flow_key *k, __u32 tag, __u32 *slot, int tcp)
{
	for (__u32 i = 0; i < CM_PROBES; i++) {
		__u32 at = (tag + i) & cm_settings.flow_mask;
		struct cm_flow *f = flow_at(at);

		if (f && i == 0) {
			READ_ONCE(f->pair);
			if (tcp)
				READ_ONCE(f->seen);
		}
		if (f && f->tag == tag && READ_ONCE(f->state) == CM_LIVE && flow_is(f, k)) {
			*slot = at;
			return f;
		}
	}
	return 0;
}

/* Claims the state word of a slot. 1: it is ours. 0: not free. 2: somebody published it while we waited. */
static always_inline int claim(__u32 *state)
{
	__u32 was = __sync_val_compare_and_swap(state, CM_FREE, CM_CLAIMING);

	if (was == CM_FREE)
		return 1;
	if (was == CM_CLAIMING) {
		/* Some 100 ns, in which the winner writes a cache line or two. A loop would be dear to verify. */
		bpf_ktime_get_ns();
		bpf_ktime_get_ns();
		bpf_ktime_get_ns();
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

/* The pair's slot, claimed if need be; CM_NONE if there is no room. */
noinline __u32 pair_get(struct cm_pair_key *k, __u64 now)
{
	__u32 tag;

	if (!k)
		return CM_NONE;
	tag = pair_tag(k);
	for (__u32 i = 0; i < CM_PROBES; i++) {
		__u32 at = (tag + i) & cm_settings.pair_mask;
		struct cm_pair *p = pair_at(at);

		if (p && p->tag == tag && READ_ONCE(p->state) == CM_LIVE && pair_is(p, k))
			return at;
	}
	for (__u32 i = 0; i < CM_PROBES; i++) {
		__u32 at = (tag + i) & cm_settings.pair_mask;
		struct cm_pair *p = pair_at(at);
		int got;

		if (!p)
			continue;
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
		return at;
	}
	return CM_NONE;
}

/* The port's slot, claimed if need be; CM_NONE if there is no room. */
noinline __u32 port_get(__u32 ifindex)
{
	__u32 tag = mix(ifindex * cm_settings.secret[4]);

	for (__u32 i = 0; i < CM_PROBES; i++) {
		__u32 at = (tag + i) & cm_settings.port_mask;
		struct cm_port *p = port_at(at);

		if (p && p->ifindex == ifindex && READ_ONCE(p->state) == CM_LIVE)
			return at;
	}
	for (__u32 i = 0; i < CM_PROBES; i++) {
		__u32 at = (tag + i) & cm_settings.port_mask;
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
#define PORT_CLASS(dir, class) ((dir) * CM_CLASSES + (class))

/* Adds to what a port counts outside of flows and pairs. */
noinline int port_count(__u32 ifindex, __u32 port_class, __u64 bytes, __u64 packets, __u64 extra)
{
	__u32 at = port_get(ifindex);
	struct cm_port *p = at == CM_NONE ? 0 : port_at(at);
	__u32 dir = port_class / CM_CLASSES & 1, class = port_class & (CM_CLASSES - 1);
	struct cm_count *c;

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

/* 1 if v is greater than limit; by the borrow, since a comparison would be a branch, and one that nobody can predict. */
#define exceeds(v, limit) (((__u64)(limit) - (v)) >> 63)

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
		COUNT(hist_full);
		return 0;
	}
	if (p->hist[leg])
		return p->hist[leg];
	tag = mix((pair * (__u64)CM_LEGS + leg + 1) * cm_settings.secret[5]);
	for (__u32 i = 0; i < CM_PROBES; i++) {
		struct cm_hist *h;

		at = (tag + i) & cm_settings.hist_mask;
		h = hist_at(at);
		if (!h || claim(&h->state) != 1)
			continue;
		h->tag = p->tag;
		h->pair = pair;
		h->leg = leg;
		h->min_ns = ~0ull;
		publish(&h->state);
		/* lost the race for this leg's first singleton: use the other's, give ours back */
		if (__sync_val_compare_and_swap(&p->hist[leg], 0, at + 1) != 0)
			__sync_lock_test_and_set(&h->state, CM_FREE);
		return p->hist[leg];
	}
	COUNT(hist_full);
	return 0;
}

static always_inline void hist_add(__u32 at, __u64 rtt)
{
	struct cm_hist *h = hist_at(at);
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

#endif
