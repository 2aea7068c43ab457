/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One pass over a packet's headers. ippm/src/packet.rs gives the same verdict on the same bytes; a
 * differential test holds the two together.
 *
 * Headers are read in place where they lie in the packet's linear part, as they all but always do, and
 * copied to the stack otherwise: the packet is never changed, not even in its memory layout.
 */
#ifndef CM_PARSE_H
#define CM_PARSE_H

#include "conmon.h"
#include "kernel.h"

enum {
	ETH_LEN = 14,
	VLAN_TAGS = 2,
	EXT_HEADERS = 8,
	ETH_P_IPV4 = 0x0800,
	ETH_P_ARP_ = 0x0806,
	ETH_P_VLAN = 0x8100,
	ETH_P_QINQ = 0x88a8,
	ETH_P_IPV6_ = 0x86dd,
	P_HOPOPTS = 0,
	P_ICMP = 1,
	P_TCP = 6,
	P_UDP = 17,
	P_ROUTING = 43,
	P_FRAGMENT = 44,
	P_AH = 51,
	P_ICMP6 = 58,
	P_DSTOPTS = 60,
	P_SCTP = 132,
	P_MOBILITY = 135,
	P_HIP = 139,
	P_SHIM6 = 140,
	MLD_QUERY = 130,
	MLD_DONE = 132,
	MLD_REPORT_V2 = 143,
	MLD_HOPS = 1,		/* RFC 3810 section 5 */
	ND_SOLICIT_ROUTER = 133,
	ND_REDIRECT = 137,
	ND_HOPS = 255,		/* RFC 4861 section 4: it has passed no router */
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

#define V4_MAPPED 0xffff0000u	/* bytes 8..12 of ::ffff:a.b.c.d, as a little-endian word */
#define TS_OPTION 0x0a080101u	/* NOP NOP TIMESTAMP 10, ditto */

/* What lies behind the key. */
struct cm_packet {
	union {
		struct cm_flow_key key;
		__u64 word[6];	/* the key, as it is hashed and compared: written whole, never in parts */
	};
	__u32 seq;
	__u32 ack;
	__u32 payload;		/* TCP payload bytes */
	__u32 tsval;		/* time stamp option; 0 if there is none where Linux puts it */
	__u16 ip_id;		/* IPv4 identification; 0 in IPv6 */
	__u8 flags;		/* TCP */
	__u8 tcp;		/* a whole TCP header was there */
	__u8 icmp_query;	/* 1 an echo request, 2 an echo reply */
	__u8 discovery;		/* of neighbours or of multicast listeners */
};

/* `len` bytes at `off`: in place, else in `copy`, else null. `off` is bounded by the callers. */
static always_inline void *header(struct __sk_buff *skb, __u32 off, __u32 len, void *copy)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (off > 0x3ff)
		return 0;
	if (likely(data + off + len <= end))
		return data + off;
	if (bpf_skb_load_bytes(skb, off, copy, len))
		return 0;
	return copy;
}

static always_inline int is_extension(__u8 proto)
{
	return proto == P_HOPOPTS || proto == P_ROUTING || proto == P_FRAGMENT || proto == P_AH ||
	       proto == P_DSTOPTS || proto == P_MOBILITY || proto == P_HIP || proto == P_SHIM6;
}

struct walk {
	__u32 off;
	__u8 proto;
	__u8 later_fragment;
	__u8 broken;		/* the chain ran past the packet's end or was too long: no ports */
	__u8 hops;		/* IPv6: the hop limit */
};

/* Kept out of line: rare, and the common path stays short. */
noinline int extensions(struct __sk_buff *skb, struct walk *w)
{
	if (!w)
		return 0;
	for (int i = 0; i < EXT_HEADERS; i++) {
		__u8 h[8];

		if (!is_extension(w->proto))
			return 0;
		if (w->off > 0x3ff || bpf_skb_load_bytes(skb, w->off, h, 8)) {
			w->broken = 1;
			return 0;
		}
		if (w->proto == P_FRAGMENT) {
			if ((h[2] << 8 | h[3]) & 0xfff8) {
				w->later_fragment = 1;
				w->proto = h[0];
				return 0;
			}
			w->off += 8;
		} else if (w->proto == P_AH) {
			w->off += (h[1] + 2) * 4;
		} else {
			w->off += (h[1] + 1) * 8;
		}
		w->proto = h[0];
	}
	if (is_extension(w->proto))
		w->broken = 1;
	return 0;
}

