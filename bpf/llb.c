/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * llb.c - the classifier: what becomes of a packet on the clsact ingress of our interfaces. From
 * outside (INGRESS), the destination becomes a backend and the source becomes us; from a backend
 * (EGRESS), the source becomes the VIP and the destination the client.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define AF_INET	 2
#define AF_INET6 10
#define NULL	 ((void *)0)

#define offsetof(type, member) __builtin_offsetof(type, member)

#include "limits.h"
#include "types.h"
#include "verdict.h"
#include "maps.h"
#include "jumps.h"
#include "config.h"
#include "csum.h"
#include "parse.h"
#include "tags.h"
#include "count.h"
#include "events.h"
#include "select.h"
#include "allow.h"
#include "load.h"
#include "limit.h"
#include "conntrack.h"
#include "opening.h"
#include "follow.h"
#include "forward.h"
#include "nat.h"
#include "ip.h"
#include "icmp.h"
#include "fragment.h"
#include "send.h"
#include "open.h"
#include "refuse.h"
#include "collect.h"

static __always_inline bool host_has_socket(struct __sk_buff *skb, const struct flow_key *key)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
#if FAMILY == 4
	__u32 size = sizeof(tuple.ipv4);

	tuple.ipv4.saddr = key->src.w[0];
	tuple.ipv4.daddr = key->dst.w[0];
	tuple.ipv4.sport = key->sport;
	tuple.ipv4.dport = key->dport;
#else
	__u32 size = sizeof(tuple.ipv6);

	__builtin_memcpy(tuple.ipv6.saddr, &key->src, sizeof(key->src));
	__builtin_memcpy(tuple.ipv6.daddr, &key->dst, sizeof(key->dst));
	tuple.ipv6.sport = key->sport;
	tuple.ipv6.dport = key->dport;
#endif
	if (key->proto == IPPROTO_TCP)
		socket = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	bpf_sk_release(socket);
	return true;
}

/*
 * Whether a packet may go the short way: nothing of its connection's state can change by it, and
 * twin and route were looked up not long ago.
 */
static __always_inline bool is_steady(const struct nat_entry *entry, const struct packet *packet,
				      const struct config *config, __u32 now, bool from_client)
{
	__u32 kind = ct_kind(entry), heard = from_client ? CT_ASSURED : CT_ANSWERED;

	if (packet->flags & (TCP_SYN | TCP_FIN | TCP_RST))
		return false;
	if (!ct_is_checked(entry, config, now))
		return false;
	return kind == CT_ESTABLISHED || (kind == CT_UDP && (entry->state & heard));
}

/* INGRESS: a packet that no SNAT entry knows. */
static __always_inline enum verdict to_backend(struct __sk_buff *skb, const struct config *config,
					       struct packet *packet, struct account *account)
{
	struct nat_entry *dnat = dnat_table.lookup(&packet->key), *snat = NULL;
	enum verdict verdict = FORWARD_TO_BACKEND;
	enum end_reason end = 0;
	__u64 dnat_word = 0, snat_word = 0;
	__u32 now = ct_now(), slot, kind;
	bool ended, steady, begins_anew = false;
	struct flow_key snat_key;
	struct backend *backend;
	struct hop hop;

	if (!dnat)
		goto unknown;
	if (ct_is_claimed(dnat))
		return DROP_ENDING;
	slot = dnat->backend;
	account->service = dnat->service;
	account->backend = slot;
	backend = backends.lookup(&slot);
	if (!backend)
		return DROP_ERROR;

