"""The efficiency table: as published, like for like, and measured on this machine.

The published table (arXiv:2606.08332, Table 2) counts multiply-adds of the forward pass. Three of
its rows are one gathered batch of 2048; the row of SMI, which prints no batch, is eight local
batches of 256. That reading reproduces all four figures to the last digit.
"""

from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pandas as pd

from lossbench.reports import arithmetic, busy, published
from lossbench.reports.comparison import compare, interval, threshold
from lossbench.reports.naming import each, implementation, loss_title, megabytes, milliseconds
from lossbench.reports.section import Column, Section

BATCH, DIM, WORLD = 2048, 8192, 8
GATHERED, LOCAL = f"{BATCH} gathered", f"{WORLD} x {BATCH // WORLD} local"
LAYOUTS = {"gather": GATHERED, "local": LOCAL}
LOSS = Column("loss", left=True)
YES_NO = Column("", lambda value: "yes" if value else "no", left=True)


def build(records: pd.DataFrame) -> Sequence[Section]:
    """Sections of the efficiency table.

    Args:
        records: records of the efficiency suite, possibly of several machines.

    Raises:
        ValueError: no record has the published shape.
    """
    chosen = published_shape(records)
    forward = chosen["forward_macs_cost_model"].fillna(chosen["forward_macs_flop_counter"])
    chosen["forward_gmacs"] = forward * chosen["evaluations"] / 1e9
    counts = chosen[(chosen["implementation"] == "reference") & (chosen["variant"] == "")]
    counts = counts.sort_values("pass", ascending=False, kind="stable")  # steps first
    counts = counts.drop_duplicates(["loss", "distribution"]).set_index(["loss", "distribution"])
    groups = chosen.groupby(["machine", "pass", "dtype", "inputs"], sort=False)
    measured = [_measured(rows, *map(str, group)) for group, rows in groups]
    counted = [_published(counts), _like_for_like(counts), _needs(counts)]
    return [*counted, *measured, *_arithmetic(chosen)]


def published_shape(records: pd.DataFrame) -> pd.DataFrame:
    """The records of the shape that the paper counts, but those of which nothing is known.

    Raises:
        ValueError: there is none.
    """
    alone = records["setting"] == ""
    known = records["gmacs"].notna() | (records["uncounted"] != "")
    chosen = records[alone & known & is_published(records)].copy()
    if chosen.empty:
        raise ValueError("no record of the efficiency suite; run lossbench run --suite efficiency")
    return chosen


def is_published(records: pd.DataFrame) -> pd.Series:
    """Which records have the shape that the paper counts, in either layout."""
    at_world = (records["world"] == WORLD) & (records["batch"] * WORLD == BATCH)
    return at_world & (records["dim"] == DIM) & records["distribution"].isin(LAYOUTS)


def _published(counts: pd.DataFrame) -> Section:
    """The published figures beside ours, each at the layout that the paper counted."""
    printed = published.read("efficiency_smi_table2").set_index("loss")
    rows = []
    for loss, row in printed.iterrows():
        distribution = "gather" if row["gather_layer"] == "yes" else "local"
        gmacs = counts["forward_gmacs"].get((loss, distribution))
        digits = Decimal(row["gflops"])
        cut = None if gmacs is None else Decimal(str(gmacs)).quantize(digits, ROUND_DOWN)
        rows.append(
            {
                "loss": _title(counts, loss),
                "layout": LAYOUTS[distribution],
                "published": row["gflops"],
                "gmacs": gmacs,
                "cut": cut,
                "difference": None if cut is None else cut - digits,
            }
        )
    columns = {
        "loss": LOSS,
        "layout": Column("what was counted", left=True),
        "published": Column("published"),
        "gmacs": Column("ours, GMACs", "{:.9f}".format),
        "cut": Column("cut"),
        "difference": Column("difference"),
    }
    notes = [
        "The paper's GFLOPs are multiply-adds (GMACs) of the forward pass, cut to two decimals. "
        f"Three rows count one batch of {BATCH} gathered from {WORLD} devices; SMI's row counts "
        f"{WORLD} local batches of {BATCH // WORLD}.",
    ]
    title = "As published: arXiv:2606.08332, Table 2, and our count"
    return Section(title, pd.DataFrame(rows), columns, notes)


def _like_for_like(counts: pd.DataFrame) -> Section:
    """Every loss at both layouts, with the ratio to SMI in the same layout."""
    table = counts["forward_gmacs"].unstack("distribution").reindex(columns=list(LAYOUTS))
    rows = pd.DataFrame({"loss": [_title(counts, loss) for loss in table.index]})
    columns = {"loss": LOSS}
    for distribution, layout in LAYOUTS.items():
        gmacs = table[distribution]
        smi = gmacs.get("smi", float("nan"))
        values = {"gmacs": gmacs, "gflops": 2 * gmacs, "to_smi": gmacs / smi}
        headers = {"gmacs": f"{layout}: GMACs", "gflops": "GFLOPs", "to_smi": "to SMI"}
        for name, value in values.items():
            rows[f"{distribution}_{name}"] = value.to_numpy()
            show = _ratio if name == "to_smi" else "{:.3f}".format
            columns[f"{distribution}_{name}"] = Column(headers[name], show)
    notes = [
        f"Forward pass, D = {DIM}, as each paper writes its loss (implementation reference); "
        "1 MAC = 2 FLOPs; all devices together.",
        *arithmetic.note(counts.reset_index(), "forward_gmacs"),
    ]
    return Section("Like for like: every loss at both layouts", rows, columns, notes)


