/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * config.h - what the daemon has set: whose packets are whose, and which services there are.
 */
#ifndef LLB_CONFIG_H
#define LLB_CONFIG_H

static __always_inline const struct config *config_in_force(void)
{
	__u32 zero = 0, *index = config_index.lookup(&zero);
	__u32 which;

	if (!index)
		return NULL;
	which = *index;
	return configs.lookup(&which);
}

static __always_inline bool is_from_backend_cidr(const struct config *config,
						 const struct addr *source)
{
	for (__u32 i = 0; i < MAX_CIDRS; i++) {
		if (i >= config->cidr_count)
			break;
		if (cidr_contains(&config->cidrs[i], source))
			return true;
	}
	return false;
}

static __always_inline bool is_snat_address(const struct config *config, const struct addr *address)
{
	for (__u32 i = 0; i < MAX_SNAT_ADDRESSES; i++) {
		if (i >= config->snat_count)
			break;
		if (addr_equal(&config->snat[i], address))
			return true;
	}
	return false;
}

static __always_inline bool is_snat_tuple(const struct config *config, const struct flow_key *key)
{
	__u32 offset = bpf_ntohs(key->dport) - config->port_low;

	return offset < config->port_count && is_snat_address(config, &key->dst);
}

/*
 * Whether connections of earlier maps may not be in these yet. It ends by itself, should the daemon
 * die over the copying: a client whose connection nobody knows is to be reset, not to hang.
 */
static __always_inline bool config_is_carrying(const struct config *config, __u32 now)
{
	return config->carrying &&
	       now - config->carrying < CARRYING_SECONDS * config->ticks_per_second;
}

/* False for most packets that are for no service, and were for none. */
static __always_inline bool config_may_be_vip(const struct flow_key *key)
{
	__u32 place = addr_place(&key->dst, bpf_ntohs(key->dport)), word = place / 64;
	__u64 *bits = vip_filter.lookup(&word);

	return !bits || (*bits >> place % 64) & 1;
}

/* The slot of the service that a packet with this key is for, or 0. */
static __always_inline __u32 find_service(const struct flow_key *key, bool any_port)
{
	struct service_key service = {
		.address = key->dst,
		.port = any_port ? 0 : key->dport,
		.proto = key->proto,
	};
	__u32 *slot;

	/* Port 0 on the wire is no service's: in the map it is the mark. */
	if (!any_port && !key->dport)
		return 0;
	slot = service_keys.lookup(&service);
	return slot ? *slot : 0;
}

/* Whether there are services on an address, of whichever protocol. */
static __always_inline bool config_is_vip(const struct addr *address)
{
	struct flow_key key = {.dst = *address, .proto = IPPROTO_TCP};

	if (find_service(&key, true))
		return true;
	key.proto = IPPROTO_UDP;
	return find_service(&key, true);
}

/* Whether an address is one that connections of ours have: a VIP, or a SNAT address. */
static __always_inline bool config_is_ours(const struct config *config, const struct addr *address)
{
	return config_is_vip(address) || is_snat_address(config, address);
}

#endif
