/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * verdict.h - what became of a packet, and why. One verdict a packet, counted once, at the one
 * exit. llb_core/datapath/layout.py holds the same names, and a test compares the two.
 */
#ifndef LLB_VERDICT_H
#define LLB_VERDICT_H

enum verdict {
	/* Left as it came, but for tags of VLAN 0: the stack, and other filters, go on with it. */
	PASS_NOT_OURS,	    /* neither a service nor a connection of ours */
	PASS_UNPARSED,	    /* not for us to understand: other protocols, VLANs, malformed */
	PASS_NO_CONNECTION, /* TCP to a service, no opening segment: the stack resets it */
	PASS_HOST_SOCKET,   /* from a backend to a socket of the host itself */

	/* Rewritten whole, and sent on. */
	FORWARD_NEW,	    /* a client's first packet */
	FORWARD_TO_BACKEND, /* a client's */
	FORWARD_TO_CLIENT,  /* a backend's */
	FORWARD_ERROR,	    /* an ICMP error about a connection, to the end that it concerns */

	/* Not sent on; its sender was told by ICMP. */
	REFUSE_TTL,	/* as DROP_TTL */
	REFUSE_TOO_BIG, /* as DROP_TOO_BIG */

	DROP_NO_BACKEND,     /* the service has no backend that takes new connections */
	DROP_NO_ROUTE,	     /* no way to the backend or back to the client */
	DROP_NO_PORT,	     /* no SNAT port is free for this backend */
	DROP_TABLE_FULL,     /* max_connections reached */
	DROP_UNKNOWN_ANSWER, /* from a backend to a SNAT port: in no table, no socket */
	DROP_SPOOFED,	     /* a backend's address as source, on a public interface */
	DROP_FRAGMENT,	     /* for a VIP, and its datagram's first fragment is not known */
	DROP_TTL,	     /* time to live at its end, and its sender was not told */
	DROP_TOO_BIG,	     /* larger than the next link takes, likewise */
	DROP_ENDING,	     /* met its connection while it was made, carried over or removed */
	DROP_ERROR,	     /* a helper failed where none should */
	DROP_DENIED,	     /* the service does not let its source in */
	DROP_SERVICE_FULL,   /* the service has as many connections as it may */
	DROP_SERVICE_RATE,   /* ... as many new ones this second */
	DROP_SOURCE_FULL,    /* the source has as many connections to the service as it may */
	DROP_SOURCE_RATE,    /* ... as many new ones this second */
	DROP_STALE_ERROR,    /* an ICMP error about a segment that can't be under way */
	DROP_EXTENSIONS,     /* for us, and behind more extension headers or tags than are read */
	VERDICTS,
};

static __always_inline bool verdict_is_pass(enum verdict verdict)
{
	return verdict <= PASS_HOST_SOCKET;
}

static __always_inline bool verdict_is_forward(enum verdict verdict)
{
	return verdict >= FORWARD_NEW && verdict <= FORWARD_ERROR;
}

static __always_inline bool verdict_is_refuse(enum verdict verdict)
{
	return verdict == REFUSE_TTL || verdict == REFUSE_TOO_BIG;
}

#endif
