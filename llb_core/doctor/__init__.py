"""Look for what LLB lacks on this host, and name the remedy: `host`, `network`, `backends`.

Each of these looks at one side, and yields a finding for each thing that it looked at. Nothing is
changed here.
"""

from llb_core.doctor.finding import Finding, State

__all__ = ["Finding", "State"]
