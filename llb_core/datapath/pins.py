"""The pinned maps of one balancer: where they are, and whether they are what we think they are.

Opening a pinned map by its path checks nothing, so each is compared with its specification before
it is used. The path carries the layout's version and the address family:
`/sys/fs/bpf/llb/NAME/VERSION/ipv4/MAP`, or `ipv6`.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llb_core.datapath import bpf_syscall as sys
from llb_core.datapath import kernel
from llb_core.datapath.bpf_map import MapReader, create
from llb_core.datapath.bpffs import BPFFS, ensure_bpffs
from llb_core.datapath.layout import INNER_TABLE, LAYOUT_VERSION, MapSpec, MapType, map_specs
from llb_core.datapath.old_layouts import OLD_LAYOUTS
from llb_core.datapath.pinning import make_folder, pin, pinned, unpin
from llb_core.errors import HostError, LayoutMismatch

LLB = BPFFS / "llb"
"""Below it is everything that balancers on this host have pinned, by their names."""
FAMILIES = (4, 6)
_GONE = "gone"
"""What the folder of a layout that is not needed any more is called until it is away."""


def pin_root(name: str) -> Path:
    """Return the folder of everything that a balancer of that name has pinned."""
    return LLB / name


def pin_folder(name: str, family: int = 4) -> Path:
    """Return the folder of the maps of this version and of an address family."""
    return pin_root(name) / str(LAYOUT_VERSION) / f"ipv{family}"


def pinned_families(name: str) -> list[int]:
    """Return the address families of this version that maps are pinned of; HostError where this
    process may not look."""
    try:
        return [family for family in FAMILIES if pin_folder(name, family).is_dir()]
    except PermissionError as error:
        raise _unreadable(pin_root(name), error) from None


def open_maps(
    name: str, family: int, max_connections: int, *, create_missing: bool = True
) -> dict[str, MapReader]:
    """Open the pinned maps of an address family, making those that are missing.

    Raises LayoutMismatch where one is not as specified, and HostError where the kernel refuses or,
    with create_missing false, where there are none; then nothing new is left behind.
    """
    folder = pin_folder(name, family)
    refuse_other_versions(name)
    if create_missing:
        make_folder(folder)
    elif not folder.is_dir():
        raise HostError(f'nothing is installed under the name "{name}": no {folder}')
    maps: dict[str, MapReader] = {}
    made: list[Path] = []
    try:
        for spec in map_specs(max_connections, family):
            path = folder / spec.name
            if not path.exists() and create_missing:
                _make_and_pin(spec, path)
                made.append(path)
            maps[spec.name] = _open(spec, path, name)
    except BaseException:
        for opened in maps.values():
            opened.close()
        for path in made:
            path.unlink(missing_ok=True)
        _remove_empty(folder, pin_root(name))
        raise
    return maps


def pin_again(name: str, family: int, maps: Mapping[str, MapReader]) -> int:
    """Pin open maps whose pins somebody has removed, or the next daemon would begin with empty
    ones; return how many. Raises HostError."""
    folder = pin_folder(name, family)
    there = {each.name for each in pinned(folder, "*")}
    missing = [(each, folder / key) for key, each in maps.items() if key not in there]
    if missing:
        ensure_bpffs()
        make_folder(folder)
    for reader, path in missing:
        pin(reader.fd, path)
    return len(missing)


def remove_pins(name: str, family: int | None = None) -> bool:
    """Unpin everything of a balancer, of every version, or what it has of one address family;
    False where there was nothing, HostError where it can't be done."""
    root = pin_root(name)
    folder = root if family is None else pin_folder(name, family)
    if not folder.exists():
        return False
    unpin(folder)
    _remove_empty(folder.parent, root.parent)
    return True


def is_pinned(name: str) -> bool:
    """Say whether anything of a balancer is pinned, of whichever version."""
    return any(path.is_file() for path in pinned(pin_root(name), "**/*"))


