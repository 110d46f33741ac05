"""In words, why a packet is dropped, and what to do about it."""

from __future__ import annotations

_MEANINGS = {
    "no_backend": "No backend of the service takes connections: look at their health.",
    "no_route": "No way to the backend, or back to the client: look at the host's routes.",
    "no_port": "All SNAT ports to a backend are in use: add addresses to snat_addresses.",
    "table_full": "The table of connections is full: raise max_connections, or shorten timeouts.",
    "unknown_answer": "From a backend, to a connection that is over: late packets, mostly.",
    "spoofed": "From outside, with a backend's address as its source.",
    "fragment": "A fragment of a packet: look at the MTU on the way.",
    "ttl": "It has passed too many routers: look for a loop.",
    "too_big": "Larger than the next link takes: look at the MTU towards it.",
    "ending": "It met its connection while that was made or removed: its sender sends it again.",
    "error": "The kernel refused what it never should: please report it.",
}


def meaning(reason: str) -> str:
    """Return a sentence about a reason for drops; empty where there is none yet."""
    return _MEANINGS.get(reason, "")
