"""The file on the disk: read when it has been closed, never while it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llb_provider_static import StaticOptions, StaticProvider

from llb_core import ProviderContext, ProviderError
from llb_core.capabilities import NEEDED, keep_only
from llb_core.testing import Calling, until

TWO = """\
[[backends]]
address = "10.0.0.2"
port = 80

[[backends]]
address = "10.0.0.3"
port = 80
"""
ONE = '[[backends]]\naddress = "10.0.0.9"\nport = 80\nweight = 5\n'


MakeProvider = Callable[..., StaticProvider]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backends.toml"
    path.write_text(TWO)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeProvider]:
    made: list[StaticProvider] = []

    def _make(path: str = "backends.toml", **more: object) -> StaticProvider:
        options = StaticOptions.model_validate({"path": path})
        provider = StaticProvider(options, ProviderContext("web", tmp_path), **more)  # type: ignore[arg-type]
        made.append(provider)
        return provider

    yield _make
    for each in made:
        each.close()
        each.close()


def addresses(provider: StaticProvider) -> list[str]:
    return [str(backend.endpoint.address) for backend in provider.gather_backends()]


def waiting_for(provider: StaticProvider, timeout: float = 60) -> Calling[bool]:
    """A provider's `wait_for_change` under way in a thread, as a source calls it."""
    return Calling(lambda: provider.wait_for_change(timeout))


def goes_on(waiting: Calling[bool]) -> bool:
    """Whether a wait is still under way after a moment."""
    with pytest.raises(AssertionError, match="still under way"):
        waiting.result(limit=0.2)
    return True


def replace(path: Path, text: str) -> None:
    other = path.with_name(path.name + ".new")
    other.write_text(text)
    other.replace(path)


def test_reads_the_file_at_first(file: Path, make: MakeProvider) -> None:
    assert addresses(make()) == ["10.0.0.2", "10.0.0.3"]


@pytest.mark.parametrize("change", [Path.write_text, replace], ids=["written", "renamed over"])
def test_sees_a_change_at_once(file: Path, make: MakeProvider, change: object) -> None:
    provider = make()
    provider.gather_backends()
    for text, expected in [(ONE, ["10.0.0.9"]), (TWO, ["10.0.0.2", "10.0.0.3"])] * 3:
        waiting = waiting_for(provider)
        change(file, text)  # type: ignore[operator]
        assert waiting.result(limit=30)
        assert addresses(provider) == expected


def test_never_reads_a_file_that_is_being_written(file: Path, make: MakeProvider) -> None:
    provider = make()
    provider.gather_backends()
    cut = TWO.index("[[", 5)
    waiting = waiting_for(provider)
    with file.open("w") as writer:
        writer.write(TWO[:cut])
        writer.flush()
        assert goes_on(waiting)
        assert addresses(provider) == ["10.0.0.2", "10.0.0.3"], "the first half alone is valid"
        writer.write(ONE)
    assert waiting.result(limit=30)
    assert addresses(provider) == ["10.0.0.2", "10.0.0.9"]


@pytest.mark.root
def test_never_reads_another_users_file_that_is_being_written(
    file: Path, make: MakeProvider
) -> None:
    """With the capabilities that the daemon keeps, which a thread gives up for itself alone."""

    def gather() -> list[str]:
        keep_only(NEEDED)
        return addresses(provider)

    os.chown(file, 65534, 65534)
    file.chmod(0o644)
    provider = make()
    with file.open("a") as writer:
        writer.write(ONE[:-1])
        writer.flush()
        with pytest.raises(ProviderError, match=r"^backends.toml: is being written"):
            Calling(gather).result()
    assert Calling(gather).result() == ["10.0.0.2", "10.0.0.3", "10.0.0.9"]


def test_does_not_read_at_first_what_somebody_is_writing(file: Path, make: MakeProvider) -> None:
    message = r"^backends.toml: is being written"
    with file.open("a"), pytest.raises(ProviderError, match=message):
        make().gather_backends()


