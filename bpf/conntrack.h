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
		load_removed(dnat, &dnat_key->src, (__u32)dnat_word);
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

/* A place of its own for a connection that is being opened. */
static __always_inline __u32 ct_take_place(void)
{
	__u32 which = OPENING_NEXT;
	__u64 *cursor = opening_cursor.lookup(&which);

	return cursor ? __sync_fetch_and_add(cursor, 1) % OPENING_PLACES : 0;
}

/*
 * Remove a connection that was noted in a place of the ring, unless its client has shown meanwhile
 * that it hears the backend, or it was opened anew and stands in another place.
 */
static __always_inline bool ct_evict(struct flow_key *key, __u32 place)
{
	struct nat_entry *dnat = dnat_table.lookup(key);
	union ct_word word;
	__u32 service, backend;

	if (!dnat)
		return false;
	word.word = ct_read_word(dnat);
	if (word.state & CT_ASSURED || dnat->place != place)
		return false;
	service = dnat->service;
	backend = dnat->backend;
	if (!ct_end(key, dnat, word.word, END_EVICTED))
		return false;
	count_evicted(service, backend);
	return true;
}

/*
 * Note a connection that was opened, or opened anew, in its place of the ring; which was there
 * before gives way. Two CPUs in the same place, a whole ring apart, may leave a key there that is
 * nobody's: one that they meant is then left to its timeout.
 */
static __always_inline void ct_note_opening(const struct flow_key *key, __u32 place)
{
	struct flow_key *noted = opening_ring.lookup(&place), before;

	if (!noted)
		return;
	if (noted->proto && !(addr_equal(&noted->src, &key->src) &&
			      addr_equal(&noted->dst, &key->dst) && noted->sport == key->sport &&
			      noted->dport == key->dport && noted->proto == key->proto)) {
		/* Another CPU may write here: what is removed is what was looked up. */
		before = *noted;
		ct_evict(&before, place);
	}
	*noted = *key;
}

/*
 * The tables are full: have the oldest opening connections give way, so that the next ones find
 * room. Where established ones fill the tables there may be few others, far apart in the ring:
 * how far it was searched is remembered.
 */
static __always_inline void ct_make_room(void)
{
	__u32 which = OPENING_NEXT, zero = 0;
	__u64 *next = opening_cursor.lookup(&which), *oldest;
	struct scratch *scratch = scratch_room.lookup(&zero);

	which = OPENING_OLDEST;
	oldest = opening_cursor.lookup(&which);
	if (!next || !oldest || !scratch)
		return;
	scratch->evicted = 0;
	for (int i = 0; i < OPENING_SEARCH; i++) {
		__u64 turn = __sync_fetch_and_add(oldest, 1), end = *next;
		struct flow_key *noted, key;
		__u32 place;

		if (turn >= end) {
			*oldest = end;
			return;
		}
		if (end - turn > OPENING_PLACES) {
			turn = end - OPENING_PLACES;
			*oldest = turn + 1;
		}
		place = turn % OPENING_PLACES;
		noted = opening_ring.lookup(&place);
		if (!noted)
			return;
		key = *noted;
		scratch->evicted += ct_evict(&key, place);
		if (scratch->evicted >= OPENING_ROOM)
			return;
	}
}

#define CT_SWAPS 4

/*
 * Replace a half's state; false where it is another than from, one claimed among them. A packet
 * on another CPU may note its time meanwhile, hence the turns.
 */
static __always_inline bool ct_swap(struct nat_entry *entry, __u32 from, __u32 to)
{
	for (int i = 0; i < CT_SWAPS; i++) {
		union ct_word old = {.word = ct_read_word(entry)}, new = old;

		if (old.state != from)
			return false;
		new.state = to;
		if (__sync_val_compare_and_swap(&entry->word, old.word, new.word) == old.word)
			return true;
	}
	return false;
}

/*
 * Replace the state of both halves. The SNAT half's is what holds: whoever replaces that, or
 * claims it, comes first, and the other one follows.
 */
static __always_inline bool ct_set(struct nat_entry *dnat, struct nat_entry *snat, __u32 from,
				   __u32 to)
{
	__u32 was = dnat->state;

	if (!ct_swap(snat, from, to))
		return false;
	if ((was & CT_STATE_MASK) != CT_CLAIMED)
		ct_swap(dnat, was, to);
	return true;
}

