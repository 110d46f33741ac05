"""`llb doctor`: what the host lacks, and the remedy."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import typer

from llb_core.cli import show
from llb_core.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from llb_core.errors import LLBError

OLDEST_KERNEL = (5, 15)


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one thing is as LLB needs it; `remedy` is empty where it is."""

    what: str
    is_well: bool
    found: str
    remedy: str = ""


def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Look at what LLB needs of this host, and name the remedy for what is missing."""
    findings = [*_host(), *_configured(config)]
    is_well = all(each.is_well for each in findings)
    if json:
        show.as_json({"is_well": is_well, "findings": [asdict(each) for each in findings]})
    else:
        for each in findings:
            typer.echo(f"{'ok  ' if each.is_well else 'FAIL'}  {each.what}: {each.found}")
            if each.remedy:
                typer.echo(f"      {each.remedy}")
    if not is_well:
        raise typer.Exit(1)


def _host() -> Iterator[Finding]:
    yield _judge("root", os.geteuid() == 0, f"user {os.geteuid()}", "run as root")
    release = platform.release()
    match = re.match(r"(\d+)\.(\d+)", release)
    is_new = match is not None and (int(match[1]), int(match[2])) >= OLDEST_KERNEL
    yield _judge("kernel", is_new, release, "LLB needs Linux 5.15 or newer")
    yield _bcc()
    header = Path("/usr/include/linux/bpf.h")
    yield _judge(
        "C headers of Linux",
        header.exists(),
        str(header) if header.exists() else f"no {header}",
        "apt install linux-libc-dev",
    )
    mounts = Path("/proc/self/mounts").read_text()
    is_mounted = re.search(r"^\S+ /sys/fs/bpf bpf ", mounts, re.MULTILINE) is not None
    yield _judge(
        "BPF file system",
        is_mounted or os.geteuid() == 0,
        "/sys/fs/bpf" if is_mounted else "not mounted; the daemon will mount it",
        "mount -t bpf bpf /sys/fs/bpf",
    )


def _bcc() -> Finding:
    """Look for bcc as the compiling child does: where this Python sees it, or Debian put it."""
    from importlib.util import find_spec

    places = [
        Path(found.origin).parent
        for found in (find_spec("bcc"),)
        if found is not None and found.origin is not None
    ]
    places.append(Path("/usr/lib/python3/dist-packages/bcc"))
    # PyPI's package of that name has no libbcc.py: it is about crystal lattices.
    place = next((each for each in places if (each / "libbcc.py").exists()), None)
    return _judge("bcc for Python", place is not None, str(place), "apt install python3-bpfcc")


def _configured(path: Path) -> Iterator[Finding]:
    """Look at the configuration, and at what it says of the host."""
    from llb_core.config import load
    from llb_core.datapath import attach, host
    from llb_core.plugins import check_providers

    if path == DEFAULT_CONFIG and not path.exists():
        return
    try:
        config = load(path)
        check_providers(config)
    except LLBError as error:
        yield Finding("configuration", False, str(error), "mend the file; llb check shows the rest")
        return
    yield Finding("configuration", True, str(path))
    settings = config.loadbalancer
    with attach.netlink() as ip:
        for interface in dict.fromkeys((*settings.public_interfaces, settings.private_interface)):
            find = partial(attach.interface_index, ip, interface)
            yield _try(f"interface {interface}", find, "it is there, of Ethernet kind")
    compare = partial(host.refuse_shared_ports, settings.snat_ports)
    yield _try("SNAT ports", compare, "clear of the host's own")


def _try(what: str, look: Callable[[], object], found: str) -> Finding:
    try:
        look()
    except LLBError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, found)


def _judge(what: str, is_well: bool, found: str, remedy: str) -> Finding:
    return Finding(what, is_well, found, "" if is_well else remedy)
