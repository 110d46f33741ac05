"""Say whether an answer of Consul's may be believed, by its headers. Pure.

What is at stake: an answer that is too old, or empty only because the ACL token may not see what
there is, would take backends away that are there.
"""

from __future__ import annotations

from collections.abc import Mapping

from consul import ACLPermissionDenied, ConsulException  # type: ignore[import-untyped]

_INDEX = "X-Consul-Index"
_FILTERED = "X-Consul-Results-Filtered-By-ACLs"
_POLICY = "X-Consul-Default-ACL-Policy"
_LAST_CONTACT = "X-Consul-LastContact"


def check_headers(headers: Mapping[str, str], max_stale: float | None) -> None:
    """Raise ConsulException for an answer that is not whole, or older than `max_stale` seconds."""
    if _INDEX not in headers:
        raise ConsulException(
            "the answer has no X-Consul-Index: it is not Consul that answers: "
            "set url to the agent itself"
        )
    if headers.get(_FILTERED, "").lower() == "true":
        raise ACLPermissionDenied("the ACL token may not see all instances")
    if max_stale is None:
        return
    seconds = int(headers.get(_LAST_CONTACT) or 0) / 1000
    if seconds > max_stale:
        raise ConsulException(
            f"the server that answers has been without the leader for {seconds:g} s "
            f"(max_stale is {max_stale:g} s)"
        )


def is_blind(headers: Mapping[str, str], *, has_token: bool) -> bool:
    """Say whether an empty answer may only mean that nobody may look: Consul does not mark it so
    where no token was sent."""
    return not has_token and headers.get(_POLICY, "").lower() == "deny"
