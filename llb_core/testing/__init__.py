"""What to test with, for LLB itself and for authors of providers: fakes that hold the rules."""

from llb_core.testing.maps import CutOffError, MemoryMaps

__all__ = ["CutOffError", "MemoryMaps"]
