"""``lossbench``: makes records. Nothing imports this module.

torch is imported inside the commands, so that ``--help`` answers at once.
"""

import gc
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.command import run
from bench.console import FAILED, OK, make_app, parse_seconds, run_app, say, show
from bench.options import parse_numbers, takes_cases
from bench.pretraining.command import pretrain

if TYPE_CHECKING:
    from bench.case import Case
    from bench.pretraining.steps import Step

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
    show(records, as_json, display.counts)
    disagree = [record for record in records if record.get("counts_agree", False) is False]
    return FAILED if disagree else OK


@app.command("predict")
@takes_cases
def predict_cases(
    cases: "list[Case] | list[Step]",
    preset: Annotated[
        str, typer.Option(help="A whole step of pretraining by these settings: --set changes them.")
    ] = "",
    gpu: Annotated[str, typer.Option(help="GPUs that need not be here, or all.")] = "",
    gpu_spec: Annotated[
        Path | None, typer.Option(help="A datasheet of yours, of the form of bench/gpus.json.")
    ] = None,
    link: Annotated[
        str, typer.Option(help="Link between devices: nvlink (the GPU's own), ib400, eth100, ...")
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Predict time, memory and communication: on this device, or on GPUs that are not here."""
    from rich.console import Console
    from rich.progress import track

    from bench.devices import choose

    if preset and not link and any(case.world > 1 for case in cases):
        raise ValueError("devices that train together send gradients: add --link ib400")
    predictor, shown = _predicting(bool(preset))
    gc.freeze()  # what was imported is not garbage, and takes long to look through
    devices = choose(gpu, gpu_spec, link, cases[0].device)
    work = track(
        [(case, device) for case in cases for device in devices],
        "predicting",
        console=Console(stderr=True),
        transient=True,
    )
    records = [predictor.predict(case, device) for case, device in work]
    show(records, as_json, partial(shown, devices=devices))
    if link and all(case.world == 1 for case in cases):
        say("one device sends nothing over a link: add --world 8")
    statuses = {record["status"] for record in records}
    return OK if "ok" in statuses and "error" not in statuses else FAILED


def _predicting(steps: bool) -> tuple[Any, Any]:
    """What predicts cases or steps, and what shows them."""
    if steps:
        from bench.pretraining.display import predictions as steps_shown
        from bench.pretraining.scaling import StepPredictor

        return StepPredictor(), steps_shown
    from bench.display import predictions
    from bench.predict import Predictor

    return Predictor(), predictions


@app.command("calibrate")
def calibrate_device(
    device: Annotated[str, typer.Option(help="cpu or cuda [cuda if there is one].")] = "",
    as_json: AsJson = False,
) -> int:
    """Measure the ceilings of this device: products of each dtype, copies, launches."""
    from bench import display
    from bench.calibrate import calibrate
    from bench.options import present_device

    ceilings = calibrate(present_device(device or None))
    if as_json:
        print(json.dumps(ceilings.describe(), indent=1))
    else:
        display.ceilings(ceilings)
    return OK


app.command("run")(run)
app.command("pretrain")(pretrain)


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

    from bench import audit

    expected = check.read_text() if check else None  # before minutes of compiling
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
    if expected not in (None, text):
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


def main() -> None:
    """Entry point of ``lossbench``."""
    run_app(app, "lossbench")


if __name__ == "__main__":
    main()
