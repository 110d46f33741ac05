/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * nat.h - rewriting a packet, and making and removing the pair of entries that says how. Insert
 * the SNAT entry first, the DNAT entry second; remove in the other order, both halves claimed.
 */
#ifndef LLB_NAT_H
#define LLB_NAT_H

#define EEXIST 17

/*
 * Rewrite addresses and hop count of the IP header; 0, or -1 where it is not there. A checksum of
 * the whole packet that came with it from the device must go on being right: the addresses' part is
 * made up for by a checksum, IPv4's own or, as nat_rewrite() goes on, TCP's or UDP's.
 */
static __always_inline int nat_rewrite_ip(struct __sk_buff *skb, const struct nat_entry *entry)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
#if FAMILY == 4
	struct iphdr *ip = data + ETH_LEN;

	if ((void *)(ip + 1) > data_end)
		return -1;
	ip->saddr = entry->src.w[0];
	ip->daddr = entry->dst.w[0];
	ip->ttl--;
	ip->check = csum_ipv4(ip->check, entry->addr_delta);
#else
	struct ipv6hdr *ip = data + ETH_LEN;

	if ((void *)(ip + 1) > data_end)
		return -1;
	__builtin_memcpy(&ip->saddr, &entry->src, sizeof(entry->src));
	__builtin_memcpy(&ip->daddr, &entry->dst, sizeof(entry->dst));
	ip->hop_limit--;
#endif
	return 0;
}

/*
 * Bring a checksum along with changed ports, once it follows the addresses: true where that could
 * be done here, for a third of what the helper costs. Where the device is to compute it, it holds
 * the addresses alone and must stay: the helper knows, and we see by what the addresses' change has
 * made of it. A change of nothing shows nothing.
 */
static __always_inline bool nat_sum_ports(struct __sk_buff *skb, __u32 offset, __sum16 before,
					  const struct nat_entry *entry, bool is_udp)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__sum16 *check = data + offset;
	__u16 addr_delta = entry->addr_delta;
	__sum16 after;

	if ((void *)(check + 1) > data_end)
		return false;
	if (!addr_delta || addr_delta == 0xffff)
		return false;
	if (*check != csum_apply(before, entry->addr_delta))
		return false;
	after = csum_apply(*check, entry->port_delta);
	*check = is_udp && !after ? 0xffff : after;
	return true;
}

/* Rewrite a whole packet: addresses, ports, TTL and every checksum, in one delta. */
static __always_inline int nat_rewrite(struct __sk_buff *skb, const struct packet *packet,
				       const struct nat_entry *entry)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 addr_delta = entry->addr_delta, port_delta = entry->port_delta;
	__u32 offset = packet->l4_offset & PARSE_L4_MASK;
	__be16 *ports = data + offset;
	bool is_udp = packet->key.proto == IPPROTO_UDP;
	__u64 flags = is_udp ? BPF_F_MARK_MANGLED_0 : 0;
	__sum16 *check, before;

	if ((void *)(ports + 2) > data_end)
		return -1;
	if (nat_rewrite_ip(skb, entry))
		return -1;
	ports[0] = entry->sport;
	ports[1] = entry->dport;
#if FAMILY == 6
	/*
	 * The hop limit is in no checksum of the packet's own, and the helper below takes the
	 * addresses for made up for by a header checksum: both are put right where the device
	 * computed one of the whole packet, and nothing is done where it did not.
	 */
	csum_update(skb, csum_add(addr_delta, ~bpf_htonl(1)));
