"""The contract as a test suite finds what breaks it: each broken provider fails, and where."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = '''
import threading
from pydantic import Field, SecretStr, model_validator
from llb_core import Backend, Provider, ProviderError, ProviderOptions
from llb_core.testing import ProviderContract, some_backends

class World:
    """What the provider asks: backends, or None while it fails."""
    backends = ()

class Options(ProviderOptions):
    url: str = Field("x", description="where")

class Right(Provider[Options]):
    name = "right"
    Options = Options

    def gather_backends(self):
        if World.backends is None:
            raise ProviderError("it is down")
        return list(World.backends)

class Contract(ProviderContract):
    limit = 0.3

    def say(self, backends):
        World.backends = tuple(backends)

    def fail(self):
        World.backends = None

class TestRight(Contract):
    provider = Right

class TestIPv6(Contract):
    provider = Right
    families = frozenset({6})
    backends = some_backends(11, 12, 13, family=6)

class Options(Options):
    token: SecretStr | None = Field(None, description="who asks")
    password: SecretStr | None = Field(None, description="what who asks knows")

    @model_validator(mode="after")
    def _have_one(self):
        if self.token and self.password:
            raise ValueError("give one of them")
        return self

class Exclusive(Right):
    Options = Options

class TestExclusive(Contract):
    provider = Exclusive
    secrets = ({"token": "sesame"}, {"password": "open it"})
'''
OF_ADDRESSES = (
    "test_answers_with_all_backends",
    "test_never_having_answered_leaves_what_is_installed",
    "test_failing_leaves_its_last_answer",
    "test_saying_none_leaves_none",
)
OF_SECRETS = ("test_what_sounds_secret_is_held_as_a_secret", "test_secrets_are_never_shown")
CASE = """
class Broken{number}(Right):
    {body}

class Test{number}(Contract):
    provider = Broken{number}
    secrets = {secrets}
