"""``lossbench run``. torch is imported inside, so that ``--help`` answers at once."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lossbench.bench.interface.console import FAILED, OK, examples, say, show, show_next
from lossbench.bench.interface.options import option, takes_cases, takes_launcher
from lossbench.bench.interface.parsing import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from lossbench.bench.cases.case import Case
    from lossbench.bench.running.launch import Launcher

MEASURED, KEPT, FRONTIER = "What is measured", "Where it is kept, and limits", "Largest batch"
"""Groups of options in ``--help``."""
EXAMPLES = examples(
    "lossbench run --loss smi,vicreg --batch 256 --dim 1024 --out runs/mine.jsonl",
    "lossbench run --suite efficiency --paired --budget 3m",
    "lossbench run --loss smi --inputs file:embeddings.npz --accuracy",
)


@takes_launcher
@takes_cases
def run(
    cases: "list[Case]",
    launcher: "Launcher | None",
    paired: Annotated[
        bool, option("--paired", "Time cases in turn: ratios that survive noise.", MEASURED)
    ] = False,
    accuracy: Annotated[
        bool, option("--accuracy", "Errors on random, aligned and collapsed inputs.", MEASURED)
    ] = False,
    energy: Annotated[
        bool, option("--energy", "Energy of a call, for 2 s of each, where it counts.", MEASURED)
    ] = False,
    out: Annotated[
        Path, option("--out", "Run file; continued if it is there.", KEPT, shows_default=True)
    ] = Path("runs/run.jsonl"),
    budget: Annotated[
        str, option("--budget", "Stop starting cases after this, such as 3m.", KEPT)
    ] = "",
    timeout: Annotated[
        str, option("--timeout", "Give a case up after this.", KEPT, shows_default=True)
    ] = "10m",
    restart: Annotated[
        bool, option("--restart", "Set a run of other code or machine aside.", KEPT)
    ] = False,
    as_json: Annotated[bool, option("--json", "Print records as a JSON array.", KEPT)] = False,
    dry_run: Annotated[
        bool, option("--dry-run", "Say what an H100 would do when, and run nothing.", KEPT)
    ] = False,
    frontier: Annotated[
        bool, option("--frontier", "Find the largest batch that fits, of each case.", FRONTIER)
    ] = False,
    memory: Annotated[
        str, option("--memory", "With --frontier: of an emulated device, such as 24GB.", FRONTIER)
    ] = "",
) -> int:
    """Count and measure: a record of each case in a run file."""
    from lossbench.bench.interface.functions import check_frontier

    check_frontier(frontier, memory, paired or accuracy or energy or budget or launcher)
    if dry_run and (frontier or as_json):
        raise ValueError("--dry-run prints when what is known: leave --frontier and --json out")
    if not frontier:
        wanted = {"paired": paired, "errors": accuracy, "energy": energy}
        if dry_run:
            return _rehearse(cases, parse_seconds(budget) if budget else float("inf"), wanted)
        return _measure(cases, launcher, out, budget, timeout, restart, wanted, as_json)
    return _find(cases, out, restart, memory, parse_seconds(timeout), as_json)


def _measure(
    cases: "list[Case]",
    launcher: "Launcher | None",
    out: Path,
    budget: str,
    timeout: str,
    restart: bool,
    wanted: dict[str, bool],
    as_json: bool,
) -> int:
    from lossbench.bench.interface import display, functions
    from lossbench.bench.records.failures import OUT_OF_BUDGET, is_limit

    budget_s = parse_seconds(budget) if budget else float("inf")
    limits = (budget_s, parse_seconds(timeout))
    outcome = functions.run(cases, out, restart, launcher, *limits, **wanted)
    records = outcome.records
    if functions.are_many() and not records:
        return OK  # the first process prints them
    show(records, as_json, partial(display.measurements, out=out))
    done = len(records) - outcome.left
    total = len(records) + outcome.missing
    failed = [
        record
        for record in records
        if record["status"] != "ok" and record["reason"] != OUT_OF_BUDGET and not is_limit(record)
    ]
    wrong = f", {len(failed)} failed" if failed else ""
    say(f"{outcome.measured} done now, {done} of {total} cases in {out}{wrong}")
    if outcome.left:
        say(f"the budget of {budget} left out {outcome.left}; run the same command to resume")
    return FAILED if failed or outcome.failed else OK


def _rehearse(cases: "list[Case]", budget_s: float, wanted: dict[str, bool]) -> int:
    """Print what a run would do."""
    from lossbench.bench.interface import display, functions

    timeline = functions.rehearse(cases, budget_s, **wanted)
    display.rehearsal(timeline.known)
    for line in timeline.lines:
        say(line)
    return FAILED if any(record["status"] == "error" for _, _, record in timeline.known) else OK


def _find(
    cases: "list[Case]", out: Path, restart: bool, memory: str, timeout_s: float, as_json: bool
) -> int:
    """Find the largest batches and print them."""
    from lossbench.bench.interface import display, functions

    memory_bytes = parse_bytes(memory) if memory else None
    found, limit = functions.find_frontier(cases, out, restart, memory_bytes, timeout_s)
    if as_json:
        print(json.dumps([each.describe() for each in found], indent=1))
    else:
        display.frontiers(found, limit)
        show_next("frontier", out)
    return FAILED if any(each.failed for each in found) else OK
