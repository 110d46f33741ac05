"""Backends from a service in Consul: the provider `consul` of LLB."""

from llb_core import hookimpl
from llb_provider_consul.options import ConsulOptions
from llb_provider_consul.provider import ConsulProvider

__all__ = ["ConsulOptions", "ConsulProvider", "llb_provider"]


@hookimpl
def llb_provider() -> type[ConsulProvider]:
    """Return the provider that this distribution brings."""
    return ConsulProvider