/* Of neighbours or multicast listeners: by the message's type, and by a hop limit that no packet on a longer way has. */
static always_inline int is_discovery(__u8 type, __u8 hops)
{
	if (hops == ND_HOPS)
		return type >= ND_SOLICIT_ROUTER && type <= ND_REDIRECT;
	return hops == MLD_HOPS && ((type >= MLD_QUERY && type <= MLD_DONE) || type == MLD_REPORT_V2);
}

/* The two ports at `h` as one word, the local one in the lower half. */
static always_inline __u32 ports_of(const void *h, const enum cm_dir dir)
{
	__u32 source = swap16(*(__u16 *)h), destination = swap16(*(__u16 *)(h + 2));

	return dir == CM_TX ? source | destination << 16 : destination | source << 16;
}

/*
 * Reads the transport header if it is there. Returns what stands for the ports in the key, the local one in the lower
 * half.
 */
static always_inline __u32 transport(struct __sk_buff *skb, const enum cm_dir dir, struct cm_packet *p,
				     const struct walk *w, __u32 l3_end)
{
	__u8 copy[20] __attribute__((aligned(8)));
	__u32 ports;
	void *h;

	switch (w->proto) {
	case P_TCP: {
		__u32 doff;

		h = header(skb, w->off, 20, copy);
		if (!h || w->off + 20 > l3_end)
			return 0;
		ports = ports_of(h, dir);
		doff = (*(__u8 *)(h + 12) >> 4) * 4;
		if (doff < 20 || w->off + doff > l3_end)
			return ports;
		p->seq = swap32(*(__u32 *)(h + 4));
		p->ack = swap32(*(__u32 *)(h + 8));
		p->flags = *(__u8 *)(h + 13);
		p->payload = l3_end - w->off - doff;
		p->tcp = 1;
		if (dir == CM_RX && doff >= 32) {
			h = header(skb, w->off + 20, 8, copy);
			if (h && *(__u32 *)h == TS_OPTION)
				p->tsval = swap32(*(__u32 *)(h + 4));
		}
		return ports;
	}
	case P_UDP:
	case P_SCTP:
		/* the fixed header must fit: 8 bytes, 12 for SCTP; ports are its first four */
		h = header(skb, w->off, 4, copy);
		if (!h || w->off + (w->proto == P_UDP ? 8 : 12) > l3_end)
			return 0;
		return ports_of(h, dir);
	case P_ICMP:
	case P_ICMP6: {
		__u8 type, request = w->proto == P_ICMP ? 8 : 128, reply = w->proto == P_ICMP ? 0 : 129;
		__u32 id;

		h = header(skb, w->off, 8, copy);
		if (!h || w->off + 8 > l3_end)
			return 0;
		type = *(__u8 *)h;
		id = swap16(*(__u16 *)(h + 4));
		if (w->proto == P_ICMP6)
			p->discovery = is_discovery(type, w->hops);
		if (type != request && type != reply)
			id = type << 8 | *(__u8 *)(h + 1);
		else
			p->icmp_query = type == request ? 1 : 2;
		return id | id << 16;
	}
	}
	return 0;
}

/*
 * Returns an enum cm_class for what has no flow key, -1 for a packet with one. `link`: it begins with a link header; at a
 * control group it begins with the IP header.
 */
