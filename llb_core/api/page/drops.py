"""In words, why a packet is dropped, and what to do about it."""

from __future__ import annotations

_MEANINGS = {
    "no_backend": "No backend of the service takes connections: look at their health.",
    "no_route": "No way to the backend, or back to the client: look at the host's routes.",
    "no_port": "All SNAT ports to a backend are in use: add addresses to snat_addresses.",
    "table_full": "The table of connections is full: raise max_connections, or shorten timeouts.",
    "unknown_answer": "From a backend, to a connection that is over: late packets, mostly.",
    "spoofed": "From outside, with a backend's address as its source.",
    "fragment": "A fragment whose datagram's first one was lost on the way, or comes later.",
    "ttl": "It has passed too many routers, and its sender was told often enough: look for a loop.",
    "too_big": "Larger than the next link takes, and its sender was told often enough.",
    "denied": "The service does not let this source in.",
    "service_full": "The service has as many connections at once as it may.",
    "service_rate": "The service has as many new connections a second as it may.",
    "source_full": "The client has as many connections at once as it may.",
    "source_rate": "The client has as many new connections a second as it may.",
    "stale_error": "An ICMP error was about a segment that is not under way.",
    "extensions": "It has more extension headers of IPv6 than any honest sender.",
    "refuse_ttl": "It has passed too many routers, and its sender was told: look for a loop.",
    "refuse_too_big": "Larger than the next link takes, and its sender was told of it.",
    "ending": "It met its connection while that was made or removed: its sender sends it again.",
    "error": "The kernel refused what it never should: please report it.",
}


def meaning(reason: str) -> str:
    """Return a sentence about a reason for drops; empty where there is none yet."""
    return _MEANINGS.get(reason, "")
