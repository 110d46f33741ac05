"""Bring connections into a state, by the packets that do so in life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from scapy.packet import Packet

from tests.bpf.harness.packets import from_backend, from_client, question, reply
from tests.bpf.harness.rig import Outcome
from tests.bpf.harness.world import PRIVATE, Interface


class Sender(Protocol):
    """What takes packets: a `Rig`, or one beside a model."""

    def send(self, packet: Packet, arrives_on: Interface = ...) -> Outcome:
        """Take a packet that comes by an interface."""


Given = Callable[[Sender], None]

ISN = 999
"""The sequence number of each side's SYN, so that its data begin at 1000."""


def nothing(rig: Sender) -> None:
    """No connection."""


def opening(rig: Sender) -> None:
    """The client's SYN."""
    rig.send(from_client("S", seq=ISN, ack=0))


def answered(rig: Sender) -> None:
    """SYN, SYN+ACK."""
    opening(rig)
    rig.send(from_backend("SA", seq=ISN, ack=1000), PRIVATE)


def established(rig: Sender) -> None:
    """The whole handshake."""
    answered(rig)
    rig.send(from_client("A", seq=1000, ack=1000))


def client_half_closed(rig: Sender) -> None:
    """The client has sent its FIN."""
    established(rig)
    rig.send(from_client("FA", seq=1000, ack=1000))


def backend_half_closed(rig: Sender) -> None:
    """The backend has sent its FIN."""
    established(rig)
    rig.send(from_backend("FA", seq=1000, ack=1000), PRIVATE)


def closing(rig: Sender) -> None:
    """Both have sent FIN, the client first; the last ACK is still to come."""
    client_half_closed(rig)
    rig.send(from_backend("FA", seq=1000, ack=1001), PRIVATE)


def closed_by_client(rig: Sender) -> None:
    """Closed in order, by the client first."""
    closing(rig)
    rig.send(from_client("A", seq=1001, ack=1001))


def closed_by_backend(rig: Sender) -> None:
    """Closed in order, by the backend first."""
    backend_half_closed(rig)
    rig.send(from_client("FA", seq=1000, ack=1001))
    rig.send(from_backend("A", seq=1001, ack=1001), PRIVATE)


def reset_by_client(rig: Sender) -> None:
    """Reset by the client."""
    established(rig)
    rig.send(from_client("R", seq=1000))


def reset_by_backend(rig: Sender) -> None:
    """Reset by the backend."""
    established(rig)
    rig.send(from_backend("R", seq=1000), PRIVATE)


def asked(rig: Sender) -> None:
    """A datagram of the client."""
    rig.send(question())


def replied(rig: Sender) -> None:
    """A datagram of the client and one of the backend."""
    asked(rig)
    rig.send(reply(), PRIVATE)


def backend_in_a_hurry(rig: Sender) -> None:
    """The backend closes before the client's ACK of the handshake has come by."""
    answered(rig)
    rig.send(from_backend("FA", seq=1000, ack=1000), PRIVATE)
    rig.send(from_client("A", seq=1000, ack=1001))


def crossed_fins(rig: Sender) -> None:
    """Both have sent FIN before either heard the other's."""
    client_half_closed(rig)
    rig.send(from_backend("FA", seq=1000, ack=1000), PRIVATE)


def reset_while_opening(rig: Sender) -> None:
    """The client gives up before anybody has answered."""
    opening(rig)
    rig.send(from_client("R", seq=1000))


def reset_while_closing(rig: Sender) -> None:
    """The client resets after both have sent FIN."""
    closing(rig)
    rig.send(from_client("R", seq=1001))


def alive_after_reset(rig: Sender) -> None:
    """The backend did not take the client's reset for good: it goes on."""
    reset_by_client(rig)
    rig.send(from_backend("A", b"more", seq=1000, ack=1000), PRIVATE)
