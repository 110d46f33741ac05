"""The command line: one module for each group of commands. It asks, and shows; it decides nothing.

Exit codes: 0 done, 1 it failed, 2 the call or the configuration is wrong.
"""

from __future__ import annotations

import sys

from llb_core.errors import LLBError


def main() -> None:
    """Run the command that the process was called with."""
    from llb_core.cli.app import app

    try:
        app()
    except LLBError as error:
        for line in str(error).splitlines():
            print(f"llb: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # Whoever read our output has gone; so has the need for it.
        sys.exit(1)
