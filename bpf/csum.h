/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * csum.h - sums in one's complement (RFC 1071, RFC 1624), over words as they lie in memory, which
 * is right in either byte order.
 */
#ifndef LLB_CSUM_H
#define LLB_CSUM_H

/* bcc declares this one with 16 bits of a sum. */
static long (*csum_update)(void *skb, __u32 sum) = (void *)BPF_FUNC_csum_update;

static __always_inline __u32 csum_add(__u32 a, __u32 b)
{
	__u64 sum = (__u64)a + b;

	return (__u32)sum + (__u32)(sum >> 32);
}

static __always_inline __u32 csum_replace(__u32 delta, __u32 from, __u32 to)
{
	return csum_add(delta, csum_add(to, ~from));
}

static __always_inline __u32 csum_addr(__u32 delta, const struct addr *from, const struct addr *to)
{
	__u64 sum = delta;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		sum += (__u64)to->w[i] + (__u32)~from->w[i];
	return csum_add((__u32)sum, (__u32)(sum >> 32));
}

/* In 16 bits. */
static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum over what changed by delta. */
static __always_inline __sum16 csum_apply(__sum16 check, __u32 delta)
{
	return (__sum16)~csum_fold(csum_add((__u16)~check, delta));
}

static __always_inline __u32 csum_ports_word(__be16 sport, __be16 dport)
{
	union {
		__be16 ports[2];
		__u32 word;
	} pair = {.ports = {sport, dport}};

	return pair.word;
}

/* The IPv4 header's sum after the addresses changed by delta and the TTL went down by one. */
static __always_inline __sum16 csum_ipv4(__sum16 check, __u32 delta)
{
	__u64 sum = (__u64)(__u16)~check + delta + (__u16)~bpf_htons(0x0100);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

#endif
