/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * collect.h - programs that user space runs by BPF_PROG_TEST_RUN, never attached. User space can't
 * compare and delete in one step: so it hands over keys that look over, and these judge once more,
 * claim, and remove. The packet is a request: an Ethernet header, then keys; the answer is written
 * into each key's pad[0].
 */
#ifndef LLB_COLLECT_H
#define LLB_COLLECT_H

enum collect_answer {
	COLLECT_KEPT = 0,
	COLLECT_REMOVED = 1,
	COLLECT_ABSENT = 2,
};

/*
 * Why a connection is over: its backend's are to end, or both halves are idle; or 0. A slot that is
 * free has no connections: one that seems so was emptied by somebody, and is filled again.
 */
static __always_inline enum end_reason collect_reason(const struct flow_key *dnat_key,
						      const struct nat_entry *dnat,
						      const struct nat_entry *snat, __u32 now)
{
	__u32 slot = dnat->backend;
	const struct backend *backend = backends.lookup(&slot);

	if (backend && backend->mode != BACKEND_FREE && ct_backend_ended(backend, dnat_key->proto))
		return END_BACKEND;
	return ct_is_idle(dnat, snat, now) ? END_IDLE : 0;
}

static __always_inline enum collect_answer collect_pair(struct flow_key *dnat_key, __u32 now)
{
	struct nat_entry *dnat = dnat_table.lookup(dnat_key), *snat;
	enum end_reason reason = 0;
	struct flow_key snat_key;
	__u64 dnat_word;

	if (!dnat)
		return COLLECT_ABSENT;
	dnat_word = ct_read_word(dnat);
	if (ct_is_claimed(dnat))
		return COLLECT_KEPT;
	snat = ct_find_snat(&snat_key, dnat, dnat_key);
	if (snat) {
		reason = collect_reason(dnat_key, dnat, snat, now);
		if (!reason)
			return COLLECT_KEPT;
	}
	return ct_end(dnat_key, dnat, dnat_word, reason) ? COLLECT_REMOVED : COLLECT_KEPT;
}

/* A SNAT entry that no DNAT entry belongs to. */
static __always_inline enum collect_answer collect_lone(struct flow_key *snat_key)
{
	struct nat_entry *snat = snat_table.lookup(snat_key), *dnat;
	struct flow_key dnat_key;
	__u64 word;

	if (!snat)
		return COLLECT_ABSENT;
	word = ct_read_word(snat);
	ct_twin_key(&dnat_key, snat, snat_key->proto);
	dnat = dnat_table.lookup(&dnat_key);
	if (dnat && ct_points_at(dnat, snat_key))
		return COLLECT_KEPT;
	if (!ct_may_be_lone(snat, ct_now()) || !ct_claim(snat, word))
		return COLLECT_KEPT;
	load_removed(snat, &snat->dst, (__u32)word);
	snat_table.delete(snat_key);
	return COLLECT_REMOVED;
}

/* Run over the request; returns how many connections were removed. */
static __always_inline int collect_request(struct __sk_buff *skb, bool pairs)
{
	__u32 now = ct_now(), removed = 0;

	for (int i = 0; i < MAX_COLLECT; i++) {
		void *data = (void *)(long)skb->data;
		void *data_end = (void *)(long)skb->data_end;
		struct flow_key *in = data + ETH_LEN + i * sizeof(*in), key;
		enum collect_answer answer;

		if ((void *)(in + 1) > data_end)
			break;
		key = *in;
		key.pad[0] = 0;
		answer = pairs ? collect_pair(&key, now) : collect_lone(&key);
		in->pad[0] = answer;
		removed += answer == COLLECT_REMOVED;
	}
	return removed;
}

/* The first byte of a request to end_connections(). */
enum end_which {
	END_ALL = 0,
	END_OVER = 1, /* those alone that are over */
};

