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

#include "limits.h"
#include "types.h"
#include "verdict.h"
#include "maps.h"
#include "config.h"
#include "csum.h"
#include "parse.h"
#include "count.h"
#include "select.h"
#include "conntrack.h"
#include "forward.h"
#include "nat.h"
#include "collect.h"

static __always_inline bool is_opening(const struct packet *packet)
{
	return packet->key.proto == IPPROTO_UDP ||
	       (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

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

/* Rewrite by a half that stands, note the packet in it, and send it on. */
static __always_inline enum verdict forward(struct __sk_buff *skb, const struct packet *packet,
					    struct nat_entry *entry, const struct hop *hop,
					    __u32 now, enum verdict verdict)
{
	if (!hop->ifindex)
		return DROP_NO_ROUTE;
	if (packet->ttl <= 1)
		return DROP_TTL;
	if (!forward_fits(skb, packet, hop->mtu))
		return DROP_TOO_BIG;
	entry->seen = now;
	entry->packets++;
	entry->bytes += packet->length;
	if (nat_rewrite(skb, packet, entry))
		return DROP_ERROR;
	if (forward_redirect(hop) != TC_ACT_REDIRECT)
		return DROP_ERROR;
	return verdict;
}

static __always_inline void hop_to_backend(struct hop *hop, const struct backend *backend)
{
	hop->next_hop = backend->next_hop;
	hop->ifindex = backend->ifindex;
	hop->mtu = backend->mtu;
}

/* A client's first packet: choose a backend, take a port, insert both halves. */
static __always_inline enum verdict open_connection(struct __sk_buff *skb,
						    const struct config *config,
						    struct packet *packet, struct account *account,
						    __u32 now)
{
	__u32 hash = select_hash(&packet->key), zero = 0, slot;
	struct scratch *scratch = scratch_room.lookup(&zero);
	struct backend *backend;
	struct flow_key tuple;
	enum verdict verdict;
	struct hop hop;
	long error;

	slot = select_backend(account->service, hash);
	backend = backends.lookup(&slot);
	if (!slot || !backend || !scratch)
		return DROP_NO_BACKEND;
	if (backend->mode != BACKEND_ACTIVE || backend->service != account->service)
		return DROP_NO_BACKEND;
	account->backend = slot;
	hop_to_backend(&hop, backend);
	/* What can't be sent on opens nothing. */
	if (!hop.ifindex)
		return DROP_NO_ROUTE;
	if (packet->ttl <= 1)
		return DROP_TTL;
	if (!forward_fits(skb, packet, hop.mtu))
		return DROP_TOO_BIG;

	nat_draft(scratch, packet, backend, slot, now);
	if (forward_find_client(skb, &scratch->snat, packet->key.proto, now))
		return DROP_NO_ROUTE;
	verdict = nat_take_port(scratch, config, &packet->key, hash, &tuple, now);
	if (verdict != FORWARD_NEW)
		return verdict;
	scratch->dnat.src = tuple.dst;
	scratch->dnat.sport = tuple.dport;
	nat_set_deltas(&scratch->dnat, &packet->key.src, &packet->key.dst, packet->key.sport,
		       packet->key.dport);
	scratch->dnat.packets = 1;
	scratch->dnat.bytes = packet->length;
	error = dnat_table.insert(&packet->key, &scratch->dnat);
	if (error) {
		/* Full, or another CPU has just opened the same connection. */
		snat_table.delete(&tuple);
		return error == -EEXIST ? DROP_ENDING : DROP_TABLE_FULL;
	}
	if (nat_rewrite(skb, packet, &scratch->dnat))
		return DROP_ERROR;
	if (forward_redirect(&hop) != TC_ACT_REDIRECT)
		return DROP_ERROR;
	return FORWARD_NEW;
}

/*
 * An opening packet meets what is left of an earlier connection of the same tuple. True where that
 * was begun anew in place, with the backend it had; false where it is gone, and the packet opens
 * one like any other.
 */
static __always_inline bool reopen(struct flow_key *key, struct nat_entry *dnat,
				   const struct backend *backend, __u32 now)
{
	struct flow_key snat_key;
	struct nat_entry *snat;
	__u64 dnat_word = dnat->word;
	__u32 state = key->proto == IPPROTO_TCP ? CT_OPENING : CT_UDP;

	ct_twin_key(&snat_key, dnat, key->proto);
	snat = snat_table.lookup(&snat_key);
	if (!snat || !ct_points_at(snat, key)) {
		if (ct_claim(dnat, dnat_word))
			dnat_table.delete(key);
		return false;
	}
	if (!ct_claim_pair(dnat, dnat_word, snat, snat->word))
		return false;
	if (backend->mode != BACKEND_ACTIVE) {
		nat_delete_pair(key, &snat_key);
		return false;
	}
	dnat->opened = snat->opened = now;
	dnat->packets = snat->packets = 0;
	dnat->bytes = snat->bytes = 0;
	snat->seen = dnat->seen = now;
	ct_set(dnat, snat, state);
	return true;
}

/* Whether a packet may go the short way: nothing of its connection's state can change by it. */
static __always_inline bool is_steady(const struct nat_entry *entry, const struct packet *packet,
				      const struct config *config, __u32 now)
{
	__u32 kind = ct_kind(entry);

	if (packet->flags & (TCP_SYN | TCP_FIN | TCP_RST))
		return false;
	if (now - entry->checked >= config->ticks_per_second)
		return false;
	return kind == CT_ESTABLISHED || (kind == CT_UDP && (entry->state & CT_ANSWERED));
}

/* INGRESS: a packet that no SNAT entry knows. */
static __always_inline enum verdict to_backend(struct __sk_buff *skb, const struct config *config,
					       struct packet *packet, struct account *account)
{
	struct nat_entry *dnat = dnat_table.lookup(&packet->key), *snat;
	enum verdict verdict = FORWARD_TO_BACKEND;
	__u32 now = ct_now(), slot, kind;
	struct flow_key snat_key;
	struct backend *backend;
	struct hop hop;
	bool ended;

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
	if (ended || !is_steady(dnat, packet, config, now)) {
		if (ended && !is_opening(packet))
			return PASS_NO_CONNECTION;
		kind = ct_kind(dnat);
		ct_twin_key(&snat_key, dnat, packet->key.proto);
		snat = snat_table.lookup(&snat_key);
		if (snat && !ct_points_at(snat, &packet->key))
			snat = NULL;
		if (is_opening(packet) && (!snat || ended || kind == CT_CLOSING ||
					   kind == CT_CLOSED || ct_is_idle(dnat, snat, now))) {
			if (!reopen(&packet->key, dnat, backend, now)) {
				account->backend = 0;
				goto unknown;
			}
			verdict = FORWARD_NEW;
		} else if (!snat) {
			return DROP_ENDING;
		} else if (packet->key.proto == IPPROTO_TCP) {
			ct_follow(dnat, snat, packet, true);
		}
		dnat->checked = now;
	}
	hop_to_backend(&hop, backend);
	return forward(skb, packet, dnat, &hop, now, verdict);

unknown:
	account->service = find_service(&packet->key, false);
	if (!account->service)
		return PASS_NOT_OURS;
	if (!is_opening(packet))
		return PASS_NO_CONNECTION;
	return open_connection(skb, config, packet, account, now);
}

/* EGRESS: a packet of a backend that a SNAT entry knows. */
static __always_inline enum verdict to_client(struct __sk_buff *skb, const struct config *config,
					      struct packet *packet, struct nat_entry *snat,
					      struct account *account)
{
	__u32 now = ct_now(), slot = snat->backend;
	struct backend *backend = backends.lookup(&slot);
	struct nat_entry *dnat = NULL;
	struct flow_key dnat_key;
	struct hop hop;

	if (ct_is_claimed(snat))
		return DROP_ENDING;
	account->from_client = false;
	account->service = snat->service;
	account->backend = slot;
	if (!backend || ct_backend_ended(backend, packet->key.proto))
		return DROP_UNKNOWN_ANSWER;
	if (!is_steady(snat, packet, config, now)) {
		ct_twin_key(&dnat_key, snat, packet->key.proto);
		dnat = dnat_table.lookup(&dnat_key);
		if (!dnat || !ct_points_at(dnat, &packet->key))
			return DROP_ENDING;
		if (packet->key.proto == IPPROTO_TCP)
			ct_follow(snat, dnat, packet, false);
		else if (!(snat->state & CT_ANSWERED))
			ct_set(snat, dnat, snat->state | CT_ANSWERED);
		if (now - snat->checked >= config->ticks_per_second &&
		    forward_find_client(skb, snat, packet->key.proto, now))
			return DROP_NO_ROUTE;
	}
	hop.next_hop = snat->next_hop;
	hop.ifindex = snat->ifindex;
	hop.mtu = snat->mtu;
	return forward(skb, packet, snat, &hop, now, FORWARD_TO_CLIENT);
}

/* A part of a datagram: nothing of a service or of a connection may go up the stack. */
static __always_inline enum verdict fragment(struct packet *packet, enum parse_result kind)
{
	if (kind == PARSE_LATER_FRAGMENT)
		return find_service(&packet->key, true) ? DROP_FRAGMENT : PASS_NOT_OURS;
	if (snat_table.lookup(&packet->key) || dnat_table.lookup(&packet->key) ||
	    find_service(&packet->key, false))
		return DROP_FRAGMENT;
	return PASS_NOT_OURS;
}

static __always_inline enum verdict judge(struct __sk_buff *skb, struct account *account)
{
	const struct config *config = config_in_force();
	__u32 zero = 0;
	struct packet *packet = packet_room.lookup(&zero);
	enum parse_result parsed;
	struct nat_entry *snat;
	enum verdict verdict;
	bool from_backend;

	if (skb->protocol != bpf_htons(PARSE_ETHERTYPE) || skb->vlan_present ||
	    skb->pkt_type != PACKET_HOST || !config || !packet)
		return PASS_UNPARSED;
	parsed = parse(skb, packet);
	if (parsed == PARSE_OTHER)
		return PASS_UNPARSED;

	from_backend = is_from_backend_cidr(config, &packet->key.src);
	if (from_backend && skb->ifindex != config->private_ifindex)
		return DROP_SPOOFED;
	if (parsed != PARSE_WHOLE)
		return fragment(packet, parsed);
	if (from_backend) {
		snat = snat_table.lookup(&packet->key);
		if (snat)
			return to_client(skb, config, packet, snat, account);
	}
	/* A backend may itself be a client of a VIP. */
	verdict = to_backend(skb, config, packet, account);
	if (verdict != PASS_NOT_OURS || !from_backend || !is_snat_tuple(config, &packet->key))
		return verdict;
	return host_has_socket(skb, &packet->key) ? PASS_HOST_SOCKET : DROP_UNKNOWN_ANSWER;
}

static __always_inline int classify_packet(struct __sk_buff *skb)
{
	struct account account = {.from_client = true};
	enum verdict verdict = judge(skb, &account);

	count(skb, &account, verdict);
	if (verdict_is_forward(verdict))
		return TC_ACT_REDIRECT;
	return verdict_is_pass(verdict) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

int classify(struct __sk_buff *skb)
{
	return classify_packet(skb);
}

int collect(struct __sk_buff *skb)
{
	return collect_request(skb, true);
}

int collect_halves(struct __sk_buff *skb)
{
	return collect_request(skb, false);
}

int read_clocks(struct __sk_buff *skb)
{
	return collect_clock(skb);
}
