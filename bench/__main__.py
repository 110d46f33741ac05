"""`make bench`: measure, and write tables in Markdown.

make bench                                    everything
make bench ARGS="network --repetitions 9"     LLB beside nftables, HAProxy, nginx and others
make bench ARGS=schedulers                    shares by weight, and what moves (no root)
make bench ARGS=program-time                  nanoseconds a packet
make bench ARGS="program-time --against 3e962e7"   beside an earlier commit, or no-events
make bench ARGS="reactions --repetitions 9"   how soon a change is in the maps; memory
make bench ARGS=collection                    a pass over a million connections, with traffic
make bench ARGS=providers                     ten thousand backends; providers that hang
make bench ARGS=observing                     a million connections listed; 1,000 services; the page
make bench ARGS=million                       requests and transfers beside a million connections
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import date

from bench import (
    collection,
    million,
    network,
    observing,
    page,
    program_time,
    providers,
    reactions,
    schedulers,
)
from llb_core.errors import LLBError


def compare(arguments: Sequence[str]) -> None:
    """Measure real traffic through namespaces, and print tables."""
    known = ",".join(network.KINDS)
    parser = argparse.ArgumentParser("bench network", description=network.__doc__)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1, help="for each figure")
    parser.add_argument("--load", default="", help="only the loads whose name contains this")
    parser.add_argument("--ways", default=known, help=f"some of {known}")
    chosen = parser.parse_args(arguments)
    loads = [load for load in network.LOADS if chosen.load in load.name]
    if not loads:
        parser.error(f"no load's name contains {chosen.load!r}")
    if unknown := [way for way in chosen.ways.split(",") if way not in network.KINDS]:
        parser.error(f"there is no way {', '.join(unknown)}: {known}")
    results = network.measure(
        [network.KINDS[way] for way in chosen.ways.split(",")],
        loads,
        chosen.repetitions,
        chosen.seconds,
        _say,
    )
    print(network.tables(results, loads))
    print(
        f"\n{date.today()}, Linux {platform.release()}, {os.cpu_count()} CPUs; medians of "  # noqa: DTZ011
        f"{chosen.repetitions} repetitions of {chosen.seconds:g} s in turn, in brackets the least "
        "and the most."
    )


def react(arguments: Sequence[str]) -> None:
    """Measure how soon the daemon reacts, and print a table."""
    parser = argparse.ArgumentParser("bench reactions", description=reactions.__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args(arguments)
    found = reactions.measure(chosen.repetitions, _say)
    print(reactions.table(found))


def provide(arguments: Sequence[str]) -> None:
    """Measure many backends, and print a table."""
    parser = argparse.ArgumentParser("bench providers", description=providers.__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--part", default="", help="only parts whose name contains this")
    chosen = parser.parse_args(arguments)
    found = providers.measure(chosen.repetitions, chosen.part, _say)
    print(reactions.table(found))


def collect(arguments: Sequence[str]) -> None:
    """Measure passes of collection, and print a table."""
    parser = argparse.ArgumentParser("bench collection", description=collection.__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--connections", type=int, default=collection.CONNECTIONS)
    chosen = parser.parse_args(arguments)
    print(collection.measure(chosen.repetitions, chosen.connections))


def observe(arguments: Sequence[str]) -> None:
    """Measure what it takes to see what goes on, and print a table."""
    parser = argparse.ArgumentParser("bench observing", description=observing.__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--connections", type=int, default=observing.CONNECTIONS)
    parser.add_argument("--services", type=int, default=observing.SERVICES)
    chosen = parser.parse_args(arguments)
    found = observing.measure(
        chosen.repetitions,
        _say,
        connections=chosen.connections,
        services=chosen.services,
    )
    print(observing.table(found))
    print()
    print(page.table(page.measure(_say)))


def ask_beside_a_million(arguments: Sequence[str]) -> None:
    """Measure real traffic beside a million connections, and print a table."""
    parser = argparse.ArgumentParser("bench million", description=million.__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--connections", type=int, default=million.CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=3, help="for each thing, each time")
    chosen = parser.parse_args(arguments)
    found = million.measure(
        chosen.repetitions,
        _say,
        connections=chosen.connections,
        seconds=chosen.seconds,
    )
    print(million.table(found))


def _say(line: str) -> None:
    """Print a figure as soon as it is there, beside the table that comes in the end."""
    print(line, file=sys.stderr)


def main() -> None:
    """Run what the first argument names, or everything."""
    which, *rest = sys.argv[1:] or ["all"]
    try:
        match which:
            case "network":
                compare(rest)
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
            case "observing":
                observe(rest)
            case "million":
                ask_beside_a_million(rest)
            case "all":
                compare(rest)
                print()
                react([])
                print()
                provide([])
                print()
                collect([])
                print()
                observe([])
                print()
                ask_beside_a_million([])
                print()
                sys.argv[:] = ["bench program-time"]
                program_time.main()
            case _:
                sys.exit(__doc__)
    except LLBError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
