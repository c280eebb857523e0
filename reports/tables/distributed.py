"""What a loss costs each device of a job, and the whole job, by how the devices share it.

This is what the published columns GL (gather layer) and GBN (global batch norm) stand for.
"""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports import busy, style
from lossbench.reports.naming import each, loss_title, megabytes, milliseconds
from lossbench.reports.section import Column, Section

ORDER = ("local", "gather", "allreduce", "gram")
NUMBERS = ("macs_cost_model", "communicated_bytes", "communication_ms")
SHAPE = ["machine", "world", "batch", "dim", "dtype", "pass"]


def build(records: pd.DataFrame) -> Sequence[Section]:
    """A section for each shape and machine.

    Args:
        records: records of cases of several devices: counted by ``lossbench run`` or, with their
            time, measured by ``torchrun -m lossbench run``.

    Raises:
        ValueError: no record is of several devices.
    """
    records = records.assign(**{name: style.numbers(records, name) for name in NUMBERS})
    rows = records[(records["world"] > 1) & (records["pass"] != "pretrain")]
    rows = rows[rows["macs_cost_model"].notna() & (rows["contender"] == "")]
    if rows.empty:
        raise ValueError(
            "no record of several devices; run torchrun -m lossbench run --world W first"
        )
    groups = rows.groupby(SHAPE, sort=False)
    return [_section(own) for _, own in groups]


def _gmacs(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _section(rows: pd.DataFrame) -> Section:
    world = rows["world"].iloc[0]
    place = rows["distribution"].map(ORDER.index)
    rows = rows.assign(place=place).sort_values(["loss", "variant", "place", "implementation"])
    device = rows["macs_cost_model"] / 1e9
    together = rows["setting"] != ""
    frame = pd.DataFrame(
        {
            "loss": each(rows, loss_title),
            "distribution": rows["distribution"],
            "chosen": rows["chosen"].mask(rows["distribution"].isin(ORDER[2:]), ""),
            "device_gmacs": device,
            "job_gmacs": world * device,
            "communicated_bytes": rows["communicated_bytes"],
            "peak_bytes": rows["peak_bytes"].where(together),
            "median_ms": rows["median_ms"].where(together),
            "communication_ms": rows["communication_ms"].where(together),
        }
    )
    columns = {
        "loss": Column("loss", left=True),
        "distribution": Column("shared", left=True),
        "chosen": Column("by", left=True),
        "device_gmacs": Column("device GMACs", _gmacs),
        "job_gmacs": Column("job GMACs", _gmacs),
        "communicated_bytes": Column("MB sent", megabytes),
        "peak_bytes": Column("peak MB", megabytes),
        "median_ms": Column("ms", milliseconds),
        "communication_ms": Column("waiting", milliseconds),
    }
    first = rows.iloc[0]
    notes = [
        f"{first['machine']}. Counts of one device, and of all {world}. Local: each device its own "
        "batch. Gather: every device computes the loss of all gathered views. Allreduce: sums over "
        "the batch are added up. Gram: each device has the rows of its own samples. But for local, "
        "all give the loss of the global batch. MB sent: by each device (ring algorithm). "
        "1 MAC = 2 FLOPs.",
    ]
    if together.any():
        notes.append(
            f"ms: of {world} processes at once, the slowest; waiting: what a call waited for the "
            "others. Processes on one CPU share its cores."
        )
    notes += busy.note(rows)
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    title = f"{world} devices: N = {first['batch']} on each, D = {first['dim']}, {first['pass']}"
    return Section(title, frame, shown, notes)
