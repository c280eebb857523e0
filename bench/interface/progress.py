"""Progress of a sweep, on stderr."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)
from rich.table import Column

from lossbench.bench.cases.case import Case
from lossbench.bench.interface.console import prints_lines, say, shows_bars

Found = TypeVar("Found")


class Report:
    """Progress of a sweep.

    A bar with ETA on a terminal, plain lines in CI and in notebooks, nothing on a pipe.

    The ETA weighs cases by their arithmetic, so that it holds when they differ in size.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        terminal, self._plain = shows_bars(), prints_lines()
        self._total = len(cases)
        self._done = 0
        self._bar = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(bar_width=12),
            TimeRemainingColumn(),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            expand=True,
            disable=not terminal,
        )
        total = sum(map(_weight, cases))
        self._task = self._bar.add_task("", total=total, count=f"0/{self._total}")

    def __enter__(self) -> "Report":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skip(self, case: Case) -> None:
        """The case was measured in an earlier session."""
        self._advance(case)

    def start(self, case: Case) -> None:
        """The case is about to run."""
        self._bar.update(self._task, description=case.label)

    def compare(self, cases: Sequence[Case]) -> None:
        """The cases of a group are about to be timed in turn."""
        self._bar.update(self._task, description=f"{len(cases)} in turn, {cases[0].label}")

    def finish(self, case: Case, record: dict[str, Any]) -> None:
        """The case ended, and its record is on the disk."""
        self._advance(case)
        if self._plain:
            done = record["status"] == "ok"
            result = f"{record['median_ms']:.3f} ms" if done else record["reason"]
            say(f"[{self._done}/{self._total}] {case.label}: {record['status']}, {result}")

    def tell(self, line: str) -> None:
        """Something happened that the user should know."""
        say(line)

    def _advance(self, case: Case) -> None:
        self._done += 1
        self._bar.update(self._task, advance=_weight(case), count=f"{self._done}/{self._total}")


def tracked(work: Iterable[Found], description: str, total: int | None = None) -> Iterable[Found]:
    """Work, with a bar on a terminal as it is gone through."""
    console, quiet = Console(stderr=True), not shows_bars()
    return track(work, description, total=total, console=console, transient=True, disable=quiet)


class Trials:
    """Progress of searches of unknown length: which trial runs, and plain lines in CI.

    Args:
        total: searches.
    """

    def __init__(self, total: int) -> None:
        terminal, self._plain = shows_bars(), prints_lines()
        self._total, self._number = total, 0
        self._status = Console(stderr=True).status("") if terminal else None

    def __enter__(self) -> "Trials":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def search(self, run: Callable[[Case], Found], case: Case) -> Found:
        """Run the search for one case."""
        self._number += 1
        return run(case)

    def start(self, case: Case) -> None:
        """A batch is about to be tried."""
        if self._status:
            self._status.update(f"{self._number}/{self._total} {case.label}")

    def finish(self, case: Case, record: dict[str, Any]) -> None:
        """It was tried, and its record is on the disk."""
        if self._plain:
            say(f"[{self._number}/{self._total}] {case.label}: {record['status']}")


class Jobs:
    """Progress of jobs: a bar on a terminal, plain lines in CI and notebooks."""

    def __init__(self) -> None:
        terminal, self._plain = shows_bars(), prints_lines()
        self._total, self._done = 0, 0
        columns = (TextColumn("{task.completed}/{task.total} jobs"), BarColumn(bar_width=12))
        console = Console(stderr=True)
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not terminal
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, line: str) -> None:
        """Something happened."""
        say(line)

    def begin(self, jobs: int) -> None:
        """So many jobs are about to be submitted."""
        self._total = jobs
        self._bar.update(self._task, total=jobs)
        self._bar.start()

    def finish(self, name: str, failure: str) -> None:
        """A job ended."""
        self._done += 1
        self._bar.update(self._task, advance=1)
        if self._plain:
            say(f"[{self._done}/{self._total}] job {name}: {'failed' if failure else 'done'}")


def _weight(case: Case) -> float:
    """Relative duration of a case: a fixed part, and its arithmetic."""
    return 1e11 + 5 * case.cost.macs(case.pass_)