def _arithmetic(chosen: pd.DataFrame) -> list[Section]:
    """All that a step of each loss computes, as its paper writes it."""
    steps = chosen[(chosen["pass"] == "step") & (chosen["implementation"] == "reference")]
    steps = steps.drop_duplicates(["loss", "variant", "distribution"])
    steps = steps.sort_values(["loss_batch", "loss", "variant"])
    made = arithmetic.section(f"All arithmetic of a step, D = {DIM}", steps)
    return [made] if len(made.frame) else []


def _needs(counts: pd.DataFrame) -> Section:
    """What each loss asks of its surroundings, as published and as its official code does it."""
    printed = published.read("efficiency_smi_table2").set_index("loss")
    rows = []
    for loss in counts.index.unique("loss"):
        of_loss = counts.loc[loss]
        facts = of_loss.iloc[0]
        step_bytes = facts["official_communicated_bytes"] if facts["pass"] == "step" else None
        entries = of_loss["off_diagonal_entries"].reindex(list(LAYOUTS))
        rows.append(
            {
                "loss": _title(counts, loss),
                "off_diagonal_gather": entries["gather"],
                "off_diagonal_local": entries["local"],
                "official_communicated_bytes": step_bytes,
                "gather_layer_published": printed["gather_layer"].get(loss),
                "gather_layer": facts["gather_layer"],
                "global_batch_norm_published": printed["global_batch_norm"].get(loss),
                "global_batch_norm": facts["global_batch_norm"],
            }
        )
    columns = {
        "loss": LOSS,
        "off_diagonal_gather": Column(f"entries, {GATHERED}", "{:,.0f}".format),
        "off_diagonal_local": Column(LOCAL, "{:,.0f}".format),
        "official_communicated_bytes": Column("MB a step", lambda value: f"{value / 1e6:,.0f}"),
        "gather_layer_published": Column("GL, paper", left=True),
        "gather_layer": Column("GL, code", YES_NO.format, left=True),
        "global_batch_norm_published": Column("GBN, paper", left=True),
        "global_batch_norm": Column("GBN, code", YES_NO.format, left=True),
    }
    notes = [
        "Entries: off the diagonal, of all devices. MB a step: what each of 8 devices communicates "
        "in a training step of the loss's official code (gathered views; for Barlow Twins the sum "
        "of C and batch-norm statistics). GL: gather layer; GBN: global batch norm; as "
        "arXiv:2606.08332 prints them, and as the official code of each loss has them."
    ]
    return Section("What each loss needs", pd.DataFrame(rows), columns, notes)


def _measured(rows: pd.DataFrame, machine: str, pass_: str, dtype: str, inputs: str) -> Section:
    """Time and memory of one evaluation on one machine, with ratios to SMI in the same layout."""
    rows = rows.sort_values(["loss_batch", "loss", "variant", "implementation"])
    smi: dict[Any, pd.Series | None] = {}
    for _, equal in rows.groupby("distribution"):
        smi.update(dict.fromkeys(equal.index, _published_smi(equal)))
    ratios = compare(rows, smi)
    itself = rows.index.isin([row.name for row in smi.values() if row is not None])
    frame = pd.DataFrame(
        {
            "layout": rows["distribution"].map({"gather": BATCH, "local": BATCH // WORLD}),
            "loss": each(rows, loss_title),
            "implementation": each(rows, implementation),
            "median_ms": rows["median_ms"],
            "samples": rows["samples_ms"].map(len, na_action="ignore"),
            "time_to_smi": ratios["ratio"].mask(itself),
            "interval": each(ratios, interval).mask(itself),
            "verdict": ratios["verdict"].mask(itself),
            "peak_bytes": rows["peak_bytes"],
            "saved_bytes": rows["saved_bytes"],
            "status": rows["status"],
        }
    )
    columns = {
        "layout": Column("batch"),
        "loss": LOSS,
        "implementation": Column("by", left=True),
        "median_ms": Column("ms", milliseconds),
        "time_to_smi": Column("to SMI", "{:.3g}x".format),
        "verdict": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
    }
    if (rows["status"] != "ok").any():
        columns["status"] = Column("status", left=True)
    return Section(
        f"Measured: {pass_}, D = {DIM}, {dtype}, {inputs} inputs",
        frame.assign(machine=machine),
        columns,
        [
            f"{machine}. One device's work: its local batch of {BATCH // WORLD}, or the gathered "
            f"{BATCH} without the gather itself. ms: median. To SMI: to its reference "
            "at equal batch. MB = 10^6 bytes.",
            threshold(rows),
            *busy.note(rows),
        ],
    )


def _published_smi(rows: pd.DataFrame) -> pd.Series | None:
    """The record of SMI as its paper writes it."""
    published = (rows["implementation"] == "reference") & (rows["variant"] == "")
    smi = rows[published & (rows["loss"] == "smi")]
    return smi.iloc[0] if len(smi) else None


def _title(counts: pd.DataFrame, loss: object) -> str:
    titles = counts["title"].groupby("loss").first()
    return str(titles.get(loss, loss))


def _ratio(value: float) -> str:
    return f"{value:.2f}x"
