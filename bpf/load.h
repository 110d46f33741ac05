/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * load.h - how many connections each service and each backend has: those that stand and have not
 * closed. Every change is one atomic addition by whoever changed or claimed the state that the SNAT
 * half holds, so by one CPU alone. A connection may be taken off before it is added, hence signed;
 * should a count drift all the same, the daemon puts it right by what the tables hold.
 */
#ifndef LLB_LOAD_H
#define LLB_LOAD_H

static __always_inline void load_add(__u32 service, __u32 backend, __s32 by)
{
	struct service_load *load = service_loads.lookup(&service);
	__s32 *connections = backend_loads.lookup(&backend);

	if (load)
		__sync_fetch_and_add(&load->connections, by);
	if (connections)
		__sync_fetch_and_add(connections, by);
}

/* Whether a connection in that state counts. */
static __always_inline bool load_counts(__u32 state)
{
	return (state & CT_STATE_MASK) != CT_CLOSED;
}

/* Take off a connection that is removed, entry being one of its halves and state what it was. */
static __always_inline void load_removed(const struct nat_entry *entry, __u32 state)
{
	if (load_counts(state))
		load_add(entry->service, entry->backend, -1);
}

/* Note that a connection went from one state to another. */
static __always_inline void load_moved(const struct nat_entry *entry, __u32 from, __u32 to)
{
	if (load_counts(from) != load_counts(to))
		load_add(entry->service, entry->backend, load_counts(to) ? 1 : -1);
}

#endif
