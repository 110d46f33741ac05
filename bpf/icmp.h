/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * icmp.h - ICMP errors about connections of ours, to the one end that they concern. Such an error
 * quotes a packet that we sent, so the answer to that packet is the key of the half that says how
 * the error is rewritten: outside as an answer is, inside as what was sent once was (RFC 5508, 4).
 * The end hears it from the address that it talks to: docs/decisions/icmp-sources.md.
 */
#ifndef LLB_ICMP_H
#define LLB_ICMP_H

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 rest; /* of too big: the MTU of the next link */
};

#if FAMILY == 4
#define ICMP_TYPE_UNREACHABLE 3
#define ICMP_CODE_PORT	      3
#define ICMP_TYPE_TOO_BIG     3
#define ICMP_CODE_TOO_BIG     4
#define ICMP_TYPE_TIME	      11
#else
#define ICMP_TYPE_UNREACHABLE 1
#define ICMP_CODE_PORT	      4
#define ICMP_TYPE_TOO_BIG     2
#define ICMP_CODE_TOO_BIG     0
#define ICMP_TYPE_TIME	      3
#endif

/* What an ICMP error says of a packet that we sent. */
struct icmp_error {
	struct flow_key answer; /* the tuple of what would answer that packet */
	__u32 quoted;		/* where its IP header begins in the frame */
	__u32 quoted_l4;	/* ... and its TCP or UDP header */
	__u32 end;		/* ... and where the whole ends */
	__u8 type;
	__u8 code;
	__u32 seq;	 /* of a quoted TCP segment */
	bool has_l4_sum; /* the quote goes as far as its checksum, and there is one */
};

#if FAMILY == 4

/* Read the quoted IP header up to TCP or UDP; -1 where it is none that we can use. */
static __always_inline int icmp_parse_quoted(struct __sk_buff *skb, struct icmp_error *error)
{
	struct iphdr ip;
	__u32 header;

	if (bpf_skb_load_bytes(skb, error->quoted, &ip, sizeof(ip)))
		return -1;
	header = ip.ihl * 4;
	if (ip.version != 4 || header < sizeof(ip) || (ip.frag_off & bpf_htons(0x1fff)))
		return -1;
	error->answer.src.w[0] = ip.daddr;
	error->answer.dst.w[0] = ip.saddr;
	error->answer.proto = ip.protocol;
	error->quoted_l4 = error->quoted + header;
	return 0;
}

#else

static __always_inline int icmp_parse_quoted(struct __sk_buff *skb, struct icmp_error *error)
{
	struct extension extension;
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, error->quoted, &ip, sizeof(ip)))
		return -1;
	if (ip.version != 6)
		return -1;
	__builtin_memcpy(&error->answer.src, &ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(&error->answer.dst, &ip.saddr, sizeof(ip.saddr));
	error->quoted_l4 = error->quoted + sizeof(ip);
	next = ip.nexthdr;
	/* What we sent has no others, and none in an order that it must not have. */
	for (int i = 0; i < PARSE_EXTENSIONS; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, error->quoted_l4, &extension, sizeof(extension)))
			return -1;
		error->quoted_l4 += 8;
		if (next != IPPROTO_FRAGMENT)
			error->quoted_l4 += extension.length * 8;
		else if (extension.fragment & bpf_htons(EXTENSION_OFFSET))
			return -1;
		next = extension.next;
	}
	error->answer.proto = next;
	return 0;
}

#endif

/* Understand an ICMP error; -1 where it is cut short, or quotes what is no packet of ours. */
static __always_inline int icmp_parse(struct __sk_buff *skb, const struct packet *packet,
				      struct icmp_error *error)
{
	struct icmp_header icmp;
	struct {
		__be16 sport;
		__be16 dport;
		union {
			struct {
				__be16 length;
				__sum16 check;
			};
			__be32 seq;
		};
	} l4;

