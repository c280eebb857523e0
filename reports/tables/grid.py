"""One quantity of many shapes in one table: losses down, batches or dimensions across."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lossbench.bench.records.numbers import amount
from lossbench.reports import arithmetic, busy
from lossbench.reports.comparison import compare, threshold
from lossbench.reports.modules import pick
from lossbench.reports.naming import (
    each,
    gmacs,
    implementation,
    loss_title,
    megabytes,
    milliseconds,
)
from lossbench.reports.section import Column, Format, Section

HEADLINE = "smi"
"""The loss that ratios are to, if it was measured; else the first."""
UNSURE = "UNRESOLVED"


@dataclass(frozen=True)
class Axis:
    """Something that cases differ in.

    Attributes:
        field: of a record.
        header: what stands above it, or before its values across.
        left: it is text.
    """

    field: str
    header: str
    left: bool = False


AXES = {
    "loss": Axis("subject", "loss", left=True),
    "implementation": Axis("way", "by", left=True),
    "batch": Axis("loss_batch", "N"),
    "dim": Axis("dim", "D"),
    "pass": Axis("pass", "pass", left=True),
    "dtype": Axis("dtype", "dtype", left=True),
}
APART = ["machine", "world", "distribution", "inputs", "setting"]
"""What is never in one section."""


@dataclass(frozen=True)
class Quantity:
    """What stands in the cells.

    Attributes:
        field: of a record.
        title: in words, with the unit.
        format: value to text.
    """

    field: str
    title: str
    format: Format


VALUES = {
    "ms": Quantity("median_ms", "time, ms", milliseconds),
    "ratio": Quantity("ratio", "time to", "{:.3g}x".format),
    "mb": Quantity("peak_bytes", "peak memory beyond the inputs, MB of 10^6 bytes", megabytes),
    "gmacs": Quantity("gmacs", "GMACs of the pass, all devices", gmacs),
    "elementwise": Quantity("elementwise", "operations beside matrix products", amount),
    "transcendentals": Quantity("transcendentals", "exponentials, logarithms and roots", amount),
}


def build(
    records: pd.DataFrame, *, rows: str = "loss,dim", across: str = "batch", value: str = "ms"
) -> Sequence[Section]:
    """A section for whatever else the records differ in.

    Where implementations are neither down nor across, each loss is shown by its fastest.

    Args:
        records: records of a run.
        rows: axes that go down, as a comma-separated list.
        across: axes that go across, likewise.
        value: one of ``VALUES``.

    Raises:
        ValueError: an unknown axis or value, one axis twice, or no record of a loss.
    """
    down, right = _axes("rows", rows), _axes("across", across)
    twice = set(down) & set(right)
    if twice:
        raise ValueError(
            f"{twice.pop()} cannot go down and across: --rows {rows} --across {across}"
        )
    if "loss" not in (*down, *right):
        raise ValueError("losses go down or across: --rows loss,dim --across batch")
    pick("value of table grid", value, VALUES)
    known = records[records["loss_batch"].notna() & (records["pass"] != "pretrain")].copy()
    if known.empty:
        raise ValueError("no case of a loss alone; run lossbench run first")
    known["subject"], known["way"] = each(known, loss_title), each(known, implementation)
    rest = [axis.field for name, axis in AXES.items() if name not in (*down, *right)]
    rest = [name for name in rest if name not in ("subject", "way")]
    groups = known.groupby([*APART, *rest], sort=False, dropna=False)
    return [_section(of_one, down, right, value, rest) for _, of_one in groups]


def _axes(what: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        pick(f"axis in --{what}", name, AXES)
    if len(set(names)) < len(names):
        raise ValueError(f"--{what} {text}: an axis is named twice")
    return names


def _section(
    rows: pd.DataFrame, down: Sequence[str], right: Sequence[str], value: str, rest: Sequence[str]
) -> Section:
    quantity, first = VALUES[value], rows.iloc[0]
    if not {"implementation"} & {*down, *right}:
        rows = _fastest(rows)
    base = _baseline(rows)
    if value == "ratio":
        found = compare(rows, _baselines(rows, base))
        rows = rows.assign(ratio=found["ratio"].astype(float), verdict=found["verdict"])
    places = [AXES[name].field for name in down]
    frame, columns = pd.DataFrame(), {}
    kinds = rows[places].drop_duplicates()
    if set(places) - {"subject", "way"}:
        kinds = kinds.sort_values(places, key=_in_order(rows), kind="stable")
    for name in down:
        axis = AXES[name]
        frame[axis.field] = kinds[axis.field].to_numpy()
        columns[axis.field] = Column(axis.header, left=axis.left)
    marks = _Marks()
    fields = [AXES[name].field for name in right]
    for heads, cells in sorted(rows.groupby(fields, sort=False), key=lambda item: _rank(item[0])):
        name = ", ".join(f"{AXES[n].header} {h}" for n, h in zip(right, heads, strict=True))
        by_place = {tuple(row[places]): row for _, row in cells.iterrows()}
        found_here = [by_place.get(tuple(kind)) for kind in kinds.to_numpy()]
        frame[name] = pd.Series([_value(row, quantity.field) for row in found_here], dtype=float)
        columns[name] = Column(_header(right, heads), quantity.format)
        marks.add(name, found_here, quantity.field)
    title = f"{quantity.title} {base}" if value == "ratio" else quantity.title
    where = ", ".join(filter(None, (_shared(first, name) for name in (*rest, *APART[1:]))))
    notes = [f"{first['machine']}.", *_notes(rows, value, down, right), *marks.notes]
    text = f"Grid: {title}" + (f" ({where})" if where else "")
    return Section(text, frame, columns, notes, marks.found)


def _shared(row: pd.Series, field: str) -> str:
    """What all cases of a section are, where it is not as usual."""
    headers = {axis.field: axis.header for axis in AXES.values() if not axis.left}
    value = row[field]
    if field in headers:
        return f"{headers[field]} = {value}"
    usual = {"world": 1, "distribution": "local", "inputs": "random", "dtype": "float32"}
    said = "" if value == usual.get(field, "") else str(value)
    return f"{said} devices" if said and field == "world" else said


def _in_order(rows: pd.DataFrame) -> Any:
    """Names in the order of the run, numbers by size."""

    def key(column: pd.Series) -> pd.Series:
        if column.dtype != object:
            return column
        order = {name: number for number, name in enumerate(rows[column.name].unique())}
        return column.map(order)

    return key


def _rank(heads: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((isinstance(head, str), head) for head in heads)


def _header(right: Sequence[str], heads: tuple[Any, ...]) -> str:
    return ", ".join(
        str(head) if AXES[name].left else f"{AXES[name].header} = {head}"
        for name, head in zip(right, heads, strict=True)
    )


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each loss and shape the fastest right row; one that says why where there is none."""
    order = rows.sort_values("median_ms", kind="stable", na_position="last")
    kept = order.drop_duplicates(["subject", *(axis.field for axis in _but_way())])
    return rows.loc[sorted(kept.index)]


