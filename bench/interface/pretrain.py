"""``lossbench pretrain``. torch is imported inside, so that ``--help`` answers at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lossbench.bench.interface.console import FAILED, OK, examples, show, show_next
from lossbench.bench.interface.options import PLUGIN_HELP, option, takes_launcher, use_plugins
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
SET_HELP = "Any setting: precision=bf16, encoder=vit_s, smi.lambda_=2. May be given again."
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
        option("--preset", "Published settings; list prints them.", TRAINED, shows_default=True),
    ] = "digits",
    loss: Annotated[
        str,
        option("--loss", "Losses, one run each; yours is NAME=module:attribute.", TRAINED, True),
    ] = LOSSES,
    implementation: Annotated[
        str,
        option("--implementation", "Ways to compute them, one run each.", TRAINED, True),
    ] = "auto",
    data: Annotated[str, option("--data", DATA_HELP, TRAINED)] = "",
    batch: Annotated[
        int, option("--batch", "Images per device and step (default: the preset's).", TRAINED)
    ] = 0,
    set_: Annotated[list[str], option("--set", SET_HELP, TRAINED)] = [],  # noqa: B006 - Typer's way
    plugin: Annotated[str, option("--plugin", PLUGIN_HELP, TRAINED)] = "",
    device: Annotated[
        str, option("--device", "cpu or cuda (default: cuda if there is one).", TRAINED)
    ] = "",
    epochs: Annotated[
        int, option("--epochs", "Of the whole schedule (default: the preset's).", SCHEDULE)
    ] = 0,
    steps: Annotated[
        int, option("--steps", "End after these (default: the whole schedule).", SCHEDULE)
    ] = 0,
    on_nan: Annotated[
        str, option("--on-nan", "stop or skip, when the loss is not finite.", SCHEDULE, True)
    ] = "stop",
    evaluate: Annotated[
        bool, option("--evaluate", "Judge the features by a linear probe and k-NN.", SCHEDULE)
    ] = False,
    paired: Annotated[
        bool, option("--paired", "A step of each run in turn: ratios survive noise.", SCHEDULE)
    ] = False,
    out: Annotated[
        Path, option("--out", "Run file; continued if it is there.", KEPT, shows_default=True)
    ] = Path("runs/pretrain.jsonl"),
    restart: Annotated[
        bool, option("--restart", "Set a run file of other code aside.", KEPT)
    ] = False,
    checkpoint: Annotated[
        Path | None, option("--checkpoint", "Folder to keep and resume checkpoints in.", KEPT)
    ] = None,
    every: Annotated[
        int, option("--every", "Steps between checkpoints (default: only at the end).", KEPT)
    ] = 0,
    as_json: Annotated[bool, option("--json", "Print records as a JSON array.", KEPT)] = False,
) -> int:
    """Pretrain an encoder by each loss and time every phase of the step."""
    use_plugins(parse_list("--plugin", plugin or None))
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
