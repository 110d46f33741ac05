/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * follow.h - following a connection by its packets: its state, how far each side has sent and what
 * it awaits. tests/bpf/model_connection.py says the same in Python.
 */
#ifndef LLB_FOLLOW_H
#define LLB_FOLLOW_H

/*
 * Replace a half's state; false where it is another than from, one claimed among them. A packet
 * on another CPU may note its time meanwhile, hence the turns.
 */
static __always_inline bool follow_swap(struct nat_entry *entry, __u32 from, __u32 to)
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
 * claims it, comes first, and the other one follows. Another CPU may be about the same, so the
 * DNAT half is looked at after what it follows has been written, and again until both agree.
 */
static __always_inline bool follow_set(struct nat_entry *dnat, struct nat_entry *snat, __u32 from,
				       __u32 to)
{
	if (!follow_swap(snat, from, to))
		return false;
	for (int i = 0; i < CT_SWAPS; i++) {
		union ct_word old = {.word = ct_read_word(dnat)}, new = old;

		/* In this order: a DNAT half that is another connection's by now has no such twin. */
		if ((old.state & CT_STATE_MASK) == CT_CLAIMED || old.state == to ||
		    *(const volatile __u32 *)&snat->state != to)
			break;
		new.state = to;
		if (__sync_val_compare_and_swap(&dnat->word, old.word, new.word) == old.word)
			break;
	}
	return true;
}

/*
 * Whether a RST ends the connection. The sequence number must be the one that the other side
 * awaits (RFC 5961, 3.2), or the sender's own next one, where data of its own are still on their
 * way; then it must also acknowledge what can be acknowledged, so that nobody guesses it. A
 * backend refuses by acknowledging the SYN (RFC 9293, 3.5.2).
 */
static __always_inline bool follow_reset_counts(__u32 state, const struct nat_entry *own,
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
static __always_inline bool follow_answers(const struct nat_entry *other,
					   const struct packet *packet)
{
	return packet->flags & TCP_ACK && other->next - packet->ack < CT_WINDOW;
}

/*
 * The state that follows from a packet of one side (own is its half). It becomes established, and
 * assured, when the client acknowledges exactly the backend's SYN, which nobody can who has not
 * heard it; or when the backend sends data or FIN, as it does to none but a client that has shown
 * itself. A FIN counts only where this side's next byte can be.
 */
static __always_inline __u32 follow_next_state(__u32 state, const struct nat_entry *own,
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
		if (!follow_reset_counts(state, own, other, packet, from_client))
			return state;
		return CT_CLOSED | CT_RESET | (state & ~CT_STATE_MASK & ~CT_BACKEND_CLOSED_FIRST);
	}
	if (packet->flags & TCP_SYN) {
		if (!from_client && kind == CT_OPENING && follow_answers(other, packet))
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
static __always_inline void follow_advance(struct nat_entry *own, const struct packet *packet)
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
static __always_inline void follow_resume(struct nat_entry *own, const struct nat_entry *other,
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
static __always_inline void follow_begin(struct nat_entry *own, struct nat_entry *other,
					 const struct packet *packet, bool from_client,
					 bool is_opening)
{
	__u32 begins = packet->seq + !!(packet->flags & TCP_SYN);

	if (from_client) {
		if (packet->flags & TCP_SYN)
			own->next = begins + packet->payload;
		else if (!is_opening)
			follow_advance(own, packet);
	} else if (packet->flags & TCP_SYN ? follow_answers(other, packet) : !is_opening) {
		other->ack = begins;
		own->next = begins + packet->payload + (packet->flags & TCP_FIN);
		own->ack = packet->ack;
	}
}

/*
 * Follow a connection by a packet of one side that is about to be sent on; false where the
 * connection is being removed. What most packets are, data of an established connection, needs
 * follow_advance() alone. Where the connection ends by this packet, end says why.
 */
static __always_inline bool follow_packet(struct nat_entry *dnat, struct nat_entry *snat,
					  const struct packet *packet, bool from_client,
					  enum end_reason *end)
{
	struct nat_entry *own = from_client ? dnat : snat, *other = from_client ? snat : dnat;
	__u32 state = 0, next = 0;
	bool is_done = false;

	if (packet->key.proto == IPPROTO_TCP && !(packet->flags & (TCP_SYN | TCP_RST)) &&
	    ct_kind(snat) != CT_OPENING)
		follow_resume(own, other, packet);
	for (int i = 0; i < CT_SWAPS; i++) {
		state = snat->state;
		if ((state & CT_STATE_MASK) == CT_CLAIMED)
			return false;
		next = follow_next_state(state, own, other, packet, from_client);
		is_done = (next == state && dnat->state == state) ||
			  follow_set(dnat, snat, state, next);
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
		follow_begin(own, other, packet, from_client, (next & CT_STATE_MASK) == CT_OPENING);
	else if (!(packet->flags & TCP_SYN))
		follow_advance(own, packet);
	return true;
}

#endif
