/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * load.h - how many connections each service, each backend, and each client of a service that
 * limits its clients has: those that stand and have not closed. A connection is added before its
 * SNAT half is inserted, and every change after that is one atomic addition by whoever changed or
 * claimed the state that this half holds, so by one CPU alone; a DNAT half that is alone counts no
 * more. Signed, since a count may fall below none for a moment; should it drift all the same, the
 * daemon puts it right by what the tables hold.
 */
#ifndef LLB_LOAD_H
#define LLB_LOAD_H

/* IPv6 clients have a network of 64 bits to themselves (RFC 4291, 2.5.1). */
#define LOAD_SOURCE_WORDS (ADDR_WORDS < 2 ? ADDR_WORDS : 2)

/* What is counted of a client, or NULL; made where it is missed and wanted. */
static __always_inline struct source_load *load_source(__u32 service, const struct addr *client,
						       bool make)
{
	struct source_key key = {.service = service};
	struct source_load nothing = {}, *load;

#pragma unroll
	for (int i = 0; i < LOAD_SOURCE_WORDS; i++)
		key.network.w[i] = client->w[i];
	load = source_loads.lookup(&key);
	if (load || !make)
		return load;
	source_loads.insert(&key, &nothing);
	return source_loads.lookup(&key);
}

/* Add to a client's count. It never falls below none: it may have been forgotten and begun anew. */
static __always_inline void load_add_source(struct source_load *load, __s32 by)
{
	if (__sync_fetch_and_add(&load->connections, by) + by < 0 && by < 0)
		__sync_fetch_and_add(&load->connections, -by);
}

static __always_inline void load_add(__u32 slot, __u32 backend, const struct addr *client, __s32 by)
{
	struct service_load *load = service_loads.lookup(&slot);
	struct service *service = services.lookup(&slot);
	__s64 *connections = backend_loads.lookup(&backend);
	struct source_load *source = NULL;

	if (load)
		__sync_fetch_and_add(&load->connections, by);
	if (connections)
		__sync_fetch_and_add(connections, by);
	if (service && (service->limits[LIMIT_SOURCE_CONNECTIONS]))
		source = load_source(slot, client, by > 0);
	if (source)
		load_add_source(source, by);
}

/* Whether a connection in that state counts. */
static __always_inline bool load_counts(__u32 state)
{
	return (state & CT_STATE_MASK) != CT_CLOSED;
}

/* Take off a connection whose SNAT half is removed; entry is either half, state what it was. */
static __always_inline void load_removed(const struct nat_entry *entry, const struct addr *client,
					 __u32 state)
{
	if (load_counts(state))
		load_add(entry->service, entry->backend, client, -1);
}

/* Note that a connection went from one state to another. */
static __always_inline void load_moved(const struct nat_entry *entry, const struct addr *client,
				       __u32 from, __u32 to)
{
	if (load_counts(from) != load_counts(to))
		load_add(entry->service, entry->backend, client, load_counts(to) ? 1 : -1);
}

#endif
