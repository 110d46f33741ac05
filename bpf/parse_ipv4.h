/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * parse_ipv4.h - the IPv4 header (RFC 791), options and all.
 */
#ifndef LLB_PARSE_IPV4_H
#define LLB_PARSE_IPV4_H

#define PARSE_ETHERTYPE ETH_P_IP
/* Bytes that must lie in the linear part: Ethernet, and the longest IP and TCP headers. */
#define PARSE_LINEAR (ETH_LEN + 60 + 20)
/* What every offset of TCP or UDP fits into, so that the verifier sees a bound. */
#define PARSE_L4_MASK 0x7f

static __always_inline enum parse_result parse_ip(struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_LEN;
	__u32 header, available = skb->len - ETH_LEN;
	__be16 fragment;

	if (skb->len < ETH_LEN + sizeof(*ip))
		return PARSE_NOTHING;
	if ((void *)(ip + 1) > data_end)
		return PARSE_SHORT;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return PARSE_NOTHING;
	packet->length = bpf_ntohs(ip->tot_len);
	if (packet->length == 0 && skb->gso_size)
		packet->length = available; /* merged beyond what the field can say */
	if (packet->length > available || packet->length < header)
		return PARSE_NOTHING;

	packet->key.src.w[0] = ip->saddr;
	packet->key.dst.w[0] = ip->daddr;
	if (!parse_is_l4(ip->protocol))
		return PARSE_OTHER;
	packet->key.proto = ip->protocol;
	packet->ttl = ip->ttl;
	packet->l4_offset = ETH_LEN + header;

	fragment = ip->frag_off;
	packet->fragment_id = ip->id;
	packet->is_fragment = fragment & bpf_htons(0x3fff);
	if (fragment & bpf_htons(0x1fff))
		return PARSE_LATER_FRAGMENT;
	return parse_l4(packet, data + packet->l4_offset, data_end, packet->length - header,
			fragment & bpf_htons(0x2000));
}

#endif
