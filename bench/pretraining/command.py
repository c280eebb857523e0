"""``lossbench pretrain``. torch is imported inside, so that ``--help`` answers at once."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.console import FAILED, OK, parse_list, say, show
from bench.options import takes_launcher

if TYPE_CHECKING:
    from bench.launch import Launcher
    from bench.pretraining.config import Config
    from bench.pretraining.session import Plan

LOSSES = "barlow_twins,nt_xent,smi,vicreg"


@takes_launcher
def pretrain(
    launcher: "Launcher | None",
    preset: Annotated[
        str, typer.Option(help="Published settings; --preset list prints them.")
    ] = "digits",
    loss: Annotated[str, typer.Option(help="Losses, one run each.")] = LOSSES,
    implementation: Annotated[str, typer.Option(help="Implementations, one run each.")] = "auto",
    data: Annotated[
        str,
        typer.Option(
            help="synthetic, digits, imagefolder:PATH, cifar10:PATH, cifar100:PATH, hf:NAME "
            "[the preset's]."
        ),
    ] = "",
    epochs: Annotated[int, typer.Option(help="Of the whole schedule [the preset's].")] = 0,
    steps: Annotated[int, typer.Option(help="End after these [the whole schedule].")] = 0,
    batch: Annotated[int, typer.Option(help="Images per device and step [the preset's].")] = 0,
    set_: Annotated[
        list[str],
        typer.Option("--set", help="Any setting: precision=bf16, encoder=vit_s, smi.lambda_=2."),
    ] = [],  # noqa: B006 - Typer's way to say that it may be given again
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder to keep checkpoints in, and to go on from.")
    ] = None,
    every: Annotated[int, typer.Option(help="Steps between checkpoints [only at the end].")] = 0,
    on_nan: Annotated[
        str, typer.Option(help="stop or skip, when the loss is not finite.")
    ] = "stop",
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Judge the features by a linear probe and k-NN.")
    ] = False,
    paired: Annotated[
        bool, typer.Option("--paired", help="A step of each run in turn: ratios survive noise.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Run file; continued if it is there.")] = Path(
        "runs/pretrain.jsonl"
    ),
    restart: Annotated[
        bool, typer.Option("--restart", help="Set a run file of other code aside.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda [cuda if there is one].")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> int:
    """Pretrain an encoder by each loss and time every phase of the step."""
    from bench.options import present_device
    from bench.pretraining import display
    from bench.pretraining.config import PRESETS, spread
    from bench.pretraining.session import ON_NAN, Plan
    from losses import pick

    if preset == "list":
        display.presets(PRESETS)
        return OK
    for name, value in (
        ("--steps", steps),
        ("--epochs", epochs),
        ("--batch", batch),
        ("--every", every),
    ):
        if value < 0:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    changes: dict[str, Any] = {"data": data, "epochs": epochs, "batch": batch}
    given = {name: value for name, value in changes.items() if value}
    named = parse_list("--loss", loss), parse_list("--implementation", implementation)
    configs = spread(preset, *named, set_, **given)
    plan = Plan(steps, checkpoint, every, pick("--on-nan", on_nan, ON_NAN), evaluate)
    there = (launcher and launcher.there(device)) or present_device(device)
    how: tuple[Any, ...] = (configs, out, plan, there, restart)
    if paired:
        if launcher or checkpoint or evaluate or os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                "--paired times steps in one process: leave --launcher, --checkpoint, --evaluate "
                "and torchrun out"
            )
        records, failed = _run_in_turn(*how), False
    else:
        records, failed = _share(launcher, *how) if launcher else (_run_all(*how), False)
    if records:  # else another process of the job prints them
        show(records, as_json, display.steps)
    return FAILED if failed or any(record["status"] != "ok" for record in records) else OK


def _share(
    launcher: "Launcher",
    configs: "list[Config]",
    out: Path,
    plan: "Plan",
    device: str,
    restart: bool,
) -> tuple[list[dict[str, Any]], bool]:
    """Run in jobs, whose tasks are the processes of a run: the records, and whether one failed."""
    from bench.pretraining import records
    from bench.shards import Work, share

    work = Work(
        [[config] for config in configs],
        lambda config, header: records.key(config, launcher.tasks, plan.steps, header),
        lambda found: _is_done(found[0], plan),
        partial(_run_all, plan=plan, device=device, restart=False),
    )
    shared = share(launcher, work, out, restart)
    return [record for record in shared.records if record], shared.failed


def _run_all(
    configs: "list[Config]", out: Path, plan: "Plan", device: str, restart: bool
) -> list[dict[str, Any]]:
    """Run what the run file does not hold yet; the first process of a job writes it."""
    from bench.ceilings import Ceilings
    from bench.job import joined
    from bench.pretraining import records, scaling
    from bench.pretraining.display import Steps
    from bench.sweep import open_together

    with joined(device) as job:
        writer, aside = open_together(job, out, device, restart)
        if writer is None:  # the first process has it
            for config in configs:
                if not job.agree(None):
                    _run(config, plan, device, None, Steps(quiet=True), job)
            return []
        if aside:
            say(f"{out} came from other code or another environment: kept as {aside}")
        found = []
        with writer, Steps() as progress:
            calibration = writer.header.get("calibration")
            ceilings = Ceilings.of(calibration)
            for config in configs:
                key = records.key(config, job.world, plan.steps, writer.header)
                known = writer.records.get(key)
                if not job.agree(_is_done(known, plan)):
                    fields = _run(config, plan, device, ceilings, progress, job)
                    about = records.describe(config, device, job.world)
                    told = scaling.expected(config, job.world, device, calibration)
                    writer.append({"key": key, **about, **told, **fields})
                found.append(writer.records[key])
    return found


def _run_in_turn(
    configs: "list[Config]", out: Path, plan: "Plan", device: str, restart: bool
) -> list[dict[str, Any]]:
    """Run all a step at a time, unless the run file holds them."""
    from bench.ceilings import Ceilings
    from bench.environment import content_hash
    from bench.job import ALONE
    from bench.pretraining import records
    from bench.pretraining.display import Steps
    from bench.pretraining.run import run_in_turn
    from bench.sweep import open_together

    writer, aside = open_together(ALONE, out, device, restart)
    assert writer is not None  # alone, this process has it
    if aside:
        say(f"{out} came from other code or another environment: kept as {aside}")
    with writer, Steps() as progress:
        single = [records.key(config, 1, plan.steps, writer.header) for config in configs]
        keys = [content_hash([key, single]) for key in single]
        if not all(_is_done(writer.records.get(key), plan) for key in keys):
            ceilings = Ceilings.of(writer.header.get("calibration"))
            found = run_in_turn(configs, plan, device, ceilings, progress)
            for key, config, fields in zip(keys, configs, found, strict=True):
                writer.append({"key": key, **records.describe(config, device, 1), **fields})
        return [writer.records[key] for key in keys]


def _is_done(known: dict[str, Any] | None, plan: "Plan") -> bool:
    if known is None or known["status"] != "ok":
        return False
    return "probe_accuracy" in known or not plan.evaluate


def _run(config: "Config", plan: "Plan", *how: Any) -> dict[str, Any]:
    """A run with a checkpoint of its own."""
    from dataclasses import replace

    from bench.pretraining.run import run

    name = f"{config.loss}-{config.implementation}.pt"
    path = plan.checkpoint / name if plan.checkpoint else None
    return run(config, replace(plan, checkpoint=path), *how)
