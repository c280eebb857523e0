"""``lossbench``: makes records. Nothing imports this module, but what documents it.

torch is imported inside the commands, so that ``--help`` answers at once.
"""

import gc
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossbench.bench.interface.console import FAILED, OK, examples, make_app, run_app, say, show
from lossbench.bench.interface.maintenance import audit_kernels, measure_noise, tune_kernels
from lossbench.bench.interface.options import takes_cases
from lossbench.bench.interface.parsing import parse_list
from lossbench.bench.interface.pretrain import EXAMPLES as PRETRAIN_EXAMPLES
from lossbench.bench.interface.pretrain import pretrain
from lossbench.bench.interface.run import EXAMPLES as RUN_EXAMPLES
from lossbench.bench.interface.run import run

if TYPE_CHECKING:
    from lossbench.bench.cases.case import Case
    from lossbench.bench.pretraining.steps import Step

app = make_app(
    "Count, predict and measure what self-supervised losses cost. Lists are comma-separated.",
    failure="a case failed",
)
WHERE = "Which devices"
"""A group of options in ``--help``."""
AsJson = Annotated[bool, typer.Option("--json", help="Print records as a JSON array.")]


@app.command(
    epilog=examples(
        "lossbench count --loss smi,vicreg --batch 256,2048 --dim 8192",
        "lossbench count --suite distributed",
    )
)
@takes_cases
def count(cases: "list[Case]", as_json: AsJson = False) -> int:
    """Count MACs, FLOPs and bytes exactly, without running anything."""
    from lossbench.bench.interface import display, functions

    records = functions.count(cases)
    show(records, as_json, display.counts)
    disagree = [record for record in records if record.get("counts_agree", False) is False]
    return FAILED if disagree else OK


@app.command(
    "predict",
    epilog=examples(
        "lossbench predict --loss smi,vicreg --batch 4096 --dim 1024",
        "lossbench predict --suite gpu --gpu h200,rtx4090",
        "lossbench predict --preset imagenet-300ep --world 8..64 --gpu h200 --link ib400",
    ),
)
@takes_cases
def predict_cases(
    cases: "list[Case] | list[Step]",
    preset: Annotated[
        str,
        typer.Option(
            help="A whole step of pretraining by these settings; --set changes them.",
        ),
    ] = "",
    gpu: Annotated[
        str, typer.Option(help="GPUs that need not be here, or all.", rich_help_panel=WHERE)
    ] = "",
    gpu_spec: Annotated[
        Path | None,
        typer.Option(
            help="A datasheet of yours, in the form of docs/predict.md.", rich_help_panel=WHERE
        ),
    ] = None,
    link: Annotated[
        str,
        typer.Option(
            help="Link between devices: nvlink (the GPU's own), ib400, eth100, ...",
            rich_help_panel=WHERE,
        ),
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Predict time, memory and communication, here or on GPUs that are not here."""
    from lossbench.bench.interface import display, functions, steps

    gc.freeze()  # what was imported is not garbage, and takes long to look through
    named = parse_list("--gpu", gpu) if gpu else []
    records, devices = functions.predict(cases, named, gpu_spec, link)
    shown: Any = steps.predictions if preset else display.predictions
    show(records, as_json, partial(shown, devices=devices))
    if link and all(case.world == 1 for case in cases):
        say("one device sends nothing over a link: add --world 8")
    statuses = {record["status"] for record in records}
    return OK if "ok" in statuses and "error" not in statuses else FAILED


app.command("run", epilog=RUN_EXAMPLES)(run)
app.command("pretrain", epilog=PRETRAIN_EXAMPLES)(pretrain)


@app.command("calibrate", epilog=examples("lossbench calibrate"))
def calibrate_device(
    device: Annotated[str, typer.Option(help="cpu or cuda (default: cuda if there is one).")] = "",
    as_json: AsJson = False,
) -> int:
    """Measure the ceilings of this device: products, copies, launches."""
    from lossbench.bench.cases.selection import present_device
    from lossbench.bench.interface import display
    from lossbench.bench.predicting.calibrate import calibrate

    ceilings = calibrate(present_device(device or None))
    if as_json:
        print(json.dumps(ceilings.describe(), indent=1))
    else:
        display.ceilings(ceilings)
    return OK


app.command(
    "noise",
    epilog=examples("lossbench noise --loss smi --implementation gram --batch 256 --dim 1024"),
)(measure_noise)
app.command("audit", epilog=examples("lossbench audit --check kernels/AUDIT.md"))(audit_kernels)
app.command("tune", epilog=examples("lossbench tune"))(tune_kernels)


def main() -> None:
    """Entry point of ``lossbench``."""
    run_app(app, "lossbench")