	error->end = ETH_LEN + packet->length;
	error->quoted = packet->l4_offset + sizeof(icmp);
	if (error->quoted + sizeof(struct ip_header) > error->end)
		return -1;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &icmp, sizeof(icmp)))
		return -1;
	error->type = icmp.type;
	error->code = icmp.code;
	if (icmp_parse_quoted(skb, error))
		return -1;
	/* Errors are sent to who sent what they quote; and they may quote no more than this. */
	if (!addr_equal(&error->answer.dst, &packet->key.dst) ||
	    error->quoted_l4 + sizeof(l4) > error->end)
		return -1;
	if (bpf_skb_load_bytes(skb, error->quoted_l4, &l4, sizeof(l4)))
		return -1;
	error->answer.sport = l4.dport;
	error->answer.dport = l4.sport;
	error->seq = bpf_ntohl(l4.seq);
	if (error->answer.proto == IPPROTO_TCP)
		error->has_l4_sum = error->quoted_l4 + 18 <= error->end;
	else if (error->answer.proto == IPPROTO_UDP)
		error->has_l4_sum = l4.check != 0;
	else
		return -1;
	return 0;
}

/* Rewrite the TCP or UDP header that is quoted; what that adds to a sum over it goes to delta. */
static __always_inline int icmp_rewrite_l4(struct __sk_buff *skb, const struct icmp_error *error,
					   const struct nat_entry *entry, __u32 *delta)
{
	__be16 ports[2] = {entry->dport, entry->sport};
	bool is_udp = error->answer.proto == IPPROTO_UDP;
	__u32 both = csum_add(entry->addr_delta, entry->port_delta);
	__u32 offset = error->quoted_l4 + (is_udp ? 6 : 16);
	__sum16 check;

	*delta = entry->port_delta;
	if (bpf_skb_store_bytes(skb, error->quoted_l4, ports, sizeof(ports), BPF_F_RECOMPUTE_CSUM))
		return -1;
	if (!error->has_l4_sum)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, &check, sizeof(check)))
		return -1;
	check = csum_apply(check, both);
	if (is_udp && !check)
		check = 0xffff;
	*delta = csum_add(*delta, ~both);
	return bpf_skb_store_bytes(skb, offset, &check, sizeof(check), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Rewrite an error whole, by the half that its quoted packet's answers are rewritten by: outside as
 * such an answer; inside the other way about. What changes in the quoted IPv4 header is made up for
 * by its own sum, so that ICMP's feels nothing of it; IPv6 has none there, but a pseudo-header.
 */
static __always_inline int icmp_rewrite(struct __sk_buff *skb, const struct packet *packet,
					const struct icmp_error *error,
					const struct nat_entry *entry)
{
	__u32 offset = packet->l4_offset + offsetof(struct icmp_header, check), delta;
	__sum16 check;

	if (icmp_rewrite_l4(skb, error, entry, &delta))
		return -1;
#if FAMILY == 6
	delta = csum_add(delta, entry->addr_delta);
	delta = csum_addr(delta, &packet->key.src, &entry->src);
	delta = csum_addr(delta, &packet->key.dst, &entry->dst);
#endif
	if (ip_rewrite(skb, error->quoted, &entry->dst, &entry->src, 0) ||
	    ip_rewrite(skb, ETH_LEN, &entry->src, &entry->dst, 1))
		return -1;
	if (bpf_skb_load_bytes(skb, offset, &check, sizeof(check)))
		return -1;
	check = csum_apply(check, delta);
	return bpf_skb_store_bytes(skb, offset, &check, sizeof(check), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Whether the quoted segment can be under way: between what its receiver (entry is the half of its
 * answers) has acknowledged and what its sender (twin) has sent (RFC 5927, 4.1). A keepalive repeats
 * the byte before. While the connection opens, nothing but its SYN is known. Where the numbers can't
 * be, see follow_resume(), the backend's alone are believed, which nobody else can have written: an error
 * too many is for the end's own TCP to judge, one too few costs the path's MTU.
 */
static __always_inline bool icmp_is_current(const struct icmp_error *error,
					    const struct nat_entry *entry,
					    const struct nat_entry *twin, bool to_client)
{
	if (error->answer.proto != IPPROTO_TCP)
		return true;
	if (!(entry->state & CT_ANSWERED))
		return twin->next - error->seq < CT_WINDOW;
	if (!twin->next || !entry->next)
		return true;
	if ((__s32)(twin->next - entry->ack) < 0)
		return to_client ? error->seq - entry->ack + 1 < CT_FAR_WINDOW
				 : twin->next - error->seq < CT_FAR_WINDOW;
	return (__s32)(error->seq - entry->ack + 1) >= 0 && (__s32)(twin->next - error->seq) >= 0;
}

/* What becomes of an ICMP error: on to the end that it concerns, or to the stack. */
static __always_inline enum verdict icmp_forward(struct __sk_buff *skb, struct account *account)
{
	const struct config *config = config_in_force();
	struct nat_entry *entry, *twin;
	__u32 zero = 0, now = ct_now(), slot;
	struct packet *packet = packet_room.lookup(&zero);
	struct icmp_error error = {};
	struct flow_key twin_key;
	struct backend *backend;
	bool to_client, ends;
	__u64 word;
	struct hop hop;

	if (!config || !packet || icmp_parse(skb, packet, &error))
		return PASS_UNPARSED;
	entry = snat_table.lookup(&error.answer);
	to_client = entry;
	if (!entry)
		entry = dnat_table.lookup(&error.answer);
	if (!entry)
		return PASS_NOT_OURS;
	account->service = entry->service;
	account->backend = slot = entry->backend;
	account->from_client = !to_client;
	/* Nobody on the public side has seen a packet that we sent to a backend. */
	if (to_client && skb->ifindex != config->private_ifindex)
		return DROP_SPOOFED;
	if (ct_is_claimed(entry))
		return DROP_ENDING;
	ct_twin_key(&twin_key, entry, error.answer.proto);
	if (to_client)
		twin = dnat_table.lookup(&twin_key);
	else
		twin = snat_table.lookup(&twin_key);
	if (!twin || !ct_points_at(twin, &error.answer))
		return DROP_ENDING;
	backend = backends.lookup(&slot);
	if (!backend || ct_backend_ended(backend, error.answer.proto))
		return PASS_NOT_OURS;
	if (!icmp_is_current(&error, entry, twin, to_client))
		return DROP_STALE_ERROR;

	if (to_client) {
		if (!ct_is_checked(entry, config, now) &&
		    forward_find_client(skb, entry, error.answer.proto, now))
			return DROP_NO_ROUTE;
		hop.next_hop = entry->next_hop;
		hop.ifindex = entry->ifindex;
		hop.mtu = entry->mtu;
	} else {
		hop_to_backend(&hop, backend);
	}
	if (!hop.ifindex)
		return DROP_NO_ROUTE;
	/* Nobody is told about an error (RFC 1122, 3.2.2). */
	if (packet->ttl <= 1)
		return DROP_TTL;
	if (hop.mtu && packet->length > hop.mtu)
		return DROP_TOO_BIG;
	word = ct_read_word(twin);
	ends = to_client && error.answer.proto == IPPROTO_UDP &&
	       error.type == ICMP_TYPE_UNREACHABLE && error.code == ICMP_CODE_PORT &&
	       addr_equal(&packet->key.src, &error.answer.src);
	if (icmp_rewrite(skb, packet, &error, entry))
		return DROP_ERROR;
	if (forward_redirect(&hop) != TC_ACT_REDIRECT)
		return DROP_ERROR;
	if (ends)
		ct_end(&twin_key, twin, word, END_RESET);
	return FORWARD_ERROR;
}

#endif
