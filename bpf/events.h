/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * events.h - telling user space what happens, only while somebody listens; and the last examples of
 * each drop, always. An established packet asks nothing of this: what is told happens where a
 * connection begins or ends, or a packet is dropped.
 */
#ifndef LLB_EVENTS_H
#define LLB_EVENTS_H

/* Somebody listens for as long as the daemon says, so that its death ends it. */
static __always_inline struct listening *event_listener(enum event_kind kind)
{
	__u32 zero = 0;
	struct listening *now = listening.lookup(&zero);

	if (!now || !(now->kinds & kind) || (__s32)(now->until - (__u32)bpf_jiffies64()) <= 0)
		return NULL;
	return now;
}

static __always_inline struct event *event_begin(struct listening *listener, enum event_kind kind,
						 __u32 reason, const struct flow_key *key)
{
	struct event *event = events.ringbuf_reserve(sizeof(*event));

	if (!event) {
		__sync_fetch_and_add(&listener->lost, 1);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->reason = reason;
	event->key = *key;
	return event;
}

/* A connection by its halves; snat may be NULL. */
static __always_inline void event_of_connection(enum event_kind kind, enum end_reason reason,
						const struct flow_key *key,
						const struct nat_entry *dnat,
						const struct nat_entry *snat)
{
	struct listening *listener = event_listener(kind);
	struct event *event;

	if (!listener)
		return;
	event = event_begin(listener, kind, reason, key);
	if (!event)
		return;
	event->service = dnat->service;
	event->backend = dnat->backend;
	event->to = dnat->dst;
	event->to_port = dnat->dport;
	event->from = dnat->src;
	event->from_port = dnat->sport;
	event->ticks = (__u32)bpf_jiffies64() - dnat->opened;
	event->packets_in = dnat->packets;
	event->bytes_in = dnat->bytes;
	if (snat) {
		event->packets_out = snat->packets;
		event->bytes_out = snat->bytes;
	}
	events.ringbuf_submit(event, 0);
}

/* A connection that is removed in this state; one that had closed was told of when it did. */
static __always_inline void event_of_end(enum end_reason reason, __u32 state,
					 const struct flow_key *key, const struct nat_entry *dnat,
					 const struct nat_entry *snat)
{
	if ((state & CT_STATE_MASK) != CT_CLOSED)
		event_of_connection(EVENT_CLOSED, reason, key, dnat, snat);
}

/* The connection that the packet in packet_room has opened. */
static __always_inline void event_of_opening(void)
{
	__u32 zero = 0;
	const struct packet *packet;
	const struct nat_entry *dnat;

	if (!event_listener(EVENT_OPENED))
		return;
	packet = packet_room.lookup(&zero);
	if (!packet)
		return;
	dnat = dnat_table.lookup(&packet->key);
	if (dnat)
		event_of_connection(EVENT_OPENED, 0, &packet->key, dnat, NULL);
}

/* A packet that was dropped: kept as an example, and told. */
static __always_inline void event_of_drop(const struct __sk_buff *skb,
					  const struct account *account, enum verdict verdict,
					  __u64 count)
{
	__u32 zero = 0;
	const struct packet *packet = packet_room.lookup(&zero);
	__u32 place = verdict * DROP_EXAMPLES + (count & (DROP_EXAMPLES - 1));
	struct drop_example *example = drop_examples.lookup(&place);
	struct listening *listener = event_listener(EVENT_DROPPED);
	struct event *event;

	if (!packet)
		return;
	if (example) {
		example->time = bpf_ktime_get_ns();
		example->key = packet->key;
		example->service = account->service;
		example->backend = account->backend;
		example->ifindex = skb->ifindex;
		example->length = packet->length;
		example->flags = packet->flags;
	}
	if (!listener)
		return;
	event = event_begin(listener, EVENT_DROPPED, verdict, &packet->key);
	if (!event)
		return;
	event->service = account->service;
	event->backend = account->backend;
	event->packets_in = 1;
	event->bytes_in = packet->length;
	events.ringbuf_submit(event, 0);
}

#endif
