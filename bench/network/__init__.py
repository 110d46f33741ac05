"""LLB beside other ways from a client to a backend, with real traffic, all in one run.

Each way has a client, a host in the middle and a backend of its own, joined by two veth cables;
loads and ways take turns, repetition after repetition, and the medians are compared. Needs root,
makes namespaces and removes them.
"""

from bench.network.loads import LOADS
from bench.network.tables import tables
from bench.network.turns import KINDS, measure

__all__ = ["KINDS", "LOADS", "measure", "tables"]