#endif

	if (!packet->has_l4_sum) {
		csum_update(skb, port_delta);
		return 0;
	}
	offset += is_udp ? 6 : 16;
	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	check = data + offset;
	if ((void *)(check + 1) > data_end)
		return -1;
	before = *check;
	if (bpf_l4_csum_replace(skb, offset, 0, addr_delta, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (!port_delta || nat_sum_ports(skb, offset, before, entry, is_udp))
		return 0;
	return bpf_l4_csum_replace(skb, offset, 0, port_delta, flags) ? -1 : 0;
}

/* What rewriting a packet with this key by this entry adds to its checksums. */
static __always_inline void nat_set_deltas(struct nat_entry *entry, const struct flow_key *key)
{
	entry->addr_delta =
		csum_fold(csum_addr(csum_addr(0, &key->src, &entry->src), &key->dst, &entry->dst));
	entry->port_delta = csum_fold(csum_replace(0, csum_ports_word(key->sport, key->dport),
						   csum_ports_word(entry->sport, entry->dport)));
}

/* What its twin adds: as much less. */
static __always_inline void nat_set_twin_deltas(struct nat_entry *twin,
						const struct nat_entry *entry)
{
	twin->addr_delta = ~entry->addr_delta;
	twin->port_delta = ~entry->port_delta;
}

/* Write what both halves say, but for the SNAT address and port. */
static __always_inline void nat_draft(struct scratch *scratch, const struct packet *packet,
				      const struct backend *backend, __u32 slot, __u32 now)
{
	const struct flow_key *key = &packet->key;
	struct nat_entry *dnat = &scratch->dnat, *snat = &scratch->snat;

	__builtin_memset(scratch, 0, sizeof(*scratch));
	dnat->state = key->proto == IPPROTO_TCP ? CT_OPENING : CT_UDP;
	dnat->seen = now;
	dnat->dst = backend->address;
	dnat->dport = backend->port;
	dnat->backend = slot;
	dnat->service = backend->service;
	dnat->checked = now;
	dnat->opened = now;
	*snat = *dnat;
	if (key->proto == IPPROTO_TCP)
		dnat->next = packet->seq + packet->payload + 1;
	snat->src = key->dst;
	snat->sport = key->dport;
	snat->dst = key->src;
	snat->dport = key->sport;
}

/*
 * The i-th SNAT address and port to try: the client's own port, where it lies in the range, on
 * each of our addresses; then pseudo-random ones.
 */
static __always_inline void nat_candidate(struct flow_key *tuple, const struct config *config,
					  const struct flow_key *key, __u32 hash, __u32 i)
{
	__u32 client = bpf_ntohs(key->sport), address, offset;

	if (i < config->snat_count) {
		address = hash + i;
		offset = client - config->port_low;
		if (client < config->port_low || offset >= config->port_count)
			offset = client % config->port_count;
	} else {
		address = select_finish(hash + i * 0x9e3779b9);
		offset = select_finish(address ^ 0x5bd1e995);
		offset = ((__u64)offset * config->port_count) >> 32;
	}
	address = (address & 0xffff) % config->snat_count;
	tuple->dst = config->snat[address & (MAX_SNAT_ADDRESSES - 1)];
	tuple->dport = bpf_htons(config->port_low + offset);
}

/* Whether the host uses a port itself. */
static __always_inline bool nat_is_host_port(const struct config *config, __be16 port)
{
	__u32 number = bpf_ntohs(port);

	return config->host_ports[(number >> 6) & (PORT_WORDS - 1)] >> (number & 63) & 1;
}

/* Which connections may lose their tuple. */
enum nat_take {
	TAKE_OVER,    /* those that are over */
	TAKE_CLOSED,  /* also those that have just closed */
	TAKE_OPENING, /* also those that were never established */
};

static __always_inline bool nat_may_take(const struct nat_entry *half, __u32 now,
					 enum nat_take which)
{
	switch (which) {
	case TAKE_CLOSED:
		return ct_kind(half) == CT_CLOSED;
	case TAKE_OPENING:
		return !(half->state & CT_ASSURED);
	default:
		return ct_is_free(half) || ct_is_idle(half, NULL, now);
	}
}

/* Remember what the i-th try met: a connection that may be taken over if there is nothing better. */
static __always_inline void nat_note_met(struct scratch *scratch, const struct nat_entry *snat,
					 __u32 now, __u32 i)
{
	__u32 age;

	if (ct_kind(snat) == CT_CLOSED) {
		age = now - snat->seen;
		if (age > scratch->closed_age) {
			scratch->closed_age = age;
			scratch->closed = i + 1;
		}
	} else if (!(snat->state & CT_ASSURED)) {
		age = now - snat->opened;
		if (age >= scratch->opening_age) {
			scratch->opening_age = age;
			scratch->opening = i + 1;
		}
		scratch->openings++;
	}
}

/*
 * Claim the connection that has the tuple in scratch, if it may be taken over. What can't be had at
 * the i-th try is noted.
 */
static __always_inline bool nat_claim(struct scratch *scratch, __u32 now, __u32 i)
{
	struct nat_entry *snat = snat_table.lookup(&scratch->tuple), *dnat;
	/* Read anew: the verifier would follow all that it can be through each turn. */
	enum nat_take which = *(volatile __u32 *)&scratch->which;

	if (!snat)
		return false;
	scratch->snat_word = ct_read_word(snat);
	if (ct_is_claimed(snat))
		return false;
	/* The twin is looked up only where this half could be had. */
	if (!nat_may_take(snat, now, which)) {
		if (which == TAKE_OVER)
			nat_note_met(scratch, snat, now, i);
		return false;
	}
	ct_twin_key(&scratch->twin, snat, scratch->tuple.proto);
	dnat = dnat_table.lookup(&scratch->twin);
	scratch->has_twin = dnat && ct_points_at(dnat, &scratch->tuple);
	if (!dnat || !scratch->has_twin)
		return ct_may_be_lone(snat, now) && ct_claim(snat, scratch->snat_word);
	scratch->dnat_word = ct_read_word(dnat);
	return nat_may_take(dnat, now, which) &&
	       ct_claim_pair(dnat, scratch->dnat_word, snat, scratch->snat_word);
}

/* Take over what was claimed: its DNAT half goes, its SNAT half becomes the draft's. */
static __always_inline bool nat_take_over(struct scratch *scratch, enum end_reason reason)
{
	const struct nat_entry *ours = &scratch->snat;
	struct nat_entry *snat = snat_table.lookup(&scratch->tuple), *dnat = NULL;
	union ct_word word = {.word = scratch->dnat_word};

	if (!snat)
		return false;
	if (scratch->has_twin)
		dnat = dnat_table.lookup(&scratch->twin);
	if (dnat) {
		event_of_end(reason, word.state, &scratch->twin, dnat, snat);
		dnat_table.delete(&scratch->twin);
	}
	if (reason == END_EVICTED)
		count_evicted(snat->service, snat->backend);
	load_removed(snat, &snat->dst, (__u32)scratch->snat_word);
	/* Claimed, so nobody reads the rest: the word that opens it comes last. */
	snat->bytes = 0;
	snat->src = ours->src;
	snat->dst = ours->dst;
	snat->sport = ours->sport;
	snat->dport = ours->dport;
	snat->addr_delta = ours->addr_delta;
	snat->port_delta = ours->port_delta;
	snat->backend = ours->backend;
	snat->service = ours->service;
	snat->next = 0;
	snat->ack = 0;
	snat->packets = 0;
	snat->checked = ours->checked;
	snat->ifindex = ours->ifindex;
	snat->mtu = ours->mtu;
	snat->next_hop = ours->next_hop;
	snat->opened = ours->opened;
	*(volatile __u64 *)&snat->word = ours->word;
	return true;
}

/*
 * Take a SNAT address and port for the draft and insert its SNAT half, whose key is then the tuple
 * in scratch. Where a flood holds the ports, the oldest opening connection met gives way: once most
 * tuples of the first tries were of such, or when the tries are used up and nothing has closed.
 */
static __always_inline enum verdict nat_take_port(struct scratch *scratch,
						  const struct config *config,
						  const struct flow_key *key, __u32 hash, __u32 now)
{
	struct flow_key *tuple = &scratch->tuple;
	struct nat_entry *snat = &scratch->snat;
	long error;

	if (!config->snat_count || !config->port_count)
		return DROP_NO_PORT;
	tuple->src = scratch->dnat.dst;
	tuple->sport = scratch->dnat.dport;
	tuple->proto = key->proto;

	for (__u32 i = 0; i < MAX_PORT_TRIES + 2; i++) {
		enum nat_take which = TAKE_OVER;
		__u32 candidate = i;

		if (i == MAX_PORT_TRIES) {
			which = TAKE_CLOSED;
			candidate = scratch->closed - 1;
		} else if (i > MAX_PORT_TRIES || (i == PRESSED_PORT_TRIES &&
						  scratch->openings > PRESSED_PORT_TRIES / 2)) {
			which = TAKE_OPENING;
			candidate = scratch->opening - 1;
		}
		if (candidate == (__u32)-1)
			continue;
		*(volatile __u32 *)&scratch->which = which;
		nat_candidate(tuple, config, key, hash, candidate);
		if (nat_is_host_port(config, tuple->dport))
			continue;
		nat_set_deltas(snat, tuple);
		if (which == TAKE_OVER) {
			error = snat_table.insert(tuple, snat);
			if (!error)
				return FORWARD_NEW;
			if (error != -EEXIST)
				scratch->is_full = 1;
		}
		/* Taken over behind the loop, each turn of which the verifier follows. */
		if (nat_claim(scratch, now, i)) {
			scratch->reason = which == TAKE_OPENING ? END_EVICTED : END_IDLE;
			break;
		}
	}
	if (!scratch->reason)
		return scratch->is_full ? DROP_TABLE_FULL : DROP_NO_PORT;
	return nat_take_over(scratch, scratch->reason) ? FORWARD_NEW : DROP_ERROR;
}

#endif
