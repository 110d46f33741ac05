/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * maps.h - the maps that daemon and classifier share. User space makes and pins each before this
 * is loaded (and checks those that it finds), so here they are opened from PIN.
 */
#ifndef LLB_MAPS_H
#define LLB_MAPS_H

/* The client's tuple -> towards the backend. Written by the classifier and the collector. */
BPF_TABLE_PINNED("hash", struct flow_key, struct nat_entry, dnat_table, MAX_CONNECTIONS,
		 PIN "/dnat_table");

/* The backend's tuple -> back to the client. Written by the classifier and the collector. */
BPF_TABLE_PINNED("hash", struct flow_key, struct nat_entry, snat_table, MAX_CONNECTIONS,
		 PIN "/snat_table");

/*
 * Place -> the DNAT key of a connection that was opened. The places are taken in turn, so that at
 * most so many connections are opening. Written by the classifier.
 */
BPF_TABLE_PINNED("array", __u32, struct flow_key, opening_ring, OPENING_PLACES,
		 PIN "/opening_ring");

/*
 * How many were noted so far, which gives the next place; and how many of these were searched for
 * some that can give way because the tables are full. Written by the classifier.
 */
enum opening_cursor_place {
	OPENING_NEXT,
	OPENING_OLDEST,
	OPENING_CURSORS,
};
BPF_TABLE_PINNED("array", __u32, __u64, opening_cursor, OPENING_CURSORS, PIN "/opening_cursor");

/*
 * VIP, port, protocol -> slot in `services`; with port 0, the mark that a VIP has services of that
 * protocol. Written by map sync.
 */
BPF_TABLE_PINNED("hash", struct service_key, __u32, service_keys, MAX_SERVICES * 2,
		 PIN "/service_keys");

/*
 * A bit for each address and port that is a service's, or was one since the map was made: most
 * packets that are not ours go to none, and are known by it without a look into the tables.
 * Connections of a service that is withdrawn go on, so that no bit is ever taken away. Written by
 * map sync.
 */
BPF_TABLE_PINNED("array", __u32, __u64, vip_filter, VIP_FILTER_BITS / 64, PIN "/vip_filter");

/* Slot -> the service's record. Written by map sync. */
BPF_TABLE_PINNED("array", __u32, struct service, services, MAX_SERVICES, PIN "/services");

/* Slot -> a backend of one service. Written by map sync. */
BPF_TABLE_PINNED("array", __u32, struct backend, backends, MAX_BACKENDS, PIN "/backends");

/*
 * A service's slot -> its table, an array of struct places whose first word holds the number of
 * places that follow: one update swaps table and size together. Written by map sync.
 */
BPF_TABLE_PINNED("array_of_maps$maglev", __u32, __u32, maglev_tables, MAX_SERVICES,
		 PIN "/maglev_tables");

/*
 * Slot -> how many connections of a service, or of a backend, stand and have not closed. Counted by
 * the classifier and the collector, and put right by `correct`; zeroed by map sync with the slot.
 */
BPF_TABLE_PINNED("array", __u32, struct service_load, service_loads, MAX_SERVICES,
		 PIN "/service_loads");
BPF_TABLE_PINNED("array", __u32, __s64, backend_loads, MAX_BACKENDS, PIN "/backend_loads");

/*
 * A client of a service that limits its clients -> its connections that stand and have not closed,
 * and when its next is due. Those unheard of for longest give way to new ones. Counted by the
 * classifier and the collector, and put right by `correct`.
 */
BPF_TABLE_PINNED("lru_hash", struct source_key, struct source_load, source_loads, MAX_SOURCES,
		 PIN "/source_loads");

/* A service's prefix of clients' addresses -> enum rule. Written by map sync. */
BPF_TABLE_PINNED("lpm_trie", struct rule_key, __u32, access_rules, MAX_RULES, PIN "/access_rules");

