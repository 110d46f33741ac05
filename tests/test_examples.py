"""Every example is valid as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
AS_THEY_STAND = sorted(
    path
    for path in EXAMPLES.glob("*/llb.toml")
    if not (path.parent / "pyproject.toml").exists()  # One to be installed: test_custom_provider.
)


@pytest.mark.parametrize("example", AS_THEY_STAND, ids=lambda path: path.parent.name)
def test_llb_check_accepts_the_example(example: Path) -> None:
    check = subprocess.run(
        [sys.executable, "-m", "llb_core", "check", "-c", example],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.stderr == ""
    assert check.returncode == 0
