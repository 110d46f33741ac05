"""Each verdict in words: what it means, and what to do about it."""

from __future__ import annotations

from llb_core.datapath.layout import Verdict

MEANINGS: dict[Verdict, tuple[str, str]] = {
    Verdict.PASS_NOT_OURS: ("left to the host: for no service, and of no connection", ""),
    Verdict.PASS_UNPARSED: (
        "left to the host: neither TCP nor UDP, of a VLAN, broadcast or multicast, or malformed",
        "",
    ),
    Verdict.PASS_NO_CONNECTION: (
        "left to the host, which resets it: of no connection, and it opens none",
        "",
    ),
    Verdict.PASS_HOST_SOCKET: ("left to the host, which has a socket for it", ""),
    Verdict.FORWARD_NEW: ("opens a connection, and goes to a backend", ""),
    Verdict.FORWARD_TO_BACKEND: ("goes to the backend of its connection", ""),
    Verdict.FORWARD_TO_CLIENT: ("goes to the client of its connection", ""),
    Verdict.FORWARD_ERROR: ("an ICMP error, which goes to the end that it concerns", ""),
    Verdict.REFUSE_TTL: (
        "its time to live is at its end, and its sender was told",
        "look for a routing loop, or for a sender with a low time to live (traceroute is one)",
    ),
    Verdict.REFUSE_TOO_BIG: (
        "larger than the next link takes, and its sender was told to send smaller ones",
        "nothing, if it stops: that is path-MTU discovery; else let ICMP pass to the sender",
    ),
    Verdict.DROP_NO_BACKEND: (
        "no backend of the service takes new connections",
        "llb backends says why: unhealthy, drained, disabled, of weight 0, or none registered",
    ),
    Verdict.DROP_NO_ROUTE: (
        "the kernel has no route to the backend or back to the client",
        "ip route get ADDRESS; and net.ipv4.ip_forward must be 1 (llb doctor)",
    ),
    Verdict.DROP_NO_PORT: (
        "no SNAT port is free for this backend",
        "add snat_addresses: each gives some 31,000 connections to each backend",
    ),
    Verdict.DROP_TABLE_FULL: (
        "the tables are full: max_connections is reached",
        "raise loadbalancer.max_connections; llb connections --sort idle shows who holds them",
    ),
    Verdict.DROP_UNKNOWN_ANSWER: (
        "from a backend, of a connection that is known no more",
        "a few are normal; many: compare the backends' idle times with the service's timeouts",
    ),
    Verdict.DROP_SPOOFED: (
        "it has a backend's address as its source, and came by a public interface",
        "find who sends it; or backend_cidrs holds more than the backends' networks",
    ),
    Verdict.DROP_FRAGMENT: (
        "a fragment whose datagram's first fragment is not known, or ends before its ports",
        "fragments are lost or reordered on the way here; smaller datagrams are not fragmented",
    ),
    Verdict.DROP_TTL: (
        "its time to live is at its end, and its sender has been told often enough",
        "look for a routing loop",
    ),
    Verdict.DROP_TOO_BIG: (
        "larger than the next link takes, and its sender has been told often enough",
        "let ICMP pass to the sender, or lower the MTU on its side",
    ),
    Verdict.DROP_ENDING: (
        "it met its connection while that was being made, carried over or removed",
        "nothing: it is sent again",
    ),
    Verdict.DROP_DENIED: (
        "the service does not let its source in",
        "nothing, if that is meant; else look at the service's allow, deny and the files beside",
    ),
    Verdict.DROP_SERVICE_FULL: (
        "the service has as many connections as it may",
        "raise limits.connections of the service, or see by llb connections who holds them",
    ),
    Verdict.DROP_SERVICE_RATE: (
        "the service has as many new connections this second as it may",
        "raise limits.new_per_second of the service, or see by llb top who opens them",
    ),
    Verdict.DROP_SOURCE_FULL: (
        "its source has as many connections to the service as it may",
        "raise limits.source_connections of the service, if the client is honest",
    ),
    Verdict.DROP_SOURCE_RATE: (
        "its source has as many new connections to the service this second as it may",
        "raise limits.source_new_per_second of the service, if the client is honest",
    ),
    Verdict.DROP_STALE_ERROR: (
        "an ICMP error about a segment that is not under way",
        "somebody may be guessing connections, or an error came very late",
    ),
    Verdict.DROP_EXTENSIONS: (
        "it has more extension headers (six, in 232 bytes) or tags of VLAN 0 (three) than are read",
        "nothing: no honest sender has so many",
    ),
    Verdict.DROP_ERROR: (
        "a helper of the kernel failed where none should",
        "please report it, with the kernel's version",
    ),
}


def meaning(verdict: Verdict) -> str:
    """Say what became of a packet."""
    return MEANINGS[verdict][0]


def remedy(verdict: Verdict) -> str:
    """Say what to do about it; empty where nothing is wrong."""
    return MEANINGS[verdict][1]