/*
 * A datagram in pieces -> what became of its first fragment. Written by the classifier. Whoever
 * sends many fragments takes this room from other fragments alone.
 */
BPF_TABLE_PINNED("lru_hash", struct fragment_key, struct fragment, fragments, MAX_FRAGMENTS,
		 PIN "/fragments");

/* 0, for all, or 1 + a hash of an address -> ICMP errors that may be sent. By the classifier. */
BPF_TABLE_PINNED("array", __u32, struct refusal_bucket, refusal_buckets, REFUSAL_BUCKETS + 1,
		 PIN "/refusal_buckets");

/* 0 -> which of the two records of `configs` is in force. Written by map sync. */
BPF_TABLE_PINNED("array", __u32, __u32, config_index, 1, PIN "/config_index");
BPF_TABLE_PINNED("array", __u32, struct config, configs, 2, PIN "/configs");

/* Counted by the classifier, one a CPU: by verdict, by service's slot, by backend's slot. */
BPF_TABLE_PINNED("percpu_array", __u32, __u64, verdicts, VERDICTS, PIN "/verdicts");
BPF_TABLE_PINNED("percpu_array", __u32, struct counters, service_counters, MAX_SERVICES,
		 PIN "/service_counters");
BPF_TABLE_PINNED("percpu_array", __u32, struct counters, backend_counters, MAX_BACKENDS,
		 PIN "/backend_counters");

/*
 * Packets dropped or refused, one count a CPU, by service, backend and verdict at once. Entries are
 * made where there is something to count: by the classifier; taken away by map sync with the slot.
 */
BPF_TABLE_PINNED("percpu_hash", struct drop_key, __u64, drop_counters, MAX_DROP_COUNTERS,
		 PIN "/drop_counters");

/* What happens, for whoever listens; filled by the classifier. bcc has no macro for a pinned one. */
struct events_table {
	int key;
	__u32 leaf;
	int (*ringbuf_output)(void *, __u64, __u64);
	void *(*ringbuf_reserve)(__u64);
	void (*ringbuf_discard)(void *, __u64);
	void (*ringbuf_submit)(void *, __u64);
	__u64 (*ringbuf_query)(__u64);
	__u32 max_entries;
};
__attribute__((section("maps/ringbuf:" PIN "/events"))) struct events_table events = {
	.max_entries = 1,
};

/* 0 -> who listens. Written by map sync; the classifier counts what was lost. */
BPF_TABLE_PINNED("array", __u32, struct listening, listening, 1, PIN "/listening");

/* DROP_EXAMPLES of each verdict, one after the other, a CPU. Written by the classifier. */
BPF_TABLE_PINNED("percpu_array", __u32, struct drop_example, drop_examples, VERDICTS *DROP_EXAMPLES,
		 PIN "/drop_examples");

/*
 * Room for the two halves of a connection being made: the stack has 512 bytes. What the search for
 * a port finds is kept here too: the verifier would follow each value that a variable can take
 * through each turn of the loop. Not pinned.
 */
struct scratch {
	struct nat_entry dnat;
	struct nat_entry snat;
	struct flow_key tuple; /* the SNAT half's */
	struct flow_key twin;  /* of a connection that is taken over */
	__u64 snat_word;       /* its halves' words, as they were */
	__u64 dnat_word;
	__u32 has_twin;
	__u32 which;	   /* enum nat_take */
	__u32 reason;	   /* why it ends: enum end_reason */
	__u32 closed;	   /* 1 + the try that met the connection closed longest ago */
	__u32 closed_age;  /* ticks */
	__u32 opening;	   /* 1 + the try that met the oldest opening connection */
	__u32 opening_age; /* ticks */
	__u32 openings;	   /* how many were met */
	__u32 is_full;
	__u32 evicted; /* opening connections, to make room */
};
BPF_PERCPU_ARRAY(scratch_room, struct scratch, 1);

#endif
