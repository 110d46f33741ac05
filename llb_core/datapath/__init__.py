"""The kernel's side: compiling and loading the classifier, maps, filters, routes, counters.

bcc and pyroute2 are imported here and nowhere else. What needs pyroute2 is fetched when it is asked
for, so that reading pinned maps takes a tenth of a second less to begin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llb_core.datapath.datapath import Datapath, is_installed
    from llb_core.datapath.family import Family

__all__ = ["Datapath", "Family", "is_installed"]

_HOME_OF = {"Datapath": "datapath", "is_installed": "datapath", "Family": "family"}


def __getattr__(name: str) -> Any:
    """Fetch a name from its module (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
