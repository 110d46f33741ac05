/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * select.h - which backend a new connection goes to: the hash of its tuple into its service's
 * Maglev table. The hash and its seed are fixed, so that every balancer with the same backends
 * chooses alike; tests/bpf/model_select.py says the same in Python.
 */
#ifndef LLB_SELECT_H
#define LLB_SELECT_H

#define SELECT_SEED 0x4c4c4221

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

/* The slot of the backend for this hash, or 0. */
static __always_inline __u32 select_backend(__u32 service, __u32 hash)
{
	void *table = maglev_tables.lookup(&service);
	__u32 place = 0, *size, *slot;

	if (!table)
		return 0;
	size = bpf_map_lookup_elem(table, &place);
	if (!size)
		return 0;
	place = 1 + (__u32)(((__u64)hash * *size) >> 32);
	slot = bpf_map_lookup_elem(table, &place);
	return slot ? *slot : 0;
}

#endif
