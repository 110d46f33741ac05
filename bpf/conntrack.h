/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * conntrack.h - the state of a connection, held alike by its two halves, and when it is over.
 * llb_core/planning/expiry.py says the same rule in Python.
 */
#ifndef LLB_CONNTRACK_H
#define LLB_CONNTRACK_H

static __always_inline __u32 ct_now(void)
{
	return (__u32)bpf_jiffies64();
}

/* The key under which the packet's answer, and so the twin, is found. */
static __always_inline void ct_twin_key(struct flow_key *twin, const struct nat_entry *entry,
					__u8 proto)
{
	__builtin_memset(twin, 0, sizeof(*twin));
	twin->src = entry->dst;
	twin->dst = entry->src;
	twin->sport = entry->dport;
	twin->dport = entry->sport;
	twin->proto = proto;
}

/* Whether a packet that this entry rewrites is answered by one with that key. */
static __always_inline bool ct_points_at(const struct nat_entry *entry, const struct flow_key *key)
{
	return addr_equal(&entry->src, &key->dst) && addr_equal(&entry->dst, &key->src) &&
	       entry->sport == key->dport && entry->dport == key->sport;
}

static __always_inline __u32 ct_kind(const struct nat_entry *entry)
{
	return entry->state & CT_STATE_MASK;
}

static __always_inline bool ct_is_claimed(const struct nat_entry *entry)
{
	return ct_kind(entry) == CT_CLAIMED;
}

static __always_inline __u32 ct_timeout(const struct nat_entry *entry)
{
	__u32 slot = entry->service;
	struct service *service = services.lookup(&slot);

	if (!service)
		return 0;
	switch (ct_kind(entry)) {
	case CT_OPENING:
		return service->timeouts[TIMEOUT_OPENING];
	case CT_ESTABLISHED:
		return service->timeouts[TIMEOUT_ESTABLISHED];
	case CT_CLOSED:
		if (entry->state & CT_BACKEND_CLOSED_FIRST)
			return service->timeouts[TIMEOUT_CLOSED];
		return service->timeouts[TIMEOUT_CLOSING];
	case CT_UDP:
		return service->timeouts[TIMEOUT_UDP];
	default:
		return service->timeouts[TIMEOUT_CLOSING];
	}
}

/* Idle for as long as its state allows; twin may be NULL. */
static __always_inline bool ct_is_idle(const struct nat_entry *entry, const struct nat_entry *twin,
				       __u32 now)
{
	__u32 timeout = ct_timeout(entry);

	if ((__s32)(now - entry->seen) < (__s32)timeout)
		return false;
	return !twin || (__s32)(now - twin->seen) >= (__s32)timeout;
}

/* Whether its backend is one whose connections of this protocol count as absent. */
static __always_inline bool ct_backend_ended(const struct backend *backend, __u8 proto)
{
	return backend->mode == BACKEND_ENDING || backend->mode == BACKEND_FREE ||
	       (backend->mode == BACKEND_RETIRED && proto == IPPROTO_UDP);
}

/*
 * A connection that ended and whose tuple the next one may have: reset, or closed by the client
 * first. Where the backend closed first its side is in TIME_WAIT and answers a stranger's SYN
 * with a challenge.
 */
static __always_inline bool ct_is_free(const struct nat_entry *entry)
{
	return ct_kind(entry) == CT_CLOSED && !(entry->state & CT_BACKEND_CLOSED_FIRST);
}

/* True for the one caller that turned the entry, unchanged since word was read, into CLAIMED. */
static __always_inline bool ct_claim(struct nat_entry *entry, __u64 word)
{
	union {
		struct {
			__u32 state;
			__u32 seen;
		};
		__u64 word;
	} from = {.word = word}, to = from;

	if ((from.state & CT_STATE_MASK) == CT_CLAIMED)
		return false;
	to.state = CT_CLAIMED;
	return __sync_val_compare_and_swap(&entry->word, word, to.word) == word;
}

/*
 * Claim both halves, or neither. Once it is true, no packet is forwarded by them and nobody else
 * removes them.
 */
static __always_inline bool ct_claim_pair(struct nat_entry *dnat, __u64 dnat_word,
					  struct nat_entry *snat, __u64 snat_word)
{
	if (!ct_claim(snat, snat_word))
		return false;
	if (ct_claim(dnat, dnat_word))
		return true;
	snat->word = snat_word;
	return false;
}

/* Write a state into both halves. */
static __always_inline void ct_set(struct nat_entry *entry, struct nat_entry *twin, __u32 state)
{
	entry->state = state;
	if (twin)
		twin->state = state;
}

/*
 * Follow TCP by a packet of one side. Cheap for what most packets are, neither SYN nor FIN nor
 * RST of an established connection: those do not come here.
 */
static __always_inline void ct_follow(struct nat_entry *entry, struct nat_entry *twin,
				      const struct packet *packet, bool from_client)
{
	__u32 state = entry->state, kind = state & CT_STATE_MASK;
	__u32 own_fin = from_client ? CT_CLIENT_FIN : CT_BACKEND_FIN;
	__u32 both = CT_CLIENT_FIN | CT_BACKEND_FIN;

	if (packet->flags & TCP_RST) {
		ct_set(entry, twin,
		       CT_CLOSED | CT_RESET | (state & ~CT_STATE_MASK & ~CT_BACKEND_CLOSED_FIRST));
		return;
	}
	if (packet->flags & TCP_SYN) {
		if (!from_client && (packet->flags & TCP_ACK) && kind == CT_OPENING)
			ct_set(entry, twin, state | CT_ANSWERED);
		return;
	}
	if (kind == CT_OPENING && from_client && (state & CT_ANSWERED) &&
	    (packet->flags & TCP_ACK)) {
		kind = CT_ESTABLISHED;
		state = CT_ESTABLISHED | (state & ~CT_STATE_MASK);
		ct_set(entry, twin, state);
	}
	/*
	 * Reset, and yet it speaks: the other side did not take the reset for good. Back to where
	 * it came from, or a SYN, a RST and an ACK would hold an entry for hours.
	 */
	if (kind == CT_CLOSED && (state & CT_RESET)) {
		if ((state & both) == both)
			kind = CT_CLOSING;
		else
			kind = state & CT_ANSWERED ? CT_ESTABLISHED : CT_OPENING;
		ct_set(entry, twin, kind | (state & (CT_ANSWERED | both)));
		return;
	}
	if ((packet->flags & TCP_FIN) && kind != CT_CLOSED) {
		entry->fin_ack = packet->seq + packet->payload + 1;
		if (!(state & both) && !from_client)
			state |= CT_BACKEND_CLOSED_FIRST;
		state |= own_fin;
		if ((state & both) == both)
			state = (state & ~CT_STATE_MASK) | CT_CLOSING;
		ct_set(entry, twin, state);
		kind = state & CT_STATE_MASK;
	}
	/* Both have closed: over once the second FIN, the other side's, is acknowledged. */
	if (kind == CT_CLOSING && twin && (packet->flags & TCP_ACK)) {
		bool second_is_client = state & CT_BACKEND_CLOSED_FIRST;

		if (second_is_client != from_client && (__s32)(packet->ack - twin->fin_ack) >= 0)
			ct_set(entry, twin, (state & ~CT_STATE_MASK) | CT_CLOSED);
	}
}

#endif
