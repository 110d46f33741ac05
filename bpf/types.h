/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * types.h - the records that daemon and classifier share, and the address of the family compiled
 * for: all sources are compiled twice, with FAMILY 4 and 6, and nothing but headers named after a
 * family and a few #if (parsing, rewriting, routes, sockets) tells the two apart.
 * No padding that is not spelled out: an implicit byte in a key makes every lookup miss.
 * llb_core/datapath/layout.py describes the same bytes, and a test compares the two.
 */
#ifndef LLB_TYPES_H
#define LLB_TYPES_H

#ifndef FAMILY
#define FAMILY 4
#endif

#if FAMILY == 4
#define ADDR_WORDS 1
#elif FAMILY == 6
#define ADDR_WORDS 4
#else
#error "FAMILY is 4 or 6"
#endif

struct addr {
	__be32 w[ADDR_WORDS];
};

/* A packet's tuple, as the packet arrives: the key of both tables. */
struct flow_key {
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

enum ct_state {
	CT_OPENING = 1,	    /* until the client acknowledges the backend's SYN */
	CT_ESTABLISHED = 2, /* and half closed: one FIN seen */
	CT_CLOSING = 3,	    /* both FINs seen */
	CT_CLOSED = 4,	    /* the last FIN acknowledged, or reset */
	CT_UDP = 5,
	CT_CLAIMED = 255, /* whoever wrote this removes both halves; never forwards */
};

#define CT_STATE_MASK		0xff
#define CT_ANSWERED		0x100 /* the backend's SYN+ACK, or its first datagram, was seen */
#define CT_CLIENT_FIN		0x200
#define CT_BACKEND_FIN		0x400
#define CT_BACKEND_CLOSED_FIRST 0x800
#define CT_RESET		0x1000
#define CT_ASSURED		0x2000 /* the client has shown that it hears the backend */

/*
 * One half of a connection: how to rewrite a packet that came by the key. The DNAT half is found
 * by the client's packets, the SNAT half by the backend's. The twin's key is the reverse of what
 * the packet becomes. State and time share one word, so that a claim by compare-and-swap fails
 * when a packet has come in between. With key and the kernel's own 48 bytes an entry fills two
 * lines of cache, one of IPv6 three: docs/decisions/lines-of-cache.md.
 */
struct nat_entry {
	union {
		struct {
			__u32 state; /* enum ct_state, CT_* flags; the same in both halves */
			__u32 seen;  /* ticks of the last packet by this half */
		};
		__u64 word;
	};
	__u64 bytes;
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u16 addr_delta; /* what the rewriting adds to a checksum, folded: addresses */
	__u16 port_delta; /* ... and ports */
	__u16 backend;	  /* slot in `backends` */
	__u16 service;	  /* slot in `services` */
	__u32 next;	  /* TCP: the sequence number that this side's next new byte has */
	__u32 ack;	  /* TCP: the one that this side awaits, as it last said */
	__u32 packets;
	__u16 checked; /* ticks when route and twin were last looked up: see ct_is_checked() */
	__u16 mtu;     /* SNAT half */
	union {
		__u32 ifindex; /* SNAT half */
		__u32 place;   /* DNAT half: where in `opening_ring` it was noted */
	};
	struct addr next_hop; /* SNAT half: towards the client; zero where the kernel is to look */
	__u32 opened;	      /* ticks */
#if FAMILY == 6
	__u32 pad; /* the record is a multiple of 8 bytes */
#endif
};

/* What end_connections() is handed, and hands back: both halves as they were when claimed. */
struct ended {
	struct flow_key key; /* of the DNAT half */
	struct nat_entry dnat_half;
	struct nat_entry snat_half;
};

/* What all fragments of a datagram have in common, as they arrive. */
struct fragment_key {
	struct addr src;
	struct addr dst;
	__u32 id;   /* as it lies in the header */
	__u8 proto; /* IPv4 */
	__u8 pad[3];
};

/* What became of a datagram's first fragment, so that it becomes of the others, too. */
struct fragment {
	__u32 seen;    /* ticks */
	__u32 ifindex; /* 0 where it was left to the stack */
	__u32 mtu;
	__u32 service;
	__u32 backend;
	struct addr next_hop;
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__be16 id; /* the one that we give it: IPv4 */
	__u8 from_client;
	__u8 pad;
};

/* A token bucket for the ICMP errors that we send. */
struct refusal_bucket {
	__u32 filled; /* ticks */
	__u32 credit; /* in tokens times ticks a second */
};

struct service_key {
	struct addr address;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

enum timeout {
	TIMEOUT_OPENING,
	TIMEOUT_ESTABLISHED,
	TIMEOUT_CLOSING,
	TIMEOUT_CLOSED,
	TIMEOUT_UDP,
	TIMEOUTS,
};

enum scheduler {
	SCHEDULER_MAGLEV,
	SCHEDULER_ROUND_ROBIN,
	SCHEDULER_LEAST_CONNECTIONS,
	SCHEDULER_SOURCE,
};

/* Whom a service lets in that none of its rules names. */
enum access {
	ACCESS_OPEN, /* everybody: there are no rules */
	ACCESS_ALLOW,
	ACCESS_DENY,
};

enum rule {
	RULE_ALLOW = 1,
	RULE_DENY = 2,
};

/* A prefix of clients' addresses, for one service. */
struct rule_key {
	__u32 length;  /* bits that count: those of service, and the prefix's */
	__u32 service; /* slot in `services` */
	struct addr address;
};

/* What a service's limits are on; 0 for none. */
enum limit {
	LIMIT_CONNECTIONS, /* at once */
	LIMIT_NEW,	   /* a second */
	LIMIT_SOURCE_CONNECTIONS,
	LIMIT_SOURCE_NEW,
	LIMITS,
};

struct service {
	struct addr address;
	__be16 port;
	__u8 proto;		  /* 0 where the slot is free */
	__u8 scheduler;		  /* enum scheduler */
	__u32 timeouts[TIMEOUTS]; /* ticks */
	__u32 affinity_prefix;	  /* bits of the client's address that decide, SCHEDULER_SOURCE */
	__u32 slow_start;	  /* milliseconds */
	__u32 access;		  /* enum access */
	__u32 limits[LIMITS];
	/* For user space alone, so that what is installed can be read back as it was put. */
	__u32 milliseconds[TIMEOUTS];
	__u8 name[64];
};

enum backend_mode {
	BACKEND_FREE = 0,
	BACKEND_ACTIVE = 1,
	BACKEND_DRAINING = 2, /* keeps its connections, gets no new ones */
	BACKEND_ENDING = 3,   /* its connections count as absent */
	BACKEND_RETIRED = 4,  /* deregistered: TCP goes on to its end, UDP is chosen anew */
};

struct backend {
	struct addr address;
	__be16 port;
	__u16 mode;
	__u32 service;
	struct addr next_hop;
	__u32 ifindex; /* 0 where there is no route */
	__u32 mtu;
	__u32 weight;  /* for SCHEDULER_LEAST_CONNECTIONS; else the table says it already */
	__u32 started; /* ticks when its slow start began; 0 where it has its whole share */
};

/* A word of a service's table: a place takes the least that a slot fits into (an array's smallest
 * value is 8 bytes), so that more of it stays in the cache. */
#define PLACES_A_WORD 4
struct places {
	__u16 slots[PLACES_A_WORD]; /* in `backends`; 0 for none */
};

/* What a service's new connections leave behind for the next. */
struct service_load {
	__u64 turn;	   /* SCHEDULER_ROUND_ROBIN: turns taken */
	__u64 due;	   /* LIMIT_NEW: see limit_take_token() */
	__s64 connections; /* that stand and have not closed */
};

/* A client of one service: one IPv4 address, or the 64 bits of an IPv6 network. */
struct source_key {
	__u32 service;
	struct addr network;
};

struct source_load {
	__u64 due;
	__s64 connections;
};

/* What is to be added to a count of connections: see collect.h. */
struct correction {
	__u32 what; /* enum corrected */
	__u32 slot;
	__s32 by;
	struct addr network; /* of a source */
};

struct cidr {
	struct addr address;
	struct addr mask;
};

struct config {
	__u32 private_ifindex;
	__u32 ticks_per_second;
	__u32 cidr_count;
	__u32 snat_count;
	__u32 port_low;
	__u32 port_count;
	__u32 carrying; /* since when connections of earlier maps may be missing in these; 0: none is */
	__u32 pad;
	struct cidr cidrs[MAX_CIDRS];
	struct addr snat[MAX_SNAT_ADDRESSES];
	__u64 host_ports[PORT_WORDS]; /* a bit for each that the host uses itself */
};

struct counters {
	__u64 packets_in; /* from clients */
	__u64 bytes_in;
	__u64 packets_out; /* from backends */
	__u64 bytes_out;
	__u64 connections; /* opened */
	__u64 drops;
	__u64 no_port;	       /* of these: no SNAT port was free */
	__u64 opening_evicted; /* connections that made room before they became established */
};

/* Whose packets were dropped, and why; a slot of 0 is nobody. */
struct drop_key {
	__u32 service;
	__u32 backend;
	__u32 verdict;
};

enum event_kind {
	EVENT_OPENED = 1,
	EVENT_CLOSED = 2,
	EVENT_DROPPED = 4,
};

/* Why a connection is none any more; llb_core/datapath/events.py has the same names. */
enum end_reason {
	END_FINISHED = 1, /* both sides have closed */
	END_RESET = 2,
	END_IDLE = 3,
	END_BACKEND = 4, /* its backend's connections end */
	END_EVICTED = 5, /* had not become established, and newer ones needed the place */
	END_REUSED = 6,	 /* another connection has its SNAT port, or its client begins anew */
	END_ORDERED = 7, /* by an operator */
};

/* What the ring `events` carries. */
struct event {
	__u64 time; /* nanoseconds of the monotonic clock */
	__u64 bytes_in;
	__u64 bytes_out;
	__u32 packets_in;
	__u32 packets_out;
	__u32 kind;   /* enum event_kind */
	__u32 reason; /* enum end_reason, or of a drop enum verdict */
	__u32 service;
	__u32 backend;
	__u32 ticks;	     /* since it was opened */
	struct flow_key key; /* the packet's that opened it; or of the one dropped */
	struct addr from;    /* our address towards the backend */
	struct addr to;	     /* the backend */
	__be16 from_port;
	__be16 to_port;
};

/* Who listens to `events`: what the daemon has said last. */
struct listening {
	__u32 until; /* ticks */
	__u32 kinds; /* of enum event_kind */
	__u64 lost;  /* events that found the ring full */
};

/* One of the last packets that were dropped by a verdict. */
struct drop_example {
	__u64 time; /* nanoseconds of the monotonic clock */
	__u32 service;
	__u32 backend;
	__u32 ifindex;
	__u32 length; /* of the IP packet, in bytes */
	struct flow_key key;
	__u8 flags; /* of TCP */
	__u8 pad[7];
};

_Static_assert(sizeof(struct flow_key) == 8 + 8 * ADDR_WORDS, "flow_key has padding");
_Static_assert(sizeof(struct nat_entry) == 52 + 12 * ADDR_WORDS + (FAMILY == 6 ? 4 : 0),
	       "nat_entry has padding");
_Static_assert(sizeof(struct fragment_key) == 8 + 8 * ADDR_WORDS, "fragment_key has padding");
_Static_assert(sizeof(struct fragment) == 28 + 12 * ADDR_WORDS, "fragment has padding");
_Static_assert(sizeof(struct service_key) == 4 + 4 * ADDR_WORDS, "service_key has padding");
_Static_assert(sizeof(struct service) == 136 + 4 * ADDR_WORDS, "service has padding");
_Static_assert(sizeof(struct backend) == 24 + 8 * ADDR_WORDS, "backend has padding");
_Static_assert(sizeof(struct places) == 8, "places are not a word");
_Static_assert(sizeof(struct config) ==
		       32 + (8 * MAX_CIDRS + 4 * MAX_SNAT_ADDRESSES) * ADDR_WORDS + 8 * PORT_WORDS,
	       "config has padding");
_Static_assert(sizeof(struct event) == 64 + 16 * ADDR_WORDS, "event has padding");
_Static_assert(sizeof(struct drop_example) == 40 + 8 * ADDR_WORDS, "drop_example has padding");

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	__be32 difference = 0;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		difference |= a->w[i] ^ b->w[i];
	return difference == 0;
}

static __always_inline bool addr_is_zero(const struct addr *a)
{
	__be32 bits = 0;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		bits |= a->w[i];
	return bits == 0;
}

/* The bit of `vip_filter` that an address and a port, in host order, fall on. */
static __always_inline __u32 addr_place(const struct addr *a, __u32 port)
{
	__u32 hash = port * 0x9e3779b1;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		hash = (hash ^ bpf_ntohl(a->w[i])) * 0x9e3779b1;
	return hash / (__u32)((1ULL << 32) / VIP_FILTER_BITS);
}

static __always_inline bool cidr_contains(const struct cidr *cidr, const struct addr *a)
{
	__be32 difference = 0;

#pragma unroll
	for (int i = 0; i < ADDR_WORDS; i++)
		difference |= (a->w[i] & cidr->mask.w[i]) ^ cidr->address.w[i];
	return difference == 0;
}

#endif
