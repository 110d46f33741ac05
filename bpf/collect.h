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

static __always_inline enum collect_answer collect_pair(struct flow_key *dnat_key, __u32 now)
{
	struct nat_entry *dnat = dnat_table.lookup(dnat_key), *snat;
	struct flow_key snat_key;
	struct backend *backend;
	__u64 dnat_word, snat_word;
	__u32 slot;

	if (!dnat)
		return COLLECT_ABSENT;
	dnat_word = dnat->word;
	if (ct_is_claimed(dnat))
		return COLLECT_KEPT;
	slot = dnat->backend;
	backend = backends.lookup(&slot);
	ct_twin_key(&snat_key, dnat, dnat_key->proto);
	snat = snat_table.lookup(&snat_key);
	if (!snat || !ct_points_at(snat, dnat_key)) {
		/* A lone half. */
		if (!ct_claim(dnat, dnat_word))
			return COLLECT_KEPT;
		dnat_table.delete(dnat_key);
		return COLLECT_REMOVED;
	}
	snat_word = snat->word;
	if (!(backend && ct_backend_ended(backend, dnat_key->proto)) &&
	    !ct_is_idle(dnat, snat, now))
		return COLLECT_KEPT;
	if (!ct_claim_pair(dnat, dnat_word, snat, snat_word))
		return COLLECT_KEPT;
	nat_delete_pair(dnat_key, &snat_key);
	return COLLECT_REMOVED;
}

/* A SNAT entry that no DNAT entry belongs to. */
static __always_inline enum collect_answer collect_lone(struct flow_key *snat_key)
{
	struct nat_entry *snat = snat_table.lookup(snat_key), *dnat;
	struct flow_key dnat_key;
	__u64 word;

	if (!snat)
		return COLLECT_ABSENT;
	word = snat->word;
	ct_twin_key(&dnat_key, snat, snat_key->proto);
	dnat = dnat_table.lookup(&dnat_key);
	if (dnat && ct_points_at(dnat, snat_key))
		return COLLECT_KEPT;
	/* One being made has no twin for a moment; the clock may tick meanwhile. */
	if ((__s32)(ct_now() - snat->seen) <= 1 || !ct_claim(snat, word))
		return COLLECT_KEPT;
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