	ended = ct_backend_ended(backend, packet->key.proto);
	if (ended && !open_may(packet))
		return PASS_NO_CONNECTION;
	steady = !ended && is_steady(dnat, packet, config, now, true);
	if (!steady) {
		if (ct_may_be_replaced(dnat, config, packet, now))
			return DROP_ENDING;
		dnat_word = ct_read_word(dnat);
		snat = ct_find_snat(&snat_key, dnat, &packet->key);
		if (snat)
			snat_word = ct_read_word(snat);
		kind = ct_kind(dnat);
		begins_anew =
			open_may(packet) && (!snat || ended || kind == CT_CLOSING ||
					     kind == CT_CLOSED || ct_is_idle(dnat, snat, now));
		if (begins_anew && (!snat || backend->mode != BACKEND_ACTIVE)) {
			ct_end(&packet->key, dnat, dnat_word, END_REUSED);
			goto unknown;
		}
		if (!snat)
			return DROP_ENDING;
		if (begins_anew)
			verdict = FORWARD_NEW;
	}
	hop_to_backend(&hop, backend);
	verdict = forward_check(skb, packet, &hop, verdict);
	if (!verdict_is_forward(verdict))
		return verdict;
	/* It will leave: from here on the connection changes by it. */
	if (begins_anew) {
		if (!snat)
			return DROP_ENDING;
		verdict = open_anew(config, packet, account, dnat, dnat_word, snat, snat_word, now);
		if (verdict != FORWARD_NEW)
			return verdict;
	} else if (!steady) {
		if (!snat || !follow_packet(dnat, snat, packet, true, &end))
			return DROP_ENDING;
		dnat->checked = now;
	} else if (packet->key.proto == IPPROTO_TCP) {
		follow_advance(dnat, packet);
	}
	send_note(dnat, packet, now);
	if (end)
		event_of_connection(EVENT_CLOSED, end, &packet->key, dnat, snat);
	return send_packet(skb, config, packet, dnat, &hop, now, verdict);

unknown:
	account->backend = 0;
	account->service = find_service(&packet->key, false);
	if (!account->service)
		return PASS_NOT_OURS;
	/* One that is carried over comes again, and is known then; a new one may be given its tuple. */
	if (packet->key.proto == IPPROTO_TCP && config_is_carrying(config, now))
		return DROP_ENDING;
	if (!open_may(packet))
		return PASS_NO_CONNECTION;
	/* By a program of its own: the search for a port is long, and the verifier's patience is not. */
	skb->cb[CB_SERVICE] = account->service;
	return jump_to(JUMP_OPEN);
}

/* EGRESS: a packet of a backend that a SNAT entry knows. */
static __always_inline enum verdict to_client(struct __sk_buff *skb, const struct config *config,
					      struct packet *packet, struct nat_entry *snat,
					      struct account *account)
{
	__u32 now = ct_now(), slot = snat->backend;
	struct backend *backend = backends.lookup(&slot);
	struct nat_entry *dnat = NULL;
	enum end_reason end = 0;
	struct flow_key dnat_key;
	enum verdict verdict;
	struct hop hop;
	bool steady;

	if (ct_is_claimed(snat))
		return DROP_ENDING;
	account->from_client = false;
	account->service = snat->service;
	account->backend = slot;
	if (!backend || ct_backend_ended(backend, packet->key.proto))
		return DROP_UNKNOWN_ANSWER;
	steady = is_steady(snat, packet, config, now, false);
	if (!steady) {
		if (ct_may_be_replaced(snat, config, packet, now))
			return DROP_ENDING;
		ct_twin_key(&dnat_key, snat, packet->key.proto);
		dnat = dnat_table.lookup(&dnat_key);
		if (!dnat || !ct_points_at(dnat, &packet->key))
			return DROP_ENDING;
		if (!ct_is_checked(snat, config, now) &&
		    forward_find_client(skb, snat, packet->key.proto, now))
			return DROP_NO_ROUTE;
	}
	hop.next_hop = snat->next_hop;
	hop.ifindex = snat->ifindex;
	hop.mtu = snat->mtu;
	verdict = forward_check(skb, packet, &hop, FORWARD_TO_CLIENT);
	if (!verdict_is_forward(verdict))
		return verdict;
	if (!steady) {
		if (!dnat || !follow_packet(dnat, snat, packet, false, &end))
			return DROP_ENDING;
	} else if (packet->key.proto == IPPROTO_TCP) {
		follow_advance(snat, packet);
	}
	send_note(snat, packet, now);
	if (end && dnat)
		event_of_connection(EVENT_CLOSED, end, &dnat_key, dnat, snat);
	return send_packet(skb, config, packet, snat, &hop, now, verdict);
}

