/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * limit.h - whether a service, and a client of it, may have one connection more: at once, and this
 * second. Places are taken before they are asked for, and given back where there was none, so no two
 * CPUs take the last one both.
 */
#ifndef LLB_LIMIT_H
#define LLB_LIMIT_H

/* Parts of a tick, so that a million connections a second can be told from two. */
#define LIMIT_TICK_BITS 20

/*
 * A bucket of as many tokens as a second brings, kept as the one time at which it will be full
 * again (the GCRA of ITU-T I.371): each token moves that on by its part of a second, and it may lie
 * no more than a second ahead. Where it lies behind it is brought up to now first; should another
 * CPU do so at the same moment, that serves as well.
 */
static __always_inline bool limit_take_token(__u64 *due, __u32 per_second,
					     const struct config *config)
{
	__u64 now = bpf_jiffies64() << LIMIT_TICK_BITS, old = *(volatile __u64 *)due;
	__u64 second = (__u64)config->ticks_per_second << LIMIT_TICK_BITS;
	__u64 token = second / per_second;

	if (old < now)
		__sync_val_compare_and_swap(due, old, now);
	if (__sync_fetch_and_add(due, token) + token <= now + second)
		return true;
	__sync_fetch_and_add(due, -token);
	return false;
}

static __always_inline bool limit_take_place(__s64 *connections, __u32 most)
{
	if (__sync_fetch_and_add(connections, 1) < (__s64)most || !most)
		return true;
	__sync_fetch_and_add(connections, -1);
	return false;
}

/*
 * Count a connection for its service, backend and source, if all of them may have it: FORWARD_NEW;
 * else nothing is counted. A source asks first, so that one that asks too often takes nothing from
 * the others. Where there is no room to remember it, it is let in. Whoever has a place, which an
 * earlier connection of the same tuple leaves him, needs no other.
 */
static __always_inline enum verdict limit_take(const struct config *config, __u32 slot,
					       __u32 backend, const struct addr *client,
					       bool has_place)
{
	struct service_load *load = service_loads.lookup(&slot);
	struct service *service = services.lookup(&slot);
	__s64 *connections = backend_loads.lookup(&backend);
	struct source_load *source = NULL;
	enum verdict verdict;

	if (!load || !service || !connections)
		return DROP_ERROR;
	if (service->limits[LIMIT_SOURCE_CONNECTIONS] || service->limits[LIMIT_SOURCE_NEW])
		source = load_source(slot, client, true);
	if (source) {
		if (!has_place && service->limits[LIMIT_SOURCE_CONNECTIONS] &&
		    !limit_take_place(&source->connections,
				      service->limits[LIMIT_SOURCE_CONNECTIONS]))
			return DROP_SOURCE_FULL;
		verdict = DROP_SOURCE_RATE;
		if (service->limits[LIMIT_SOURCE_NEW] &&
		    !limit_take_token(&source->due, service->limits[LIMIT_SOURCE_NEW], config))
			goto undo;
	}
	verdict = DROP_SERVICE_FULL;
	if (!has_place && !limit_take_place(&load->connections, service->limits[LIMIT_CONNECTIONS]))
		goto undo;
	if (service->limits[LIMIT_NEW] &&
	    !limit_take_token(&load->due, service->limits[LIMIT_NEW], config)) {
		if (!has_place)
			__sync_fetch_and_add(&load->connections, -1);
		verdict = DROP_SERVICE_RATE;
		goto undo;
	}
	if (!has_place)
		__sync_fetch_and_add(connections, 1);
	return FORWARD_NEW;

undo:
	if (!has_place && source && service->limits[LIMIT_SOURCE_CONNECTIONS])
		__sync_fetch_and_add(&source->connections, -1);
	return verdict;
}

#endif
