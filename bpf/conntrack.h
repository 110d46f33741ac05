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

/* So long before now that nothing was looked up within the last second, by 16 bits. */
#define CT_UNCHECKED 0x8000

/*
 * Whether twin and route were looked up within the last second. Of that time 16 bits are kept,
 * which are enough: as long as no second goes by without a packet, it is never far back.
 */
static __always_inline bool ct_is_checked(const struct nat_entry *entry,
					  const struct config *config, __u32 now)
{
	return now - entry->seen < config->ticks_per_second &&
	       (__u16)(now - entry->checked) < config->ticks_per_second;
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

/*
 * Whether a half was carried over from earlier maps as one that anybody may have taken over there
 * since: its tuple may be another connection's, which is not in these maps yet.
 */
static __always_inline bool ct_may_be_replaced(const struct nat_entry *entry,
					       const struct config *config,
					       const struct packet *packet, __u32 now)
{
	return packet->key.proto == IPPROTO_TCP && config_is_carrying(config, now) &&
	       (ct_kind(entry) == CT_CLOSED || ct_is_idle(entry, NULL, now));
}

union ct_word {
	struct {
		__u32 state;
		__u32 seen;
	};
	__u64 word;
};

static __always_inline __u64 ct_read_word(const struct nat_entry *entry)
{
	return *(const volatile __u64 *)&entry->word;
}

/* True for the one caller that turned the entry, unchanged since word was read, into CLAIMED. */
static __always_inline bool ct_claim(struct nat_entry *entry, __u64 word)
{
	union ct_word from = {.word = word}, to = from;

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

/* The SNAT half that belongs to a DNAT half, NULL where that is alone; twin_key is its key. */
static __always_inline struct nat_entry *ct_find_snat(struct flow_key *twin_key,
						      const struct nat_entry *dnat,
						      const struct flow_key *dnat_key)
{
	struct nat_entry *snat;

	ct_twin_key(twin_key, dnat, dnat_key->proto);
	snat = snat_table.lookup(twin_key);
	return snat && ct_points_at(snat, dnat_key) ? snat : NULL;
}

/*
 * Whether a SNAT half without a twin has lost it: one that is being made has none for a moment, and
 * the clock may tick meanwhile.
 */
static __always_inline bool ct_may_be_lone(const struct nat_entry *snat, __u32 now)
{
	return (__s32)(now - snat->seen) > 1;
}

/*
 * Claim a connection as it was when its DNAT half's word was read, and remove it, both halves or
 * the lone one. False where a packet has come since, or somebody else removes it: then nothing is
 * done.
 */
static __always_inline bool ct_end(struct flow_key *dnat_key, struct nat_entry *dnat,
				   __u64 dnat_word, enum end_reason reason)
{
	struct flow_key snat_key;
	struct nat_entry *snat = ct_find_snat(&snat_key, dnat, dnat_key);
	union ct_word word = {.word = dnat_word};
	__u64 snat_word;

	if (!snat) {
		if (!ct_claim(dnat, dnat_word))
			return false;
		/* Removed before, and another connection's by now: alone by this key, not by its own. */
		if (dnat_table.lookup(dnat_key) != dnat) {
			dnat->word = dnat_word;
			return false;
		}
		dnat_table.delete(dnat_key);
		return true;
	}
	snat_word = ct_read_word(snat);
	if (!ct_claim_pair(dnat, dnat_word, snat, snat_word))
		return false;
	event_of_end(reason, word.state, dnat_key, dnat, snat);
	load_removed(dnat, &dnat_key->src, (__u32)snat_word);
	dnat_table.delete(dnat_key);
	snat_table.delete(&snat_key);
	return true;
}

/* How often a word is read anew that a packet on another CPU has changed meanwhile. */
#define CT_SWAPS 4

#endif
