"""Pretraining: images a second, where a step's time and memory go, what a schedule would cost."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.ceilings import raised
from lossbench.reports.comparison import compare, interval, spread
from lossbench.reports.naming import each, implementation, loss_title, megabytes, milliseconds
from lossbench.reports.section import Column, Section
from lossbench.reports.style import numbers

PASS = "pretrain"
FREE = ("loss", "implementation", "hyperparameters", "options", "distribution", "seed")
"""Settings in which runs of one table may differ; in all others they agree."""
SAME = ("machine", "world", "distribution", "pair_group")
SMALL = 64
"""Pixels of images that the CIFAR stem is usual for."""
UNUSUAL = {
    "accumulation": (1, "{} batches a step"),
    "channels_last": (False, "channels last"),
    "compiled": (False, "compiled"),
    "global_batch_norm": (False, "global batch norm"),
}
"""Setting -> what it usually is, and how it is said if it is not."""
LOSS = {"loss": Column("loss", left=True), "implementation": Column("by", left=True)}
LOSS_PHASES = ["communication_ms", "loss_forward_ms", "loss_backward_ms"]
PHASES = {
    "data_ms": "data",
    "augmentation_ms": "augment",
    "encoder_forward_ms": "encoder",
    "projector_forward_ms": "projector",
    "communication_ms": "gather",
    "loss_forward_ms": "loss fwd",
    "loss_backward_ms": "loss bwd",
    "backward_ms": "backward",
    "gradient_reduction_ms": "reduce",
    "optimizer_ms": "optimizer",
}
MEMORY = {
    "parameter_bytes": "weights MB",
    "gradient_bytes": "gradients",
    "optimizer_bytes": "optimizer",
    "activation_bytes": "activations",
    "loss_bytes": "loss",
    "peak_bytes": "peak",
}


def build(records: pd.DataFrame) -> Sequence[Section]:
    """Sections for each network and machine: rate, time by phase, memory, schedule.

    Args:
        records: records of ``lossbench pretrain``.

    Raises:
        ValueError: no record is of a pretraining run.
    """
    sections: list[Section] = []
    for title, own in timed(records):
        sections += [_rate(title, own), _time(own), _memory(own)]
        if len(own) > 1:
            sections.append(_amdahl(own))
        if "schedule_hours" in own and own["schedule_hours"].notna().any():
            sections.append(_schedule(own))
    return sections


def timed(records: pd.DataFrame, same: Sequence[str] = SAME) -> list[tuple[str, pd.DataFrame]]:
    """Runs that were timed, of one network on one machine at a time, each with its title.

    Args:
        records: of any kind.
        same: fields in which runs of a group agree, beside what they train.

    Raises:
        ValueError: there are none.
    """
    rows = records[(records["pass"] == PASS) & (records["status"] == "ok")]
    rows = rows[rows["median_ms"].notna()]
    if rows.empty:
        raise ValueError("no pretraining run was timed; run lossbench pretrain first")
    trained = [str(name) for name in rows.columns if str(name).startswith("pretrain_")]
    fixed = [name for name in trained if name.removeprefix("pretrain_") not in FREE]
    keys = [rows[name].astype(str) for name in (*same, *fixed) if name in rows]
    return [(_what(own), own) for _, own in rows.groupby(keys, sort=False)]


def is_seen(rows: pd.DataFrame, phase: str) -> bool:
    """Whether a phase takes a ten-thousandth of a step, in any of some runs."""
    return bool((numbers(rows, phase) / numbers(rows, "step_ms")).gt(1e-4).any())


def _frame(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    ours = {"loss": each(rows, loss_title), "implementation": each(rows, implementation)}
    return pd.DataFrame({**ours, **{name: rows.get(name) for name in names}})


def _what(rows: pd.DataFrame) -> str:
    """The network and where it was trained, in a line."""
    first = rows.iloc[0]
    widths = "-".join(map(str, first["pretrain_projector"]))
    said = [
        *(first["pretrain_encoder"], f"{first['pretrain_image_size']} pixels"),
        *(f"projector {widths}", f"N = {first['batch']}", first["pretrain_precision"]),
        first["pretrain_data"],
    ]
    usual_stem = "cifar" if first["pretrain_image_size"] <= SMALL else "imagenet"
    stem = first.get("pretrain_stem", usual_stem)
    said += [] if stem == usual_stem else [f"{stem} stem"]
    for name, (usual, words) in UNUSUAL.items():
        value = first.get(f"pretrain_{name}", usual)
        said += [] if value == usual else [words.format(value)]
    return ", ".join(said)


def _rate(title: str, rows: pd.DataFrame) -> Section:
    frame = _frame(rows, ["images_per_s", "step_ms", "loss_share", "mfu", "joules_per_image"])
    low, high = (numbers(rows, f"images_per_s_{end}") for end in ("low", "high"))
    frame.insert(3, "interval", (high / low) ** 0.5 - 1)
    columns = {
        **LOSS,
        "images_per_s": Column("images/s", "{:,.1f}".format),
        "interval": Column("+-", _give_or_take),
        "step_ms": Column("ms a step", milliseconds),
        "loss_share": Column("loss share", "{:.2%}".format),
        "mfu": Column("MFU", "{:.1%}".format),
        "joules_per_image": Column("J an image", "{:.3g}".format),
    }
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    notes = [
        f"{rows['machine'].iloc[0]}. Steady state: geometric mean with 95% interval, without the "
        "fifth of the steps that took longest and the fifth that took least; no interval of fewer "
        "than six steps. Loss share: forward and backward pass of the loss, and what it waits for. "
        "MFU: FLOP/s of the network over the calibrated ceiling.",
        *raised(rows),
        *(f"{reason}." for reason in dict.fromkeys(rows["reason"]) if reason),
        *busy.note(rows),
    ]
    return Section(f"Pretraining: {title}", frame, shown, notes)


def _give_or_take(share: float) -> str:
    """Of a rate that is not known to a factor of two there is no more to say."""
    return f"{share:.1%}" if share <= 1 else ">100%"


def _amdahl(rows: pd.DataFrame) -> Section:
    """What another loss changes of a step: by its own time, and as it was measured."""
    frame = _frame(rows, ["step_ms"])
    first = rows.index[0]
    frame.insert(2, "loss_ms", _loss_ms(rows))
    others_ms = rows["step_ms"].loc[first] - frame["loss_ms"].loc[first]
    ratios = compare(rows, dict.fromkeys(rows.index, rows.loc[first]))
    paired = ratios["ratio"].notna()
    whole = rows["step_ms"] / rows["step_ms"].loc[first]
    itself = rows.index == first
    frame["amdahl"] = ((others_ms + frame["loss_ms"]) / rows["step_ms"].loc[first]).mask(itself)
    frame["measured"] = ratios["ratio"].where(paired, whole).astype(float).mask(itself)
    frame["between"] = each(ratios, interval).mask(itself)
    frame["verdict"] = ratios["verdict"].mask(itself)
    columns = {
        **LOSS,
        "loss_ms": Column("loss ms", milliseconds),
        "step_ms": Column("step ms", milliseconds),
        "amdahl": Column("step by Amdahl", "{:.3f}x".format),
        "measured": Column("measured", "{:.3f}x".format),
        "between": Column("95%"),
        "verdict": Column("verdict", left=True),
    }
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    note = (
        "Steps relative to the first row's: as Amdahl's law has it if all but the loss stays as it "
        "is there, and as measured. "
    )
    note += (
        f"Steps were made in turn. {spread(rows)}"
        if paired.any()
        else "Runs were made one after another, and a few percent between them are the machine's; "
        "lossbench pretrain --paired makes steps in turn."
    )
    return Section("Amdahl: what another loss brings", frame, shown, [note])


def _loss_ms(rows: pd.DataFrame) -> pd.Series:
    return rows[LOSS_PHASES].sum(axis=1)


def _time(rows: pd.DataFrame) -> Section:
    frame = _frame(rows, list(PHASES))
    used = {name: title for name, title in PHASES.items() if is_seen(rows, name)}
    columns = {**LOSS, **{name: Column(title, milliseconds) for name, title in used.items()}}
    notes = [
        "Milliseconds a step. The graph is cut at the embeddings, so that the loss's backward pass "
        "is apart from the network's; the gradients are the same. Phases add up "
        "to the step: each has its share of the steps that the mean above is of."
    ]
    return Section("Pretraining step by phase", frame, columns, notes)


def _memory(rows: pd.DataFrame) -> Section:
    columns = {**LOSS, **{name: Column(title, megabytes) for name, title in MEMORY.items()}}
    notes = [
        "MB = 10^6 bytes. Activations: kept by the network's forward pass. Loss: the most that its "
        "own forward and backward pass hold, beyond the embeddings. Peak: of the whole step."
    ]
    return Section("Pretraining memory", _frame(rows, list(MEMORY)), columns, notes)


def _schedule(rows: pd.DataFrame) -> Section:
    columns = {
        **LOSS,
        "schedule_hours": Column("hours", "{:,.3g}".format),
        "schedule_device_hours": Column("device hours", "{:,.3g}".format),
        "schedule_kwh": Column("kWh", "{:,.3g}".format),
    }
    frame = _frame(rows, ["schedule_hours", "schedule_device_hours", "schedule_kwh"])
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    first = rows.iloc[0]
    notes = [
        f"EXTRAPOLATED, not measured: {first['pretrain_epochs']} epochs of "
        f"{first['pretrain_schedule_images']:,} images at the rate above."
    ]
    return Section("The whole schedule at this rate", frame, shown, notes)
