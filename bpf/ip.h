/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ip.h - an IP header read, written and rewritten as a whole, wherever it lies in the packet: for
 * the slow paths. What most packets need is in nat.h.
 */
#ifndef LLB_IP_H
#define LLB_IP_H

#if FAMILY == 4

#define ip_header iphdr

/* Give a header other addresses, and its sum what they add; hops is how many it is older. */
static __always_inline int ip_rewrite(struct __sk_buff *skb, __u32 offset, const struct addr *src,
				      const struct addr *dst, __u32 hops)
{
	struct iphdr ip;
	__u32 delta;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return -1;
	delta = csum_replace(0, ip.saddr, src->w[0]);
	delta = csum_replace(delta, ip.daddr, dst->w[0]);
	delta = csum_add(delta, (__u16)~bpf_htons(hops << 8));
	ip.saddr = src->w[0];
	ip.daddr = dst->w[0];
	ip.ttl -= hops;
	ip.check = csum_apply(ip.check, delta);
	return bpf_skb_store_bytes(skb, offset, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

/* The header of an ICMP message of ours, of that length. */
static __always_inline void ip_write(struct iphdr *ip, const struct addr *src,
				     const struct addr *dst, __u32 length)
{
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = 0xc0; /* internetwork control (RFC 1812, 4.3.2.5) */
	ip->tot_len = bpf_htons(length + sizeof(*ip));
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->protocol = IPPROTO_ICMP;
	ip->check = 0;
	ip->saddr = src->w[0];
	ip->daddr = dst->w[0];
	ip->check = ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

/* What an ICMP message's checksum covers beside the message: nothing. */
static __always_inline __u32 ip_pseudo_sum(const struct iphdr *ip)
{
	return 0;
}

#else

#define ip_header ipv6hdr

static __always_inline int ip_rewrite(struct __sk_buff *skb, __u32 offset, const struct addr *src,
				      const struct addr *dst, __u32 hops)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return -1;
	__builtin_memcpy(&ip.saddr, src, sizeof(*src));
	__builtin_memcpy(&ip.daddr, dst, sizeof(*dst));
	ip.hop_limit -= hops;
	return bpf_skb_store_bytes(skb, offset, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline void ip_write(struct ipv6hdr *ip, const struct addr *src,
				     const struct addr *dst, __u32 length)
{
	*(__be32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, src, sizeof(*src));
	__builtin_memcpy(&ip->daddr, dst, sizeof(*dst));
}

/* The pseudo-header's (RFC 8200, 8.1). */
static __always_inline __u32 ip_pseudo_sum(const struct ipv6hdr *ip)
{
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 2 * sizeof(ip->saddr), 0);

	return csum_add(csum_add(sum, ip->payload_len), bpf_htonl(IPPROTO_ICMPV6));
}

#endif

#endif
