"""``lossbench``: makes records. Nothing imports this module.

torch is imported inside the commands, so that ``--help`` answers at once.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.console import FAILED, OK, make_app, parse_seconds, run_app, say
from bench.options import parse_numbers, takes_cases

if TYPE_CHECKING:
    from bench.case import Case

app = make_app(
    "Count and measure what self-supervised losses cost. Lists are comma-separated.",
    failure="a case failed",
)
COUNT_S = 600.0
"""Seconds after which counting a third party's loss is given up."""
AsJson = Annotated[bool, typer.Option("--json", help="Print records as a JSON array.")]


@app.command()
@takes_cases
def count(cases: "list[Case]", as_json: AsJson = False) -> int:
    """Count MACs, FLOPs and bytes exactly, without running anything."""
    from bench import counting, display
    from bench.worker import Worker

    worker = Worker(cases[0].device)  # third-party code does not run in this process
    records = []
    for case in cases:
        third = case.contender
        counts = worker.evaluate(case, COUNT_S, measure=False) if third else counting.count(case)
        records.append({**case.describe(), **counts})
    worker.stop()
    _print(records, as_json, display.counts)
    disagree = [record for record in records if record.get("counts_agree", False) is False]
    return FAILED if disagree else OK


@app.command()
@takes_cases
def run(
    cases: "list[Case]",
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
    as_json: AsJson = False,
) -> int:
    """Count and measure; every case becomes a record in the run file, most important first."""
    from bench import display, environment
    from bench.progress import Report
    from bench.sweep import OUT_OF_BUDGET, Limits, open_run, sweep

    limits = Limits(
        budget_s=parse_seconds(budget) if budget else float("inf"),
        timeout_s=parse_seconds(timeout),
    )
    for name in environment.shadowed_distributions():
        say(f"warning: lossbench's package {name} hides the installed distribution {name}")
    writer, aside = open_run(out, cases[0].device, restart)
    if aside:
        say(f"{out} came from other code or another environment: kept as {aside}")
    with writer, Report(cases) as report:
        outcome = sweep(cases, writer, limits, report, paired=paired, errors=accuracy)
    _print(outcome.records, as_json, display.measurements)
    total = len(outcome.records)
    say(f"{outcome.measured} measured now, {total - outcome.left} of {total} cases in {out}")
    if outcome.left:
        say(f"the budget of {budget} left out {outcome.left}; run the same command to resume")
    failed = [r for r in outcome.records if r["status"] != "ok" and r["reason"] != OUT_OF_BUDGET]
    return FAILED if failed else OK


@app.command("noise")
@takes_cases
def measure_noise(
    cases: "list[Case]",
    comparisons: Annotated[int, typer.Option(help="How often each case is compared.")] = 100,
    slowdown: Annotated[float, typer.Option(help="Share of its time added to the copy.")] = 0.15,
    timeout: Annotated[str, typer.Option(help="Give a process up after this.")] = "10m",
) -> int:
    """Compare cases with themselves and with slowed copies: what paired timing claims here."""
    from rich.console import Console
    from rich.progress import track

    from bench import noise
    from bench.groups import PROCESSES

    if comparisons < 1 or slowdown <= 0:
        raise ValueError("noise needs --comparisons of at least 1 and a --slowdown above 0")
    for case in cases:
        samples = track(
            noise.sample(case, comparisons, slowdown, parse_seconds(timeout)),
            description=f"{case.label}, process by process",
            total=noise.processes(comparisons),
            console=Console(stderr=True),
            transient=True,
        )
        trust = noise.judge(list(samples), comparisons)
        print(
            f"{case.label}: a difference from itself claimed {trust.false_claims} times of "
            f"{comparisons}, {slowdown:.0%} slower found {trust.found} times of {comparisons} "
            f"({PROCESSES} processes of {noise.ROUNDS} rounds; A/A threshold "
            f"{min(trust.thresholds):.1%} to {max(trust.thresholds):.1%})"
        )
    return OK


@app.command("audit")
def audit_kernels(
    capability: Annotated[
        str, typer.Option(help="Compute capabilities of NVIDIA GPUs.")
    ] = "80,90,100,120",
    out: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Fail if the table in this file is another one.")
    ] = None,
) -> int:
    """Compile every shipped kernel for GPUs that need not be here: registers, spills, sizes."""
    from rich.console import Console
    from rich.progress import track

    from kernels import audit

    console = Console(stderr=True)
    findings = []
    for each in parse_numbers("--capability", capability):
        work = audit.launches(each)
        compiled = track(
            audit.examine_all(work, each),
            description=f"compute capability {each}",
            total=len(work),
            console=console,
            transient=True,
        )
        findings += list(compiled)
    text = audit.table(findings)
    print(text, end="")
    if out is not None:
        out.write_text(text)
    problems = [f"{found.name}: {found.problem}" for found in findings if found.problem]
    if check is not None and check.read_text() != text:
        problems.append(f"{check} is stale; run lossbench audit --out {check}")
    for problem in problems:
        say(problem)
    return FAILED if problems else OK


@app.command("tune")
def tune_kernels() -> int:
    """Choose tile sizes and strategies of the kernels on this GPU; writes kernels/tuned.json."""
    from dataclasses import replace

    import torch
    from rich.console import Console
    from rich.progress import track

    if not torch.cuda.is_available():
        raise ValueError("tune measures on an NVIDIA GPU, and there is none here")
    from bench import tune
    from kernels import configs

    major, minor = torch.cuda.get_device_capability()
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    start = {
        kind: replace(configs.lookup(torch.device("cuda"), kind), processors=processors)
        for kind in tune.KINDS
    }
    console = Console(stderr=True)
    kinds = track(tune.tune(start, tune.measure), "tuning", total=len(start), console=console)
    tuned = dict(kinds)
    tune.write(f"{major}{minor}", tuned, f"lossbench tune on {torch.cuda.get_device_name()}")
    for kind, config in tuned.items():
        print(f"{kind}: {config}")
    say(f"wrote {configs.TABLE}; lossbench audit says what these compile to")
    return OK


def _print(records: list[dict[str, Any]], as_json: bool, table: Any) -> None:
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        table(records)


def main() -> None:
    """Entry point of ``lossbench``."""
    run_app(app, "lossbench")


if __name__ == "__main__":
    main()
