/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * parse.h - from bytes to a tuple. What is cut short, malformed or of another kind is said to be
 * PARSE_OTHER, and nothing is written.
 */
#ifndef LLB_PARSE_H
#define LLB_PARSE_H

#define ETH_LEN 14

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum parse_result {
	PARSE_WHOLE,	      /* TCP or UDP with its whole header */
	PARSE_FIRST_FRAGMENT, /* likewise, but more of the datagram follows */
	PARSE_LATER_FRAGMENT, /* addresses and protocol only; also a first one too short for more */
	PARSE_OTHER,
	PARSE_SHORT, /* the frame goes on, its linear part does not: pull and parse again */
};

#define L4_MALFORMED -1
#define L4_SHORT     -2

struct packet {
	struct flow_key key;
	__u32 l4_offset; /* from the start of the frame */
	__u32 length;	 /* of the IP packet, in bytes */
	__u32 seq;	 /* TCP, in host order */
	__u32 ack;
	__u32 payload; /* bytes of data */
	__u8 flags;    /* TCP */
	__u8 ttl;
	bool has_l4_sum; /* false for UDP without a checksum */
};

/* Bytes that must lie in the linear part: Ethernet, and the longest IP and TCP headers. */
#define PARSE_LINEAR (ETH_LEN + 60 + 20)

/* The length that UDP's header states, 0 for TCP, or L4_*. */
static __always_inline int parse_l4(struct packet *packet, void *l4, void *data_end,
				    __u32 l4_length)
{
	if (packet->key.proto == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;
		__u32 header;

		if (l4_length < sizeof(*tcp))
			return L4_MALFORMED;
		if ((void *)(tcp + 1) > data_end)
			return L4_SHORT;
		header = tcp->doff * 4;
		if (header < sizeof(*tcp) || header > l4_length)
			return L4_MALFORMED;
		packet->key.sport = tcp->source;
		packet->key.dport = tcp->dest;
		packet->flags = ((__u8 *)tcp)[13];
		packet->seq = bpf_ntohl(tcp->seq);
		packet->ack = bpf_ntohl(tcp->ack_seq);
		packet->payload = l4_length - header;
		packet->has_l4_sum = true;
		return 0;
	} else {
		struct udphdr *udp = l4;
		__u32 length;

		if (l4_length < sizeof(*udp))
			return L4_MALFORMED;
		if ((void *)(udp + 1) > data_end)
			return L4_SHORT;
		length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp))
			return L4_MALFORMED;
		packet->key.sport = udp->source;
		packet->key.dport = udp->dest;
		packet->flags = 0;
		packet->payload = l4_length - sizeof(*udp);
		packet->has_l4_sum = udp->check != 0;
		/* Merged datagrams and first fragments carry the length of the whole. */
		return length;
	}
}

static __always_inline enum parse_result parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_LEN;
	__u32 header, l4_length, available = skb->len - ETH_LEN;
	__be16 fragment;
	int udp_length;

	if (skb->len < ETH_LEN + sizeof(*ip))
		return PARSE_OTHER;
	if ((void *)(ip + 1) > data_end)
		return PARSE_SHORT;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return PARSE_OTHER;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return PARSE_OTHER;
	packet->length = bpf_ntohs(ip->tot_len);
	if (packet->length == 0 && skb->gso_size)
		packet->length = available; /* merged beyond what the field can say */
	if (packet->length > available || packet->length < header)
		return PARSE_OTHER;

	packet->key.src.w[0] = ip->saddr;
	packet->key.dst.w[0] = ip->daddr;
	packet->key.proto = ip->protocol;
	packet->ttl = ip->ttl;
	packet->l4_offset = ETH_LEN + header;

	fragment = ip->frag_off;
	if (fragment & bpf_htons(0x1fff))
		return PARSE_LATER_FRAGMENT;

	l4_length = packet->length - header;
	udp_length = parse_l4(packet, data + packet->l4_offset, data_end, l4_length);
	if (udp_length == L4_SHORT)
		return PARSE_SHORT;
	if (fragment & bpf_htons(0x2000))
		return udp_length == L4_MALFORMED ? PARSE_LATER_FRAGMENT : PARSE_FIRST_FRAGMENT;
	if (udp_length == L4_MALFORMED)
		return PARSE_OTHER;
	if ((__u32)udp_length > l4_length)
		return PARSE_OTHER;
	return PARSE_WHOLE;
}

static __always_inline enum parse_result parse(struct __sk_buff *skb, struct packet *packet)
{
	enum parse_result result = parse_ipv4(skb, packet);
	__u32 wanted = skb->len < PARSE_LINEAR ? skb->len : PARSE_LINEAR;

	if (result != PARSE_SHORT)
		return result;
	if (bpf_skb_pull_data(skb, wanted))
		return PARSE_OTHER;
	result = parse_ipv4(skb, packet);
	return result == PARSE_SHORT ? PARSE_OTHER : result;
}

#endif
