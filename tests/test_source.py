"""A source: its provider's last good answer, whatever the provider does."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llb_core.config import Config, parse
from llb_core.errors import ConfigurationError, NotReady, ProviderError
from llb_core.guard import Guard
from llb_core.installed import FindEntryPoints, Found, find_entry_points
from llb_core.model import Backend, Endpoint
from llb_core.plugins import load_providers
from llb_core.provider import Provider, ProviderContext, ProviderOptions
from llb_core.source import Source, back_off
from llb_core.sources import close_together, make_sources, refuse_own_backends
from llb_core.testing import FakeProvider
from tests.waiting import until_now

FIRST = ipaddress.ip_address("10.0.0.1")


def backends(*numbers: int) -> tuple[Backend, ...]:
    return tuple(Backend(Endpoint(FIRST + number, 80)) for number in numbers)


class Scripted(Provider[ProviderOptions]):
    """A provider that says what the test tells it to; `change` is what it is seen by."""

    name = "scripted"
    refresh = 60.0

    def __init__(self) -> None:
        super().__init__(ProviderOptions(), ProviderContext("web", Path("/")))
        self.say: Callable[[], Any] = lambda: ()
        self.asked = 0
        self.waits: list[float] = []
        self._changed = threading.Event()

    def gather_backends(self) -> Any:
        self.asked += 1
        return self.say()

    def wait_for_change(self, timeout: float) -> bool:
        self.waits.append(timeout)
        changed = self._changed.wait(min(timeout, 60))
        self._changed.clear()
        return changed

    def close(self) -> None:
        super().close()
        self._changed.set()

    def change(self, say: Callable[[], Any]) -> None:
        self.say = say
        self._changed.set()


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Scripted:
    return Scripted()


MakeSource = Callable[..., Source]


@pytest.fixture
def make(provider: Scripted) -> Iterator[MakeSource]:
    made: list[Source] = []

    def _make(make_provider: Callable[[], Any] = lambda: provider, **more: Any) -> Source:
        source = Source("web", "scripted", make_provider, chance=lambda: 0.0, **more)
        made.append(source)
        source.start()
        return source

    yield _make
    for source in made:
        source.close()


def fail(error: BaseException) -> Callable[[], Any]:
    def _fail() -> Any:
        raise error

    return _fail


def test_has_nothing_until_the_provider_has_answered(provider: Scripted, make: MakeSource) -> None:
    gate = threading.Event()
    provider.say = lambda: gate.wait(5) and backends(1)
    source = make()
    with pytest.raises(NotReady, match=r"^web: provider scripted: it has not answered yet$"):
        source.gather_backends()
    assert (source.is_ready, source.is_stale, source.age) == (False, False, None)
    gate.set()
    until_now(lambda: source.is_ready)
    assert source.gather_backends() == backends(1)


def test_tells_of_a_change_and_only_of_one(provider: Scripted, make: MakeSource) -> None:
    changes: list[int] = []
    provider.say = lambda: backends(1, 2)
    source = make(on_change=lambda: changes.append(1))
    until_now(lambda: len(changes) == 1)
    provider.change(lambda: backends(2, 1))
    until_now(lambda: provider.asked == 2)
    provider.change(lambda: backends(3))
    until_now(lambda: len(changes) == 2)
    assert source.gather_backends() == backends(3)


def test_none_is_an_answer(provider: Scripted, make: MakeSource) -> None:
    provider.say = lambda: backends(1)
    source = make()
    until_now(lambda: source.is_ready)
    provider.change(tuple)
    until_now(lambda: source.gather_backends() == ())
    assert not source.error


def test_none_as_the_first_answer_is_a_change(provider: Scripted, make: MakeSource) -> None:
    changed = threading.Event()
    source = make(on_change=changed.set)
    assert changed.wait(5)
    assert source.gather_backends() == ()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ProviderError("the registry is down"), "the registry is down"),
        (KeyError("Address"), "KeyError: 'Address'"),
        (OSError(), "OSError"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_last_good_answer_stays_while_the_provider_fails(
    provider: Scripted,
    make: MakeSource,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    text: str,
) -> None:
    caplog.set_level(logging.INFO)
    provider.say = lambda: backends(1, 2)
    clock = Clock()
    source = make(clock=clock)
    until_now(lambda: source.is_ready)
    clock.now += 7
    provider.change(fail(error))
    until_now(lambda: source.error)
    assert source.error == text
    assert source.gather_backends() == backends(1, 2)
    assert source.is_stale
    assert source.age == 7
    provider.change(lambda: backends(3))
    until_now(lambda: source.gather_backends() == backends(3))
    assert (source.error, source.is_stale, source.age) == ("", False, 0)
    until_now(lambda: len(caplog.messages) == 2)
    assert caplog.messages == [
        f"web: provider scripted: {text}; its last answer stays (2 backends, 7 s old)",
        "web: provider scripted answers again",
    ]


def test_says_why_it_is_not_ready(provider: Scripted, make: MakeSource) -> None:
    provider.say = fail(ProviderError("no token"))
    source = make()
    until_now(lambda: source.error)
    with pytest.raises(NotReady, match="no token"):
        source.gather_backends()


def test_an_answer_that_breaks_the_contract_is_refused(
    provider: Scripted, make: MakeSource
) -> None:
    provider.say = lambda: [*backends(1), "10.0.0.9:80"]
    source = make()
    until_now(lambda: source.error)
    assert "is no Backend" in source.error
    assert not source.is_ready


def test_the_same_answer_again_is_refused_once_an_address_of_it_is_ours(
    provider: Scripted, make: MakeSource
) -> None:
    same = backends(1, 2)
    provider.say = lambda: same
    source = make()
    until_now(lambda: source.is_ready)
    provider.change(lambda: same)
    until_now(lambda: provider.asked == 2)
    assert not source.error

    source.ours = {FIRST + 2: "the address of service web"}
    provider.change(lambda: same)
    until_now(lambda: source.error)
    assert "10.0.0.3:80 is the balancer's own" in source.error


def test_the_same_list_again_with_another_entry_is_looked_at(
    provider: Scripted, make: MakeSource
) -> None:
    same: list[Any] = [*backends(1)]
    provider.say = lambda: same
    source = make()
    until_now(lambda: source.is_ready)

    same.append("10.0.0.9:80")
    provider.change(lambda: same)
    until_now(lambda: source.error)
    assert "is no Backend" in source.error


def test_tells_of_the_same_error_once(
    provider: Scripted, make: MakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    provider.say = fail(ProviderError("down"))
    make()
    for count in range(1, 4):
        until_now(lambda count=count: provider.asked >= count)  # type: ignore[misc]
        provider.change(provider.say)
    assert caplog.messages == ["web: provider scripted: down; what is installed stays"]


def test_complains_of_a_provider_until_it_answers(provider: Scripted, make: MakeSource) -> None:
    may_answer = threading.Event()

    def say() -> tuple[Backend, ...]:
        may_answer.wait(10)
        return backends(1)

    provider.say = say
    source = make()
    assert source.complaint(if_silent="no answer within 10 s") == (
        "web: provider scripted: no answer within 10 s; what is installed stays"
    )

    may_answer.set()
    until_now(lambda: source.is_ready)
    assert not source.complaint()


def test_backs_off_while_the_provider_fails(provider: Scripted, make: MakeSource) -> None:
    provider.say = fail(ProviderError("down"))
    make()
    for count in range(1, 5):
        until_now(lambda count=count: len(provider.waits) >= count)  # type: ignore[misc]
        provider.change(provider.say)
    assert provider.waits[:4] == [0.25, 0.5, 1.0, 2.0]


def test_a_failing_provider_that_sees_changes_at_once_is_asked_less_and_less(
    make: MakeSource,
) -> None:
    asked: list[float] = []

    class Hasty(FakeProvider):
        def gather_backends(self) -> Any:
            asked.append(time.monotonic())
            raise ProviderError("down")

        def wait_for_change(self, timeout: float) -> bool:
            return True

    make(Hasty)
    until_now(lambda: len(asked) >= 5)
    gaps = [after - before for before, after in pairwise(asked)]
    assert all(gap >= least for gap, least in zip(gaps[1:4], (0.24, 0.49, 0.99), strict=True)), gaps


def test_back_off_doubles_up_to_a_limit_and_is_spread() -> None:
    assert [back_off(failures, 1.0) for failures in (1, 2, 3, 7, 50)] == [0.5, 1, 2, 30, 30]
    assert [back_off(failures, 0.0) for failures in (1, 7)] == [0.25, 15]


def test_a_wait_that_fails_is_an_error_and_backs_off(
    provider: Scripted, make: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.say = lambda: backends(1)
    monkeypatch.setattr(provider, "wait_for_change", lambda _: fail(OSError("no watches"))())
    source = make()
    until_now(lambda: source.error == "OSError: no watches")
    assert source.gather_backends() == backends(1)


def test_a_provider_that_hangs_is_noticed_and_harms_nobody_else(
    provider: Scripted, make: MakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    provider.say = lambda: backends(1)
    clock = Clock()
    source = make(clock=clock)
    until_now(lambda: source.is_ready)
    gate = threading.Event()
    provider.change(lambda: gate.wait(30) and backends(2))
    until_now(lambda: provider.asked == 2)
    clock.now += 31
    for _ in range(2):
        assert source.gather_backends() == backends(1)
    late = (
        "asking the provider takes too long, more than 30 s: see what it waits for (llb providers "
        "test scripted), lower its timeouts, or set a longer time_limit in its class"
    )
    assert source.error == late
    assert source.is_stale
    assert caplog.messages == [f"web: provider scripted: {late}"]
    gate.set()
    until_now(lambda: "took 31.0 s; it counts within 30 s" in source.error)
    assert source.gather_backends() == backends(1), "what comes too late does not count"


class Deaf(FakeProvider):
    """Answers its first question; hangs in the next one, or in the wait before it, until closed."""

    def __init__(self, *, hangs_in_wait: bool) -> None:
        super().__init__()
        self.hangs_in_wait = hangs_in_wait

    def gather_backends(self) -> Any:
        self.asked += 1
        if self.asked > 1:
            self._hang()
        return backends(1)

    def wait_for_change(self, timeout: float) -> bool:
        if self.hangs_in_wait:
            self._hang()
        return True

    def _hang(self) -> None:
        self.is_hanging = True
        self.closed.wait()
        raise ProviderError("the connection was cut")


@pytest.mark.parametrize("hangs_in_wait", [True, False], ids=["wait", "gather"])
def test_a_provider_that_hangs_is_closed_and_made_anew(
    make: MakeSource, hangs_in_wait: bool
) -> None:
    made: list[FakeProvider] = []

    def make_provider() -> FakeProvider:
        made.append(FakeProvider() if made else Deaf(hangs_in_wait=hangs_in_wait))
        made[-1].say(backends(2))
        return made[-1]

    clock = Clock()
    source = make(make_provider, clock=clock)
    until_now(lambda: made and made[0].is_hanging)
    clock.now += 3600
    assert source.gather_backends() == backends(1)
    until_now(lambda: source.gather_backends() == backends(2))
    assert not source.error
    assert len(made) == 2


class Stubborn(FakeProvider):
    """Hangs in its first question, or while it is being made, whoever closes it."""

    made: list[Stubborn]
    gate: threading.Event

    def __init__(self, *, hangs_while_made: bool) -> None:
        super().__init__()
        self.made.append(self)
        self.number = len(self.made)
        self.say(backends(self.number))
        if hangs_while_made:
            self._hang()

    def gather_backends(self) -> Any:
        answer = super().gather_backends()
        self._hang()
        return answer

    def _hang(self) -> None:
        if self.number <= 2:
            self.gate.wait(30)


@pytest.mark.parametrize("hangs_while_made", [True, False], ids=["made", "asked"])
def test_a_provider_that_hangs_whoever_closes_it_is_left_and_made_anew(
    make: MakeSource, caplog: pytest.LogCaptureFixture, hangs_while_made: bool
) -> None:
    class Own(Stubborn):
        made: list[Stubborn] = []  # noqa: RUF012 - one class a test
        gate = threading.Event()

    clock = Clock()
    source = make(lambda: Own(hangs_while_made=hangs_while_made), clock=clock)
    while len(source._left) < 2:
        until_now(lambda: source._known.deadline is not None)
        clock.now += 31
        with suppress(NotReady):  # The third may have answered by then.
            source.gather_backends()
    until_now(lambda: source.is_ready)
    assert source.gather_backends() == backends(3)
    assert len(caplog.messages) == 2, "each is told once"
    Own.gate.set()
    until_now(lambda: not any(thread.is_alive() for thread in source._left))
    assert source.gather_backends() == backends(3), "what comes too late does not count"
    assert all(each.closed.is_set() for each in Own.made[:2])


def test_threads_that_hang_for_ever_are_few(make: MakeSource) -> None:
    gate, tries = threading.Event(), list[int]()

    def make_provider() -> Scripted:
        tries.append(1)
        gate.wait(30)
        raise OSError("too late")

    clock = Clock()
    source = make(make_provider, clock=clock)
    for number in range(1, 9):
        until_now(partial(lambda wanted: len(tries) == wanted, min(number, 4)))
        clock.now += 31
        with pytest.raises(NotReady):
            source.gather_backends()
    assert len(tries) == 4
    gate.set()


def test_threads_that_hang_in_closing_are_few(
    make: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llb_core.source._FIRST_DELAY", 0.001)
    gate, clock = threading.Event(), Clock()
    rounds, asked, closed = threading.Semaphore(0), list[FakeProvider](), list[FakeProvider]()

    class Late(FakeProvider):
        """Answers once it is allowed to, each time too late, and hangs where it is closed."""

        def gather_backends(self) -> Any:
            asked.append(self)
            rounds.acquire(timeout=30)
            return backends(1)

        def close(self) -> None:
            closed.append(self)
            gate.wait(30)

    source = make(Late, clock=clock)
    for number in range(1, 9):
        until_now(partial(lambda wanted: len(asked) == wanted, number), limit=30)
        clock.now += 31
        with pytest.raises(NotReady):
            source.gather_backends()
        rounds.release()
    until_now(lambda: len(asked) == 9, limit=30)
    until_now(lambda: len(closed) >= 3, limit=30)
    assert closed == asked[:3]
    assert len(set(map(id, asked))) == 4, "the fourth is kept: nobody could close it"
    gate.set()
    rounds.release(1000)
    until_now(lambda: source.is_ready, limit=30)


def test_what_can_not_be_written_ends_nobodys_thread(provider: Scripted, make: MakeSource) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise SystemExit(7)

    provider.say = fail(Unspeakable())
    source = make()
    until_now(lambda: source.error == "Unspeakable", limit=30)
    provider.say = lambda: backends(1)
    until_now(lambda: source.is_ready, limit=30)


def test_closing_leaves_a_provider_that_hangs_to_itself(
    provider: Scripted, make: MakeSource
) -> None:
    gate = threading.Event()
    provider.say = lambda: gate.wait(30) and ()
    source = make()
    until_now(lambda: provider.asked)
    source.close(timeout=0.01)
    gate.set()


def test_sources_are_closed_together(make: MakeSource) -> None:
    """Each hangs until all are told to close: one after another they would wait for ever."""
    together = threading.Barrier(3)

    class Slow(Scripted):
        def close(self) -> None:
            together.wait(20)
            super().close()

    slow = [Slow() for _ in range(3)]
    for each in slow:
        each.say = lambda each=each: each.closed.wait(60) and ()  # type: ignore[misc]
    sources = [make(lambda each=each: each) for each in slow]
    until_now(lambda: all(each.asked for each in slow))

    close_together(sources, timeout=30)

    assert not together.broken
    assert not any(source._thread.is_alive() for source in sources)


def test_a_provider_that_cannot_be_made_is_made_again(provider: Scripted, make: MakeSource) -> None:
    tries = []

    def make_provider() -> Scripted:
        tries.append(1)
        if len(tries) < 2:
            raise OSError("no network yet")
        return provider

    provider.say = lambda: backends(1)
    source = make(make_provider)
    until_now(lambda: source.is_ready)
    assert len(tries) == 2


def test_closing_ends_a_wait_at_once(provider: Scripted, make: MakeSource) -> None:
    source = make()
    until_now(lambda: provider.waits)
    source.close()
    assert provider.closed.is_set()
    until_now(lambda: not source._thread.is_alive())


def test_a_provider_that_sees_changes_without_end_is_not_asked_without_end(
    provider: Scripted, make: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "wait_for_change", lambda _: True)
    make()
    took = until_now(lambda: provider.asked >= 10)
    assert took > 0.1


class TestGuard:
    """A sudden loss of most backends."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def source(self, provider: Scripted, make: MakeSource, clock: Clock) -> Source:
        provider.say = lambda: backends(*range(10))
        source = make(clock=clock, guard=Guard(loss=0.5, hold=10, backends=10))
        until_now(lambda: source.is_ready)
        return source

    def test_is_held_back_and_shouted_about(
        self, provider: Scripted, source: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider.change(lambda: backends(1))
        until_now(lambda: source.error and caplog.messages)
        assert len(source.gather_backends()) == 10
        assert caplog.messages == [
            (
                "web: provider scripted: 9 of 10 backends are gone at once: held back for 10 s; "
                "its last answer stays (10 backends, 0 s old)"
            )
        ]

    def test_counts_once_it_has_lasted(
        self, provider: Scripted, source: Source, clock: Clock
    ) -> None:
        provider.change(tuple)
        until_now(lambda: source.error)
        until_now(lambda: 10 in provider.waits)
        clock.now += 10
        provider.change(tuple)
        until_now(lambda: source.gather_backends() == ())
        assert not source.error

    def test_is_forgotten_when_the_backends_come_back(
        self, provider: Scripted, source: Source, clock: Clock
    ) -> None:
        provider.change(tuple)
        until_now(lambda: source.error)
        clock.now += 9
        provider.change(lambda: backends(*range(11)))
        until_now(lambda: not source.error)
        clock.now += 9
        provider.change(tuple)
        until_now(lambda: source.error)
        assert len(source.gather_backends()) == 11

    @pytest.mark.parametrize("is_late", [False, True], ids=["failed", "late"])
    def test_a_loss_that_was_held_once_does_not_count_at_once_after_an_outage(
        self, provider: Scripted, source: Source, clock: Clock, is_late: bool
    ) -> None:
        def answer_late() -> Any:
            clock.now += 31
            return ()

        provider.change(tuple)
        until_now(lambda: "held back" in source.error, limit=30)
        clock.now += 1
        provider.change(answer_late if is_late else fail(OSError("no network")))
        why = "it counts within" if is_late else "no network"
        until_now(lambda: why in source.error, limit=30)
        clock.now += 23
        provider.change(tuple)
        until_now(lambda: "held back" in source.error, limit=30)
        assert len(source.gather_backends()) == 10
        clock.now += 10
        provider.change(tuple)
        until_now(lambda: source.gather_backends() == (), limit=30)

    def test_a_wait_that_hangs_meanwhile_begins_the_hold_anew(
        self, provider: Scripted, source: Source, clock: Clock
    ) -> None:
        provider.change(tuple)
        until_now(lambda: "held back" in source.error, limit=30)
        until_now(lambda: 10 in provider.waits and source._known.deadline is not None, limit=30)
        asked = provider.asked
        clock.now += 60
        assert len(source.gather_backends()) == 10, "it is noticed by this, and closed"
        until_now(lambda: provider.asked > asked and "held back" in source.error, limit=30)
        assert len(source.gather_backends()) == 10

    @pytest.mark.parametrize(
        ("first", "then", "counts"),
        [((1,), (), False), ((1,), (2,), False), ((), (1,), True), ((1,), (1, 11), True)],
        ids=["more is gone", "others are gone", "one is back", "a new one comes"],
    )
    def test_the_hold_is_of_what_is_gone(
        self,
        provider: Scripted,
        source: Source,
        clock: Clock,
        first: tuple[int, ...],
        then: tuple[int, ...],
        counts: bool,
    ) -> None:
        provider.change(lambda: backends(*first))
        until_now(lambda: "held back" in source.error, limit=30)
        until_now(lambda: 10 in provider.waits, limit=30)
        clock.now += 10
        waits = len(provider.waits)
        provider.change(lambda: backends(*then))
        until_now(lambda: len(provider.waits) > waits, limit=30)
        until_now(lambda: bool(source.error) is not counts, limit=30)
        assert source.gather_backends() == (backends(*then) if counts else backends(*range(10)))

    def test_a_smaller_loss_counts_at_once(self, provider: Scripted, source: Source) -> None:
        provider.change(lambda: backends(*range(5)))
        until_now(lambda: len(source.gather_backends()) == 5)


CONFIG = """
[loadbalancer]
public_interface = "eth0"
backend_cidrs = ["10.0.0.0/24"]
snat_addresses = ["10.0.0.1"]
[services.web]
address = "203.0.113.10"
port = 80
[[services.web.provider]]
name = "static"
path = "one.toml"
[[services.web.provider]]
name = "static"
path = "two.toml"
"""


def config(text: str, folder: Path) -> Config:
    return parse(text, folder / "llb.toml")


def made(
    text: str, folder: Path, previous: Iterable[Source] = (), find: FindEntryPoints | None = None
) -> list[Source]:
    parsed = config(text, folder)
    providers = load_providers(parsed, find or find_entry_points)
    return make_sources(parsed, providers, on_change=lambda: None, previous=previous)


def test_makes_a_source_for_each_provider_and_keeps_it_over_a_reload(tmp_path: Path) -> None:
    first = made(CONFIG, tmp_path)
    assert [source.service for source in first] == ["web", "web"]
    second = made(CONFIG.replace("two.toml", "three.toml"), tmp_path, first)
    assert second[0] is first[0]
    assert second[1] is not first[1]
    assert not set(made(CONFIG.replace("= 80", "= 81"), tmp_path, first)) & set(first)


def test_a_source_that_is_kept_is_as_it_was_until_the_reload_is_done(tmp_path: Path) -> None:
    snat, vip, later = map(ipaddress.ip_address, ("10.0.0.1", "203.0.113.10", "10.0.0.9"))
    (kept, left) = made(CONFIG, tmp_path)
    ours = {snat: "loadbalancer.snat_addresses", vip: "the address of service web"}
    assert kept.ours == left.ours == ours
    other = CONFIG[CONFIG.index("[services") :].replace("web", "dns").replace(str(vip), str(later))
    sources = made(CONFIG + other, tmp_path, [kept])
    assert sources[0] is kept
    assert kept.ours == ours, "the reload may still be refused"
    assert sources[1].ours == ours | {later: "the address of service dns"}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"203.0.113.10"', '"10.0.0.9"', "the address of service web"),
        ('"10.0.0.1"', '"10.0.0.1", "10.0.0.9"', "loadbalancer.snat_addresses"),
        ('"one.toml"', '"other.toml"', None),
        ("= 80", "= 81", None),
    ],
    ids=["vip", "snat", "another question", "another port"],
)
def test_a_backends_address_cannot_become_the_balancers_own(
    tmp_path: Path, old: str, new: str, what: str | None
) -> None:
    (tmp_path / "one.toml").write_text('[[backends]]\naddress = "10.0.0.9"\nport = 80\n')
    first = made(CONFIG, tmp_path)
    first[0].start()
    try:
        until_now(lambda: first[0].is_ready)
        changed = config(CONFIG.replace(old, new), tmp_path)
        if what is None:
            refuse_own_backends(changed, first)
            return
        with pytest.raises(ConfigurationError) as caught:
            refuse_own_backends(changed, first)
    finally:
        first[0].close()
    assert str(caught.value) == (
        f"{tmp_path}/llb.toml: services.web: provider static names 10.0.0.9:80, which would be the "
        f"balancer's own ({what}): set another address, or have the provider name that backend no "
        "longer"
    )


def test_looks_once_at_what_is_installed_for_all_sources(tmp_path: Path) -> None:
    looks: list[None] = []

    def find() -> Found:
        looks.append(None)
        return find_entry_points()

    assert len(made(CONFIG, tmp_path, find=find)) == 2
    assert len(looks) == 1


def test_a_wrong_option_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"services.web.provider\[1\].pth: unknown key"):
        made(CONFIG.replace('path = "two', 'pth = "two'), tmp_path)
