"""``lossbench run``. torch is imported inside, so that ``--help`` answers at once."""

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.console import FAILED, OK, parse_bytes, parse_seconds, say, show
from bench.options import takes_cases, takes_launcher

if TYPE_CHECKING:
    from bench.case import Case
    from bench.launch import Launcher
    from bench.runfile import Writer
    from bench.sweep import Outcome


@takes_launcher
@takes_cases
def run(
    cases: "list[Case]",
    launcher: "Launcher | None",
    out: Annotated[Path, typer.Option(help="Run file; continued if it is there.")] = Path(
        "runs/run.jsonl"
    ),
    budget: Annotated[str, typer.Option(help="Stop starting cases after this, such as 3m.")] = "",
    timeout: Annotated[str, typer.Option(help="Give a case up after this.")] = "10m",
    restart: Annotated[
        bool, typer.Option("--restart", help="Set a run of other code or machine aside.")
    ] = False,
    paired: Annotated[
        bool, typer.Option("--paired", help="Time cases in turn: ratios that survive noise.")
    ] = False,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Errors on random, aligned and collapsed inputs.")
    ] = False,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Find the largest batch that fits, of each case.")
    ] = False,
    memory: Annotated[
        str, typer.Option(help="With --frontier: of an emulated device, such as 24GB.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print records as a JSON array.")] = False,
) -> int:
    """Count and measure; every case becomes a record in the run file, most important first."""
    from bench import display, environment
    from bench.failures import OUT_OF_BUDGET

    if os.environ.get("WORLD_SIZE", "1") != "1":
        more = paired or accuracy or frontier or memory or budget or launcher
        return _together(cases, out, restart, more, as_json)
    _check_frontier(frontier, memory, paired or accuracy or budget or launcher)
    timeout_s = parse_seconds(timeout)
    for name in environment.shadowed_distributions():
        say(f"warning: lossbench's package {name} hides the installed distribution {name}")
    if frontier:
        return _frontier(cases, out, restart, memory, timeout_s, as_json)
    how: dict[str, Any] = {
        "budget_s": parse_seconds(budget) if budget else float("inf"),
        "timeout_s": timeout_s,
        "paired": paired,
        "errors": accuracy,
    }
    outcome = (
        _share(launcher, cases, out, restart, how)
        if launcher
        else measure(cases, out, restart, **how)
    )
    show(outcome.records, as_json, display.measurements)
    done = len(outcome.records) - outcome.left
    total = len(outcome.records) + outcome.missing
    say(f"{outcome.measured} measured now, {done} of {total} cases in {out}")
    if outcome.left:
        say(f"the budget of {budget} left out {outcome.left}; run the same command to resume")
    failed = [r for r in outcome.records if r["status"] != "ok" and r["reason"] != OUT_OF_BUDGET]
    return FAILED if failed or outcome.failed else OK


def measure(
    cases: "list[Case]", out: Path, restart: bool, budget_s: float, timeout_s: float, **how: bool
) -> "Outcome":
    """Measure cases here, see ``bench.sweep.sweep``."""
    from bench.progress import Report
    from bench.sweep import Limits, sweep

    end = time.monotonic() + budget_s
    writer = _open(cases, out, restart)
    limits = Limits(budget_s=end - time.monotonic(), timeout_s=timeout_s)
    with writer, Report(cases) as report:
        return sweep(cases, writer, limits, report, **how)


def _check_frontier(frontier: bool, memory: str, more: Any) -> None:
    if memory and not frontier:
        raise ValueError("--memory is that of an emulated device: give it with --frontier")
    if frontier and more:
        raise ValueError(
            "--frontier times nothing, and runs here: leave --paired, --accuracy, --budget and "
            "--launcher out"
        )


def _together(cases: "list[Case]", out: Path, restart: bool, more: Any, as_json: bool) -> int:
    """Measure as one of the processes that torchrun started."""
    from bench import display
    from bench.distributed import measure_together

    if more:
        raise ValueError(
            "several processes measure all cases, one by one: leave --paired, --accuracy, "
            "--frontier, --memory, --budget and --launcher out"
        )
    records = measure_together(cases, out, restart, say)
    if records:  # else another process prints them
        show(records, as_json, display.measurements)
    return FAILED if any(record["status"] != "ok" for record in records) else OK


def _share(
    launcher: "Launcher", cases: "list[Case]", out: Path, restart: bool, how: dict[str, Any]
) -> "Outcome":
    """Measure cases in jobs; the budget is each job's own."""
    from bench.failures import OUT_OF_BUDGET
    from bench.shards import Work, share
    from bench.sweep import Outcome, are_done, case_key, in_turn

    if launcher.tasks > 1:
        raise ValueError("run measures one device: --slurm nodes, tasks_per_node are for pretrain")
    units = in_turn(cases, how["paired"])
    work = Work(
        units,
        case_key,
        lambda found: are_done(found, how["paired"], how["errors"]),
        partial(measure, restart=False, **how),
    )
    shared = share(launcher, work, out, restart)
    order = [cases.index(case) for unit in units for case in unit]
    found = [shared.records[order.index(place)] for place in range(len(cases))]
    records = list({record["key"]: record for record in found if record}.values())
    left = sum(record["reason"] == OUT_OF_BUDGET for record in records)
    return Outcome(records, shared.measured, left, found.count(None), shared.failed)


def _open(cases: "list[Case]", out: Path, restart: bool, memory: int | None = None) -> "Writer":
    from bench.sweep import open_run

    facts = {"memory_limit_bytes": memory} if memory else None
    writer, aside = open_run(out, cases[0].device, restart, facts)
    if aside:
        say(f"{out} came from other code or another environment: kept as {aside}")
    return writer


def _frontier(
    cases: "list[Case]", out: Path, restart: bool, memory: str, timeout_s: float, as_json: bool
) -> int:
    """Find the largest batches and print them."""
    from bench import display
    from bench.frontier import Search, device_bytes, kinds
    from bench.progress import Trials

    memory_bytes = parse_bytes(memory) if memory else None
    work, limit = (
        kinds(cases),
        device_bytes(cases[0].device, memory_bytes),
    )  # before there is a file
    with _open(cases, out, restart, memory_bytes) as writer, Trials(len(work)) as trials:
        search = Search(writer, limit, timeout_s, trials)
        found = [trials.search(search.run, case) for case in work]
    if as_json:
        print(json.dumps([each.describe() for each in found], indent=1))
    else:
        display.frontiers(found, limit)
    return FAILED if any(each.failed for each in found) else OK
