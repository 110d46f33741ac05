/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * limits.h - every size that bounds a map or a loop. Each can be overridden by -D; user space does
 * so from llb_core/datapath/layout.py, which holds the same numbers.
 */
#ifndef LLB_LIMITS_H
#define LLB_LIMITS_H

#ifndef MAX_CONNECTIONS
#define MAX_CONNECTIONS 1000000
#endif
#ifndef MAX_SERVICES
#define MAX_SERVICES 4096
#endif
#ifndef MAX_BACKENDS
#define MAX_BACKENDS 32768
#endif
/* Of the filter of VIPs; a power of two. */
#ifndef VIP_FILTER_BITS
#define VIP_FILTER_BITS 32768
#endif
/* Backend networks: searched one by one for every packet, so few. */
#ifndef MAX_CIDRS
#define MAX_CIDRS 16
#endif
/* Clients, each of one service, whose connections are counted for that service's limits. */
#ifndef MAX_SOURCES
#define MAX_SOURCES 65536
#endif
/* Prefixes of clients that are allowed or denied, of all services; while they change, old and new. */
#ifndef MAX_RULES
#define MAX_RULES 1048576
#endif
/* Services and backends that packets were dropped of, each for its own reasons. */
#ifndef MAX_DROP_COUNTERS
#define MAX_DROP_COUNTERS 65536
#endif
/* Words of 64 bits, one bit for each port. */
#define PORT_WORDS 1024
/* Our addresses on the private side; a power of two. */
#ifndef MAX_SNAT_ADDRESSES
#define MAX_SNAT_ADDRESSES 16
#endif
/* Tries for a SNAT port: at 90 % of the range in use 128 of them fail once in 700,000 times. */
#ifndef MAX_PORT_TRIES
#define MAX_PORT_TRIES 128
#endif
/* The last packets dropped by each verdict that are kept, a CPU; a power of two. */
#ifndef DROP_EXAMPLES
#define DROP_EXAMPLES 4
#endif
/* After so many of them the oldest opening connection is taken over, if most tuples met are such. */
#ifndef PRESSED_PORT_TRIES
#define PRESSED_PORT_TRIES 16
#endif
/* Connections that have not become established, at once: the places of `opening_ring`. */
#ifndef OPENING_PLACES
#define OPENING_PLACES 262144
#endif
/* Where the tables are full, so many of these are searched, and so many give way. */
#ifndef OPENING_SEARCH
#define OPENING_SEARCH 4
#endif
#ifndef OPENING_ROOM
#define OPENING_ROOM 4
#endif
/* Ways to clients that are remembered, a CPU; a power of two. */
#ifndef FORWARD_WAYS
#define FORWARD_WAYS 256
#endif
/* How far ahead of what was seen a sequence number is believed, in bytes: a power of two. */
#ifndef CT_WINDOW
#define CT_WINDOW (1 << 20)
#endif
/* ... and of what the other side has acknowledged, where more went by than was seen. */
#ifndef CT_FAR_WINDOW
#define CT_FAR_WINDOW (1 << 24)
#endif
/*
 * Connections that one run of the collector is handed, and one that also hands back what it ends:
 * bounded by the jumps that the verifier follows in a row.
 */
#ifndef MAX_COLLECT
#define MAX_COLLECT 32
#endif
#ifndef MAX_END
#define MAX_END 12
#endif
/* Tags of VLAN 0 in a frame, not counting the one that the kernel keeps beside it. */
#ifndef MAX_TAGS
#define MAX_TAGS 2
#endif
/* Datagrams in pieces whose first fragment has come by. */
#ifndef MAX_FRAGMENTS
#define MAX_FRAGMENTS 8192
#endif
/* How long a first fragment's note holds (RFC 791, 3.2). */
#ifndef FRAGMENT_SECONDS
#define FRAGMENT_SECONDS 15
#endif
/* How long connections may be missing while those of earlier maps are copied into these. */
#ifndef CARRYING_SECONDS
#define CARRYING_SECONDS 10
#endif
/* ICMP errors that we send: a second, in all and to one address; and for how many addresses. */
#ifndef REFUSALS_PER_SECOND
#define REFUSALS_PER_SECOND 2000
#endif
#ifndef REFUSALS_PER_ADDRESS
#define REFUSALS_PER_ADDRESS 50
#endif
#ifndef REFUSAL_BUCKETS
#define REFUSAL_BUCKETS 4096
#endif

#endif
