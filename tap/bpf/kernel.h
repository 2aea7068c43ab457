/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few words of the kernel's BPF interface that the programs use, from its UAPI headers alone. */
#ifndef CM_KERNEL_H
#define CM_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define always_inline inline __attribute__((always_inline))
/* Global functions, not static: the verifier takes each by itself, once, and knows nothing of it where it is called. */
#define noinline __attribute__((noinline))
/* Before a loop: it stays one. Unrolled, it would need more stack than three programs that call each other have. */
#define ROLLED _Pragma("clang loop unroll(disable)")
#define barrier() asm volatile("" ::: "memory")
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A map is declared for its name; the loader sets sizes and flags. */
#define MAP(name, kind, record)							\
	struct {								\
		int (*type)[kind];						\
		int (*max_entries)[1];						\
		__u32 *key;							\
		record *value;							\
	} name SEC(".maps")

/* `layouts` serves to bring the types into the object's BTF, where a test compares them with their mirror. */
#define RING(name, layouts)							\
	struct {								\
		int (*type)[BPF_MAP_TYPE_RINGBUF];				\
		int (*max_entries)[4096];					\
		layouts *record;						\
	} name SEC(".maps")

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)BPF_FUNC_tail_call;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
/* Not a call: the JIT reads the variable. */
static __u64 (*const bpf_jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static __u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static long (*const bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to,
					__u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) =
	(void *)BPF_FUNC_ringbuf_reserve;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)BPF_FUNC_ringbuf_submit;

/* Both the TCX and the classifier verdict for "go on as if I were not here". */
enum { CM_PASS = -1 };
/* A control group's verdict for the same. */
enum { CM_ALLOW = 1 };

#define add(p, v) ((void)__sync_fetch_and_add((p), (v)))

static always_inline __u16 swap16(__u16 v) { return __builtin_bswap16(v); }
static always_inline __u32 swap32(__u32 v) { return __builtin_bswap32(v); }
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "big endian targets: make swap16/swap32 conditional first"
#endif

#endif
