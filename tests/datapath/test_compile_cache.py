"""What was compiled is kept, and not compiled again; but for what may not be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llb_core.datapath import bpf_syscall, compile_cache, loader
from llb_core.datapath.compiled import Compiled
from llb_core.errors import HostError
from tests.datapath.conftest import Host

TEXT = "BPF_ARRAY(room, u64, 1); int tiny(struct __sk_buff *skb) { int k = 0; %s }"
LOOKS = TEXT % "return !!room.lookup(&k);"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept in a test."""
    monkeypatch.setattr(compile_cache, "FOLDER", tmp_path / "cache")
    return tmp_path / "cache"


def answer(folder: Path, text: str = LOOKS) -> int:
    """Load that program; give what it returns."""
    fds = loader.load_programs(folder, ["-DNONE"], programs=["tiny"], jumps=(), text=text)
    try:
        return bpf_syscall.prog_test_run(fds["tiny"], bytes(64)).retval
    finally:
        os.close(fds["tiny"])


def test_what_was_compiled_needs_no_compiler_again(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(tmp_path) == 1
    monkeypatch.setattr(loader, "_CHILD", tmp_path / "none")

    assert answer(tmp_path) == 1
    with pytest.raises(HostError, match="the compiler process ended"):
        answer(tmp_path, TEXT % "return 7;")


@pytest.mark.parametrize("harm", ["cut", "changed", "garbage", "writable", "a link", "open folder"])
def test_what_is_damaged_or_anybodys_is_compiled_anew(
    host: Host, tmp_path: Path, folder: Path, harm: str
) -> None:
    answer(tmp_path)
    (path,) = folder.iterdir()
    whole = path.read_text()
    if harm == "cut":
        path.write_text(whole[:-10])
    elif harm == "changed":
        path.write_text(whole.replace("tiny", "tino"))
    elif harm == "garbage":
        path.write_bytes(b"\xff\0\n{}")
    elif harm == "writable":
        path.chmod(0o666)
    elif harm == "a link":
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere")
    else:
        folder.chmod(0o777)

    assert compile_cache.find(path.stem) is None
    assert answer(tmp_path) == 1


def test_without_room_to_keep_it_is_loaded_all_the_same(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    folder.write_text("a file where the folder should be")

    assert answer(tmp_path) == 1


def test_the_newest_alone_are_kept(folder: Path) -> None:
    nothing = Compiled({}, {})
    for number in range(compile_cache.MOST + 3):
        compile_cache.keep(f"{number}", nothing)
        os.utime(folder / f"{number}.json", (number, number))
    compile_cache.keep("last", nothing)

    kept = {path.stem for path in folder.iterdir()}
    assert len(kept) == compile_cache.MOST
    assert {"last", "34"} <= kept
    assert compile_cache.find("last") == nothing


def test_other_texts_flags_and_headers_are_others(tmp_path: Path) -> None:
    request = {"text": "a", "flags": ["-DX=1"], "programs": ["p"]}
    keys = {
        compile_cache.key_of(each, tmp_path)
        for each in (request, request | {"text": "b"}, request | {"flags": ["-DX=2"]})
    }
    (tmp_path / "some.h").write_text("")
    keys.add(compile_cache.key_of(request, tmp_path))
    assert len(keys) == 4