/*
 * Whether a RST ends the connection. The sequence number must be the one that the other side
 * awaits (RFC 5961, 3.2), or the sender's own next one, where data of its own are still on their
 * way; then it must also acknowledge what can be acknowledged, so that nobody guesses it. A
 * backend refuses by acknowledging the SYN (RFC 9293, 3.5.2).
 */
static __always_inline bool ct_reset_counts(__u32 state, const struct nat_entry *own,
					    const struct nat_entry *other,
					    const struct packet *packet, bool from_client)
{
	bool is_opening = (state & CT_STATE_MASK) == CT_OPENING;

	if (is_opening && !from_client && !(state & CT_ANSWERED))
		return packet->flags & TCP_ACK && packet->ack == other->next;
	if (state & CT_ANSWERED && packet->seq == other->ack)
		return true;
	if (packet->seq != own->next)
		return false;
	return is_opening || (packet->flags & TCP_ACK && (__s32)(packet->ack - own->ack) >= 0 &&
			      (__s32)(other->next - packet->ack) >= 0);
}

/*
 * Whether a SYN+ACK answers the SYN of this client (other is its half): a tuple that was taken over
 * may still be answered for the client that had it.
 */
static __always_inline bool ct_answers(const struct nat_entry *other, const struct packet *packet)
{
	return packet->flags & TCP_ACK && other->next - packet->ack < CT_WINDOW;
}

/*
 * The state that follows from a packet of one side (own is its half). It becomes established, and
 * assured, when the client acknowledges exactly the backend's SYN, which nobody can who has not
 * heard it; or when the backend sends data or FIN, as it does to none but a client that has shown
 * itself. A FIN counts only where this side's next byte can be.
 */
static __always_inline __u32 ct_next_state(__u32 state, const struct nat_entry *own,
					   const struct nat_entry *other,
					   const struct packet *packet, bool from_client)
{
	__u32 kind = state & CT_STATE_MASK, both = CT_CLIENT_FIN | CT_BACKEND_FIN;
	bool is_ack = packet->flags & TCP_ACK, is_fin = packet->flags & TCP_FIN;

	if (kind == CT_UDP) {
		if (!from_client)
			return state | CT_ANSWERED;
		return state & CT_ANSWERED ? state | CT_ASSURED : state;
	}
	if (packet->flags & TCP_RST) {
		if (!ct_reset_counts(state, own, other, packet, from_client))
			return state;
		return CT_CLOSED | CT_RESET | (state & ~CT_STATE_MASK & ~CT_BACKEND_CLOSED_FIRST);
	}
	if (packet->flags & TCP_SYN) {
		if (!from_client && kind == CT_OPENING && ct_answers(other, packet))
			state |= CT_ANSWERED;
		return state;
	}
	/*
	 * Reset, and yet it speaks: the other side did not take the reset for good. Back to where
	 * it came from, or a SYN, a RST and an ACK would hold an entry for hours.
	 */
	if (kind == CT_CLOSED && state & CT_RESET) {
		if ((state & both) == both)
			kind = CT_CLOSING;
		else
			kind = state & CT_ASSURED ? CT_ESTABLISHED : CT_OPENING;
		state = kind | (state & (CT_ANSWERED | CT_ASSURED | both));
	}
	if (kind == CT_OPENING && state & CT_ANSWERED &&
	    (from_client ? is_ack && packet->ack == other->next : packet->payload || is_fin)) {
		kind = CT_ESTABLISHED;
		state = CT_ESTABLISHED | CT_ASSURED | (state & ~CT_STATE_MASK);
	}
	if (is_fin && kind != CT_CLOSED &&
	    packet->seq + packet->payload + 1 - own->next < CT_WINDOW) {
		if (!(state & both) && !from_client)
			state |= CT_BACKEND_CLOSED_FIRST;
		state |= from_client ? CT_CLIENT_FIN : CT_BACKEND_FIN;
		if ((state & both) == both) {
			kind = CT_CLOSING;
			state = CT_CLOSING | (state & ~CT_STATE_MASK);
		}
	}
	/* Both have closed: over once the second FIN, the other side's, is acknowledged. */
	if (kind == CT_CLOSING && is_ack && !!(state & CT_BACKEND_CLOSED_FIRST) != from_client &&
	    (__s32)(packet->ack - other->next) >= 0)
		state = CT_CLOSED | (state & ~CT_STATE_MASK);
	return state;
}

