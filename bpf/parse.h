/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * parse.h - from bytes to a tuple. What is cut short, malformed or of another kind is said to be
 * PARSE_OTHER or PARSE_NOTHING, and nothing is written. What an IP header says is parse_ipv4.h's and
 * parse_ipv6.h's.
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
	PARSE_ICMP_ERROR,     /* ICMP that reports on a packet; it has no ports */
	PARSE_OTHER,	      /* none of these: addresses only */
	PARSE_NOTHING, /* no IP packet to be read, or neighbour discovery, which is the link's own */
	PARSE_UNREAD,  /* more extension headers than are read, whatever follows: addresses only */
	PARSE_SHORT,   /* the frame goes on, its linear part does not: pull and parse again */
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
	bool has_l4_sum;  /* false for UDP without a checksum */
	bool is_fragment; /* other packets have more of the datagram */
	bool is_cut;	  /* the first of them, which ends before its TCP or UDP header does */
	bool is_unread;	  /* PARSE_UNREAD */
	__u32 fragment_id;
	bool from_backend; /* by its source */
};

/*
 * Room for the packet at hand. Not on the stack: its 512 bytes are few where a key has 40, and the
 * verifier, which forgets what it knew of a value once that lies in a map, would else follow each
 * way through the headers to the end of the program.
 */
BPF_PERCPU_ARRAY(packet_room, struct packet, 1);

/* The length that UDP's header states, 0 for TCP, or L4_*. */
static __always_inline int parse_l4_header(struct packet *packet, void *l4, void *data_end,
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
		/* Over IPv6 none stands for all that is there (RFC 2675, 4), as Linux reads it. */
		if (FAMILY == 6 && !length)
			length = l4_length;
		if (length < sizeof(*udp))
			return L4_MALFORMED;
		/* Over IPv6 there is none without (RFC 8200, 8.1). */
		if (FAMILY == 6 && !udp->check)
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

#if FAMILY == 4
#define PARSE_ICMP IPPROTO_ICMP
#else
#define PARSE_ICMP IPPROTO_ICMPV6
#endif

/* Whether TCP, UDP or ICMP follows. */
static __always_inline bool parse_is_l4(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PARSE_ICMP;
}

/* Whether an extension header of IPv6 follows that may lead to them. */
static __always_inline bool parse_is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
	       proto == IPPROTO_DSTOPTS;
}

/* All ICMP but errors is the stack's, and so are errors that come in pieces. */
static __always_inline enum parse_result parse_icmp(void *l4, void *data_end, __u32 l4_length,
						    bool is_first)
{
	__u8 *type = l4;

	if (l4_length < 8 || is_first)
		return PARSE_OTHER;
	if ((void *)(type + 1) > data_end)
		return PARSE_SHORT;
#if FAMILY == 4
	/* Unreachable, source quench, time exceeded, parameter problem (RFC 792). */
	if (*type == 3 || *type == 4 || *type == 11 || *type == 12)
		return PARSE_ICMP_ERROR;
#else
	/* Unreachable, too big, time exceeded, parameter problem (RFC 4443). */
	if (*type >= 1 && *type <= 4)
		return PARSE_ICMP_ERROR;
	/* Solicitations, advertisements and redirects (RFC 4861). */
	if (*type >= 133 && *type <= 137)
		return PARSE_NOTHING;
#endif
	return PARSE_OTHER;
}

/* Parse TCP's or UDP's header; is_first says that more of the datagram follows. */
static __always_inline enum parse_result parse_l4(struct packet *packet, void *l4, void *data_end,
						  __u32 l4_length, bool is_first)
{
	int udp_length;

	if (packet->key.proto == PARSE_ICMP)
		return parse_icmp(l4, data_end, l4_length, is_first);
	udp_length = parse_l4_header(packet, l4, data_end, l4_length);
	if (udp_length == L4_SHORT)
		return PARSE_SHORT;
	if (is_first) {
		packet->is_cut = udp_length == L4_MALFORMED;
		return packet->is_cut ? PARSE_LATER_FRAGMENT : PARSE_FIRST_FRAGMENT;
	}
	if (udp_length == L4_MALFORMED)
		return PARSE_OTHER;
	if ((__u32)udp_length > l4_length)
		return PARSE_OTHER;
	return PARSE_WHOLE;
}

/* Each gives parse_ip(), PARSE_ETHERTYPE, PARSE_LINEAR and PARSE_L4_MASK. */
#if FAMILY == 4
#include "parse_ipv4.h"
#else
#include "parse_ipv6.h"
#endif

/* A frame for this host, alone or among others; not what the host itself sends to many. */
static __always_inline bool parse_is_for_host(const struct __sk_buff *skb)
{
	return skb->pkt_type <= PACKET_MULTICAST;
}

static __always_inline enum parse_result parse(struct __sk_buff *skb, struct packet *packet)
{
	enum parse_result result;
	__u32 wanted = skb->len < PARSE_LINEAR ? skb->len : PARSE_LINEAR;

	__builtin_memset(packet, 0, sizeof(*packet));
	result = parse_ip(skb, packet);
	if (result != PARSE_SHORT)
		return result;
	if (bpf_skb_pull_data(skb, wanted))
		return PARSE_NOTHING;
	result = parse_ip(skb, packet);
	return result == PARSE_SHORT ? PARSE_NOTHING : result;
}

#endif
