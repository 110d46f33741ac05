"""The kernel's side: compiling and loading the classifier, maps, filters, routes, counters.

bcc and pyroute2 are imported here and nowhere else.
"""

from llb_core.datapath.datapath import Datapath, is_installed
from llb_core.datapath.family import Family

__all__ = ["Datapath", "Family", "is_installed"]
