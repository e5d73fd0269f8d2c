"""The demo's output: a table that grows on a terminal, plain lines anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fma_api.cli.demo.comparison import Comparison
from fma_api.cli.demo.digits import NUM_CLASSES, Digits
from fma_api.cli.demo.federation import Plan, RoundResult


class Rounds(Protocol):
    """A display of the rounds: it is told of each answer and of each publication."""

    def answers(self, number: int, num_answered: int) -> None: ...

    def published(self, result: RoundResult) -> None: ...


@contextmanager
def rounds(console: Console, plan: Plan) -> Iterator[Rounds]:
    if not console.is_terminal:
        yield _Lines(console, plan)
        return
    with Live(console=console, refresh_per_second=10) as live:
        table = _LiveTable(live, plan)
        try:
            yield table
        finally:
            table.show_all()


def shares(digits: Digits) -> Table:
    """A table of how many images of each digit each client holds."""
    table = _table("client", "images", *(f"{digit}s" for digit in range(NUM_CLASSES)))
    for number, share in enumerate(digits.shares, start=1):
        counts = (str(count) if count else "·" for count in share.count_by_class())
        table.add_row(str(number), str(len(share)), *counts)
    table.add_row("test", str(len(digits.test)), *map(str, digits.test.count_by_class()), style="dim")
    return table


def comparison(accuracy: float, without: Comparison) -> Table:
    table = _table("trained", "test accuracy", "of centralised")
    best = 1 + without.single.index(without.best_single)
    for name, value in (
        ("federated", accuracy),
        ("centralised: all data in one place", without.centralised),
        (f"best single client (client {best})", without.best_single),
    ):
        table.add_row(name, f"{value:.3f}", f"{value / without.centralised:.1%}")
    return table


class _Lines:
    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan

    def answers(self, number: int, num_answered: int) -> None:
        pass  # a line for each would be five times as many

    def published(self, result: RoundResult) -> None:
        self._console.print(
            f"round {result.number:2}/{self._plan.num_rounds}  "
            f"clients {result.num_answered}/{self._plan.num_clients}  "
            f"test accuracy {result.accuracy:.3f}  {result.seconds:.2f} s"
        )


class _LiveTable:
    def __init__(self, live: Live, plan: Plan) -> None:
        self._live = live
        self._plan = plan
        self._results: list[RoundResult] = []
        self._open: tuple[int, int] | None = None
        self._progress = Progress(
            TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), auto_refresh=False
        )
        self._task = self._progress.add_task("rounds", total=plan.num_rounds)
        self._draw(self._that_fit())

    def answers(self, number: int, num_answered: int) -> None:
        self._open = (number, num_answered)
        self._draw(self._that_fit())

    def published(self, result: RoundResult) -> None:
        self._results.append(result)
        self._open = None
        self._progress.update(self._task, completed=len(self._results))
        self._draw(self._that_fit())

    def show_all(self) -> None:
        self._draw(self._results)

    def _that_fit(self) -> list[RoundResult]:
        # The header, the open round, the progress bar, and a line of air.
        return self._results[-max(1, self._live.console.height - 4) :]

    def _draw(self, results: list[RoundResult]) -> None:
        table = _table("round", "clients answered", "test accuracy", "seconds")
        for result in results:
            table.add_row(
                str(result.number),
                f"{result.num_answered}/{self._plan.num_clients}",
                f"{result.accuracy:.3f}",
                f"{result.seconds:.2f}",
            )
        if self._open is not None:
            number, num_answered = self._open
            table.add_row(str(number), f"{num_answered}/{self._plan.num_clients}", "…", "…", style="dim")
        self._live.update(Group(table, self._progress))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table
