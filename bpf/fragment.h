/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * fragment.h - a datagram in pieces. Its first fragment has ports, and is judged like any other
 * packet; what became of it is noted for those that follow, which have addresses alone. One that
 * comes before its first, or without it, can't be held, and is not sent anywhere.
 */
#ifndef LLB_FRAGMENT_H
#define LLB_FRAGMENT_H

struct fragment_draft {
	struct fragment_key key;
	struct fragment fragment;
};
BPF_PERCPU_ARRAY(fragment_room, struct fragment_draft, 1);

static __always_inline void fragment_set_key(struct fragment_key *key, const struct packet *packet)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = packet->key.src;
	key->dst = packet->key.dst;
	key->id = packet->fragment_id;
	/* Over IPv6 each fragment may say that another header follows (RFC 8200, 4.5). */
	if (FAMILY == 4)
		key->proto = packet->key.proto;
}

static __always_inline struct fragment *fragment_find(const struct fragment_key *key,
						      const struct config *config, __u32 now)
{
	struct fragment *fragment = fragments.lookup((struct fragment_key *)key);

	if (!fragment || now - fragment->seen >= FRAGMENT_SECONDS * config->ticks_per_second)
		return NULL;
	return fragment;
}

#if FAMILY == 4

/*
 * Our address has many clients behind it, whose numbers for datagrams may be the same: so we give
 * each a number of our own (RFC 6864, 5.3), but a first fragment that comes twice the same one.
 */
static __always_inline __be16 fragment_choose_id(struct fragment_draft *draft,
						 const struct fragment *earlier)
{
	const struct fragment *ours = &draft->fragment;

	if (earlier && earlier->ifindex && earlier->sport == ours->sport &&
	    earlier->dport == ours->dport && addr_equal(&earlier->src, &ours->src) &&
	    addr_equal(&earlier->dst, &ours->dst))
		return earlier->id;
	return bpf_get_prandom_u32();
}

static __always_inline int fragment_set_id(struct __sk_buff *skb, __be16 from, __be16 to)
{
	if (bpf_l3_csum_replace(skb, ETH_LEN + offsetof(struct iphdr, check), from, to, 2))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN + offsetof(struct iphdr, id), &to, sizeof(to), 0);
}

#else

/* 32 bits, which their senders choose at random: nothing to be done. */
static __always_inline __be16 fragment_choose_id(struct fragment_draft *draft,
						 const struct fragment *earlier)
{
	return 0;
}

static __always_inline int fragment_set_id(struct __sk_buff *skb, __be16 from, __be16 to)
{
	return 0;
}

#endif

/*
 * Note what becomes of a first fragment: it is forwarded by an entry, or, without one, left to the
 * stack. Returns -1 where that can't be done.
 */
static __always_inline int fragment_note(const struct packet *packet, const struct config *config,
					 const struct nat_entry *entry, const struct hop *hop,
					 __u32 now, bool from_client)
{
	__u32 zero = 0;
	struct fragment_draft *draft = fragment_room.lookup(&zero);
	struct fragment *ours;

	if (!draft)
		return -1;
	ours = &draft->fragment;
	fragment_set_key(&draft->key, packet);
	__builtin_memset(ours, 0, sizeof(*ours));
	ours->seen = now;
	if (entry) {
		ours->ifindex = hop->ifindex;
		ours->mtu = hop->mtu;
		ours->next_hop = hop->next_hop;
		ours->service = entry->service;
		ours->backend = entry->backend;
		ours->src = entry->src;
		ours->dst = entry->dst;
		ours->sport = entry->sport;
		ours->dport = entry->dport;
		ours->from_client = from_client;
		ours->id = fragment_choose_id(draft, fragment_find(&draft->key, config, now));
	}
	return fragments.update(&draft->key, ours) ? -1 : 0;
}

/* Give a first fragment that was noted and rewritten the number that those to come will have. */
static __always_inline int fragment_renumber(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 zero = 0;
	struct fragment_draft *draft = fragment_room.lookup(&zero);

	return draft ? fragment_set_id(skb, packet->fragment_id, draft->fragment.id) : -1;
}

/*
 * Whether a fragment that has none to follow may be part of what is ours. The stack does nothing
 * with a later one alone, which to a SNAT address may be the host's own; with one that is cut it
 * would put together what it resets.
 */
static __always_inline bool fragment_is_ours(const struct config *config,
					     const struct packet *packet)
{
	if (packet->is_cut && is_snat_address(config, &packet->key.dst))
		return true;
	/* What else says of what follows is the first's alone (RFC 8200, 4.5). */
	if (FAMILY == 6 && parse_is_extension(packet->key.proto))
		return config_is_vip(&packet->key.dst);
	return find_service(&packet->key, true);
}

/*
 * What has no ports. A fragment: it goes where the first one went. A packet behind more extension
 * headers than are read: nowhere, where it is for an address of ours.
 */
static __always_inline enum verdict fragment_follow(struct __sk_buff *skb, struct account *account)
{
	const struct config *config = config_in_force();
	__u32 zero = 0, now = ct_now();
	struct packet *packet = packet_room.lookup(&zero);
	struct fragment_key key;
	struct fragment *first;
	struct hop hop;

	if (!config || !packet)
		return DROP_ERROR;
	/* The stack would find TCP or UDP there, know no connection, and answer with a reset. */
	if (packet->is_unread)
		return config_is_ours(config, &packet->key.dst) ? DROP_EXTENSIONS : PASS_UNPARSED;
	fragment_set_key(&key, packet);
	first = fragment_find(&key, config, now);
	/* One that is cut would bring ports of its own past us (RFC 1858). */
	if (!first || packet->is_cut)
		return fragment_is_ours(config, packet) ? DROP_FRAGMENT : PASS_NOT_OURS;
	if (!first->ifindex)
		return PASS_NOT_OURS;
	account->service = first->service;
	account->backend = first->backend;
	account->from_client = first->from_client;
	if (packet->ttl <= 1)
		return DROP_TTL;
	if (first->mtu && packet->length > first->mtu)
		return DROP_TOO_BIG;
	hop.next_hop = first->next_hop;
	hop.ifindex = first->ifindex;
	if (ip_rewrite(skb, ETH_LEN, &first->src, &first->dst, 1) ||
	    fragment_set_id(skb, packet->fragment_id, first->id))
		return DROP_ERROR;
	if (forward_redirect(&hop) != TC_ACT_REDIRECT)
		return DROP_ERROR;
	return account->from_client ? FORWARD_TO_BACKEND : FORWARD_TO_CLIENT;
}

#endif
