"""What happens in a soak: changes that an operator makes, and faults. Each returns when it is over.

A happening that may fail requests says so; `docs/failure-modes.md` says why. During all others none
may fail.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llb_core.datapath import bpf_syscall
from llb_core.datapath.bpf_map import MapWriter
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.soak.world import FAMILIES, World

ALONE = "b4"
"""Is left alone, so that there is always one that serves."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happens, and what it may do to requests."""

    run: Callable[[World], str]
    may_fail: bool = False
    ends_daemon: bool = False


def backends_come_and_go(world: World) -> str:
    others = {"b1", "b2", "b3"}
    kept = {each for each in sorted(others) if world.random.random() < 0.6}
    world.wanted.registered = {*kept, ALONE}
    world.write_backends()
    return ", ".join(sorted(world.wanted.registered))


def weights_change(world: World) -> str:
    names = [each.name for each in world.hosts.backends]
    world.wanted.weights = {each: world.random.randint(1, 9) for each in names}
    world.write_backends()
    return str(world.wanted.weights)


def a_backend_falls_ill_or_gets_well(world: World) -> str:
    """It serves on, so that no request fails."""
    backend = _some(world)
    backend.turn()
    world.wanted.ill ^= {backend.name}
    return f"{backend.name} is {'ill' if backend.name in world.wanted.ill else 'well'}"


def a_backend_is_drained_or_not(world: World) -> str:
    backend = _some(world)
    if backend.name not in world.wanted.registered:
        return f"{backend.name} is not registered"
    order = "undrain" if backend.name in world.wanted.drained else "drain"
    for family in FAMILIES:
        world.orders.give(order, lab.ADDRESSES[family].backend(backend.number))
    world.wanted.drained ^= {backend.name}
    return f"{order} {backend.name}"


def the_configuration_is_reloaded(world: World) -> str:
    world.wanted.has_extra_service = not world.wanted.has_extra_service
    world.wanted.established = world.random.randint(30, 120)
    world.write_config()
    world.orders.give("reload")
    return "with one more service" if world.wanted.has_extra_service else "with one service less"


def a_wrong_configuration_is_refused(world: World) -> str:
    good = world.balancer.config.read_text()
    lab.replace(world.balancer.config, good + "\n[services.web.helth]\n")
    said = world.orders.give("reload", code=2)
    lab.replace(world.balancer.config, good)
    if "helth" not in said:
        world.findings.append(f"a wrong configuration was refused for something else: {said}")
    return said[-60:]


def a_providers_file_is_garbage(world: World) -> str:
    path = world.balancer.folder / "backends.toml"
    lab.replace(path, world.random.choice(["[[backends", "\0\0\0", "x = 1\n", "[[backends]]\n"]))
    wait_until(
        lambda: any(each["error"] for each in _sources(world)), lab.LIMIT, "the garbage is seen"
    )
    world.settle()
    world.write_backends()
    wait_until(lambda: not any(each["error"] for each in _sources(world)), lab.LIMIT, "it is well")
    return "and the last good answer serves"


def the_disk_is_full(world: World) -> str:
    full = world.orders_folder / "full"
    with contextlib.suppress(OSError), full.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    said = world.orders.give("weight", lab.ADDRESSES[4].backend(14), "7", code=1)
    full.unlink()
    if "can't be kept" not in said:
        world.findings.append(f"an order that can't be kept was refused for something else: {said}")
    return said[-60:]


def the_pins_of_the_links_are_removed(world: World) -> str:
    count = len(_links(world))
    for path in _links(world):
        path.unlink()
    wait_until(lambda: len(_links(world)) == count, lab.LIMIT, "they are there again")
    return f"{count} of them"


def a_link_is_detached(world: World) -> str:
    path = world.random.choice(_links(world))
    link = bpf_syscall.obj_get(path)
    bpf_syscall.link_detach(link)
    os.close(link)
    wait_until(lambda: _hangs(path), lab.LIMIT, "it hangs again")
    return path.name


def a_map_is_flushed(world: World) -> str:
    family = world.random.choice(FAMILIES)
    with world.hosts.lb.entered(), world.reading() as reading:
        maps = reading.families[family].maps
        keys, backends = (MapWriter.of(maps[name]) for name in ("service_keys", "backends"))
        there = keys.read_all()[0]
        for key in there:
            keys.delete(key)
        slots = np.arange(backends.spec.entries, dtype=np.uint32)
        backends.update_batch(slots, np.zeros(len(slots), dtype=backends.spec.value))
        wait_until(lambda: len(keys.read_all()[0]) == len(there), lab.LIMIT, "it is written anew")
    return f"{len(there)} services of IPv{family}"


def a_vip_is_removed(world: World) -> str:
    family = world.random.choice(FAMILIES)
    vip, length = lab.ADDRESSES[family].vip, {4: 32, 6: 128}[family]
    shown = ("ip", "addr", "show", "dev", "lo")
    world.hosts.lb.ip(f"addr del {vip}/{length} dev lo")
    wait_until(lambda: vip in world.hosts.lb.run(*shown).stdout, lab.LIMIT, "it is there again")
    return vip


def an_interface_flaps(world: World) -> str:
    interface = world.random.choice(["eth0", "eth1"])
    world.hosts.lb.ip(f"link set {interface} down", f"link set {interface} up")
    return interface


def a_backend_dies_and_comes_back(world: World) -> str:
    backend = _some(world)
    backend.kill()
    world.wanted.dead |= {backend.name}
    world.settle()
    backend.start()
    world.wanted.dead -= {backend.name}
    world.wanted.ill -= {backend.name}  # A new server is well.
    return backend.name


def the_daemon_is_killed(world: World) -> str:
    world.balancer.kill()
    world.start()
    return "and started again"


def the_daemon_is_restarted(world: World) -> str:
    code = world.balancer.stop()
    if code:
        world.findings.append(f"the daemon ended with {code}: {world.balancer.last_words()}")
    world.start()
    return "by SIGTERM"


def llb_is_upgraded_and_back(world: World) -> str:
    for is_other in (True, False):
        world.balancer.stop()
        world.is_other_version = is_other
        world.start()
    return "over maps of another layout"


HAPPENINGS = (
    Happening(backends_come_and_go),
    Happening(weights_change),
    Happening(a_backend_falls_ill_or_gets_well),
    Happening(a_backend_is_drained_or_not),
    Happening(the_configuration_is_reloaded),
    Happening(a_wrong_configuration_is_refused),
    Happening(a_providers_file_is_garbage),
    Happening(the_disk_is_full),
    Happening(the_pins_of_the_links_are_removed),
    Happening(a_link_is_detached, may_fail=True),
    Happening(a_map_is_flushed, may_fail=True),
    Happening(a_vip_is_removed, may_fail=True),
    Happening(an_interface_flaps, may_fail=True),
    Happening(a_backend_dies_and_comes_back, may_fail=True),
    Happening(the_daemon_is_killed, ends_daemon=True),
    Happening(the_daemon_is_restarted, ends_daemon=True),
    Happening(llb_is_upgraded_and_back, ends_daemon=True),
)


def _some(world: World) -> lab.BackendHost:
    return world.random.choice(world.hosts.backends[:3])


def _sources(world: World) -> list[dict[str, object]]:
    services = world.balancer.control.get("/status")["services"]
    return [source for each in services for source in each["sources"]]


def _links(world: World) -> list[Path]:
    return sorted(lab.PINS.glob(f"{world.balancer.name}/*/*/link_*"))


def _hangs(path: Path) -> bool:
    try:
        return bool(bpf_syscall.pinned_link_info(path).interface)
    except OSError:
        return False