def test_says_when_a_file_stays_open_for_writing(file: Path, make: MakeProvider) -> None:
    now = [100.0]
    provider = make(clock=lambda: now[0])
    provider.gather_backends()
    with file.open("a") as writer:
        writer.write("\n")
        writer.flush()
        assert len(provider.gather_backends()) == 2
        now[0] += 3
        with pytest.raises(ProviderError, match="is being written"):
            provider.gather_backends()
    assert len(provider.gather_backends()) == 2


def test_looks_again_soon_at_what_was_open_and_is_told_of_no_more(
    file: Path, make: MakeProvider
) -> None:
    """As where it looks between the event of the closing and the end of it."""
    provider = make()
    provider.gather_backends()
    with file.open("w") as writer:
        writer.write(ONE)
        writer.flush()
        assert len(provider.gather_backends()) == 2
    assert provider.wait_for_change(30), "the closing"
    with file.open("a"):
        assert len(provider.gather_backends()) == 2
    assert provider.wait_for_change(30), "the closing"
    provider._put_off()
    assert waiting_for(provider, 3600).result(limit=30) is False
    assert addresses(provider) == ["10.0.0.9"]


def test_a_broken_file_is_an_error_until_it_is_mended(file: Path, make: MakeProvider) -> None:
    provider = make()
    file.write_text("backends = [")
    for _ in range(2):
        with pytest.raises(ProviderError, match=r"^backends.toml: is not valid TOML"):
            provider.gather_backends()
    file.write_text(ONE)
    assert provider.wait_for_change(30)
    assert addresses(provider) == ["10.0.0.9"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff", "is not UTF-8"), (b" " * (4 * 1024 * 1024 + 1), "is larger than 4 MiB")],
    ids=["not UTF-8", "too large"],
)
def test_refuses_what_is_no_text(
    file: Path, make: MakeProvider, content: bytes, message: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(ProviderError, match=message):
        make().gather_backends()


def test_a_pipe_is_no_file_and_does_not_block(file: Path, make: MakeProvider) -> None:
    file.unlink()
    os.mkfifo(file)
    provider = make()
    with pytest.raises(ProviderError, match=r"^backends.toml: is not a regular file"):
        provider.gather_backends()
    file.unlink()
    file.write_text(ONE)
    assert addresses(provider) == ["10.0.0.9"]


def test_a_file_gone_is_an_error_at_once_and_not_an_empty_list(
    file: Path, make: MakeProvider
) -> None:
    provider = make()
    provider.gather_backends()
    waiting = waiting_for(provider)
    file.unlink()
    assert waiting.result(limit=30)
    with pytest.raises(ProviderError, match=r"^backends.toml: there is no such file"):
        provider.gather_backends()


def test_a_folder_in_its_place_is_an_error(file: Path, make: MakeProvider) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises(ProviderError, match="Is a directory"):
        make().gather_backends()


def test_waits_for_a_folder_that_is_not_there_yet(tmp_path: Path, make: MakeProvider) -> None:
    provider = make("etc/llb/backends.toml")
    with pytest.raises(ProviderError, match="there is no such file"):
        provider.gather_backends()
    folder = tmp_path / "etc" / "llb"
    folder.mkdir(parents=True)
    (folder / "backends.toml").write_text(ONE)
    assert provider.wait_for_change(30)
    while not _reads(provider, ["10.0.0.9"]):
        assert provider.wait_for_change(30)


def test_follows_a_folder_that_is_replaced(tmp_path: Path, make: MakeProvider) -> None:
    _tree(tmp_path / "live", TWO)
    _tree(tmp_path / "next", ONE)
    provider = make("live/backends.toml")
    assert len(provider.gather_backends()) == 2
    (tmp_path / "live").rename(tmp_path / "old")
    (tmp_path / "next").rename(tmp_path / "live")
    assert provider.wait_for_change(30)
    while not _reads(provider, ["10.0.0.9"]):
        assert provider.wait_for_change(30)
    (tmp_path / "live" / "backends.toml").write_text(TWO)
    assert provider.wait_for_change(30)
    assert len(provider.gather_backends()) == 2


def test_follows_the_links_of_a_config_map(tmp_path: Path, make: MakeProvider) -> None:
    mount = tmp_path / "mount"
    _tree(mount / "..1", TWO)
    (mount / "..data").symlink_to("..1")
    (mount / "backends.toml").symlink_to("..data/backends.toml")
    (tmp_path / "backends.toml").symlink_to(mount / "backends.toml")
    provider = make()
    assert len(provider.gather_backends()) == 2
    for version, text, expected in [("..2", ONE, 1), ("..3", TWO, 2)]:
        waiting = waiting_for(provider)
        _tree(mount / version, text)
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").replace(mount / "..data")
        assert waiting.result(limit=30)
        assert len(provider.gather_backends()) == expected


def test_follows_what_takes_the_files_place(tmp_path: Path, file: Path, make: MakeProvider) -> None:
    provider = make()
    provider.gather_backends()
    elsewhere, link = tmp_path / "elsewhere.toml", tmp_path / "link"
    elsewhere.write_text(TWO)

    def put_link() -> None:
        link.symlink_to(elsewhere)
        link.replace(file)

    for change, expected in (
        (lambda: replace(file, ONE), ["10.0.0.9"]),
        (put_link, ["10.0.0.2", "10.0.0.3"]),
        (lambda: elsewhere.write_text(ONE), ["10.0.0.9"]),
        (lambda: replace(elsewhere, TWO), ["10.0.0.2", "10.0.0.3"]),
        (lambda: replace(file, ONE), ["10.0.0.9"]),
        (lambda: replace(file, TWO), ["10.0.0.2", "10.0.0.3"]),
        (lambda: file.write_text(ONE), ["10.0.0.9"]),
    ):
        waiting = waiting_for(provider)
        change()
        assert waiting.result(limit=30)
        assert addresses(provider) == expected


def test_a_link_in_a_circle_is_an_error(tmp_path: Path, make: MakeProvider) -> None:
    (tmp_path / "backends.toml").symlink_to("other.toml")
    (tmp_path / "other.toml").symlink_to("backends.toml")
    with pytest.raises(ProviderError, match="Too many levels of symbolic links"):
        make().gather_backends()


def test_a_hard_link_put_in_place_is_seen(tmp_path: Path, file: Path, make: MakeProvider) -> None:
    provider = make("linked.toml")
    waiting = waiting_for(provider)
    os.link(file, tmp_path / "linked.toml")
    assert waiting.result(limit=30)
    assert len(provider.gather_backends()) == 2


def test_other_files_beside_it_wake_nobody(tmp_path: Path, file: Path, make: MakeProvider) -> None:
    provider = make()
    waiting = waiting_for(provider)
    (tmp_path / "other.toml").write_text(ONE)
    assert goes_on(waiting)
    provider.close()
    assert waiting.result(limit=30) is False


def test_a_change_without_an_event_is_found_when_it_is_asked_again(
    file: Path, make: MakeProvider
) -> None:
    provider = make()
    provider.gather_backends()
    file.write_text(ONE)
    assert addresses(provider) == ["10.0.0.9"]


def test_closing_ends_a_wait_and_leaks_nothing(file: Path, make: MakeProvider) -> None:
    before = open_files()
    for _ in range(20):
        provider = make()
        waiting = waiting_for(provider)
        provider.close()
        assert waiting.result(limit=30) is False
        assert provider.wait_for_change(60) is False
    until(lambda: open_files() <= before, limit=30)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _tree(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "backends.toml").write_text(text)


def _reads(provider: StaticProvider, expected: list[str]) -> bool:
    try:
        return addresses(provider) == expected
    except ProviderError:
        return False
