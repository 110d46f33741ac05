/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * parse_ipv6.h - the IPv6 header and the extension headers that may stand before TCP or UDP
 * (RFC 8200). Others (AH, ESP, mobility, no next header, what is yet to come), and a routing header
 * that has not come to its end, are PARSE_OTHER. Jumbograms, and chains that are longer than any
 * sensible one or have two fragment headers, are PARSE_UNREAD: the stack would read on.
 */
#ifndef LLB_PARSE_IPV6_H
#define LLB_PARSE_IPV6_H

#define PARSE_ETHERTYPE ETH_P_IPV6
/* Extension headers in one packet, and where TCP or UDP may begin at the latest. */
#define PARSE_EXTENSIONS     6
#define PARSE_LAST_L4_OFFSET 246
/* Bytes that must lie in the linear part: all headers, and TCP's without options. */
#define PARSE_LINEAR (PARSE_LAST_L4_OFFSET + 20)
/* What every offset of TCP or UDP fits into, so that the verifier sees a bound. */
#define PARSE_L4_MASK 0xff

/* The beginning of every extension header; each is a multiple of 8 bytes long. */
struct extension {
	__u8 next;
	__u8 length; /* in units of 8 bytes, not counting the first; of a fragment header: 0 */
	union {
		__be16 fragment; /* offset in units of 8 bytes, two bits of zero, more fragments */
		struct {
			__u8 type;
			__u8 segments_left;
		} routing;
	};
	__be32 id; /* of a fragmented datagram, between its two addresses */
};

#define EXTENSION_MORE	 0x0001
#define EXTENSION_OFFSET 0xfff8

/*
 * Headers that end before TCP or UDP begins. Of a first fragment the rest comes in the next one,
 * which the stack would put together and read (RFC 8200, 4.5, has such discarded).
 */
static __always_inline enum parse_result parse_incomplete(struct packet *packet, __u8 next,
							  bool is_first_fragment)
{
	if (!is_first_fragment)
		return PARSE_OTHER;
	packet->key.proto = next;
	packet->is_cut = true;
	return PARSE_LATER_FRAGMENT;
}

/* Go through extension headers to TCP or UDP, if that is where they lead to. */
static __always_inline enum parse_result parse_extensions(struct packet *packet, void *data,
							  void *data_end, __u8 next,
							  bool *is_first_fragment)
{
	__u32 offset = ETH_LEN + sizeof(struct ipv6hdr);
	bool is_fragment = false;

	for (int i = 0; i < PARSE_EXTENSIONS; i++) {
		struct extension *extension = data + offset;

		if (offset + sizeof(*extension) > ETH_LEN + packet->length)
			return parse_incomplete(packet, next, *is_first_fragment);
		if ((void *)(extension + 1) > data_end)
			return PARSE_SHORT;
		switch (next) {
		case IPPROTO_HOPOPTS:
			if (i)
				return PARSE_OTHER;
			break;
		case IPPROTO_ROUTING:
			/* Until it has come to its end, another node is the destination. */
			if (extension->routing.segments_left)
				return PARSE_OTHER;
			break;
		case IPPROTO_DSTOPTS:
			break;
		case IPPROTO_FRAGMENT:
			if (is_fragment)
				return PARSE_UNREAD;
			is_fragment = true;
			packet->fragment_id = extension->id;
			packet->is_fragment =
				extension->fragment & bpf_htons(EXTENSION_MORE | EXTENSION_OFFSET);
			*is_first_fragment = extension->fragment & bpf_htons(EXTENSION_MORE);
			break;
		default:
			return PARSE_OTHER;
		}
		if (next == IPPROTO_FRAGMENT) {
			offset += sizeof(*extension);
			if (extension->fragment & bpf_htons(EXTENSION_OFFSET)) {
				packet->key.proto = extension->next;
				packet->l4_offset = offset;
				return PARSE_LATER_FRAGMENT;
			}
		} else {
			offset += (extension->length + 1) * 8;
		}
		if (offset > ETH_LEN + packet->length)
			return parse_incomplete(packet, next, *is_first_fragment);
		if (offset > PARSE_LAST_L4_OFFSET)
			return PARSE_UNREAD;
		next = extension->next;
		if (parse_is_l4(next)) {
			packet->key.proto = next;
			packet->l4_offset = offset;
			return PARSE_WHOLE;
		}
	}
	return PARSE_UNREAD;
}

static __always_inline enum parse_result parse_ip(struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_LEN;
	__u32 available = skb->len - ETH_LEN;
	bool is_first_fragment = false;
	enum parse_result found;

	if (skb->len < ETH_LEN + sizeof(*ip))
		return PARSE_NOTHING;
	if ((void *)(ip + 1) > data_end)
		return PARSE_SHORT;
	if (ip->version != 6)
		return PARSE_NOTHING;
	packet->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!ip->payload_len) {
		/* Merged beyond what the field can say, or read to its end by the stack, too. */
		if (!skb->gso_size && ip->nexthdr != IPPROTO_HOPOPTS)
			return PARSE_NOTHING;
		packet->length = available;
	}
	if (packet->length > available)
		return PARSE_NOTHING;

	__builtin_memcpy(&packet->key.src, &ip->saddr, sizeof(packet->key.src));
	__builtin_memcpy(&packet->key.dst, &ip->daddr, sizeof(packet->key.dst));
	packet->ttl = ip->hop_limit;
	packet->key.proto = ip->nexthdr;
	packet->l4_offset = ETH_LEN + sizeof(*ip);
	if (!ip->payload_len && !skb->gso_size)
		return PARSE_UNREAD;
	if (!parse_is_l4(ip->nexthdr)) {
		found = parse_extensions(packet, data, data_end, ip->nexthdr, &is_first_fragment);
		if (found != PARSE_WHOLE)
			return found;
	}
	return parse_l4(packet, data + (packet->l4_offset & PARSE_L4_MASK), data_end,
			ETH_LEN + packet->length - packet->l4_offset, is_first_fragment);
}

#endif
