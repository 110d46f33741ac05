"""The collector of cycles is still while somebody works undisturbed, and no longer."""

from __future__ import annotations

import gc
import threading

import pytest

from llb_core.undisturbed import undisturbed


def test_the_collector_goes_on_once_the_last_has_done() -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with undisturbed():
            has_begun.set()
            may_end.wait(30)

    other = threading.Thread(target=work)
    with undisturbed():
        other.start()
        assert has_begun.wait(30)
        assert not gc.isenabled()
    assert not gc.isenabled()
    may_end.set()
    other.join(30)

    assert gc.isenabled()


def test_the_collector_goes_on_after_an_error() -> None:
    with pytest.raises(ValueError, match="no"), undisturbed():
        raise ValueError("no")

    assert gc.isenabled()
