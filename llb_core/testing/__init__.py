"""What to test with, for LLB itself and for authors of providers.

`ProviderContract` is the contract of a provider as a test suite, and needs pytest; `MemoryBalancer`
is a balancer in memory to try a provider with; the rest are fakes that hold the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llb_core.testing.balancer import MemoryBalancer
from llb_core.testing.driven import Driven
from llb_core.testing.fakes import Clock, FakeProvider, some_backends
from llb_core.testing.maps import CutOffError, MemoryMaps
from llb_core.testing.waiting import Calling, until

if TYPE_CHECKING:
    from llb_core.testing.contract import ProviderContract

__all__ = [
    "Calling",
    "Clock",
    "CutOffError",
    "Driven",
    "FakeProvider",
    "MemoryBalancer",
    "MemoryMaps",
    "ProviderContract",
    "some_backends",
    "until",
]


def __getattr__(name: str) -> Any:
    """Import the contract when it is asked for, so that the rest can be had without pytest."""
    if name != "ProviderContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite("llb_core.testing.contract")
    from llb_core.testing.contract import ProviderContract

    return ProviderContract
