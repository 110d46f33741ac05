"""The contract of a provider as a test suite: name yours, and pytest runs what it must hold.

    class TestMine(ProviderContract):
        provider = MyProvider
        options = {"path": "backends.csv"}

        def say(self, backends): ...     # have the provider's world name these backends
        def fail(self): ...              # have it fail: no file, no server, an error

What is not here: whether what the provider's world says is understood rightly, weights and states
included. That is for tests of your own.
"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from llb_core.answer import check_seconds
from llb_core.errors import ProviderError
from llb_core.installed import GROUP, find_entry_points
from llb_core.model import Backend, Endpoint
from llb_core.plugins import provider_class
from llb_core.provider import Provider, ProviderContext
from llb_core.testing.balancer import MemoryBalancer
from llb_core.testing.driven import BOTH_FAMILIES, Driven
from llb_core.testing.fakes import FakeProvider, some_backends
from llb_core.testing.waiting import until
from llb_core.validation import sounds_secret

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class ProviderContract:
    """Derive a class whose name begins with Test, and say what is said below.

    A server that the provider asks, or anything else that must be there first, is for a fixture
    of the class with `autouse=True`; it may set `options` on `self`.
    """

    provider: ClassVar[type[Provider[Any]]]
    """The class of the provider."""

    options: Mapping[str, Any] = {}
    """Options that are right, as they stand in llb.toml; paths are relative to `folder`."""

    secrets: Mapping[str, str] | Sequence[Mapping[str, str]] = {}
    """Options that hold a secret, each with a value that is right; a list of them where they can't
    stand together, each for a try of its own."""

    backends: Sequence[Backend] = some_backends(11, 12, 13)
    """Three backends that `say` is able to have named."""

    families: frozenset[int] = BOTH_FAMILIES
    """The address families (4, 6) that the provider's backends may be of."""

    limit: float = 5.0
    """Seconds in which the provider sees what `say` and `fail` did."""

    folder: Path
    """The folder of llb.toml, new for each test."""

    def say(self, backends: Sequence[Backend]) -> None:
        """Have the provider's world name these backends, and no others."""
        raise NotImplementedError

    def fail(self) -> None:
        """Have the provider's world fail, until `say` is called again."""
        raise NotImplementedError

    # ---- what the tests are made of ----

    @pytest.fixture(autouse=True)
    def _tidy(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        self._made: list[Driven] = []
        yield
        for each in self._made:
            each.close()

    def make(self, more: Mapping[str, Any] | None = None) -> Driven:
        """Return a provider in a thread of its own; it is closed when the test is over."""
        options = self.provider.Options.model_validate({**self.options, **(more or {})})
        context = ProviderContext("web", self.folder)
        made = Driven(lambda: self.provider(options, context), families=self.families)
        self._made.append(made)
        return made

    def comes_to_say(self, provider: Driven, expected: Sequence[Backend]) -> None:
        """Ask again after every wait, as a source does, until the answer is the expected one."""
        said: object = None

        def is_said() -> bool:
            nonlocal said
            provider.wait(0.05)
            try:
                said = _endpoints(provider.gather())
            except ProviderError as error:
                said = error
            return said == _endpoints(expected)

        until(is_said, limit=self.limit, what=f"the answer does not become {expected}")

    def comes_to_fail(self, provider: Driven) -> ProviderError:
        """Ask again after every wait until the provider raises; return what it raised."""
        end = time.monotonic() + self.limit
        while time.monotonic() < end:
            try:
                provider.wait(0.05)
                provider.gather()
            except ProviderError as error:
                return error
        raise AssertionError(f"it goes on answering for {self.limit:g} s though it can't know")

    # ---- its name and its options ----

    def test_is_a_provider(self) -> None:
        assert issubclass(self.provider, Provider)
        missing: frozenset[str] = getattr(self.provider, "__abstractmethods__", frozenset())
        assert not missing, f"{self.provider.__name__} lacks {', '.join(sorted(missing))}"

    def test_its_name_is_one_word(self) -> None:
        assert _NAME.fullmatch(self.provider.name), "lower-case letters, digits and hyphens"

    def test_is_found_by_its_entry_point(self) -> None:
        name = self.provider.name
        assert any(entry.name == name for entry in find_entry_points().entries), (
            f'no entry point "{name}" in group "{GROUP}": see [project.entry-points.{GROUP}] in '
            "pyproject.toml, and pip install -e ."
        )
        assert provider_class(name) is self.provider

    def test_its_distribution_is_the_one_that_errors_name(self) -> None:
        (entry,) = (e for e in find_entry_points().entries if e.name == self.provider.name)
        assert entry.dist is not None
        found = re.sub(r"[-_.]+", "-", entry.dist.name).lower()
        assert found == f"llb-provider-{self.provider.name}"

    def test_is_asked_at_finite_intervals(self) -> None:
        self.say(self.backends)
        provider = self.make()
        for name in ("refresh", "time_limit"):
            check_seconds(name, getattr(provider.provider, name))

    def test_an_unknown_option_is_an_error(self) -> None:
        with pytest.raises(ValidationError) as caught:
            self.provider.Options.model_validate({**self.options, "no_such_option": 1})
        assert [each["type"] for each in caught.value.errors()] == ["extra_forbidden"], (
            "derive its Options from llb_core.ProviderOptions"
        )

    def test_every_option_is_described(self) -> None:
        fields = self.provider.Options.model_fields
        lacking = [name for name, field in fields.items() if not field.description]
        assert not lacking, f"no Field(description=...) for {', '.join(lacking)}"

    def test_what_sounds_secret_is_held_as_a_secret(self) -> None:
        fields = self.provider.Options.model_fields
        suspects = [n for n, field in fields.items() if sounds_secret(n) and _may_be_text(field)]
        known = {name for secrets in self._all_secrets() for name in secrets}
        unknown = [name for name in suspects if name not in known]
        assert not unknown, f"name {', '.join(unknown)} in `secrets`, with a value that is right"

    def test_secrets_are_never_shown(self) -> None:
        for secrets in self._all_secrets():
            read = self.provider.Options.model_validate({**self.options, **secrets})
            self.say(self.backends)
            provider = self.make(secrets)
            self.fail()
            error = self.comes_to_fail(provider)
            texts = [repr(read), str(read), repr(provider.provider), str(error), repr(error)]
            shown = [name for name, each in secrets.items() if any(each in text for text in texts)]
            assert not shown, f"the secret of option {', '.join(shown)} is shown"

    def _all_secrets(self) -> Sequence[Mapping[str, str]]:
        return [self.secrets] if isinstance(self.secrets, Mapping) else self.secrets

    # ---- what it answers ----

    def test_answers_with_all_backends(self) -> None:
        self.say(self.backends)
        assert _endpoints(self.make().gather()) == _endpoints(self.backends)

    def test_answers_the_same_while_nothing_changes(self) -> None:
        self.say(self.backends)
        provider = self.make()
        first = provider.gather()
        for _ in range(2):
            provider.wait(0)
            assert provider.gather() == first

    def test_one_that_is_made_anew_answers_the_same(self) -> None:
        self.say(self.backends)
        first, second = self.make(), self.make()
        assert first.gather() == second.gather()
        first.close()
        second.wait(0)
        assert len(second.gather()) == len(self.backends), "closing one must not end another"

    def test_none_is_an_empty_answer(self) -> None:
        self.say(())
        assert self.make().gather() == ()

    def test_failing_is_an_error_and_no_answer(self) -> None:
        self.fail()
        with pytest.raises(ProviderError):
            self.make().gather()

    def test_an_error_is_one_line(self) -> None:
        self.fail()
        with pytest.raises(ProviderError) as caught:
            self.make().gather()
        assert str(caught.value).strip(), "the error says nothing"
        assert len(str(caught.value).splitlines()) == 1

    def test_failing_after_an_answer_is_an_error_all_the_same(self) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.gather()
        self.fail()
        self.comes_to_fail(provider)

    def test_answers_again_after_it_failed(self) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.gather()
        self.fail()
        self.comes_to_fail(provider)
        self.say(self.backends[:2])
        self.comes_to_say(provider, self.backends[:2])

    def test_answers_otherwise_after_a_change(self) -> None:
        self.say(self.backends[:2])
        provider = self.make()
        answer = provider.gather_as_it_is()
        before = tuple(answer)
        for backends in (self.backends[1:], (), self.backends):
            self.say(backends)
            self.comes_to_say(provider, backends)
        assert tuple(answer) == before, "an answer that was given must not change"

    # ---- waiting and closing ----

    @pytest.mark.parametrize("timeout", [0, 0.2], ids=["at once", "soon"])
    def test_a_wait_ends_in_time(self, timeout: float) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.gather()
        assert isinstance(provider.wait(timeout), bool)

    def test_a_change_ends_a_wait_where_it_watches(self) -> None:
        self.say(self.backends[:2])
        provider = self.make()
        provider.gather()
        if type(provider.provider).wait_for_change is Provider.wait_for_change:
            return  # It doesn't watch, and is asked every `refresh` seconds instead.
        self.say(self.backends)
        end = time.monotonic() + self.limit
        while not provider.waiting(60).result(limit=self.limit, what="the wait goes on"):
            assert time.monotonic() < end
        self.comes_to_say(provider, self.backends)

    def test_closing_ends_a_wait_from_another_thread(self) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.gather()
        waiting = provider.waiting(600)
        provider.provider.close()
        with suppress(ProviderError):  # What it was doing was cut off: nobody listens any more.
            waiting.result(limit=self.limit, what="a wait goes on though the provider is closed")

    def test_a_wait_ends_at_once_after_closing(self) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.provider.close()
        what = "a wait goes on though the provider was closed before it"
        assert provider.waiting(600).result(limit=self.limit, what=what) is False

    def test_closes_twice_and_unasked(self) -> None:
        self.say(self.backends)
        provider = self.make()
        provider.provider.close()
        provider.provider.close()
        assert provider.provider.closed.is_set(), "close() must call super().close()"

    def test_leaves_no_thread_and_no_file_behind(self) -> None:
        self.say(self.backends)
        self._live_and_die()  # What is made once for all of them is made now.
        threads, files = set(threading.enumerate()), _open_files()
        for _ in range(3):
            self._live_and_die()

        def is_tidy() -> bool:
            gc.collect()
            return set(threading.enumerate()) <= threads and _open_files() <= files

        until(
            is_tidy,
            limit=self.limit,
            what=f"left: {set(threading.enumerate()) - threads}, {_open_files() - files} files",
        )

    def _live_and_die(self) -> None:
        provider = self.make()
        provider.gather()
        provider.wait(0.01)
        provider.close()
        self._made.remove(provider)

    # ---- in a balancer: never answered, failing now, and empty are three things ----

    def test_never_having_answered_leaves_what_is_installed(self) -> None:
        before = FakeProvider()
        before.say(self.backends)
        self.fail()
        with MemoryBalancer(base=self.folder, families=self.families) as balancer:
            balancer.add(before)
            balancer.turn_until(balancer.active)
        with MemoryBalancer(balancer.maps, base=self.folder) as restarted:
            source = restarted.add(self.provider, self.options, refresh=0.05)
            until(lambda: source.error, limit=self.limit, what="it does not raise")
            restarted.turn()
            assert restarted.active() == _endpoints(self.backends)

    def test_failing_leaves_its_last_answer(self) -> None:
        self.say(self.backends)
        with MemoryBalancer(base=self.folder, families=self.families) as balancer:
            source = balancer.add(self.provider, self.options, refresh=0.05)
            balancer.turn_until(balancer.active, limit=self.limit)
            self.fail()
            until(lambda: source.error, limit=self.limit, what="it does not raise")
            balancer.turn()
            assert source.is_stale
            assert balancer.active() == _endpoints(self.backends)

    def test_saying_none_leaves_none(self) -> None:
        self.say(())
        before = FakeProvider()
        before.say(self.backends)
        with MemoryBalancer(base=self.folder, families=self.families) as balancer:
            balancer.add(before)
            balancer.turn_until(balancer.active)
        with MemoryBalancer(balancer.maps, base=self.folder) as restarted:
            source = restarted.add(self.provider, self.options, refresh=0.05)
            until(lambda: source.is_ready, limit=self.limit, what="it does not answer")
            restarted.turn()
            assert restarted.active() == frozenset()


def _endpoints(backends: Sequence[Backend]) -> frozenset[Endpoint]:
    return frozenset(backend.endpoint for backend in backends)


def _may_be_text(field: FieldInfo) -> bool:
    def parts(annotation: Any) -> Iterator[Any]:
        yield annotation
        for each in get_args(annotation):
            yield from parts(each)

    return any(part in (str, SecretStr) for part in parts(field.annotation))


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