/*
 * Note how far a side has sent, and what it awaits: forwards only, and not beyond what can be.
 * For TCP without SYN and RST.
 */
static __always_inline void ct_advance(struct nat_entry *own, const struct packet *packet)
{
	__u32 next = packet->seq + packet->payload + (packet->flags & TCP_FIN);

	if (next - own->next < CT_WINDOW)
		own->next = next;
	if (packet->flags & TCP_ACK && (__s32)(packet->ack - own->ack) > 0)
		own->ack = packet->ack;
}

/*
 * Put right, by a packet of one side, numbers of it that can't be: none is known, where a connection
 * was carried over from maps without them; the other side has acknowledged more than was seen to be
 * sent, so that more was missed at once than is believed; or it would have acknowledged what was
 * never sent, which somebody made up.
 */
static __always_inline void ct_resume(struct nat_entry *own, const struct nat_entry *other,
				      const struct packet *packet)
{
	__u32 next = packet->seq + packet->payload;

	if (!own->next) {
		own->next = next;
		own->ack = packet->ack;
		return;
	}
	if (!other->next)
		return;
	if ((__s32)(other->ack - own->next) > 0 && next - other->ack < CT_FAR_WINDOW)
		own->next = next;
	if (packet->flags & TCP_ACK && (__s32)(own->ack - other->next) > 0 &&
	    (__s32)(other->next - packet->ack) >= 0)
		own->ack = packet->ack;
}

/* The same of a connection that was opening before this packet came: here the numbers begin. */
static __always_inline void ct_begin(struct nat_entry *own, struct nat_entry *other,
				     const struct packet *packet, bool from_client, bool is_opening)
{
	__u32 begins = packet->seq + !!(packet->flags & TCP_SYN);

	if (from_client) {
		if (packet->flags & TCP_SYN)
			own->next = begins + packet->payload;
		else if (!is_opening)
			ct_advance(own, packet);
	} else if (packet->flags & TCP_SYN ? ct_answers(other, packet) : !is_opening) {
		other->ack = begins;
		own->next = begins + packet->payload + (packet->flags & TCP_FIN);
		own->ack = packet->ack;
	}
}

/*
 * Follow a connection by a packet of one side that is about to be sent on; false where the
 * connection is being removed. What most packets are, data of an established connection, needs
 * ct_advance() alone. Where the connection ends by this packet, end says why.
 */
static __always_inline bool ct_follow(struct nat_entry *dnat, struct nat_entry *snat,
				      const struct packet *packet, bool from_client,
				      enum end_reason *end)
{
	struct nat_entry *own = from_client ? dnat : snat, *other = from_client ? snat : dnat;
	__u32 state = 0, next = 0;
	bool is_done = false;

	if (packet->key.proto == IPPROTO_TCP && !(packet->flags & (TCP_SYN | TCP_RST)) &&
	    ct_kind(snat) != CT_OPENING)
		ct_resume(own, other, packet);
	for (int i = 0; i < CT_SWAPS; i++) {
		state = snat->state;
		if ((state & CT_STATE_MASK) == CT_CLAIMED)
			return false;
		next = ct_next_state(state, own, other, packet, from_client);
		is_done =
			(next == state && dnat->state == state) || ct_set(dnat, snat, state, next);
		if (is_done)
			break;
	}
	if (!is_done)
		return false;
	if ((next & CT_STATE_MASK) == CT_CLOSED && (state & CT_STATE_MASK) != CT_CLOSED)
		*end = next & CT_RESET ? END_RESET : END_FINISHED;
	load_moved(dnat, &snat->dst, state, next);
	if (packet->key.proto != IPPROTO_TCP || packet->flags & TCP_RST)
		return true;
	if ((state & CT_STATE_MASK) == CT_OPENING)
		ct_begin(own, other, packet, from_client, (next & CT_STATE_MASK) == CT_OPENING);
	else if (!(packet->flags & TCP_SYN))
		ct_advance(own, packet);
	return true;
}

#endif
