"""Rules for every test: what needs root says so by a marker, and fails without it, never skips."""

from __future__ import annotations

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs_root = item.get_closest_marker("root") or item.get_closest_marker("netns")
    if needs_root and os.geteuid() != 0:
        pytest.fail("needs root; without: make test ARGS='-m \"not root and not netns\"'", False)