def pinned_capacity(name: str, family: int = 4) -> int | None:
    """Return how many connections the pinned tables take, None where there are none; HostError
    where they can't be read."""
    path = pin_folder(name, family) / "dnat_table"
    try:
        fd = sys.obj_get(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        return sys.map_info(fd).max_entries
    finally:
        os.close(fd)


def old_versions(name: str) -> list[int]:
    """Return the earlier layouts that maps are pinned of, and that can be carried over."""
    return [int(each) for each in _other_versions(name) if each in map(str, OLD_LAYOUTS)]


def remove_old(name: str) -> None:
    """Unpin the maps of earlier layouts: at one stroke, so that no daemon finds a part of them."""
    gone = pin_root(name) / _GONE
    shutil.rmtree(gone, ignore_errors=True)  # One that was killed over it may have left this.
    for version in old_versions(name):
        (pin_root(name) / str(version)).rename(gone)
        shutil.rmtree(gone)


def old_families(name: str) -> list[int]:
    """Return the address families that maps of earlier layouts are pinned of."""
    folders = [pin_root(name) / str(version) for version in old_versions(name)]
    return [each for each in FAMILIES if any((f / f"ipv{each}").is_dir() for f in folders)]


def _other_versions(name: str) -> list[str]:
    names = (path.name for path in pinned(pin_root(name), "*"))
    return [each for each in names if each not in (str(LAYOUT_VERSION), _GONE)]


def refuse_other_versions(name: str) -> None:
    """Raise LayoutMismatch where maps of another layout are pinned that can't be carried over."""
    root = pin_root(name)
    others = set(_other_versions(name)) - set(map(str, OLD_LAYOUTS))
    if others:
        raise LayoutMismatch(
            f"{root}: maps of layout {', '.join(sorted(others))} are pinned, this LLB has layout "
            f"{LAYOUT_VERSION}: take them away with llb detach, which ends their connections"
        )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for pins that are gone afterwards; HostError where it can't be made."""
    ensure_bpffs()
    folder = BPFFS / f"llb_dry_run_{os.getpid()}"
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise HostError(f"{folder}: can't be made: {error.strerror}: run as root") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(spec: MapSpec, path: Path) -> MapReader:
    """Make a map, pin it, and open it."""
    _make_and_pin(spec, path)
    return MapReader(spec, sys.obj_get(path))


def _make_and_pin(spec: MapSpec, path: Path) -> None:
    try:
        if spec.type is MapType.ARRAY_OF_MAPS:
            inner = create(INNER_TABLE)
            try:
                fd = create(spec, inner)
            finally:
                os.close(inner)
        else:
            fd = create(spec)
    except OSError as error:
        raise HostError(_why_not_made(spec, error)) from None
    try:
        pin(fd, path)
    finally:
        os.close(fd)


def _why_not_made(spec: MapSpec, error: OSError) -> str:
    if isinstance(error, PermissionError):
        if kernel.is_too_old(platform.release()):
            return f"the kernel ({platform.release()}) refuses the maps: {kernel.NEEDED}"
        return (
            "the kernel does not let this process make eBPF maps: run as root, or with CAP_BPF "
            "and CAP_NET_ADMIN"
        )
    remedy = "lower loadbalancer.max_connections" if spec.entries > 100_000 else "free some memory"
    size = spec.entries * (spec.key.itemsize + spec.value.itemsize) // 2**20
    return f"map {spec.name} (some {size} MiB) can't be made: {error.strerror}: {remedy}"


def _unreadable(path: Path, error: OSError) -> HostError:
    return HostError(f"{path}: can't be read: {error.strerror}: run as root")


def _open(spec: MapSpec, path: Path, name: str) -> MapReader:
    try:
        fd = sys.obj_get(path)
    except OSError as error:
        raise HostError(f"{path}: can't be opened: {error.strerror}") from None
    info = sys.map_info(fd)
    found = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
    wanted = (
        int(spec.type),
        spec.key.itemsize,
        spec.value.itemsize,
        spec.entries,
        spec.flags,
    )
    if found == wanted:
        return MapReader(spec, fd)
    os.close(fd)
    if found[:3] == wanted[:3] and spec.name in ("dnat_table", "snat_table"):
        raise LayoutMismatch(
            f"{path}: was made for {info.max_entries} connections, the configuration says "
            f"loadbalancer.max_connections = {spec.entries}: set it back, or take the maps away "
            f"with llb detach, which ends their connections"
        )
    raise LayoutMismatch(
        f"{path}: is not the map that this LLB uses (type, key, value, entries, flags are {found}, "
        f"not {wanted}): another program's, or of another LLB: llb detach takes the maps of "
        f'"{name}" away, which ends their connections'
    )


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those above it, up to top, as far as they are empty."""
    while folder == top or top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
