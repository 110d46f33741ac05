"""The orders of a soak's operator, each timed: one that is slow is told from one that hangs."""

from __future__ import annotations

import subprocess
import time

from llb_core.demo import lab

SLOW = 60.0
"""Seconds that an order may take untold. One that takes longer is no fault: a machine is busy."""
LIMIT = 600.0
"""Seconds until an order hangs; the command itself waits for a daemon 120 s at most."""


class OrderFailed(AssertionError):
    """An order was not carried out: which, after how long, and whether the daemon answers."""


class Orders:
    """Gives them as an operator does, by the command `llb`."""

    def __init__(self, balancer: lab.Balancer, *, slow: float = SLOW, limit: float = LIMIT) -> None:
        self.slow: list[str] = []
        """Those that were carried out, but slowly."""
        self._balancer = balancer
        self._slow, self._limit = slow, limit

    def give(self, *arguments: str, code: int = 0) -> str:
        """Give one that ends with that exit code, and return what it says; else OrderFailed."""
        command = [*lab.llb_command(), *arguments, "-c", str(self._balancer.config)]
        name = " ".join(arguments)
        began = time.monotonic()
        try:
            done = self._balancer.lab.lb.run(*command, check=False, timeout=self._limit)
        except subprocess.TimeoutExpired:
            raise OrderFailed(f"{name}: hangs: no end {self._after(began)}") from None
        said = (done.stderr or done.stdout).strip()
        if done.returncode != code:
            raise OrderFailed(
                f"{name}: exit code {done.returncode} {self._after(began)}: {said[-500:]}"
            )
        if (took := time.monotonic() - began) > self._slow:
            self.slow.append(f"{name} took {took:.1f} s")
        return said

    def _after(self, began: float) -> str:
        took = time.monotonic() - began
        answers = "answers" if self._balancer.is_answering() else "does not answer"
        return f"after {took:.1f} s, and the daemon {answers}"
