"""Measure how smoothly the status page goes: the real daemon with many backends, whose figures
change all the time, and Chromium that looks at them.

Run as a script it is the browser's part, in the load balancer's namespace:

    python -m bench.page URL SECONDS

It prints what it found as JSON, the fields of `Smoothness`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.browser import chromium
from bench.observing import LISTEN, PORTS, site
from llb_core.demo import lab
from llb_core.demo.network import wait_until

SERVICES, BACKENDS_EACH = 20, 50
SECONDS = 20.0
LONG = 50.0
"""Milliseconds from which a task holds the page up: what browsers call a long task."""

_WATCH = """
window.llb = { long: [0], gaps: [0] };
new PerformanceObserver((list) => list.getEntries().forEach(
  (each) => window.llb.long.push(each.duration))).observe({ type: "longtask" });
let last = 0;
const frame = (now) => {
  if (last) window.llb.gaps.push(now - last);
  last = now;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
performance.clearResourceTimings();
"""
_FOUND = """
const asked = performance.getEntriesByType("resource").filter(
  (each) => each.name.includes("page.json") && each.responseEnd);
return { ...window.llb, answers: asked.map((each) => each.duration) };
"""
_CONNECT = """
import random, socket, sys, time
address, first, services = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("connecting", flush=True)
while True:
    opened = []
    for _ in range(100):
        sock = socket.socket(socket.AF_INET)
        sock.setblocking(False)
        sock.connect_ex((address, first + random.randrange(services)))
        opened.append(sock)
    time.sleep(0.2)
    for sock in opened:
        sock.close()
"""
COLUMNS = (
    "", "refreshes", "tasks of 50 ms and more", "the longest, ms", "frame to frame at most, ms",
    "scripting a refresh, ms", "styles and layout a refresh, ms", "the daemon's answer, ms",
)  # fmt: skip


@dataclass(frozen=True)
class Smoothness:
    """What was seen of the page in so many refreshes; milliseconds."""

    refreshes: int
    long_tasks: int
    longest_task: float
    """0 where none was as long as `LONG`."""
    longest_gap: float
    """From one frame to the next."""
    scripting: float
    """Of JavaScript, for each refresh."""
    rendering: float
    """Of styles and layout, for each refresh."""
    answer: float
    """The median time of the daemon's answer, as the browser saw it."""


def measure(
    say: Callable[[str], None],
    *,
    services: int = SERVICES,
    backends: int = BACKENDS_EACH,
    seconds: float = SECONDS,
) -> Smoothness:
    """Look at the page for some seconds."""
    with site(services, backends) as balancer, _connecting(balancer, services):
        script = [sys.executable, "-m", "bench.page", f"http://{LISTEN}/", str(seconds)]
        done = subprocess.run(
            balancer.lab.lb.command(script), check=True, stdout=subprocess.PIPE, text=True
        )
    found = Smoothness(**json.loads(done.stdout))
    say(f"the page with {services * backends:,} backends: {found}")
    return found


@contextlib.contextmanager
def _connecting(balancer: lab.Balancer, services: int) -> Iterator[None]:
    """Have a client begin connections to all services over and over."""
    script = [sys.executable, "-c", _CONNECT, balancer.lab.vip, str(PORTS), str(services)]
    process = subprocess.Popen(balancer.lab.client.command(script), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def look(url: str, seconds: float) -> Smoothness:
    """Look at a page that is already well under way for some seconds."""
    with tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        browser = chromium(Path(folder))
        try:
            browser.get(url)
            pill = "return document.getElementById('connection').innerText"
            wait_until(lambda: browser.execute_script(pill) == "live", 60, "the page is live")
            browser.execute_cdp_cmd("Performance.enable", {})
            browser.execute_script(_WATCH)
            before = _used(browser)
            time.sleep(seconds)
            after, found = _used(browser), browser.execute_script(_FOUND)
        finally:
            browser.quit()
    refreshes = len(found["answers"])
    if not refreshes:
        raise SystemExit(f"in {seconds:g} s the page has not asked the daemon")
    long_tasks = [each for each in found["long"] if each >= LONG]

    def each(*names: str) -> float:
        return 1000 * sum(after[name] - before[name] for name in names) / refreshes

    return Smoothness(
        refreshes,
        len(long_tasks),
        max(long_tasks, default=0.0),
        max(found["gaps"]),
        each("ScriptDuration"),
        each("RecalcStyleDuration", "LayoutDuration"),
        statistics.median(found["answers"]),
    )


def _used(browser: Any) -> dict[str, float]:
    """Seconds that the page has used so far, by what for."""
    answer = browser.execute_cdp_cmd("Performance.getMetrics", {})
    return {each["name"]: each["value"] for each in answer["metrics"]}


def table(found: Smoothness, backends: int = SERVICES * BACKENDS_EACH) -> str:
    """A table in Markdown."""
    cells = (
        f"the page with {backends:,} backends",
        found.refreshes,
        found.long_tasks,
        f"{found.longest_task:.0f}",
        f"{found.longest_gap:.0f}",
        f"{found.scripting:.1f}",
        f"{found.rendering:.1f}",
        f"{found.answer:.0f}",
    )
    above, below = (" | ".join(map(str, row)) for row in (COLUMNS, cells))
    return f"| {above} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n| {below} |"


if __name__ == "__main__":
    print(json.dumps(asdict(look(sys.argv[1], float(sys.argv[2])))))
