"""What there is to draw steps from, for hypothesis and for whoever walks at random alike.

A small world, so that everything meets: few clients and ports, two services that share a backend's
endpoint, and fewer SNAT ports than connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st

from llb_core.model import BackendMode, Policy, Scheduler
from tests.bpf.harness import world
from tests.bpf.harness.packets import MORE_FRAGMENTS
from tests.bpf.harness.world import BACKEND, SECOND, UNROUTABLE, VIP
from tests.bpf.steps import (
    BACKENDS,
    SERVICES,
    Burst,
    Collection,
    Conversation,
    FromBackend,
    FromClient,
    FromStranger,
    IcmpError,
    InPieces,
    LaterFragment,
    Modes,
    PlanIsCarriedOut,
    PlanIsCutOff,
    Policies,
    Segment,
    TimePasses,
)


@dataclass(frozen=True, slots=True)
class Made:
    """Something made of parts, each of which is drawn from its own choices."""

    make: Callable[..., Any]
    parts: tuple[Choices, ...]


Choices = Sequence[Any] | Made


def strategy(choices: Choices) -> st.SearchStrategy[Any]:
    """Return what hypothesis draws by."""
    if isinstance(choices, Made):
        return st.builds(choices.make, *map(strategy, choices.parts))
    return st.sampled_from(choices)


def draw(choices: Choices, random: Random) -> Any:
    """Draw one at random."""
    if isinstance(choices, Made):
        return choices.make(*(draw(each, random) for each in choices.parts))
    return random.choice(choices)


def _together(*parts: Any) -> tuple[Any, ...]:
    return parts


def _prefixes(*is_let_in: bool | None) -> Mapping[str, bool]:
    """Of clients: those that are let in or not; None for one that nothing is said of."""
    said = zip(PREFIXES, is_let_in, strict=True)
    return {prefix: allows for prefix, allows in said if allows is not None}


CLIENTS = ("192.0.2.10", "192.0.2.11", "192.0.2.12", SECOND, UNROUTABLE)
CLIENT_PORTS = (2000, 2001, 2002, 40000, 40001)
SEQUENCE = (999, 1000, 1001)
FAR = (1000 + 2**20, (1000 - 2**20) % 2**32, 1000 + 2**31, 0)
"""Numbers that are nobody's, or wrap."""
FLAGS = ("S", "S", "SA", "A", "A", "PA", "FA", "FA", "F", "R", "RA", "SF", "")
PREFIXES = ("192.0.2.10/31", "192.0.2.8/29", "192.0.2.0/24", "192.0.2.11", "10.0.0.0/8",
            "0.0.0.0/0", "198.18.0.0/15", "10.0.0.3/32")  # fmt: skip
ENDINGS = ("", "", "c", "b", "C", "B", "r", "CBc", "BCb", "CbBc", "BcCb", "CB", "BC", "Cr", "Br",
           "CBr", "rb")  # fmt: skip

PLAIN: Policies = (Policy(),) * len(SERVICES)
ALL_ACTIVE: Modes = ((BackendMode.ACTIVE, BackendMode.ACTIVE),) * len(SERVICES)

SNAT_PORTS = ((2000, 2000), (2000, 2001), (2000, 2003), (2000, 2007))
SNAT_ADDRESSES = range(1, 4)
POLICIES = Made(
    _together,
    (Made(Policy, (tuple(Scheduler), (24, 31, 32), (0.0, 10.0))),) * len(SERVICES),
)
_WANTED_MODES = (BackendMode.ACTIVE, BackendMode.DRAINING, BackendMode.ENDING, None)
_MODES = Made(
    _together,
    (Made(_together, (_WANTED_MODES,) * len(BACKENDS)),) * len(SERVICES),
)
_RULES = Made(
    _together,
    (Made(_prefixes, ((None, None, True, False),) * len(PREFIXES)),) * len(SERVICES),
)
_SERVED = Made(_together, ((True, True, True, False),) * len(SERVICES))
_SEGMENTS = Made(
    Segment,
    (
        FLAGS,
        SEQUENCE * 3 + FAR,
        SEQUENCE * 3 + FAR,
        (0, 0, 1, 1460, 1473),
        (64, 64, 64, 64, 2, 1),
        (0, 0, 0, 0, 0, 2, MORE_FRAGMENTS),
        (0,) * 14 + (6, 7),
    ),
)
_ANY = range(16)
_ANY_SERVICE = range(len(SERVICES))

PACKETS = (
    Made(LaterFragment, (CLIENTS, (VIP, world.SNAT), (6, 17), (8, 1480, 1488, 1488),
                         (64, 64, 64, 1), (True, False))),
    Made(InPieces, (CLIENTS, CLIENT_PORTS, (8, 1488))),
    Made(IcmpError, (_ANY, (True, False), (None, None, BACKEND, "192.0.2.1"), range(8),
                     (8, 17, 18, 24), (64, 64, 64, 1), (True, True, False))),
    Made(FromClient, (CLIENTS, CLIENT_PORTS, _ANY_SERVICE, _SEGMENTS)),
    Made(FromClient, (CLIENTS, CLIENT_PORTS, _ANY_SERVICE, (Segment("S", 999, 0),))),
    Made(Burst, (CLIENTS, _ANY_SERVICE)),
    Made(Conversation, (CLIENTS, CLIENT_PORTS, range(2), ENDINGS)),
    Made(FromBackend, (_ANY, _SEGMENTS)),
    Made(FromBackend, (_ANY, _SEGMENTS)),
    Made(FromStranger, ((*BACKENDS, "10.0.0.77"), (6, 17), range(1998, 2007), _SEGMENTS)),
)  # fmt: skip
CHANGES = (
    Made(TimePasses, ((0.004, 0.5, 1, 3, 5, 6, 10, 30, 59, 60, 7200),)),
    Made(TimePasses, ((1, 5, 10, 60),)),
    Made(Collection, ()),
    Made(PlanIsCutOff, (BACKENDS, (8080, 5353), tuple(BackendMode), (True, False))),
    Made(PlanIsCarriedOut, (_MODES, POLICIES, _RULES, _SERVED)),
)
STEPS = st.one_of(*map(strategy, PACKETS + CHANGES))
