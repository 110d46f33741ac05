"""The hooks that a plugin implements, by pluggy.

A distribution names a module in the entry-point group `llb`; the entry point's name is the word in
the configuration. Only the module that the configuration names is imported.
"""

from __future__ import annotations

from typing import Any

import pluggy

from llb_core.provider import Provider

PROJECT = "llb"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def llb_provider() -> type[Provider[Any]]:  # type: ignore[empty-body]
    """Return the class of the provider that this plugin brings."""
