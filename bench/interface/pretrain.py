"""``lossbench pretrain``. torch is imported inside, so that ``--help`` answers at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossbench.bench.interface.console import FAILED, OK, examples, show, show_next
from lossbench.bench.interface.options import takes_launcher
from lossbench.bench.interface.parsing import parse_list, parse_pairs

if TYPE_CHECKING:
    from lossbench.bench.running.launch import Launcher

LOSSES = "barlow_twins,nt_xent,smi,vicreg"
TRAINED, SCHEDULE, KEPT = "What is trained", "How long, and what is measured", "Where it is kept"
"""Groups of options in ``--help``."""
DATA_HELP = (
    "synthetic, digits, imagefolder:PATH, cifar10:PATH, cifar100:PATH, hf:NAME (default: the "
    "preset's)."
)
EXAMPLES = examples(
    "lossbench pretrain --loss smi,vicreg --steps 25",
    "lossbench pretrain --preset list",
    "lossbench pretrain --preset imagenet-300ep --data imagefolder:PATH --set precision=bf16",
)


@takes_launcher
def pretrain(
    launcher: "Launcher | None",
    preset: Annotated[
        str,
        typer.Option(
            help="Published settings; --preset list prints them.", rich_help_panel=TRAINED
        ),
    ] = "digits",
    loss: Annotated[
        str, typer.Option(help="Losses, one run each.", rich_help_panel=TRAINED)
    ] = LOSSES,
    implementation: Annotated[
        str, typer.Option(help="Implementations, one run each.", rich_help_panel=TRAINED)
    ] = "auto",
    data: Annotated[str, typer.Option(help=DATA_HELP, rich_help_panel=TRAINED)] = "",
    batch: Annotated[
        int,
        typer.Option(
            help="Images per device and step (default: the preset's).",
            show_default=False,
            rich_help_panel=TRAINED,
        ),
    ] = 0,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="Any setting: precision=bf16, encoder=vit_s, smi.lambda_=2. May be given again.",
            rich_help_panel=TRAINED,
        ),
    ] = [],  # noqa: B006 - Typer's way to say that it may be given again
    device: Annotated[
        str,
        typer.Option(help="cpu or cuda (default: cuda if there is one).", rich_help_panel=TRAINED),
    ] = "",
    epochs: Annotated[
        int,
        typer.Option(
            help="Of the whole schedule (default: the preset's).",
            show_default=False,
            rich_help_panel=SCHEDULE,
        ),
    ] = 0,
    steps: Annotated[
        int,
        typer.Option(
            help="End after these (default: the whole schedule).",
            show_default=False,
            rich_help_panel=SCHEDULE,
        ),
    ] = 0,
    on_nan: Annotated[
        str,
        typer.Option(help="stop or skip, when the loss is not finite.", rich_help_panel=SCHEDULE),
    ] = "stop",
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Judge the features by a linear probe and k-NN.",
            rich_help_panel=SCHEDULE,
        ),
    ] = False,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="A step of each run in turn: ratios survive noise.",
            rich_help_panel=SCHEDULE,
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Run file; continued if it is there.", rich_help_panel=KEPT)
    ] = Path("runs/pretrain.jsonl"),
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Set a run file of other code aside.", rich_help_panel=KEPT),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep checkpoints in, and to go on from.", rich_help_panel=KEPT
        ),
    ] = None,
    every: Annotated[
        int,
        typer.Option(
            help="Steps between checkpoints (default: only at the end).",
            show_default=False,
            rich_help_panel=KEPT,
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON.", rich_help_panel=KEPT)
    ] = False,
) -> int:
    """Pretrain an encoder by each loss and time every phase of the step."""
    from lossbench.bench.cases.selection import present_device
    from lossbench.bench.interface import steps as display
    from lossbench.bench.interface import training
    from lossbench.bench.pretraining.config import PRESETS, spread
    from lossbench.bench.pretraining.session import Plan

    if preset == "list":
        display.presets(PRESETS)
        return OK
    settings = parse_pairs("--set", set_, "NAME=VALUE such as precision=bf16")
    named = parse_list("--loss", loss), parse_list("--implementation", implementation)
    configs = spread(preset, *named, settings, data=data, epochs=epochs, batch=batch)
    plan = Plan(steps, checkpoint, every, on_nan, evaluate)
    there = (launcher and launcher.there(device)) or present_device(device)
    records, failed = training.pretrain(configs, out, plan, there, restart, launcher, paired)
    if records:  # else another process of the job prints them
        show(records, as_json, display.steps)
        if not as_json:
            show_next("probe" if evaluate else "throughput", out)
    return FAILED if failed or any(record["status"] != "ok" for record in records) else OK
