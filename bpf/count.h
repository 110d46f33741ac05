/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * count.h - counting a packet, once: for its verdict, its service and its backend.
 */
#ifndef LLB_COUNT_H
#define LLB_COUNT_H

/* Whom a packet is counted for; a slot of 0 is nobody. */
struct account {
	__u32 service;
	__u32 backend;
	bool from_client;
};

static __always_inline void count_for(struct counters *counters, const struct account *account,
				      enum verdict verdict, __u32 length)
{
	if (!counters)
		return;
	if (!verdict_is_forward(verdict)) {
		counters->drops += !verdict_is_pass(verdict);
		counters->no_port += verdict == DROP_NO_PORT;
		return;
	}
	if (account->from_client) {
		counters->packets_in++;
		counters->bytes_in += length;
		counters->connections += verdict == FORWARD_NEW;
	} else {
		counters->packets_out++;
		counters->bytes_out += length;
	}
}

/* Count a connection that made room before it became established. */
static __always_inline void count_evicted(__u32 service, __u32 backend)
{
	struct counters *counters = service_counters.lookup(&service);

	if (counters)
		counters->opening_evicted++;
	counters = backend_counters.lookup(&backend);
	if (counters)
		counters->opening_evicted++;
}

/* Count a packet that was dropped or refused by all three: whose, at which backend, and why. */
static __always_inline void count_drop(const struct account *account, enum verdict verdict)
{
	struct drop_key key = {
		.service = account->service,
		.backend = account->backend,
		.verdict = verdict,
	};
	__u64 *packets = drop_counters.lookup(&key), one = 1;

	if (packets) {
		(*packets)++;
		return;
	}
	if (!drop_counters.insert(&key, &one))
		return;
	/* Full, or another CPU has just made it. */
	packets = drop_counters.lookup(&key);
	if (packets)
		(*packets)++;
}

/* How many packets had this verdict before, on this CPU, is returned. */
static __always_inline __u64 count(const struct __sk_buff *skb, const struct account *account,
				   enum verdict verdict)
{
	__u32 which = verdict, slot;
	__u64 *packets = verdicts.lookup(&which);
	__u32 length = skb->len - ETH_LEN;
	__u64 before = 0;

	if (packets)
		before = (*packets)++;
	if (!verdict_is_pass(verdict) && !verdict_is_forward(verdict))
		count_drop(account, verdict);
	if (account->service) {
		slot = account->service;
		count_for(service_counters.lookup(&slot), account, verdict, length);
	}
	if (account->backend) {
		slot = account->backend;
		count_for(backend_counters.lookup(&slot), account, verdict, length);
	}
	return before;
}

#endif