static always_inline int parse(struct __sk_buff *skb, const enum cm_dir dir, struct cm_packet *p, __u32 port,
				const int link)
{
	__u8 copy[40] __attribute__((aligned(8)));
	struct walk w = {};
	__u32 l3 = link ? ETH_LEN : 0, l3_end, vlan = 0, ports = 0;
	__u16 ethertype;
	int tags = VLAN_TAGS;
	void *h;

	if (link) {
		h = header(skb, 12, 2, copy);
		if (!h)
			return CM_CLASS_OTHER;
		ethertype = swap16(*(__u16 *)h);
	} else {
		ethertype = swap16(skb->protocol);
	}
	if (link && skb->vlan_present) {
		/* the outermost tag, which the kernel has taken out of the frame */
		vlan = skb->vlan_tci & 0xfff;
		tags = VLAN_TAGS - 1;
	}
	if (link && unlikely(ethertype == ETH_P_VLAN || ethertype == ETH_P_QINQ)) {
		for (int i = 0; i < VLAN_TAGS; i++) {
			if (i >= tags || (ethertype != ETH_P_VLAN && ethertype != ETH_P_QINQ))
				break;
			h = header(skb, l3, 4, copy);
			if (!h)
				return CM_CLASS_OTHER;
			if (!vlan)
				vlan = swap16(*(__u16 *)h) & 0xfff;
			ethertype = swap16(*(__u16 *)(h + 2));
			l3 += 4;
		}
	}

	if (likely(ethertype == ETH_P_IPV4)) {
		__u32 ihl, total, frag;
		__u64 src, dst;

		h = header(skb, l3, 20, copy);
		if (!h)
			return CM_CLASS_MALFORMED;
		ihl = (*(__u8 *)h & 0xf) * 4;
		if (*(__u8 *)h >> 4 != 4 || ihl < 20 || l3 + ihl > skb->len)
			return CM_CLASS_MALFORMED;
		total = swap16(*(__u16 *)(h + 2));
		if (total && total < ihl)
			return CM_CLASS_MALFORMED;
		/* 0: a super-packet too long for the field */
		l3_end = total ? l3 + total : skb->len;
		frag = swap16(*(__u16 *)(h + 6)) & 0x1fff;
		p->ip_id = swap16(*(__u16 *)(h + 4));
		w.proto = *(__u8 *)(h + 9);
		w.later_fragment = frag != 0;
		w.off = l3 + ihl;
		src = (__u64)*(__u32 *)(h + 12) << 32 | V4_MAPPED;
		dst = (__u64)*(__u32 *)(h + 16) << 32 | V4_MAPPED;
		p->word[0] = 0;
		p->word[1] = dir == CM_TX ? src : dst;
		p->word[2] = 0;
		p->word[3] = dir == CM_TX ? dst : src;
	} else if (ethertype == ETH_P_IPV6_) {
		__u32 length;

		h = header(skb, l3, 40, copy);
		if (!h || *(__u8 *)h >> 4 != 6)
			return CM_CLASS_MALFORMED;
		length = swap16(*(__u16 *)(h + 4));
		l3_end = length ? l3 + 40 + length : skb->len;
		w.proto = *(__u8 *)(h + 6);
		w.hops = *(__u8 *)(h + 7);
		w.off = l3 + 40;
		/* the packet may lie at an odd address: words of four are as wide as the verifier allows */
#define WORD(at) ((__u64)*(__u32 *)(h + (at)) | (__u64)*(__u32 *)(h + (at) + 4) << 32)
		p->word[0] = dir == CM_TX ? WORD(8) : WORD(24);
		p->word[1] = dir == CM_TX ? WORD(16) : WORD(32);
		p->word[2] = dir == CM_TX ? WORD(24) : WORD(8);
		p->word[3] = dir == CM_TX ? WORD(32) : WORD(16);
#undef WORD
		if (unlikely(is_extension(w.proto)))
			extensions(skb, &w);
	} else {
		return ethertype == ETH_P_ARP_ ? CM_CLASS_ARP : CM_CLASS_OTHER;
	}

	if (l3_end > skb->len)
		l3_end = skb->len;
	if (likely(!w.later_fragment && !w.broken))
		ports = transport(skb, dir, p, &w, l3_end);
	if (unlikely(p->discovery))
		return CM_CLASS_ND;
	p->word[4] = port | (__u64)ports << 32;
	p->word[5] = w.proto | vlan << 16;
	return -1;
}

#endif
