"""Backends from a file that is watched: the provider `static` of LLB."""

from llb_core import hookimpl
from llb_provider_static.provider import StaticOptions, StaticProvider

__all__ = ["StaticOptions", "StaticProvider", "llb_provider"]


@hookimpl
def llb_provider() -> type[StaticProvider]:
    """Return the provider that this distribution brings."""
    return StaticProvider
