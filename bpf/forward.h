/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * forward.h - the way out. Towards a backend the daemon keeps next hop, interface and MTU in the
 * backend's record; towards a client they are looked up here and kept in the connection's SNAT
 * half. A packet whose source is rewritten to an address of ours can't go up the stack, which
 * drops it as a martian: it is always redirected.
 */
#ifndef LLB_FORWARD_H
#define LLB_FORWARD_H

#define FORWARD_AF (FAMILY == 4 ? AF_INET : AF_INET6)

/* BPF_FIB_LOOKUP_SKIP_NEIGH, since Linux 6.3; an earlier one knows no such flag (EINVAL). */
#define FORWARD_SKIP_NEIGH 4
#define EINVAL		   22

/* bcc declares this one with too few arguments. */
static long (*redirect_neigh)(__u32 ifindex, void *params, int size,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

struct hop {
	struct addr next_hop;
	__u32 ifindex;
	__u32 mtu; /* 0 where it is not known */
};

static __always_inline void hop_to_backend(struct hop *hop, const struct backend *backend)
{
	hop->next_hop = backend->next_hop;
	hop->ifindex = backend->ifindex;
	hop->mtu = backend->mtu;
}

/*
 * What no client that we answer from a VIP may have as its address: the stack, which we go past,
 * drops it. A link-local one means something on its own link only, and our two sides are two.
 */
static __always_inline bool forward_is_martian(const struct addr *client)
{
	__u32 first = bpf_ntohl(client->w[0]);
#if FAMILY == 4
	/* RFC 1122, 3.2.1.3. */
	return first >> 28 == 0xe || first >> 24 == 0 || first == 0xffffffff;
#else
	/* RFC 4291, 2.5: multicast, link-local; unspecified, loopback and IPv4-mapped ones. */
	if (first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6)
		return true;
	if (client->w[0] | client->w[1])
		return false;
	return client->w[2] == bpf_htonl(0xffff) || (!client->w[2] && bpf_ntohl(client->w[3]) <= 1);
#endif
}

/* Not on the stack: so that the verifier sees one state behind a look-up, whoever made it. */
BPF_PERCPU_ARRAY(fib_room, struct bpf_fib_lookup, 1);

/* Find the way from the VIP back to the client; 0, or -1 where the kernel has none. */
static __always_inline int forward_find_client(struct __sk_buff *skb, struct nat_entry *snat,
					       __u8 proto, __u32 now)
{
	__u32 zero = 0;
	struct bpf_fib_lookup *fib = fib_room.lookup(&zero);
	long found;

	if (!fib || forward_is_martian(&snat->dst))
		return -1;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = FORWARD_AF;
	fib->l4_protocol = proto;
	fib->sport = snat->sport;
	fib->dport = snat->dport;
	fib->ifindex = skb->ifindex;
	/* Asked for with a length, the MTU is the route's, not the interface's alone. */
	fib->tot_len = 1;
#if FAMILY == 4
	fib->ipv4_src = snat->src.w[0];
	fib->ipv4_dst = snat->dst.w[0];
#else
	__builtin_memcpy(fib->ipv6_src, &snat->src, sizeof(snat->src));
	__builtin_memcpy(fib->ipv6_dst, &snat->dst, sizeof(snat->dst));
#endif
	found = bpf_fib_lookup(skb, fib, sizeof(*fib), FORWARD_SKIP_NEIGH);
	if (found == -EINVAL)
		found = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -1;
#if FAMILY == 4
	/* A gateway of the other family: the kernel finds it by itself. */
	snat->next_hop.w[0] = fib->family == AF_INET ? fib->ipv4_dst : 0;
#else
	__builtin_memcpy(&snat->next_hop, fib->ipv6_dst, sizeof(snat->next_hop));
#endif
	snat->ifindex = fib->ifindex;
	snat->mtu = found == BPF_FIB_LKUP_RET_NO_NEIGH ? 0 : fib->mtu_result;
	snat->checked = now;
	return 0;
}

/*
 * Ways to clients, a CPU, by a hash of the client: one that opens several connections at once, or
 * again and again, has the kernel's routes asked for it once a second. A way depends on all that
 * routes and rules can tell connections apart by, but the client's port: the slot stands for the
 * VIP, its port and the protocol. Small, and one record, so that they stay in the cache.
 */
struct way {
	struct addr client;
	struct addr next_hop;
	__u32 came_by; /* the interface */
	__u32 ifindex;
	__u32 checked; /* ticks */
	__u16 mtu;
	__u16 service; /* its slot; 0 where nothing is kept */
};
struct ways {
	struct way way[FORWARD_WAYS];
};
BPF_PERCPU_ARRAY(ways_room, struct ways, 1);

/* The same for a connection that is being made. */
static __always_inline int forward_find_new_client(struct __sk_buff *skb,
						   const struct config *config,
						   struct nat_entry *snat, __u8 proto, __u32 now)
{
	__u32 zero = 0, place = addr_place(&snat->dst, 0) & (FORWARD_WAYS - 1);
	struct ways *ways = ways_room.lookup(&zero);
	struct way *way;

	if (!ways)
		return -1;
	way = &ways->way[place];
	if (way->service == snat->service && way->came_by == skb->ifindex &&
	    now - way->checked < config->ticks_per_second && addr_equal(&way->client, &snat->dst)) {
		snat->next_hop = way->next_hop;
		snat->ifindex = way->ifindex;
		snat->mtu = way->mtu;
		return 0;
	}
	if (forward_find_client(skb, snat, proto, now))
		return -1;
	way->client = snat->dst;
	way->next_hop = snat->next_hop;
	way->came_by = skb->ifindex;
	way->ifindex = snat->ifindex;
	way->checked = now;
	way->mtu = snat->mtu;
	way->service = snat->service;
	return 0;
}

/* Whether every packet that this one becomes on the wire fits the next link. */
static __always_inline bool forward_fits(struct __sk_buff *skb, const struct packet *packet,
					 __u32 mtu)
{
	__u32 headers;

	if (!mtu || packet->length <= mtu)
		return true;
	if (!skb->gso_size)
		return false;
	headers = packet->length - packet->payload;
	return headers + skb->gso_size <= mtu;
}

/*
 * Whether a packet can leave this way: the verdict that it is to have then, or why it is dropped.
 * Asked before anything of its connection changes.
 */
static __always_inline enum verdict forward_check(struct __sk_buff *skb,
						  const struct packet *packet,
						  const struct hop *hop, enum verdict verdict)
{
	if (!hop->ifindex)
		return DROP_NO_ROUTE;
	if (packet->ttl <= 1)
		return DROP_TTL;
	if (!forward_fits(skb, packet, hop->mtu)) {
		skb->cb[CB_MTU] = hop->mtu;
		return DROP_TOO_BIG;
	}
	return verdict;
}

static __always_inline int forward_redirect(const struct hop *hop)
{
	struct bpf_redir_neigh neighbour = {.nh_family = FORWARD_AF};

	if (addr_is_zero(&hop->next_hop))
		return redirect_neigh(hop->ifindex, 0, 0, 0);
#if FAMILY == 4
	neighbour.ipv4_nh = hop->next_hop.w[0];
#else
	__builtin_memcpy(neighbour.ipv6_nh, &hop->next_hop, sizeof(hop->next_hop));
#endif
	return redirect_neigh(hop->ifindex, &neighbour, sizeof(neighbour), 0);
}

#endif
