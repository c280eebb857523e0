"""A pretraining step on several devices: measured, and predicted by the scaling model."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.naming import each, implementation, loss_title, milliseconds
from lossbench.reports.section import Column, Section
from lossbench.reports.tables.throughput import timed

PARTS = {
    "network": ("encoder_forward_ms", "projector_forward_ms", "backward_ms"),
    "optimizer": ("optimizer_ms",),
    "loss": ("loss_forward_ms", "loss_backward_ms"),
}
"""What a device computes, and the phases in which it does."""
SENT = ("communication", "gradient_reduction")
"""What devices wait for; a record that does not time them apart has them in loss and network."""
WHAT = {
    "loss": Column("loss", left=True),
    "implementation": Column("by", left=True),
    "distribution": Column("spread", left=True),
    "world": Column("W"),
}


def build(records: pd.DataFrame) -> Sequence[Section]:
    """Two sections for each network: times, and what follows from them.

    Args:
        records: records of ``lossbench pretrain``, by jobs of several sizes.

    Raises:
        ValueError: no record of a pretraining run has a prediction.
    """
    if "predicted_step_ms" not in records or records["predicted_step_ms"].isna().all():
        raise ValueError("no run has predictions of its step; measure anew: lossbench pretrain")
    known = records[records["predicted_step_ms"].notna()]
    sections: list[Section] = []
    for title, own in timed(known, ["hardware"]):
        rows = own.sort_values(["loss", "implementation", "distribution", "world"])
        found = pd.DataFrame([_compared(row, _first(row, rows)) for _, row in rows.iterrows()])
        named = {"loss": each(rows, loss_title), "implementation": each(rows, implementation)}
        frame = pd.concat([pd.DataFrame(named).reset_index(drop=True), found], axis=1)
        sections += [_times(title, frame, rows), _shares(frame)]
    return sections


def _first(row: "pd.Series[Any]", rows: pd.DataFrame) -> "pd.Series[Any] | None":
    """The run of one process of the same loss, whose distribution does not matter."""
    same = ("loss", "implementation", "variant", "options")
    alike = pd.concat([rows[name] == row[name] for name in same], axis=1).all(axis=1)
    alone = rows[alike & (rows["world"] == 1)]
    return None if alone.empty else alone.iloc[0]


def _compared(row: "pd.Series[Any]", first: "pd.Series[Any] | None") -> dict[str, Any]:
    """Measured, by ceilings alone, and from what one process reached of them."""
    step = _step(row)
    told = float(row["predicted_step_ms"])
    found = {
        "distribution": row["distribution"],
        "world": row["world"],
        "step": step,
        "ceilings": told,
        "ceilings_ratio": told / step,
        "loss_share": _measured(row, ["loss", "communication"]) / step,
        "sent_share": _measured(row, SENT) / step or None,
    }
    if first is None:
        return found
    parts = _from_one(row, first)
    whole, alone = sum(parts.values()), _step(first)
    return found | {
        "from_one": whole,
        "from_one_ratio": whole / step,
        "told_loss_share": (parts["loss"] + parts["communication"]) / whole,
        "told_sent_share": sum(parts[name] for name in SENT) / whole,
        "efficiency": alone / step,
        "told_efficiency": alone / whole,
    }


def _step(row: "pd.Series[Any]") -> float:
    """Milliseconds of a step, without what is not predicted of it."""
    return float(row["step_ms"] - row["data_ms"] - row["augmentation_ms"])


def _measured(row: "pd.Series[Any]", parts: Sequence[str]) -> float:
    """Milliseconds of some parts; a phase that was not timed takes none."""
    phases = [phase for part in parts for phase in PARTS.get(part, (f"{part}_ms",))]
    times = [row.get(phase) for phase in phases]
    return float(sum(ms for ms in times if not pd.isna(ms)))


def _from_one(row: "pd.Series[Any]", first: "pd.Series[Any]") -> dict[str, float]:
    """Each part as long as one process took for it, times how much longer it is predicted."""
    grown = {
        name: _measured(first, [name])
        * (row[f"predicted_{name}_ms"] / first[f"predicted_{name}_ms"])
        for name in PARTS
    }
    return grown | {name: float(row[f"predicted_{name}_ms"]) for name in SENT}


def _times(title: str, frame: pd.DataFrame, rows: pd.DataFrame) -> Section:
    columns = {
        **WHAT,
        "step": Column("measured ms", milliseconds),
        "ceilings": Column("by ceilings ms", milliseconds),
        "ceilings_ratio": Column("ratio", "{:.2f}".format),
        "from_one": Column("from W = 1 ms", milliseconds),
        "from_one_ratio": Column("ratio", "{:.2f}".format),
    }
    notes = [
        f"{'; '.join(rows['machine'].unique())}. A step without data and augmentation. By "
        "ceilings: each operation at what its run calibrated, with all processes at the same time; "
        "nothing is fitted. From W = 1: what one process took for network, optimizer and loss, "
        "each times how much longer it is predicted to take, and what is sent. Ratio: to the "
        "measured time.",
        *busy.note(rows),
    ]
    return Section(f"Scaling: {title}", frame, _known(frame, columns), notes)


def _shares(frame: pd.DataFrame) -> Section:
    percent = "{:.1%}".format
    columns = {
        **WHAT,
        "loss_share": Column("loss share", percent),
        "told_loss_share": Column("predicted", percent),
        "sent_share": Column("sent", percent),
        "told_sent_share": Column("predicted", percent),
        "efficiency": Column("efficiency", percent),
        "told_efficiency": Column("predicted", percent),
    }
    notes = [
        "Predicted from W = 1. Loss share: with what the loss communicates. Sent: the share of "
        "the step that is waited for it and for the gradients' all-reduce, where that was timed. "
        "Efficiency: images/s of a process, to those of one alone."
    ]
    return Section("Scaling: shares and efficiency", frame, _known(frame, columns), notes)


def _known(frame: pd.DataFrame, columns: dict[str, Column]) -> dict[str, Column]:
    return {name: column for name, column in columns.items() if name in frame}
