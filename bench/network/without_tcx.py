"""`llb` on a host whose kernel has no TCX: a link to it is refused, as Linux before 6.6 refuses it.

A script of its own, since there is no key in the configuration that a user would want for this.
"""

from unittest.mock import patch

from llb_core.cli import main
from llb_core.datapath import tcx

if __name__ == "__main__":
    with patch.object(tcx.Links, "attach", return_value=False):
        main()