static __always_inline enum collect_answer collect_end(struct ended *ended, enum end_which which,
						       __u32 now)
{
	struct flow_key dnat_key = ended->key, snat_key;
	struct nat_entry *dnat, *snat;
	enum end_reason reason = END_ORDERED;
	union ct_word word;
	__u64 dnat_word, snat_word;

	dnat_key.pad[0] = 0;
	dnat = dnat_table.lookup(&dnat_key);
	if (!dnat)
		return COLLECT_ABSENT;
	snat = ct_find_snat(&snat_key, dnat, &dnat_key);
	if (!snat)
		return COLLECT_KEPT;
	/* A packet may come in between, hence the turns. */
	for (int i = 0; i < CT_SWAPS; i++) {
		dnat_word = ct_read_word(dnat);
		snat_word = ct_read_word(snat);
		if (which == END_OVER) {
			reason = collect_reason(&dnat_key, dnat, snat, now);
			if (!reason)
				return COLLECT_KEPT;
		}
		if (!ct_claim_pair(dnat, dnat_word, snat, snat_word))
			continue;
		ended->dnat_half = *dnat;
		ended->dnat_half.word = dnat_word;
		ended->snat_half = *snat;
		ended->snat_half.word = snat_word;
		word.word = dnat_word;
		event_of_end(reason, word.state, &dnat_key, dnat, snat);
		load_removed(dnat, &dnat_key.src, (__u32)snat_word);
		dnat_table.delete(&dnat_key);
		snat_table.delete(&snat_key);
		return COLLECT_REMOVED;
	}
	return COLLECT_KEPT;
}

/* Run over a request of such records; returns how many connections were removed. */
static __always_inline int collect_and_return(struct __sk_buff *skb)
{
	__u32 now = ct_now(), removed = 0;

	for (int i = 0; i < MAX_END; i++) {
		void *data = (void *)(long)skb->data;
		void *data_end = (void *)(long)skb->data_end;
		struct ended *ended = data + ETH_LEN + i * sizeof(*ended);
		enum collect_answer answer;

		if ((void *)(ended + 1) > data_end)
			break;
		answer = collect_end(ended, *(__u8 *)data, now);
		ended->key.pad[0] = answer;
		removed += answer == COLLECT_REMOVED;
	}
	return removed;
}

enum corrected {
	CORRECT_SERVICE = 1,
	CORRECT_BACKEND = 2,
	CORRECT_SOURCE = 3,
};

/*
 * Add to counts of connections what they are short of: the packet is an Ethernet header, then
 * struct correction one after the other. Added, not written: packets go on being counted meanwhile.
 */
static __always_inline int collect_correct(struct __sk_buff *skb)
{
	struct service_load *load;
	struct source_load *source;
	struct addr network;
	__s64 *connections;

	for (int i = 0; i < MAX_COLLECT; i++) {
		void *data = (void *)(long)skb->data;
		void *data_end = (void *)(long)skb->data_end;
		struct correction *in = data + ETH_LEN + i * sizeof(*in);
		__u32 slot;

		if ((void *)(in + 1) > data_end)
			break;
		slot = in->slot;
		if (in->what == CORRECT_SERVICE) {
			load = service_loads.lookup(&slot);
			if (load)
				__sync_fetch_and_add(&load->connections, in->by);
		} else if (in->what == CORRECT_BACKEND) {
			connections = backend_loads.lookup(&slot);
			if (connections)
				__sync_fetch_and_add(connections, in->by);
		} else if (in->what == CORRECT_SOURCE) {
			network = in->network;
			source = load_source(slot, &network, in->by > 0);
			if (source)
				load_add_source(source, in->by);
		}
	}
	return 0;
}

/* Write the two clocks into the packet, so that user space can tell ticks from seconds. */
static __always_inline int collect_clock(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u64 *clocks = data + ETH_LEN;

	if ((void *)(clocks + 2) > data_end)
		return -1;
	clocks[0] = bpf_jiffies64();
	clocks[1] = bpf_ktime_get_ns();
	return 0;
}

#endif
