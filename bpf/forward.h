/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * forward.h - the way out. Towards a backend the daemon keeps next hop, interface and MTU in the
 * backend's record; towards a client they are looked up here and kept in the connection's SNAT
 * half. A packet whose source is rewritten to an address of ours can't go up the stack, which
 * drops it as a martian: it is always redirected.
 */
#ifndef LLB_FORWARD_H
#define LLB_FORWARD_H

/* bcc declares this one with too few arguments. */
static long (*redirect_neigh)(__u32 ifindex, void *params, int size,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

struct hop {
	struct addr next_hop;
	__u32 ifindex;
	__u32 mtu; /* 0 where it is not known */
};

/* What no host may have as its address (RFC 1122, 3.2.1.3): the stack, which we go past, drops it. */
static __always_inline bool forward_is_martian(const struct addr *client)
{
	__u32 address = bpf_ntohl(client->w[0]);

	return address >> 28 == 0xe || address >> 24 == 0 || address == 0xffffffff;
}

/* Find the way from the VIP back to the client; 0, or -1 where the kernel has none. */
static __always_inline int forward_find_client(struct __sk_buff *skb, struct nat_entry *snat,
					       __u8 proto, __u32 now)
{
	struct bpf_fib_lookup fib = {
		.family = AF_INET,
		.l4_protocol = proto,
		.sport = snat->sport,
		.dport = snat->dport,
		.ifindex = skb->ifindex,
	};
	long found;

	if (forward_is_martian(&snat->dst))
		return -1;
	fib.ipv4_src = snat->src.w[0];
	fib.ipv4_dst = snat->dst.w[0];
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    found != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return -1;
	/* A gateway of the other family: the kernel finds it by itself. */
	snat->next_hop.w[0] = fib.family == AF_INET ? fib.ipv4_dst : 0;
	snat->ifindex = fib.ifindex;
	snat->mtu = found == BPF_FIB_LKUP_RET_NO_NEIGH ? 0 : fib.mtu_result;
	snat->checked = now;
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

static __always_inline int forward_redirect(const struct hop *hop)
{
	struct bpf_redir_neigh neighbour = {.nh_family = AF_INET};

	if (addr_is_zero(&hop->next_hop))
		return redirect_neigh(hop->ifindex, 0, 0, 0);
	neighbour.ipv4_nh = hop->next_hop.w[0];
	return redirect_neigh(hop->ifindex, &neighbour, sizeof(neighbour), 0);
}

#endif