/* Read anew each time: the verifier would follow both values to the end. */
static __always_inline bool from_backend(const struct packet *packet)
{
	return *(const volatile bool *)&packet->from_backend;
}

static __always_inline enum verdict judge_packet(struct __sk_buff *skb, const struct config *config,
						 struct packet *packet, struct account *account)
{
	struct nat_entry *snat;
	enum verdict verdict;

	if (from_backend(packet)) {
		snat = snat_table.lookup(&packet->key);
		if (snat)
			return to_client(skb, config, packet, snat, account);
	}
	/* A backend may itself be a client of a VIP. */
	verdict = PASS_NOT_OURS;
	if (config_may_be_vip(&packet->key))
		verdict = to_backend(skb, config, packet, account);
	if (verdict != PASS_NOT_OURS || !from_backend(packet) ||
	    !is_snat_tuple(config, &packet->key))
		return verdict;
	return host_has_socket(skb, &packet->key) ? PASS_HOST_SOCKET : DROP_UNKNOWN_ANSWER;
}

static __always_inline enum verdict judge(struct __sk_buff *skb, struct account *account)
{
	const struct config *config = config_in_force();
	__u32 zero = 0;
	struct packet *packet = packet_room.lookup(&zero);
	enum parse_result parsed;
	enum verdict verdict;

	if (!parse_is_for_host(skb) || !config || !packet)
		return PASS_UNPARSED;
	if (skb->vlan_present && !tags_last_is_off(skb))
		return PASS_UNPARSED;
	parsed = parse(skb, packet);
	if (parsed == PARSE_NOTHING)
		return PASS_UNPARSED;
	*(volatile bool *)&packet->from_backend = is_from_backend_cidr(config, &packet->key.src);
	if (from_backend(packet) && skb->ifindex != config->private_ifindex)
		return DROP_SPOOFED;
	/* Of a frame for all or many (broadcast, multicast) the stack answers no TCP, and tells of no
	 * error; bpf_redirect_neigh() would not send it on. */
	if (parsed == PARSE_OTHER || skb->pkt_type != PACKET_HOST)
		return PASS_UNPARSED;
	if (parsed == PARSE_ICMP_ERROR)
		return jump_to(JUMP_ICMP_ERROR);
	packet->is_unread = parsed == PARSE_UNREAD;
	if (parsed == PARSE_LATER_FRAGMENT || parsed == PARSE_UNREAD)
		return jump_to(JUMP_LATER_FRAGMENT);
	verdict = judge_packet(skb, config, packet, account);
	/* What the stack gets of a datagram to one of our VIPs, it gets whole. */
	if (packet->is_fragment && verdict_is_pass(verdict) && find_service(&packet->key, true) &&
	    fragment_note(packet, config, NULL, NULL, ct_now(), true))
		return DROP_ERROR;
	return verdict;
}

/* The one exit: count the verdict, tell of it, and say what is to be done. */
static __always_inline int conclude(struct __sk_buff *skb, const struct account *account,
				    enum verdict verdict)
{
	__u64 before = count(skb, account, verdict);

	if (verdict == FORWARD_NEW)
		event_of_opening();
	if (verdict_is_forward(verdict))
		return TC_ACT_REDIRECT;
	if (verdict_is_pass(verdict))
		return TC_ACT_UNSPEC;
	event_of_drop(skb, account, verdict, before);
	return verdict_is_refuse(verdict) ? TC_ACT_REDIRECT : TC_ACT_SHOT;
}

