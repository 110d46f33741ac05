/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * opening.h - the ring of connections that have not become established: each has a place, and the
 * one that was there before gives way (docs/decisions/opening-ring.md).
 */
#ifndef LLB_OPENING_H
#define LLB_OPENING_H

/* A place of its own for a connection that is being opened. */
static __always_inline __u32 opening_take_place(void)
{
	__u32 which = OPENING_NEXT;
	__u64 *cursor = opening_cursor.lookup(&which);

	return cursor ? __sync_fetch_and_add(cursor, 1) % OPENING_PLACES : 0;
}

/*
 * Remove a connection that was noted in a place of the ring, unless its client has shown meanwhile
 * that it hears the backend, or it was opened anew and stands in another place.
 */
static __always_inline bool opening_evict(struct flow_key *key, __u32 place)
{
	struct nat_entry *dnat = dnat_table.lookup(key);
	union ct_word word;
	__u32 service, backend;

	if (!dnat)
		return false;
	word.word = ct_read_word(dnat);
	if (word.state & CT_ASSURED || dnat->place != place)
		return false;
	service = dnat->service;
	backend = dnat->backend;
	if (!ct_end(key, dnat, word.word, END_EVICTED))
		return false;
	count_evicted(service, backend);
	return true;
}

/*
 * Note a connection that was opened, or opened anew, in its place of the ring; which was there
 * before gives way. Two CPUs in the same place, a whole ring apart, may leave a key there that is
 * nobody's: one that they meant is then left to its timeout.
 */
static __always_inline void opening_note(const struct flow_key *key, __u32 place)
{
	struct flow_key *noted = opening_ring.lookup(&place), before;

	if (!noted)
		return;
	if (noted->proto && !(addr_equal(&noted->src, &key->src) &&
			      addr_equal(&noted->dst, &key->dst) && noted->sport == key->sport &&
			      noted->dport == key->dport && noted->proto == key->proto)) {
		/* Another CPU may write here: what is removed is what was looked up. */
		before = *noted;
		opening_evict(&before, place);
	}
	*noted = *key;
}

/*
 * The tables are full: have the oldest opening connections give way, so that the next ones find
 * room. Where established ones fill the tables there may be few others, far apart in the ring:
 * how far it was searched is remembered.
 */
static __always_inline void opening_make_room(void)
{
	__u32 which = OPENING_NEXT, zero = 0;
	__u64 *next = opening_cursor.lookup(&which), *oldest;
	struct scratch *scratch = scratch_room.lookup(&zero);

	which = OPENING_OLDEST;
	oldest = opening_cursor.lookup(&which);
	if (!next || !oldest || !scratch)
		return;
	scratch->evicted = 0;
	for (int i = 0; i < OPENING_SEARCH; i++) {
		__u64 turn = __sync_fetch_and_add(oldest, 1), end = *next;
		struct flow_key *noted, key;
		__u32 place;

		if (turn >= end) {
			*oldest = end;
			return;
		}
		if (end - turn > OPENING_PLACES) {
			turn = end - OPENING_PLACES;
			*oldest = turn + 1;
		}
		place = turn % OPENING_PLACES;
		noted = opening_ring.lookup(&place);
		if (!noted)
			return;
		key = *noted;
		scratch->evicted += opening_evict(&key, place);
		if (scratch->evicted >= OPENING_ROOM)
			return;
	}
}

#endif
