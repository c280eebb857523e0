"""Which devices were measured, what they can do at best, and what was reached on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.ceilings import raised
from lossbench.reports.section import Column, Section


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One row for each device.

    Args:
        records: records of runs from any devices.
    """
    rows = [_row(device, own) for device, own in records.groupby("hardware", sort=False)]
    columns = {
        "device": Column("device", left=True),
        "records": Column("records", "{:,}".format),
        "ok": Column("ok", "{:,}".format),
        "float32_gflops": Column("fp32 GFLOP/s", "{:,.0f}".format),
        "bfloat16_gflops": Column("bf16 GFLOP/s", "{:,.0f}".format),
        "copy_gb_per_s": Column("copy GB/s", "{:,.0f}".format),
        "launch_us": Column("launch us", "{:.1f}".format),
        "reached": Column("reached", "{:.0%}".format),
    }
    notes = [
        "Ceilings as calibrated in the newest run of a device that has them, and again where a "
        "result beat them: large products of each dtype, the copy of the largest size, the time "
        "from one operation to the next. "
        "Reached: the median share of the ceiling over all steps that were measured.",
        *raised(records[records["pass"] == "step"]),
        *(f"{row['device']}: {row['machines']}." for row in rows),
        *busy.note(records),
    ]
    return [Section("Devices", pd.DataFrame(rows), columns, notes)]


def _row(device: Any, own: pd.DataFrame) -> dict[str, Any]:
    known = own[own["calibration"].notna()].sort_values("created", kind="stable")["calibration"]
    steps = own[own["pass"] == "step"]["fraction_of_ceiling"].astype(float)
    return {
        "device": device,
        "records": len(own),
        "ok": int((own["status"] == "ok").sum()),
        **_ceilings({} if known.empty else known.iloc[-1]),
        "reached": steps.dropna().median() if steps.notna().any() else None,
        "machines": "; ".join(
            machine.removeprefix(f"{device}, ") for machine in own["machine"].unique()
        ),
    }


def _ceilings(found: Mapping[str, Any]) -> dict[str, Any]:
    copies = found.get("copy_gb_per_s") or [[None, None]]
    rates = found.get("gemm_gflops", {})
    return {
        "float32_gflops": rates.get("float32"),
        "bfloat16_gflops": rates.get("bfloat16"),
        "copy_gb_per_s": copies[-1][1],
        "launch_us": found.get("launch_us"),
    }
