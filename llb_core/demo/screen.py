"""The demo as a person sees it, and as a program gets it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from llb_core.demo.story import PHASES, Outcome, Phase, Told
from llb_core.demo.traffic import Tally

BACKENDS = ("b1", "b2", "b3")


class Screen:
    """Shows the phases as they go by; on what is no terminal, a line when each is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=10, transient=True)
        self._tallies: dict[str, Tally] = {}
        self._elapsed: dict[str, float] = {}
        self._notes: list[str] = []
        self._phase: Phase | None = None
        self._spinner = Spinner("dots")
        self._setting_up = "making the network"

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def step(self, what: str) -> None:
        """Say what is done before the story begins, or after it."""
        self._setting_up = what
        self._refresh()
        if not self._console.is_terminal:
            self._console.print(f"{what} …")

    def begins(self, phase: Phase) -> None:
        """Show that a phase begins."""
        self._phase = phase
        self._setting_up = ""
        if not self._console.is_terminal:
            self._console.print(f"{phase.title} …")
        self._refresh()

    def notes(self, sentence: str) -> None:
        """Show what just happened."""
        self._notes.append(sentence)
        if not self._console.is_terminal:
            self._console.print(f"  {sentence}")
        self._refresh()

    def counts(self, tallies: dict[str, Tally], elapsed: dict[str, float]) -> None:
        """Show how the requests go."""
        self._tallies, self._elapsed = tallies, elapsed
        self._refresh()

    def finish(self, outcome: Outcome) -> None:
        """Show the result, to stay."""
        self._live.stop()
        self._console.print(self._table(outcome))
        total = sum(told.tally.sent for told in outcome.phases)
        failed = sum(told.tally.failed.total() for told in outcome.phases)
        self._console.print(
            f"[bold]{total:,}[/] requests: {total - failed:,} answered, {failed:,} failed."
        )
        for note in self._notes:
            self._console.print(f"[dim]·[/] {note}")
        for complaint in outcome.complaints:
            self._console.print(f"[bold red]✗[/] {complaint}")
        if not outcome.complaints:
            self._console.print(
                "[bold green]✓[/] Nothing failed but what was with b2 when it died, until it was "
                "noticed: no drain, kill -9 or restart cost a request."
            )

    def _refresh(self) -> None:
        if self._live.is_started:
            self._live.update(self._picture())

    def _picture(self) -> RenderableType:
        if self._setting_up:
            self._spinner.update(text=Text(f" {self._setting_up}"))
            return self._spinner
        running = Outcome(
            [
                Told(
                    phase, self._elapsed.get(phase.key, 0.0), self._tallies.get(phase.key, Tally())
                )
                for phase in PHASES
                if phase.key in self._elapsed or phase is self._phase
            ]
        )
        title = self._phase.title if self._phase else ""
        self._spinner.update(text=Text(f" {title}"))
        notes = [Text(f"· {note}", style="dim") for note in self._notes]
        return Group(self._table(running), *notes, self._spinner)

    def _table(self, outcome: Outcome) -> Table:
        table = Table(title="Requests through the VIP", title_justify="left", expand=False)
        table.add_column("phase")
        table.add_column("s", justify="right")
        table.add_column("requests", justify="right")
        for name in BACKENDS:
            table.add_column(name, justify="right")
        table.add_column("failed", justify="right")
        for told in outcome.phases:
            tally = told.tally
            table.add_row(
                told.phase.title,
                f"{told.seconds:.1f}",
                f"{tally.sent:,}",
                *(_number(tally.answered[name]) for name in BACKENDS),
                _failures(told),
            )
        return table


class Silent:
    """Shows nothing: for whoever wants the result alone."""

    def step(self, what: str) -> None:
        """Nothing."""

    def begins(self, phase: Phase) -> None:
        """Nothing."""

    def notes(self, sentence: str) -> None:
        """Nothing."""

    def counts(self, tallies: dict[str, Tally], elapsed: dict[str, float]) -> None:
        """Nothing."""


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The result for a program."""
    return {
        "ok": not outcome.complaints,
        "complaints": outcome.complaints,
        "requests": sum(told.tally.sent for told in outcome.phases),
        "answered": sum(told.tally.answered.total() for told in outcome.phases),
        "failed": sum(told.tally.failed.total() for told in outcome.phases),
        "seconds": {name: round(value, 3) for name, value in outcome.measured.items()},
        "phases": [
            {
                "phase": told.phase.key,
                "title": told.phase.title,
                "seconds": round(told.seconds, 3),
                "requests": told.tally.sent,
                "answered": dict(sorted(told.tally.answered.items())),
                "failed": dict(sorted(told.tally.failed.items())),
            }
            for told in outcome.phases
        ],
    }


def _number(value: int) -> str:
    return f"{value:,}" if value else "[dim]–[/]"


def _failures(told: Told) -> str:
    number = told.tally.failed.total()
    if not number:
        return "[green]0[/]"
    return f"[yellow]{number:,}[/]" if told.phase.may_fail else f"[bold red]{number:,}[/]"
