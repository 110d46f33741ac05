/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * select.h - which backend a new connection goes to: a place in its service's table, drawn by the
 * service's scheduler. The hash and its seed are fixed, so that every balancer with the same
 * backends chooses alike (but where it goes in turns, or by load);
 * tests/bpf/model_select.py says the same in Python.
 */
#ifndef LLB_SELECT_H
#define LLB_SELECT_H

#define SELECT_SEED   0x4c4c4221
#define SELECT_AGAIN  0x9e3779b9
#define SELECT_SECOND 0x85ebca77
#define SELECT_RAMP   0xc2b2ae3d

/* A backend in its slow start is drawn this often before it is taken all the same. */
#define SELECT_TRIES	  8
#define SELECT_RAMP_STEPS 1024
#define SELECT_RAMP_LEAST (SELECT_RAMP_STEPS / 10)

/* MurmurHash3's 32-bit mixing (Appleby, public domain), over words in host order. */
static __always_inline __u32 select_mix(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = (word << 15) | (word >> 17);
	word *= 0x1b873593;
	hash ^= word;
	hash = (hash << 13) | (hash >> 19);
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 select_finish(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ (hash >> 16);
}

static __always_inline __u32 select_hash(const struct flow_key *key)
{
	__u32 hash = SELECT_SEED;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		hash = select_mix(hash, bpf_ntohl(key->src.w[i]));
#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		hash = select_mix(hash, bpf_ntohl(key->dst.w[i]));
	hash = select_mix(hash, (__u32)bpf_ntohs(key->sport) << 16 | bpf_ntohs(key->dport));
	hash = select_mix(hash, key->proto);
	return select_finish(hash);
}

/* The hash of the first bits of the client's address, alike for every service. */
static __always_inline __u32 select_source_hash(const struct flow_key *key, __u32 bits)
{
	__u32 hash = SELECT_SEED;

#pragma unroll
	for (__u32 i = 0; i < ADDR_WORDS; i++) {
		__u32 word = bpf_ntohl(key->src.w[i]), kept = bits > 32 * i ? bits - 32 * i : 0;

		if (!kept)
			word = 0;
		else if (kept < 32)
			word &= ~0U << (32 - kept);
		hash = select_mix(hash, word);
	}
	return select_finish(hash);
}

/*
 * The part of its share that a backend gets, of SELECT_RAMP_STEPS: in its slow start it grows in a
 * straight line, so whoever has come to it once is not sent away again.
 */
static __always_inline __u32 select_ramp(__u32 started, __u32 ramp, __u32 now)
{
	__u32 since = now - started, part;

	if (!started || since >= ramp)
		return SELECT_RAMP_STEPS;
	part = (__u32)((__u64)since * SELECT_RAMP_STEPS / ramp);
	return part < SELECT_RAMP_LEAST ? SELECT_RAMP_LEAST : part;
}

/* Whether it leaves what drew it by this hash to another. */
static __always_inline bool select_declines(__u32 part, __u32 hash)
{
	return (select_finish(hash ^ SELECT_RAMP) & (SELECT_RAMP_STEPS - 1)) >= part;
}

/* The slot of the backend in a place of the table, or 0. */
static __always_inline __u32 select_at(void *table, __u32 place)
{
	__u32 word = 1 + place / PLACES_A_WORD; /* the first holds the size */
	struct places *places = bpf_map_lookup_elem(table, &word);

	return places ? places->slots[place % PLACES_A_WORD] : 0;
}

static __always_inline __u32 select_by_hash(void *table, __u32 size, __u32 hash)
{
	return select_at(table, (__u32)(((__u64)hash * size) >> 32));
}

/* Of two drawn, the one with fewer connections for its weight, as far as that has grown. */
static __always_inline __u32 select_emptier(void *table, __u32 size, __u32 hash, __u32 ramp,
					    __u32 now)
{
	__u32 one = select_by_hash(table, size, hash);
	__u32 two = select_by_hash(table, size, select_finish(hash ^ SELECT_SECOND));
	__s64 *load_one = backend_loads.lookup(&one), *load_two = backend_loads.lookup(&two);
	struct backend *first = backends.lookup(&one), *second = backends.lookup(&two);
	__s64 weight_one, weight_two;

	if (!load_one || !load_two || !first || !second)
		return one;
	weight_one = (__s64)first->weight * select_ramp(first->started, ramp, now);
	weight_two = (__s64)second->weight * select_ramp(second->started, ramp, now);
	return *load_two * weight_one < *load_one * weight_two ? two : one;
}

/* The slot of the backend for a new connection of this service, or 0. hash is its tuple's. */
static __always_inline __u32 select_backend(const struct config *config, const struct flow_key *key,
					    __u32 service_slot, __u32 hash, __u32 now)
{
	struct service *service = services.lookup(&service_slot);
	void *table = maglev_tables.lookup(&service_slot);
	__u32 zero = 0, size, slot, ramp, drawn_by, tries = SELECT_TRIES, *places;
	__u8 scheduler;
	struct service_load *load;
	struct backend *backend;

	if (!table || !service)
		return 0;
	places = bpf_map_lookup_elem(table, &zero);
	if (!places || !*places)
		return 0;
	size = *places;
	ramp = (__u64)service->slow_start * config->ticks_per_second / 1000;
	scheduler = service->scheduler;
	if (scheduler == SCHEDULER_SOURCE)
		hash = select_source_hash(key, service->affinity_prefix);

	/* Its condition stands at its end: verifiers before Linux 6.8 take no loop that is closed by
	 * going on to the next instruction. */
	do {
		if (scheduler == SCHEDULER_ROUND_ROBIN) {
			load = service_loads.lookup(&service_slot);
			if (!load)
				return 0;
			hash = (__u32)__sync_fetch_and_add(&load->turn, 1);
			slot = select_at(table, hash % size);
		} else if (scheduler == SCHEDULER_LEAST_CONNECTIONS) {
			slot = select_emptier(table, size, hash, ramp, now);
		} else {
			slot = select_by_hash(table, size, hash);
		}
		backend = backends.lookup(&slot);
		drawn_by = hash;
		hash = select_finish(hash + SELECT_AGAIN);
	} while (backend && select_declines(select_ramp(backend->started, ramp, now), drawn_by) &&
		 --tries);
	return slot;
}

#endif
