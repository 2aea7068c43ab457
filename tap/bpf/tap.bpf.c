/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tap: one program for each direction of a container's host-side port, and of a container's control group.
 *
 * Every packet is counted once, in its flow if it has one. TCP is followed further: one outstanding round-trip
 * probe per direction, retransmitted and reordered segments. Budget: two cache lines for UDP, three for TCP.
 */
#include "parse.h"
#include "table.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static always_inline void write_flow(struct cm_record *r, const struct cm_flow *f)
{
	r->key = f->key;
	r->tag = f->tag;
	r->role = f->role;
	r->guessed = f->guessed;
	r->first_seen_ns = f->first_seen_ns;
	r->last_seen_ns = f->last_seen_ns;
	for (int d = 0; d < 2; d++) {
		r->bytes[d] = f->bytes[d];
		r->packets[d] = f->packets[d];
		r->extra[d] = f->extra[d];
		r->tcp_flags[d] = f->tcp_flags[d];
	}
	r->reason = 0;
	r->leg = 0;
	r->rtt_ns = 0;
	r->ack = 0;
	r->unpaired = f->pair == CM_NONE;
	r->_pad = 0;
}

noinline int record_flow(struct cm_flow *f, __u32 slot, __u32 kind, __u32 reason, __u64 now)
{
	struct cm_record *r;

	if (!f)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		COUNT(ring_full);
		return 0;
	}
	write_flow(r, f);
	r->kind = kind;
	r->slot = slot;
	r->reason = reason;
	r->time_ns = now;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/* `leg_ack`: the leg in the upper half, the acknowledgement number in the lower; a BPF call takes five arguments. */
noinline int record_sample(struct cm_flow *f, __u32 slot, __u64 leg_ack, __u64 rtt, __u64 now)
{
	struct cm_record *r;

	if (!f)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		COUNT(ring_full);
		return 0;
	}
	write_flow(r, f);
	r->kind = CM_RTT_SAMPLE;
	r->slot = slot;
	r->leg = leg_ack >> 32;
	r->ack = leg_ack;
	r->rtt_ns = rtt;
	r->time_ns = now;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/*
 * Who opened it. A SYN, an echo request or reply says so. Else the end with a well-known port (below 1024) is the
 * opened one if only one end has such a port. Else, UDP and others: the sender of the first packet opened; TCP
 * joined in the middle: the end with the greater port number did, so that both ends' ports agree.
 */
static always_inline void role_of(const struct cm_packet *p, enum cm_dir dir, __u8 *role, __u8 *guessed)
{
	__u8 sender = dir == CM_TX ? CM_LOCAL_OPENED : CM_REMOTE_OPENED;
	__u8 receiver = dir == CM_TX ? CM_REMOTE_OPENED : CM_LOCAL_OPENED;
	__u16 local = p->key.local_port, remote = p->key.remote_port;

	*guessed = 0;
	if (p->tcp && p->flags & TCP_SYN) {
		*role = p->flags & TCP_ACK ? receiver : sender;
		return;
	}
	if (p->icmp_query) {
		*role = p->icmp_query == 1 ? sender : receiver;
		return;
	}
	*guessed = 1;
	if ((local < 1024) != (remote < 1024))
		*role = local < 1024 ? CM_REMOTE_OPENED : CM_LOCAL_OPENED;
	else if (p->tcp && local != remote)
		*role = local < remote ? CM_REMOTE_OPENED : CM_LOCAL_OPENED;
	else
		*role = sender;
	if (!p->tcp && *role == sender)
		*guessed = 0;
}

static always_inline void pair_key(struct cm_pair_key *k, const struct cm_flow_key *f, __u8 role, __u8 guessed)
{
	__u16 opened = role == CM_LOCAL_OPENED ? f->remote_port : f->local_port;
	int dns = opened == 53 && (f->proto == P_UDP || f->proto == P_TCP);

	k->local[0] = f->local[0];
	k->local[1] = f->local[1];
	k->remote[0] = f->remote[0];
	k->remote[1] = f->remote[1];
	k->ifindex = f->ifindex;
	k->proto = f->proto;
	k->role = role;
	k->service = dns ? CM_SERVICE_DNS : CM_SERVICE_NONE;
	k->guessed = guessed;
}

