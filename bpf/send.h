/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * send.h - the last steps of a packet that leaves by a connection: it is counted there, and rewritten.
 */
#ifndef LLB_SEND_H
#define LLB_SEND_H

/* Rewrite a packet that can leave this way, and send it on. */
static __always_inline enum verdict
send_packet(struct __sk_buff *skb, const struct config *config, const struct packet *packet,
	    const struct nat_entry *entry, const struct hop *hop, __u32 now, enum verdict verdict)
{
	if (packet->is_fragment &&
	    fragment_note(packet, config, entry, hop, now, verdict != FORWARD_TO_CLIENT))
		return DROP_ERROR;
	if (nat_rewrite(skb, packet, entry))
		return DROP_ERROR;
	if (packet->is_fragment && fragment_renumber(skb, packet))
		return DROP_ERROR;
	if (forward_redirect(hop) != TC_ACT_REDIRECT)
		return DROP_ERROR;
	return verdict;
}

static __always_inline void send_note(struct nat_entry *entry, const struct packet *packet,
				      __u32 now)
{
	entry->seen = now;
	entry->packets++;
	entry->bytes += packet->length;
}

#endif