"""
BROKEN = {
    "a part": (
        "def gather_backends(self): return super().gather_backends()[:1]",
        {"test_answers_with_all_backends"},
    ),
    "empty for failed": (
        "def gather_backends(self): return list(World.backends or ())",
        {
            "test_failing_is_an_error_and_no_answer",
            "test_an_error_is_one_line",
            "test_failing_after_an_answer_is_an_error_all_the_same",
            "test_failing_leaves_its_last_answer",
            "test_never_having_answered_leaves_what_is_installed",
        },
    ),
    "another exception": (
        """def gather_backends(self):
        if World.backends is None: raise KeyError("Address")
        return list(World.backends)""",
        {"test_failing_is_an_error_and_no_answer", "test_an_error_is_one_line"},
    ),
    "its last answer for ever": (
        """last = None
    def gather_backends(self):
        if self.last is None: self.last = super().gather_backends()
        return self.last""",
        {
            "test_answers_otherwise_after_a_change",
            "test_failing_after_an_answer_is_an_error_all_the_same",
            "test_failing_leaves_its_last_answer",
        },
    ),
    "another order of answers": (
        """asked = 0
    def gather_backends(self):
        self.asked += 1
        return super().gather_backends()[self.asked % 2:]""",
        {"test_answers_the_same_while_nothing_changes"},
    ),
    "an answer that changes afterwards": (
        """def gather_backends(self):
        self.answer = getattr(self, "answer", [])
        self.answer[:] = super().gather_backends()
        return self.answer""",
        {"test_answers_otherwise_after_a_change"},
    ),
    "text for backends": (
        "def gather_backends(self): return [str(b.endpoint) for b in super().gather_backends()]",
        {"test_answers_with_all_backends", "test_none_is_an_empty_answer"}
        - {"test_none_is_an_empty_answer"},
    ),
    "an error of two lines": (
        """def gather_backends(self):
        if World.backends is None: raise ProviderError("one\\ntwo")
        return list(World.backends)""",
        {"test_an_error_is_one_line"},
    ),
    "a wait that outlasts its timeout": (
        "def wait_for_change(self, timeout): return self.closed.wait(60)",
        {"test_a_wait_ends_in_time[at once]", "test_a_wait_ends_in_time[soon]"},
    ),
    "a wait that ignores close": (
        "def wait_for_change(self, timeout): return threading.Event().wait(min(timeout, 60))",
        {
            "test_closing_ends_a_wait_from_another_thread",
            "test_a_wait_ends_at_once_after_closing",
            "test_a_change_ends_a_wait_where_it_watches",
        },
    ),
    "close without super": (
        "def close(self): pass",
        {"test_closes_twice_and_unasked", "test_closing_ends_a_wait_from_another_thread"},
    ),
    "closing once": (
        """def close(self):
        assert not self.closed.is_set()
        super().close()""",
        {"test_closes_twice_and_unasked"},
    ),
    "a thread left behind": (
        """def gather_backends(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().gather_backends()""",
        {"test_leaves_no_thread_and_no_file_behind"},
    ),
    "a file left behind": (
        """kept = []
    def gather_backends(self):
        self.kept.append(open("/dev/null"))
        return super().gather_backends()""",
        {"test_leaves_no_thread_and_no_file_behind"},
    ),
    "closing all of them": (
        """ended = threading.Event()
    def close(self):
        super().close(); self.ended.set()
    def gather_backends(self):
        if self.ended.is_set(): raise ProviderError("closed")
        return super().gather_backends()""",
        {"test_one_that_is_made_anew_answers_the_same"},
    ),
    "no word for a name": ('name = "My provider"', {"test_its_name_is_one_word"}),
    "another's entry point": (
        'name = "consul"',
        {"test_is_found_by_its_entry_point"},
    ),
    "a secret in its repr": (
        """class Options(Options):
        token: str = Field("", description="who asks")
    def __repr__(self): return f'<Broken {self.options}>'""",
        {"test_secrets_are_never_shown"},
    ),
    "unknown options": (
        """class Options(Options):
        model_config = {"extra": "ignore"}""",
        {"test_an_unknown_option_is_an_error"},
    ),
    "an option without a word": (
        """class Options(Options):
        size: int = 3""",
        {"test_every_option_is_described"},
    ),
    "a secret that is not named": (
        """class Options(Options):
        token: str = Field("", description="who asks")""",
        {"test_what_sounds_secret_is_held_as_a_secret"},
    ),
    "never asked again": (
        'refresh = float("inf")',
        {"test_is_asked_at_finite_intervals"},
    ),
    "no gather_backends": (
        "from abc import abstractmethod\n    @abstractmethod\n    def gather_backends(self): ...",
        {"test_is_a_provider"},
    ),
}


CASES = {case: f"Test{number}" for number, case in enumerate(BROKEN)}
GUIDE = Path(__file__).parents[2] / "docs" / "writing-a-provider.md"
NOT_INSTALLED = {
    "test_is_found_by_its_entry_point",
    "test_its_distribution_is_the_one_that_errors_name",
}
"""What fails for every provider here."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By class and test, what became of it: of the right provider's tests all are run, and of
    each broken one's those that are to find it."""
    suite = tmp_path_factory.mktemp("suite") / "test_suite.py"
    chosen = [f"{suite}::TestRight"]
    chosen += [f"{suite}::TestIPv6::{test}" for test in OF_ADDRESSES]
    chosen += [f"{suite}::TestExclusive::{test}" for test in OF_SECRETS]
    text = HEAD
    for number, (case, (body, tests)) in enumerate(BROKEN.items()):
        secrets = {"token": "sesame"} if case == "a secret in its repr" else {}
        klass = CASE.replace("{number}", str(number)).replace("{secrets}", repr(secrets))
        text += klass.replace("{body}", body)
        chosen += [f"{suite}::Test{number}::{test}" for test in sorted(tests)]
    suite.write_text(text)
    command = [sys.executable, "-m", "pytest", "-rA", "--tb=no", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={suite.parent}", *chosen],
        capture_output=True,
        text=True,
        check=False,
        cwd=suite.parent,
    )
    found: dict[str, dict[str, str]] = {}
    for outcome, name, test in re.findall(
        r"^([A-Z]+) \S+::(Test\w+)::(\w+(?:\[[^\]]+\])?)", done.stdout, re.MULTILINE
    ):
        found.setdefault(name, {})[test] = outcome
    assert found, done.stdout + done.stderr
    return found


def test_finds_no_fault_in_a_right_provider(outcomes: dict[str, dict[str, str]]) -> None:
    of_right = outcomes["TestRight"]
    assert {test for test, outcome in of_right.items() if outcome != "PASSED"} == NOT_INSTALLED
    assert f"some {round(len(of_right), -1)} of them" in GUIDE.read_text()


def test_drives_a_provider_of_ipv6(outcomes: dict[str, dict[str, str]]) -> None:
    assert outcomes["TestIPv6"] == dict.fromkeys(OF_ADDRESSES, "PASSED")


def test_tries_secrets_that_exclude_each_other_one_by_one(
    outcomes: dict[str, dict[str, str]],
) -> None:
    assert outcomes["TestExclusive"] == dict.fromkeys(OF_SECRETS, "PASSED")


@pytest.mark.parametrize("case", BROKEN)
def test_finds_what_breaks_the_contract(case: str, outcomes: dict[str, dict[str, str]]) -> None:
    _, expected = BROKEN[case]
    assert outcomes[CASES[case]] == dict.fromkeys(expected, "FAILED")


def test_the_rest_is_had_without_pytest(tmp_path: Path) -> None:
    program = "import sys; import llb_core.testing; print('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