/* A SYN with another initial sequence number than the one we follow: the port pair is used again. */
static always_inline int is_reuse(const struct cm_flow *f, const struct cm_packet *p, const enum cm_dir dir)
{
	if (likely(!p->tcp || (p->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN || !(f->seen & CM_SEEN_RIGHT << dir)))
		return 0;
	/* a SYN may carry data (RFC 7413) or come again late: its own number tells, not the right edge */
	return f->seen & CM_SEEN_ISN << dir ? p->seq != f->isn : p->seq + 1 != f->right[dir];
}

/* The flow's record in the table before, if it goes on. */
static always_inline struct cm_flow *older_find(struct cm_packet *p, __u32 tag, const enum cm_dir dir)
{
	__u32 slot = older_search(&p->key, tag);
	struct cm_flow *o = slot == CM_NONE ? 0 : older_at(slot);

	return o && !is_reuse(o, p, dir) ? o : 0;
}

static always_inline int is_outstanding(__u64 word)
{
	return word && !(word & CM_RESTING);
}

/* What is left of a probe's word when it has ended. A handshake's does not count: a connection that is soon over has data's, too. */
static always_inline __u64 rested(__u64 word)
{
	return cm_settings.flags & CM_FLAG_PACED && !(word & CM_HANDSHAKE) ? word | CM_RESTING : 0;
}

/*
 * All that a record knows of its flow but what it counted, which stays until the record is moved. An outstanding probe
 * is given up: the other direction's packets may be counted by the older programs yet, and end it there.
 */
static always_inline void inherit(struct cm_flow *f, const struct cm_flow *o)
{
	f->first_seen_ns = o->first_seen_ns;
	for (int d = 0; d < 2; d++) {
		__u64 word = READ_ONCE(o->probe_t0[d]);

		f->tcp_flags[d] = o->tcp_flags[d];
		f->probe_t0[d] = is_outstanding(word) ? rested(word) : word;
		f->hist[d] = f->pair == o->pair ? o->hist[d] : 0;
		f->right[d] = o->right[d];
	}
	f->tsval = o->tsval;
	f->ip_id = o->ip_id;
	f->seen = o->seen;
	f->isn = o->isn;
}

/*
 * The first packet of a flow. Returns its slot, or CM_NONE when there was no room; the packet is then counted, in its
 * pair or its port, before return.
 */
noinline __u32 begin(struct cm_packet *p, __u32 tag, __u32 dir, __u32 len, __u32 extra)
{
	struct cm_pair_key k;
	struct cm_pair *pair;
	struct cm_flow *f, *o = 0;
	__u64 now = bpf_ktime_get_ns();
	__u32 slot, at;
	__u8 role, guessed;

	if (!p)
		return CM_NONE;
	dir &= 1;
	role_of(p, dir, &role, &guessed);
	if (cm_settings.flags & CM_FLAG_OLDER) {
		o = older_find(p, tag, dir);
		if (o) {
			role = o->role;
			guessed = o->guessed;
		}
	}
	pair_key(&k, &p->key, role, guessed);
	slot = pair_get(&k, now);
	pair = slot == CM_NONE ? 0 : pair_at(slot);

	at = flow_place(&p->key, tag);
	if (at != CM_NONE && at & CM_FOUND)
		return at & ~CM_FOUND;
	f = at == CM_NONE ? 0 : flow_at(at);
	if (f) {
		f->first_seen_ns = now;
		f->pair = slot;
		f->role = role;
		f->guessed = guessed;
		if (cm_settings.flags & CM_FLAG_OLDER && o) {
			/* it began long ago, and goes on */
			inherit(f, o);
			if (o->pair == CM_NONE && pair) {
				/* what it counted there goes where this one counts */
				WRITE_ONCE(o->pair, slot);
				add(&pair->flows, 1);
				COUNT(no_pair_over);
			} else if (!pair) {
				f->pair = o->pair;
			}
			publish(&f->state);
			return at;
		}
		publish(&f->state);
		COUNT(flows_begun);
		if (pair)
			add(&pair->flows, 1);
		else
			COUNT(no_pair);
		if (cm_settings.flags & CM_FLAG_NEW_RECORDS)
			record_flow(f, at, CM_NEW_FLOW, 0, now);
		return at;
	}

	COUNT(flow_full);
	if (!pair) {
		COUNT(pair_full);
		port_count(p->key.ifindex, PORT_CLASS(dir, CM_CLASS_OVERFLOW), len, 1, extra);
		return CM_NONE;
	}
	add(&pair->bytes[dir], len);
	add(&pair->packets[dir], 1);
	if (extra)
		add(&pair->extra[dir], extra);
	add(&pair->no_slot, 1);
	pair->last_seen_ns = now;
	return CM_NONE;
}

/*
 * A probe's end is written before its time and read after it. Where the processor keeps stores and loads in order
 * (CM_TSO) that is all it takes; elsewhere an exchange, which is a full barrier, is put in. Should two processors meet in
 * one probe, it may be taken twice or a new one be given up: one singleton too many or too few, never a wrong one.
 */
#ifdef CM_TSO
#define set_probe(word, v) WRITE_ONCE(word, v)
#else
#define set_probe(word, v) ((void)__sync_lock_test_and_set(&(word), (v)))
#endif

/*
 * Paced: a probe costs two looks at the clock and a histogram, more than all the rest, and a flow that answers within
 * microseconds would have one for every packet. So of a busy direction's segments some are drawn, by their numbers: by
 * time alone the first one in each clock tick would be, whose delay is the longer for what the processors do
 * at ticks. One of 2^thin; thin goes up where one begins soon after the last and down where it took long. After longer,
 * the chance grows with the time since, so that a flow that has become slow is not thinned.
 * Returns the new thin, or -1 if the segment begins none.
 */
static always_inline int thinned(__u64 word, __u32 seq, __u64 tick)
{
	/* CM_TIME's difference, with its sign: the tick may have begun before the probe */
	__s64 since = (__s64)((tick - word) << (64 - CM_TIME_BITS)) >> (64 - CM_TIME_BITS);
	int thin = CM_THIN(word);
	/* below 2^thin, all equally likely */
	__u64 draw = (__u64)(mix(seq * cm_settings.secret[0]) & 0x7fffffff) << thin >> 31;

	if (draw > (since > 0 ? (__u64)since >> (CM_PACE_BITS + 2) : 0))
		return -1;
	if (since < 1 << (CM_PACE_BITS - 2))
		return thin < CM_THINNEST ? thin + 1 : thin;
	if (since < 1 << CM_PACE_BITS || !thin)
		return thin;
	return thin > 1 && since >= 1 << (CM_PACE_BITS + 3) ? thin - 2 : thin - 1;
}

/* Ends the outstanding probe of `data`'s direction and returns its word; 0 if there is none. */
static always_inline __u64 take_probe(struct cm_flow *f, enum cm_dir data)
{
	__u64 word = READ_ONCE(f->probe_t0[data]);

	if (!is_outstanding(word))
		return 0;
	set_probe(f->probe_t0[data], rested(word));
	return word;
}

/* Whether an acknowledgement is of `data`'s probe, and of something that was sent. */
static always_inline int covers(const struct cm_flow *f, __u32 ack, enum cm_dir data)
{
	return (__s32)(ack - READ_ONCE(f->probe_end[data])) >= 0 && (__s32)(ack - f->right[data]) <= 0;
}

/*
 * Whether a segment to the container left its sender before the newest one seen. Time stamps are monotonic by
 * RFC 7323, so they decide where they differ; IPv4 identifications only count up where the sender cares.
 */
static always_inline int is_older(const struct cm_flow *f, const struct cm_packet *p)
{
	if (p->tsval && f->tsval && p->tsval != f->tsval)
		return (__s32)(p->tsval - f->tsval) < 0;
	return p->ip_id && f->ip_id && (__s16)(p->ip_id - f->ip_id) < 0;
}

/*
 * METHODS: at most one probe outstanding per direction. It starts with a segment that brings new data, ends with the
 * first acknowledgement that covers it, and is given up when a segment comes that is not new: sent again (Karn's
 * rule), or late, so that the acknowledgement waited for it.
 *
 * Segments of one direction of one connection come from one processor at a time (socket lock, receive
 * steering); if two do overlap, `right` and a probe's end may be off by one segment for one singleton.
 */
static always_inline void follow_tcp(struct cm_flow *f, __u32 slot, const struct cm_packet *p, const enum cm_dir dir,
				     __u32 segments, __u64 tick)
{
	const enum cm_dir back = dir == CM_TX ? CM_RX : CM_TX;
	const __u16 seen = CM_SEEN_RIGHT << dir;
	__u32 length = p->payload + !!(p->flags & TCP_SYN) + !!(p->flags & TCP_FIN);
	__u32 end = p->seq + length;
	__u64 now = 0, word;

	if (p->flags & TCP_RST)
		return;

	if (p->flags & TCP_ACK && is_outstanding(READ_ONCE(f->probe_t0[back])) && covers(f, p->ack, back)) {
		__u64 t0 = take_probe(f, back);

		/* once more: between the two looks another processor may have begun the next probe */
		if (t0 && covers(f, p->ack, back)) {
			int handshake = t0 >> 63;
			__u32 leg = (back == CM_TX ? CM_LEG_AWAY : CM_LEG_NEAR) + (handshake ? 2 : 0);
			__u32 hist = handshake ? 0 : f->hist[back];
			__u64 rtt;

			now = bpf_ktime_get_ns();
			rtt = (now - t0) & CM_TIME;
			if (unlikely(!hist)) {
				hist = hist_slot(f->pair, leg);
				if (!handshake)
					f->hist[back] = hist;
			}
			if (hist)
				hist_add(hist - 1, rtt);
			if (cm_settings.flags & CM_FLAG_SAMPLES)
				record_sample(f, slot, (__u64)leg << 32 | p->ack, rtt, now);
		}
	}

	if (!length)
		return;

	if (likely(f->seen & seen) && (__s32)(p->seq - f->right[dir]) < 0) {
		int reordered = dir == CM_RX && f->seen & CM_SEEN_NEWEST && is_older(f, p);

		if (reordered)
			add(&f->reordered, segments);
		else
			add(&f->retransmitted[dir], segments);
		if (take_probe(f, dir))
			COUNT(probes_cancelled);
		if ((__s32)(end - f->right[dir]) > 0)
			f->right[dir] = end;
		if (!reordered && dir == CM_RX) {
			f->ip_id = p->ip_id;
			f->tsval = p->tsval;
		}
		return;
	}

	f->right[dir] = end;
	if (unlikely(!(f->seen & seen)))
		f->seen |= seen;
	if (unlikely((p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)) {
		f->isn = p->seq;
		f->seen = (f->seen & ~(CM_SEEN_ISN * 3)) | CM_SEEN_ISN << dir;
	}
	if (dir == CM_RX) {
		f->ip_id = p->ip_id;
		f->tsval = p->tsval;
		if (unlikely(!(f->seen & CM_SEEN_NEWEST)))
			f->seen |= CM_SEEN_NEWEST;
	}
	word = READ_ONCE(f->probe_t0[dir]);
	if (!is_outstanding(word)) {
		__u64 handshake = p->flags & TCP_SYN ? CM_HANDSHAKE : 0;
		int thin = word && !handshake ? thinned(word, p->seq, tick) : 0;

		if (thin < 0)
			return;
		if (!now)
			now = bpf_ktime_get_ns();
		WRITE_ONCE(f->probe_end[dir], handshake ? p->seq + 1 : end);
		set_probe(f->probe_t0[dir], (now & CM_TIME) | CM_THINNED(thin) | handshake);
	}
}

/*
 * While a port goes over from a classifier to TCX, both run the program over each packet: TCX, then the classifier.
 * Whoever is first counts the packet and leaves a mark, in the scratch space that the hooks of one device's one
 * direction share and everything between two devices overwrites; the second finds the mark, and takes it away.
 */
static always_inline int counted_before(struct __sk_buff *skb, const enum cm_dir dir)
{
	__u32 mark = (__u32)cm_settings.secret[0], place = (__u32)(cm_settings.secret[0] >> 32) ^ (skb->ifindex << 1 | dir);

	if (skb->cb[0] == mark && skb->cb[1] == place) {
		skb->cb[0] = 0;
		return 1;
	}
	skb->cb[0] = mark;
	skb->cb[1] = place;
	return 0;
}

static always_inline void count(struct __sk_buff *skb, struct cm_ctl *c, const enum cm_dir dir, __u32 port,
				const int link)
{
	struct cm_packet p = {};
	struct cm_flow *f;
	__u32 tag, slot = 0, segments = skb->gso_segs;
	__u32 len = skb->len, extra;
	__u64 tick;
	int class;

	if (segments == 0)
		segments = 1;
	extra = segments - 1;

	class = parse(skb, dir, &p, port, link);
	if (unlikely(class >= 0)) {
		port_count(port, PORT_CLASS(dir, class), len, 1, extra);
		return;
	}

	tag = flow_tag(&p.key);
	f = flow_find(&p.key, tag, &slot, p.tcp && cm_settings.flags & CM_FLAG_RTT);
	if (unlikely(f && is_reuse(f, &p, dir))) {
		flow_ends(f, slot);
		f = 0;
	}
	if (unlikely(!f)) {
		slot = begin(&p, tag, dir, len, extra);
		if (slot == CM_NONE)
			return;
		f = flow_at(slot);
		if (!f)
			return;
	}

	add(&f->bytes[dir], len);
	add(&f->packets[dir], 1);
	if (extra)
		add(&f->extra[dir], extra);
	tick = coarse_ns(c);
	if (f->last_seen_ns != tick)
		f->last_seen_ns = tick;

	if (p.tcp) {
		if ((f->tcp_flags[dir] & p.flags) != p.flags)
			f->tcp_flags[dir] |= p.flags;
		if (cm_settings.flags & CM_FLAG_RTT)
			follow_tcp(f, slot, &p, dir, segments, tick);
	}
}

/* The settings do not change: the verifier knows the number, and leaves one way out. */
static always_inline __u32 port_of(struct __sk_buff *skb)
{
	if (cm_settings.elsewhere)
		return CM_ELSEWHERE | ((skb->ifindex + cm_settings.elsewhere) & (CM_ELSEWHERE - 1));
	return skb->ifindex;
}

static always_inline int tap(struct __sk_buff *skb, const enum cm_dir dir)
{
	struct cm_ctl *c = ctl_get();

	if (c && !(unlikely(READ_ONCE(c->overlap)) && counted_before(skb, dir)))
		count(skb, c, dir, port_of(skb), 1);
	return CM_PASS;
}

SEC("classifier/tx")
int cm_tx(struct __sk_buff *skb)
{
	return tap(skb, CM_TX);
}

SEC("classifier/rx")
int cm_rx(struct __sk_buff *skb)
{
	return tap(skb, CM_RX);
}

/*
 * At a control group: every packet that one of its sockets sends, behind address translation and before it is cut into
 * segments or fragments, and every one that is handed to one of its sockets, before the socket's own filter and queue.
 */
static always_inline int tap_group(struct __sk_buff *skb, const enum cm_dir dir)
{
	struct cm_ctl *c = ctl_get();

	if (c)
		count(skb, c, dir, cm_settings.group, 0);
	return CM_ALLOW;
}

SEC("cgroup_skb/egress")
int cm_group_tx(struct __sk_buff *skb)
{
	return tap_group(skb, CM_TX);
}

SEC("cgroup_skb/ingress")
int cm_group_rx(struct __sk_buff *skb)
{
	return tap_group(skb, CM_RX);
}

/* What an attached program costs that does nothing: the baseline of every cost figure. */
SEC("classifier/empty")
int cm_empty(struct __sk_buff *skb)
{
	return CM_PASS;
}

/* At all ports that share a block of filters: goes on as the program that is meant for the port. */
SEC("classifier/dispatch")
int cm_dispatch(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &targets, skb->ifindex & (CM_TARGETS - 1));
	return CM_PASS;
}

static always_inline void zero_words(__u64 *w, int n)
{
	for (int i = 0; i < n; i++)
		WRITE_ONCE(w[i], 0);
	barrier();
}

/* The end record, and the slot given back: everything but the state word first, then the state, then its place. */
static always_inline void release_flow(struct cm_flow *f, __u32 slot, __u32 reason)
{
	record_flow(f, slot, CM_END_FLOW, reason, bpf_ktime_get_ns());
	zero_words((__u64 *)&f->key, sizeof(f->key) / 8);
	f->tag = 0;
	zero_words(&f->last_seen_ns, (sizeof(*f) - __builtin_offsetof(struct cm_flow, last_seen_ns)) / 8);
	__sync_lock_test_and_set(&f->state, CM_FREE);
	set_tag(slot, 0);
	COUNT(flows_ended);
}

/* Folds an ended flow into its pair and frees it. Returns 1 if it has no pair: `free_orphan` takes those. */
noinline int free_flow(__u32 slot, __u32 tag, __u32 reason)
{
	struct cm_flow *f = flow_of(slot);
	struct cm_pair *p;

	if (!f || f->state != CM_ENDING || f->tag != tag)
		return 0;
	p = f->pair == CM_NONE ? 0 : pair_at(f->pair);
	if (!p)
		return 1;
	for (int d = 0; d < 2; d++) {
		add(&p->bytes[d], f->bytes[d]);
		add(&p->packets[d], f->packets[d]);
		add(&p->extra[d], f->extra[d]);
		add(&p->retransmitted[d], f->retransmitted[d]);
	}
	add(&p->reordered, f->reordered);
	if (p->last_seen_ns < f->last_seen_ns)
		p->last_seen_ns = f->last_seen_ns;
	release_flow(f, slot, reason);
	return 0;
}

/* Folds an ended flow that found no pair into its port. */
noinline int free_orphan(__u32 slot, __u32 tag, __u32 reason)
{
	struct cm_flow *f = flow_of(slot);

	if (!f || f->state != CM_ENDING || f->tag != tag || f->pair != CM_NONE)
		return 0;
	for (int d = 0; d < 2; d++)
		port_count(f->key.ifindex, PORT_CLASS(d, CM_CLASS_OVERFLOW), f->bytes[d], f->packets[d],
			   f->extra[d]);
	release_flow(f, slot, reason);
	COUNT(no_pair_over);
	return 0;
}

/* Gives a flow that began when there was no room for its pair the one that it can have now. */
noinline int give_pair(__u32 slot, __u32 tag)
{
	struct cm_flow *f = flow_of(slot);
	struct cm_pair_key k;
	struct cm_pair *p;
	__u32 at;

	if (!f || READ_ONCE(f->state) != CM_LIVE || f->tag != tag || f->pair != CM_NONE)
		return 0;
	pair_key(&k, &f->key, f->role, f->guessed);
	at = pair_get(&k, f->first_seen_ns);
	p = at == CM_NONE ? 0 : pair_at(at);
	if (!p)
		return 0;
	add(&p->flows, 1);
	WRITE_ONCE(f->pair, at);
	COUNT(no_pair_over);
	return 0;
}

noinline int free_hist(__u32 at)
{
	struct cm_hist *h = hist_at(at);
	struct cm_ctl *c = ctl_get();
	__u64 count = 0;

	if (!h || !c)
		return 0;
	for (int i = 0; i < CM_HIST_BUCKETS; i++) {
		count += h->bucket[i];
		WRITE_ONCE(h->bucket[i], 0);
	}
	h->sum_ns = 0;
	h->max_ns = 0;
	h->pair = 0;
	h->tag = 0;
	add(&c->rtt_freed, count);
	add(&c->hists_ended, 1);
	__sync_lock_test_and_set(&h->state, CM_FREE);
	return 0;
}

noinline int free_pair(__u32 slot, __u32 tag)
{
	struct cm_pair *p = pair_at(slot);

	if (!p || p->state != CM_ENDING || p->tag != tag)
		return 0;
	for (int leg = 0; leg < CM_LEGS; leg++)
		if (p->hist[leg])
			free_hist(p->hist[leg] - 1);
	zero_words((__u64 *)&p->key, sizeof(p->key) / 8);
	p->tag = 0;
	zero_words(&p->last_seen_ns, (sizeof(*p) - __builtin_offsetof(struct cm_pair, last_seen_ns)) / 8);
	__sync_lock_test_and_set(&p->state, CM_FREE);
	COUNT(pairs_ended);
	return 0;
}

/* Takes a pair out of matching, or puts it back. */
noinline int set_pair(__u32 slot, __u32 tag, __u32 from, __u32 to)
{
	struct cm_pair *p = pair_at(slot);

	if (p && p->tag == tag)
		__sync_val_compare_and_swap(&p->state, from, to);
	return 0;
}

noinline int free_port(__u32 slot, __u32 ifindex)
{
	struct cm_port *p = port_at(slot);

	if (!p || p->state != CM_LIVE || p->ifindex != ifindex)
		return 0;
	__sync_val_compare_and_swap(&p->state, CM_LIVE, CM_ENDING);
	p->ifindex = 0;
	zero_words((__u64 *)p->count, sizeof(p->count) / 8);
	__sync_lock_test_and_set(&p->state, CM_FREE);
	return 0;
}

/*
 * Moves a record out of the table before. Its flow may have a record in the new table already, which takes what the
 * older one counted. What cannot be moved (it is over, its ports are in use again, the new table is full there) is left.
 */
noinline int move_flow(__u32 slot, __u32 tag)
{
	struct cm_flow *o = slot < cm_settings.older_buckets * CM_PLACES ? older_at(slot) : 0, *n;
	__u64 *from, *to;
	__u32 at;

	if (!o || READ_ONCE(o->state) != CM_LIVE || o->tag != tag)
		return 0;
	at = flow_search(&o->key, tag);
	if (at == CM_NONE) {
		at = flow_place(&o->key, tag);
		if (at == CM_NONE)
			return 0;
		if (!(at & CM_FOUND)) {
			n = flow_at(at);
			if (!n)
				return 0;
			from = &o->last_seen_ns;
			to = &n->last_seen_ns;
			for (__u32 w = 0; w < (sizeof(*n) - __builtin_offsetof(struct cm_flow, last_seen_ns)) / 8; w++)
				WRITE_ONCE(to[w], from[w]);
			publish(&n->state);
			goto moved;
		}
		at &= ~CM_FOUND;
	}
	n = flow_at(at);
	if (!n || (n->seen & o->seen & CM_SEEN_ISN * 3 && n->isn != o->isn))
		return 0;
	for (int d = 0; d < 2; d++) {
		add(&n->bytes[d], o->bytes[d]);
		add(&n->packets[d], o->packets[d]);
		add(&n->extra[d], o->extra[d]);
		add(&n->retransmitted[d], o->retransmitted[d]);
	}
	add(&n->reordered, o->reordered);
	/* one that began anew was counted by itself */
	if (o->pair == CM_NONE && n->first_seen_ns != o->first_seen_ns)
		COUNT(no_pair_over);
moved:
	/* its place stays taken: nothing is put in this table any more */
	o->tag = 0;
	__sync_lock_test_and_set(&o->state, CM_FREE);
	return 1;
}

/* Run by the controller, never attached, when nothing counts in the table before any more. Takes commands to move. */
SEC("classifier/mover")
int cm_mover(struct __sk_buff *skb)
{
	struct cm_cmds *cmds = (void *)(long)skb->data;
	struct cm_ctl *c = ctl_get();
	__u32 n, i;

	if (!c || (void *)(cmds + 1) > (void *)(long)skb->data_end)
		return 0;
	add(&c->fold_seq, 1);
	n = cmds->count;
	for (i = 0; i < CM_CMDS; i++) {
		if (i >= n)
			break;
		if (cmds->cmd[i].op == CM_OP_FLOW_MOVE)
			move_flow(cmds->cmd[i].slot, cmds->cmd[i].tag);
	}
	add(&c->fold_seq, 1);
	return i;
}

/*
 * The janitor for one command: frees a pair, frees a flow without a pair or gives it one. A program of its own, because what these
 * take, multiplied by the loop over commands, is more than the verifier walks through.
 */
SEC("classifier/janitor_one")
int cm_janitor_one(struct __sk_buff *skb)
{
	struct cm_cmds *cmds = (void *)(long)skb->data;
	struct cm_ctl *c = ctl_get();

	if (!c || (void *)(cmds + 1) > (void *)(long)skb->data_end)
		return 0;
	add(&c->fold_seq, 1);
	if (cmds->cmd[0].op == CM_OP_PAIR_FREE)
		free_pair(cmds->cmd[0].slot, cmds->cmd[0].tag);
	else if (cmds->cmd[0].op == CM_OP_FLOW_FREE)
		free_orphan(cmds->cmd[0].slot, cmds->cmd[0].tag, cmds->cmd[0].reason);
	else if (cmds->cmd[0].op == CM_OP_FLOW_PAIR)
		give_pair(cmds->cmd[0].slot, cmds->cmd[0].tag);
	add(&c->fold_seq, 1);
	return 1;
}

/* Run by the controller, never attached. Returns how many commands it took, and << 16 how many flows without a pair
 * it left for `cm_janitor_one`. */
SEC("classifier/janitor")
int cm_janitor(struct __sk_buff *skb)
{
	struct cm_cmds *cmds = (void *)(long)skb->data;
	struct cm_ctl *c = ctl_get();
	__u32 n, i, orphans = 0;

	if (!c || (void *)(cmds + 1) > (void *)(long)skb->data_end)
		return 0;
	WRITE_ONCE(c->abi, CM_ABI);
	add(&c->fold_seq, 1);
	n = cmds->count;
	for (i = 0; i < CM_CMDS; i++) {
		__u32 op, slot, tag;

		if (i >= n)
			break;
		op = cmds->cmd[i].op;
		slot = cmds->cmd[i].slot;
		tag = cmds->cmd[i].tag;
		if (op == CM_OP_FLOW_END) {
			struct cm_flow *f = flow_of(slot);

			if (f && f->tag == tag && f->last_seen_ns <= cmds->cmd[i].if_idle_since_ns)
				flow_ends(f, slot);
		} else if (op == CM_OP_FLOW_FREE) {
			orphans += free_flow(slot, tag, cmds->cmd[i].reason);
		} else if (op == CM_OP_PAIR_END) {
			set_pair(slot, tag, CM_LIVE, CM_ENDING);
		} else if (op == CM_OP_PAIR_KEEP) {
			set_pair(slot, tag, CM_ENDING, CM_LIVE);
		} else if (op == CM_OP_PORT_FREE) {
			free_port(slot, tag);
		} else if (op == CM_OP_OVERLAP) {
			WRITE_ONCE(c->overlap, tag);
		} else if (op == CM_OP_FLOW_SLOTS) {
			WRITE_ONCE(c->flow_slots, tag);
		}
	}
	add(&c->fold_seq, 1);
	return orphans << 16 | i;
}
