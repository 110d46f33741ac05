"""`make bench`: measure, and write tables in Markdown.

make bench                                    everything
make bench ARGS="network --repetitions 9"     LLB beside plain forwarding and nftables
make bench ARGS=schedulers                    shares by weight, and what moves (no root)
make bench ARGS=program-time                  nanoseconds a packet
make bench ARGS="reactions --repetitions 9"   how soon a change is in the maps; memory
make bench ARGS=collection                    a pass over a million connections, with traffic
make bench ARGS=providers                     ten thousand backends; providers that hang
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence

from bench import collection, program_time, providers, reactions, schedulers, through_namespaces
from llb_core.errors import LLBError

WAYS = ("plain", "nftables", "llb")


def network(arguments: Sequence[str]) -> None:
    """Measure real traffic through namespaces, and print a table."""
    parser = argparse.ArgumentParser("bench network", description=through_namespaces.__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1, help="for each figure")
    parser.add_argument("--load", help="only the loads whose name contains this")
    parser.add_argument("--ways", default=",".join(WAYS), help="some of " + ",".join(WAYS))
    chosen = parser.parse_args(arguments)
    loads = [load for load in through_namespaces.LOADS if (chosen.load or "") in load.name]
    ways = chosen.ways.split(",")
    results = through_namespaces.measure(
        ways, loads, chosen.repetitions, chosen.seconds, lambda line: print(line, file=sys.stderr)
    )
    print(through_namespaces.table(results, loads, ways))
    print(
        f"\nLinux {platform.release()}, {os.cpu_count()} CPUs; medians of {chosen.repetitions} "
        f"repetitions of {chosen.seconds:g} s in turn, in brackets the least and the most."
    )


def react(arguments: Sequence[str]) -> None:
    """Measure how soon the daemon reacts, and print a table."""
    parser = argparse.ArgumentParser("bench reactions", description=reactions.__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args(arguments)
    found = reactions.measure(chosen.repetitions, lambda line: print(line, file=sys.stderr))
    print(reactions.table(found))


def provide(arguments: Sequence[str]) -> None:
    """Measure many backends, and print a table."""
    parser = argparse.ArgumentParser("bench providers", description=providers.__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--part", default="", help="only parts whose name contains this")
    chosen = parser.parse_args(arguments)
    found = providers.measure(
        chosen.repetitions, chosen.part, lambda line: print(line, file=sys.stderr)
    )
    print(reactions.table(found))


def collect(arguments: Sequence[str]) -> None:
    """Measure passes of collection, and print a table."""
    parser = argparse.ArgumentParser("bench collection", description=collection.__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--connections", type=int, default=collection.CONNECTIONS)
    chosen = parser.parse_args(arguments)
    print(collection.measure(chosen.repetitions, chosen.connections))


def main() -> None:
    """Run what the first argument names, or everything."""
    which, *rest = sys.argv[1:] or ["all"]
    try:
        match which:
            case "network":
                network(rest)
            case "program-time":
                sys.argv[:] = ["bench program-time", *rest]
                program_time.main()
            case "schedulers":
                print(schedulers.tables())
            case "reactions":
                react(rest)
            case "collection":
                collect(rest)
            case "providers":
                provide(rest)
            case "all":
                network(rest)
                print()
                react([])
                print()
                provide([])
                print()
                collect([])
                print()
                sys.argv[:] = ["bench program-time"]
                program_time.main()
            case _:
                sys.exit(__doc__)
    except LLBError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
