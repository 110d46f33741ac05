/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * open.h - beginning a connection: by a client's first packet, or anew where an earlier one of the
 * same tuple is over.
 */
#ifndef LLB_OPEN_H
#define LLB_OPEN_H

/* Whether a packet may begin a connection. */
static __always_inline bool open_may(const struct packet *packet)
{
	return packet->key.proto == IPPROTO_UDP ||
	       (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Remove the SNAT half of a connection that could not be opened, unless another one has it. */
static __always_inline void open_give_back(struct flow_key *tuple, const struct packet *packet)
{
	struct nat_entry *snat = snat_table.lookup(tuple);
	__u64 word;

	if (!snat)
		return;
	word = ct_read_word(snat);
	if (!ct_points_at(snat, &packet->key) || !ct_claim(snat, word))
		return;
	load_removed(snat, &snat->dst, (__u32)word);
	snat_table.delete(tuple);
}

/* A client's first packet: choose a backend, take a port, insert both halves. */
static __always_inline enum verdict open_connection(struct __sk_buff *skb,
						    const struct config *config,
						    struct packet *packet, struct account *account,
						    __u32 now)
{
	__u32 hash = select_hash(&packet->key), zero = 0, slot;
	struct scratch *scratch = scratch_room.lookup(&zero);
	struct backend *backend;
	enum verdict verdict;
	struct hop hop;
	long error;

	if (!allow_source(account->service, &packet->key.src))
		return DROP_DENIED;
	slot = select_backend(config, &packet->key, account->service, hash, now);
	backend = backends.lookup(&slot);
	if (!slot || !backend || !scratch)
		return DROP_NO_BACKEND;
	if (backend->mode != BACKEND_ACTIVE || backend->service != account->service)
		return DROP_NO_BACKEND;
	account->backend = slot;
	hop_to_backend(&hop, backend);
	verdict = forward_check(skb, packet, &hop, FORWARD_NEW);
	if (verdict != FORWARD_NEW)
		return verdict;

	nat_draft(scratch, packet, backend, slot, now);
	if (forward_find_new_client(skb, config, &scratch->snat, packet->key.proto, now))
		return DROP_NO_ROUTE;
	verdict = limit_take(config, account->service, slot, &packet->key.src, false);
	if (verdict != FORWARD_NEW)
		return verdict;
	verdict = nat_take_port(scratch, config, &packet->key, hash, now);
	if (verdict != FORWARD_NEW) {
		load_add(account->service, slot, &packet->key.src, -1);
		return verdict;
	}
	scratch->dnat.src = scratch->tuple.dst;
	scratch->dnat.sport = scratch->tuple.dport;
	nat_set_twin_deltas(&scratch->dnat, &scratch->snat);
	send_note(&scratch->dnat, packet, now);
	scratch->dnat.place = opening_take_place();
	error = dnat_table.insert(&packet->key, &scratch->dnat);
	if (error) {
		/* Full, or another CPU has just opened the same connection. */
		open_give_back(&scratch->tuple, packet);
		return error == -EEXIST ? DROP_ENDING : DROP_TABLE_FULL;
	}
	opening_note(&packet->key, scratch->dnat.place);
	return send_packet(skb, config, packet, &scratch->dnat, &hop, now, FORWARD_NEW);
}

/*
 * An opening packet meets what is left of an earlier connection of the same tuple, whose words were
 * read before that was known: begin it anew in place, with the backend and the place among the
 * limits that it had.
 */
static __always_inline enum verdict open_anew(const struct config *config,
					      const struct packet *packet,
					      const struct account *account, struct nat_entry *dnat,
					      __u64 dnat_word, struct nat_entry *snat,
					      __u64 snat_word, __u32 now)
{
	bool is_tcp = packet->key.proto == IPPROTO_TCP, has_place;
	union ct_word word = {.state = is_tcp ? CT_OPENING : CT_UDP, .seen = now};
	union ct_word dnat_was = {.word = dnat_word}, snat_was = {.word = snat_word};
	enum verdict verdict;

	if (!allow_source(account->service, &packet->key.src))
		return DROP_DENIED;
	has_place = load_counts(snat_was.state);
	verdict =
		limit_take(config, account->service, account->backend, &packet->key.src, has_place);
	if (verdict != FORWARD_NEW)
		return verdict;
	if (!ct_claim_pair(dnat, dnat_word, snat, snat_word)) {
		/* Somebody else removes it, or has just begun it anew. */
		if (!has_place)
			load_add(account->service, account->backend, &packet->key.src, -1);
		return DROP_ENDING;
	}
	event_of_end(END_REUSED, dnat_was.state, &packet->key, dnat, snat);
	dnat->opened = snat->opened = now;
	dnat->packets = snat->packets = 0;
	dnat->bytes = snat->bytes = 0;
	dnat->next = is_tcp ? packet->seq + packet->payload + 1 : 0;
	dnat->ack = snat->next = snat->ack = 0;
	dnat->checked = now;
	snat->checked = now - CT_UNCHECKED;
	dnat->place = opening_take_place();
	/* The SNAT half's last: while that is claimed, nobody follows the connection. */
	*(volatile __u64 *)&dnat->word = word.word;
	*(volatile __u64 *)&snat->word = word.word;
	opening_note(&packet->key, dnat->place);
	return FORWARD_NEW;
}

#endif
