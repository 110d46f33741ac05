"""Compiling and loading in a child, and what is said where it fails."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from llb_core.datapath import (
    Datapath,
    bpf_syscall,
    compile_cache,
    compiler_child,
    jumps,
    loader,
    pins,
)
from llb_core.datapath.layout import compile_flags
from llb_core.datapath.sources import SOURCES, amalgamate
from llb_core.errors import HostError
from tests.datapath.conftest import NAME, Host


def load(text: str | None = None) -> dict[str, int]:
    pins.open_maps(NAME, 4, 1000)
    return loader.load_programs(pins.pin_folder(NAME), compile_flags(1000), text=text)


def test_loads_every_program_without_kernel_headers(host: Host) -> None:
    programs = load()

    assert set(programs) == {*loader.PROGRAMS, "jumps"}
    assert all(os.fstat(fd) for fd in programs.values())


def entries(path: Path) -> list[int]:
    """The programs that an array of jumps holds, by the kernel's number."""
    fd = bpf_syscall.obj_get(path)
    key, value = ctypes.c_uint32(), ctypes.c_uint32()
    found = []
    for key.value in range(bpf_syscall.map_info(fd).max_entries):
        if bpf_syscall.map_lookup(fd, ctypes.addressof(key), ctypes.addressof(value)):
            found.append(value.value)
    os.close(fd)
    return found


def jump_pins() -> list[Path]:
    return sorted(pins.pin_folder(NAME).glob("jumps_*"))


def test_what_is_jumped_to_outlives_whoever_loaded_it(host: Host) -> None:
    for fd in load().values():
        os.close(fd)

    (pin,) = jump_pins()
    assert len(set(entries(pin))) == len(jumps.JUMPS)


def test_no_two_loads_share_what_they_jump_to(host: Host) -> None:
    load()
    load()

    first, second = jump_pins()
    assert not set(entries(first)) & set(entries(second))


def test_attaching_lets_go_of_what_earlier_loads_jumped_to(datapath: Datapath) -> None:
    load()  # by a daemon that was killed before it attached anything
    assert len(jump_pins()) == 2

    datapath.attach()

    ours = datapath.families[4].program_fds["jumps"]
    assert jump_pins() == [jumps.pin_path(ours, pins.pin_folder(NAME))]


def test_detaching_leaves_no_jumps(datapath: Datapath) -> None:
    datapath.attach()

    Datapath.detach(NAME)

    assert jump_pins() == []


def test_this_process_carries_no_compiler(host: Host) -> None:
    load()

    assert "libbcc" not in Path("/proc/self/maps").read_text()


def test_an_error_of_clang_names_header_and_line(host: Host) -> None:
    text = amalgamate().replace("static __always_inline __u32 ct_now(void)", "oops", 1)
    line = 1 + (SOURCES / "conntrack.h").read_text().split("ct_now(void)")[0].count("\n")

    with pytest.raises(HostError, match=rf"please report .*conntrack.h:{line}:") as caught:
        load(text)

    assert "\n" not in str(caught.value)
    assert "conntrack.h" in loader.COMPILER_SAID.read_text()


def test_a_refusal_of_the_kernel_names_the_kernel_and_its_reason(host: Host) -> None:
    beyond = "int refused(struct __sk_buff *skb) { return *(int *)(long)skb->data; }"
    text = f"{amalgamate()}\n{beyond}\n"
    pins.open_maps(NAME, 4, 1000)

    with pytest.raises(HostError, match=rf"the kernel \({os.uname().release}\) refuses") as caught:
        loader.load_programs(
            pins.pin_folder(NAME), compile_flags(1000), programs=["refused"], text=text
        )

    assert "\n" not in str(caught.value)
    assert "invalid access to packet" in loader.COMPILER_SAID.read_text()


def test_a_missing_bcc_names_the_package(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "compiler_child.py"
    source = Path(compiler_child.__file__).read_text()
    child.write_text(source.replace(compiler_child.DEBIAN_PACKAGES, str(tmp_path)))
    pins.open_maps(NAME, 4, 1000)
    monkeypatch.setattr(loader, "_CHILD", child)
    monkeypatch.setattr(compile_cache, "FOLDER", tmp_path / "cache")
    with pytest.raises(HostError, match="apt install python3-bpfcc"):
        loader.load_programs(pins.pin_folder(NAME), compile_flags(1000))


def test_missing_headers_name_the_package(host: Host) -> None:
    text = "#include <linux/no_such_header.h>\n"

    with pytest.raises(HostError, match="apt install linux-libc-dev"):
        load(text)


def test_without_the_right_to_load_it_says_who_may(host: Host) -> None:
    """In a child that gave its capabilities up: maps can't even be made."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            pins.open_maps(NAME, 4, 1000)
        except HostError as error:
            status = 0 if "run as root" in str(error) else 2
        finally:
            os._exit(status)
    _, waited = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(waited) == 0


def test_file_descriptors_do_not_leak_on_failure(host: Host) -> None:
    pins.open_maps(NAME, 4, 1000)
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(2):
        with pytest.raises(HostError):
            loader.load_programs(pins.pin_folder(NAME), [], text="oops")

    assert len(list(Path("/proc/self/fd").iterdir())) == before