def _but_way() -> list[Axis]:
    return [axis for name, axis in AXES.items() if name not in ("loss", "implementation")]


def _baseline(rows: pd.DataFrame) -> str:
    """Title of the loss that ratios are to."""
    headline = rows[(rows["loss"] == HEADLINE) & (rows["variant"] == "")]
    return str((headline if len(headline) else rows)["subject"].iloc[0])


def _baselines(rows: pd.DataFrame, base: str) -> dict[Any, pd.Series | None]:
    """For each row the fastest of the baseline at its shape."""
    own = _fastest(rows[rows["subject"] == base])
    shape = [axis.field for axis in _but_way()]
    known = {tuple(row[shape]): row for _, row in own.iterrows()}
    return {index: known.get(tuple(row[shape])) for index, row in rows.iterrows()}


def _value(row: pd.Series | None, name: str) -> float:
    return float("nan") if row is None or pd.isna(row[name]) else float(row[name])


def _notes(rows: pd.DataFrame, value: str, down: Sequence[str], right: Sequence[str]) -> list[str]:
    notes = []
    if "implementation" not in (*down, *right):
        notes.append("Each loss by the fastest implementation that was measured.")
    if value == "ratio":
        unsure = rows["verdict"] == UNSURE
        notes.append(threshold(rows))
        notes += (
            [f"{int(unsure.sum())} of {len(rows)} ratios are not resolved."] if unsure.any() else []
        )
    if value in ("ms", "ratio"):
        return [*notes, *busy.note(rows)]
    return [*notes, *(arithmetic.note(rows, VALUES[value].field) if value != "mb" else [])]


class _Marks:
    """Letters of cells without a value, and the notes that say why."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], str] = {}
        self._letters: dict[str, str] = {}

    def add(self, column: str, rows: Sequence[pd.Series | None], name: str) -> None:
        """Mark the cells of a column whose case failed."""
        for number, row in enumerate(rows):
            if row is not None and row["reason"] and pd.isna(row[name]):
                letter = chr(ord("a") + len(self._letters))
                self.found[number, column] = self._letters.setdefault(row["reason"], letter)

    @property
    def notes(self) -> list[str]:
        """A sentence for each reason."""
        return [f"[{letter}] {reason.rstrip('.')}." for reason, letter in self._letters.items()]