/* Let another program judge or finish the packet, and count it; returns only where that fails. */
static __always_inline enum verdict jump(struct __sk_buff *skb, const struct account *account,
					 enum verdict verdict)
{
	if (verdict >= VERDICTS) {
		jumps.call(skb, verdict - VERDICTS);
		return DROP_ERROR;
	}
	skb->cb[CB_VERDICT] = verdict;
	skb->cb[CB_SERVICE] = account->service;
	skb->cb[CB_BACKEND] = account->backend;
	skb->cb[CB_FROM_CLIENT] = account->from_client;
	jumps.call(skb, verdict == DROP_TABLE_FULL ? JUMP_MAKE_ROOM : JUMP_REFUSE);
	return verdict;
}

/* What needs another program goes to it; all else is at its end. */
static __always_inline int jump_or_conclude(struct __sk_buff *skb, const struct account *account,
					    enum verdict verdict)
{
	if (verdict >= VERDICTS || verdict == DROP_TTL || verdict == DROP_TOO_BIG ||
	    verdict == DROP_TABLE_FULL)
		verdict = jump(skb, account, verdict);
	return conclude(skb, account, verdict);
}

static __always_inline int classify_packet(struct __sk_buff *skb)
{
	struct account account = {.from_client = true};
	enum verdict verdict = judge(skb, &account);

	return jump_or_conclude(skb, &account, verdict);
}

/* One that was not parsed: nothing of an earlier packet is to be told of it. */
static __always_inline int drop_unparsed(struct __sk_buff *skb, enum verdict verdict)
{
	struct account account = {.from_client = true};
	__u32 zero = 0;
	struct packet *packet = packet_room.lookup(&zero);

	if (packet) {
		__builtin_memset(packet, 0, sizeof(*packet));
		packet->length = skb->len - ETH_LEN;
	}
	return conclude(skb, &account, verdict);
}

int classify(struct __sk_buff *skb)
{
	switch (tags_take_off(skb)) {
	case TAGS_OFF:
		return classify_packet(skb);
	case TAGS_OF_OTHERS:
		/* Hooks have no protocol: the other family's packets are its program's to count. */
		return TC_ACT_UNSPEC;
	case TAGS_TOO_MANY:
		return drop_unparsed(skb, DROP_EXTENSIONS);
	default:
		return drop_unparsed(skb, DROP_ERROR);
	}
}

int open_new(struct __sk_buff *skb)
{
	struct account account = {.service = skb->cb[CB_SERVICE], .from_client = true};
	const struct config *config = config_in_force();
	__u32 zero = 0;
	struct packet *packet = packet_room.lookup(&zero);
	enum verdict verdict = DROP_ERROR;

	if (config && packet)
		verdict = open_connection(skb, config, packet, &account, ct_now());
	return jump_or_conclude(skb, &account, verdict);
}

int icmp_error(struct __sk_buff *skb)
{
	struct account account = {.from_client = true};
	enum verdict verdict = icmp_forward(skb, &account);

	return conclude(skb, &account, verdict);
}

int later_fragment(struct __sk_buff *skb)
{
	struct account account = {.from_client = true};
	enum verdict verdict = fragment_follow(skb, &account);

	return conclude(skb, &account, verdict);
}

int make_room(struct __sk_buff *skb)
{
	struct account account = {
		.service = skb->cb[CB_SERVICE],
		.backend = skb->cb[CB_BACKEND],
		.from_client = true,
	};

	opening_make_room();
	return conclude(skb, &account, skb->cb[CB_VERDICT]);
}

int refuse(struct __sk_buff *skb)
{
	struct account account = {
		.service = skb->cb[CB_SERVICE],
		.backend = skb->cb[CB_BACKEND],
		.from_client = skb->cb[CB_FROM_CLIENT],
	};
	enum verdict verdict = refuse_packet(skb, skb->cb[CB_VERDICT]);

	return conclude(skb, &account, verdict);
}

int collect(struct __sk_buff *skb)
{
	return collect_request(skb, true);
}

int end_connections(struct __sk_buff *skb)
{
	return collect_and_return(skb);
}

int collect_halves(struct __sk_buff *skb)
{
	return collect_request(skb, false);
}

int correct(struct __sk_buff *skb)
{
	return collect_correct(skb);
}

int read_clocks(struct __sk_buff *skb)
{
	return collect_clock(skb);
}
