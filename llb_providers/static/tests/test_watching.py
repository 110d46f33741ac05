"""Many files watched by one process, and what becomes of it where inotify is used up."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from llb_provider_static import StaticOptions, StaticProvider
from llb_provider_static.watcher import Watcher

from llb_core import ProviderContext
from llb_core.testing import Calling, until

MANY = 1000
TEXT = '[[backends]]\naddress = "10.0.0.{number}"\nport = 80\n'


def provider_of(folder: Path, name: str) -> StaticProvider:
    return StaticProvider(StaticOptions(path=Path(name)), ProviderContext("web", folder))


def inotify_instances() -> list[Path]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # What the last test had may be on its way out.
            if "inotify" in str(each.readlink()):
                found.append(Path("/proc/self/fdinfo", each.name))
    return found


def watches() -> int:
    """The folders that the kernel watches for this process."""
    (instance,) = inotify_instances()
    return instance.read_text().count("inotify wd:")


@pytest.fixture(autouse=True)
def _none_before() -> None:
    until(lambda: not inotify_instances(), limit=30)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[list[StaticProvider]]:
    with ExitStack() as stack:
        made = []
        for number in range(MANY):
            (tmp_path / f"{number}.toml").write_text(TEXT.format(number=1))
            made.append(stack.enter_context(closing(provider_of(tmp_path, f"{number}.toml"))))
        yield made


def test_a_thousand_files_take_one_instance_and_each_is_seen_by_itself(
    tmp_path: Path, many: list[StaticProvider]
) -> None:
    assert len(inotify_instances()) == 1
    assert watches() == len(tmp_path.parts), "one for each folder on the way, whoever goes it"
    for each in many:
        each.gather_backends()
    until(lambda: not any(each.wait_for_change(0) for each in many), limit=30)
    some = {number: many[number] for number in (0, 499, MANY - 1)}
    waiting = {n: Calling(lambda each=each: each.wait_for_change(60)) for n, each in some.items()}
    for number in some:
        (tmp_path / f"{number}.toml").write_text(TEXT.format(number=2))
    for number, wait in waiting.items():
        assert wait.result(limit=30)
        (backend,) = some[number].gather_backends()
        assert str(backend.endpoint) == "10.0.0.2:80"
    assert not any(many[number].wait_for_change(0) for number in range(MANY) if number not in some)


def test_nothing_is_left_when_all_have_gone_and_all_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(TEXT.format(number=1))
    for _ in range(20):
        with closing(provider_of(tmp_path, "b.toml")) as first:
            with closing(provider_of(tmp_path, "b.toml")):
                assert len(inotify_instances()) == 1
            first.gather_backends()
            waiting = Calling(lambda first=first: first.wait_for_change(60))
            file.write_text(TEXT.format(number=2))
            assert waiting.result(limit=30), "one that goes takes no watch of another along"
        until(lambda: not inotify_instances(), limit=30)
    until(lambda: "static-watcher" not in {each.name for each in threading.enumerate()}, limit=30)
    assert Watcher._shared is None


def test_folders_that_come_and_go_leave_no_watches(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.toml").write_text(TEXT.format(number=1))
    with closing(provider_of(tmp_path, "a/b.toml")) as provider:
        before = watches()
        for number in range(20):
            (tmp_path / "new").mkdir()
            (tmp_path / "new/b.toml").write_text(TEXT.format(number=number + 2))
            (tmp_path / "a").rename(tmp_path / f"old{number}")
            (tmp_path / "new").rename(tmp_path / "a")

            def is_seen(number: int = number) -> bool:
                provider.wait_for_change(0.05)
                try:
                    (backend,) = provider.gather_backends()
                except Exception:  # noqa: BLE001 - between the two renames there is none
                    return False
                return str(backend.endpoint.address) == f"10.0.0.{number + 2}"

            until(is_seen, limit=30)
        until(lambda: not provider.wait_for_change(0.05), limit=30)
        assert watches() == before


USED_UP = """
import logging, sys
from pathlib import Path

sys.path[:0] = {path!r}
from llb_core.testing import Calling
from llb_providers.static.tests.test_watching import TEXT, provider_of

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
limit = Path("/proc/sys/user/{limit}")
limit.write_text("0")
folder = Path({folder!r})
file = folder / "b.toml"
providers = [provider_of(folder, "b.toml") for _ in range(3)]
for each in providers:
    each.gather_backends()
for number, how in enumerate(["polls", "polls", "watches"], 2):
    if how == "watches":
        limit.write_text("1000")
        for each in providers:
            assert each.wait_for_change(60), "it can be watched now: the file may be another"
    waiting = [Calling(lambda each=each: each.wait_for_change(60)) for each in providers]
    file.write_text(TEXT.format(number=number))
    for each, wait in zip(providers, waiting):
        assert wait.result(limit=30)
        assert str(each.gather_backends()[0].endpoint.address) == "10.0.0.%d" % number
        assert each._watch.is_polling is (how == "polls")
waiting = [Calling(lambda each=each: each.wait_for_change(60)) for each in providers]
for each, wait in zip(providers, waiting):
    each.close()
    assert wait.result(limit=30) is False
"""


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_looks_at_the_files_where_inotify_is_used_up_and_says_so_once(
    tmp_path: Path, limit: str
) -> None:
    """The limits are those of a user namespace of its own: nobody else is held up."""
    (tmp_path / "b.toml").write_text(TEXT.format(number=1))
    script = USED_UP.format(path=sys.path, limit=limit, folder=str(tmp_path))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert re.fullmatch(
        "WARNING provider static: inotify is used up: raise fs.inotify.max_user_watches and "
        "max_user_instances, or the limit of open files; files are looked at every 1 s till then",
        line,
    )


def test_a_file_that_is_closed_unchanged_is_read_though_it_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used_up(cls: object) -> Watcher:
        raise OSError(24, "inotify is used up")

    file = tmp_path / "b.toml"
    file.write_text(TEXT.format(number=1))
    monkeypatch.setattr(Watcher, "share", classmethod(used_up))
    with closing(provider_of(tmp_path, "b.toml")) as provider:
        provider.gather_backends()
        with file.open("w") as writer:
            writer.write(TEXT.format(number=2))
            writer.flush()
            assert provider.wait_for_change(60)
            assert str(provider.gather_backends()[0].endpoint.address) == "10.0.0.1"

        def is_read() -> bool:
            Calling(lambda: provider.wait_for_change(60)).result(limit=30)
            return str(provider.gather_backends()[0].endpoint.address) == "10.0.0.2"

        until(is_read, limit=30)
