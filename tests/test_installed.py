"""Providers among the installed distributions: each looked at by itself, and none imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llb_core.errors import ConfigurationError
from llb_core.installed import available, find_entry_points
from llb_core.plugins import provider_class

GOOD = b"Metadata-Version: 2.1\nName: llb-provider-zoo\nVersion: 1.0\n"
ENTRY = b"[llb]\nzoo = llb_provider_zoo\n"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have a distribution installed, with these files of its own; returns the folder of them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def _install(name: str = "llb_provider_zoo-1.0", **files: bytes) -> Path:
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        for file, content in files.items():
            (folder / file.replace("__", ".")).write_bytes(content)
        return folder

    return _install


def test_the_static_provider_is_found_by_its_distribution() -> None:
    found = {each.name: each for each in available()}
    assert found["static"].distribution == "llb-provider-static"
    assert provider_class("static").name == "static"


def test_a_distribution_without_providers_may_be_as_broken_as_it_likes(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("zzz-1.0", METADATA=GOOD, entry_points__txt=b"[console_scripts]\nfoo\n")
    install("yyy-1.0")
    assert "static" in {each.name for each in find_entry_points().entries}
    assert not find_entry_points().unreadable
    assert not caplog.records


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"METADATA": GOOD, "entry_points__txt": b"[llb]\nfoo\n"}, "its entry_points.txt can't"),
        (
            {"METADATA": GOOD, "entry_points__txt": ENTRY + b"[console_scripts]\nfoo\n"},
            "its entry_points.txt can't be read",
        ),
        ({"METADATA": GOOD, "entry_points__txt": b"\xff" + ENTRY}, "(UnicodeDecodeError)"),
        ({"entry_points__txt": ENTRY}, "it has no METADATA, or none with a name and a version"),
        (
            {"METADATA": b"Name: llb-provider-zoo\n", "entry_points__txt": ENTRY},
            "it has no METADATA, or none with a name and a version",
        ),
        ({"METADATA": b"\xff" + GOOD, "entry_points__txt": ENTRY}, "its METADATA can't be read"),
    ],
    ids=["no value", "another group", "no text", "no metadata", "no version", "no text for it"],
)
def test_a_broken_distribution_is_told_of_once_and_hides_no_other(
    install: Install, caplog: pytest.LogCaptureFixture, files: dict[str, bytes], why: str
) -> None:
    folder = install(**files)
    for _ in range(2):
        names = [each.name for each in available()]
        assert "static" in names
        assert "zoo" not in names
    (told,) = caplog.messages
    assert told.startswith(f"{folder}: ")
    assert why in told
    assert told.endswith(
        ": no provider is taken from it: install that package anew, or remove this"
    )


def test_a_provider_that_may_be_in_a_broken_distribution_is_not_just_missing(
    install: Install,
) -> None:
    folder = install(entry_points__txt=ENTRY)
    with pytest.raises(ConfigurationError) as caught:
        provider_class("zoo")
    assert str(caught.value).startswith(
        f'provider "zoo" is not installed, or is in what can\'t be read: {folder}: it has no '
        "METADATA, or none with a name and a version: pip install --force-reinstall "
        "llb-provider-zoo (installed: "
    )
    assert provider_class("static").name == "static"


def test_what_is_left_of_an_older_version_is_not_in_the_way(install: Install) -> None:
    install("llb_provider_zoo-0.9", entry_points__txt=b"[llb]\nzoo\n")
    install(METADATA=GOOD, entry_points__txt=ENTRY)
    (zoo,) = (each for each in available() if each.name == "zoo")
    assert (zoo.distribution, zoo.version) == ("llb-provider-zoo", "1.0")


def test_of_one_that_is_there_twice_the_first_on_the_path_counts(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(METADATA=GOOD, entry_points__txt=ENTRY)
    later = tmp_path / "later" / "LLB_provider.zoo-0.9.dist-info"
    later.mkdir(parents=True)
    (later / "METADATA").write_bytes(b"Name: LLB_provider.zoo\nVersion: 0.9\n")
    (later / "entry_points.txt").write_bytes(b"[llb]\nzoo = elsewhere\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later.parent)])
    values = [each.value for each in find_entry_points().entries if each.name == "zoo"]
    assert values == ["llb_provider_zoo"]
