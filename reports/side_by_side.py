"""The tables of a comparison: every case with a row for each run, then what it comes to."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lossbench.bench.comparing.gates import PEAK_TOLERANCE
from lossbench.reports import busy, comparison, unpaired
from lossbench.reports.ceilings import raised
from lossbench.reports.compare import GATES, Side, compared, differences, has, mean_ratio
from lossbench.reports.naming import implementation, loss_title, megabytes, milliseconds
from lossbench.reports.section import Column, Section

VERDICTS = ("FASTER", "SLOWER", "SAME", "UNRESOLVED")
EXPLAINED = {
    "ratio": "To A: ratio of the medians.",
    "peak_bytes": "Peak MB: 10^6 bytes.",
    "fraction_of_ceiling": "Of roof: fraction of the machine's ceiling.",
    "gradient_error": "Error: of the gradient, against fp64.",
}
HIDDEN = ["place", "samples_ms", "key", "pair_processes", "busy"]
LISTED = 8
"""More cases than these are counted, not named one by one."""


def build(sides: Sequence[Side], found: Sequence[pd.DataFrame]) -> list[Section]:
    """Sections of a comparison.

    Args:
        sides: the runs, the first of which is the base.
        found: what ``pair`` found for each of the others.
    """
    labels, common = label_cases(sides)
    return [_cases(sides, found, labels, common), _summary(sides, found, labels)]


def failures(
    sides: Sequence[Side], found: Sequence[pd.DataFrame], gates: Sequence[str]
) -> list[str]:
    """A line for whatever keeps a run from passing the gates, with the cases.

    A run that says less does not pass for a better one: a case or quantity of A that it lacks, a
    case that failed in it alone, and a gate with nothing to compare count too.
    """
    if not gates:
        return []
    labels, _ = label_cases(sides)
    return [
        f"{what} in {side.name}, {side.path}: {_list(labels, cases) or 'nothing could be compared'}"
        for side, of_side in zip(sides[1:], found, strict=True)
        for what, cases in _faults(sides[0].rows, side.rows, of_side, gates)
    ]


def doubts(sides: Sequence[Side], found: Sequence[pd.DataFrame], gates: Sequence[str]) -> list[str]:
    """A line for each run with cases that the gate of times cannot judge: a machine was busy."""
    labels, _ = label_cases(sides)
    return [
        f"cannot judge slower in {side.name}, {side.path}: "
        f"{_list(labels, of_side.index[of_side['busy']])}: measured there or in A beside other "
        "work; that is no failure: measure both again on a quieter machine, or gate on counts"
        for side, of_side in zip(sides[1:], found, strict=True)
        if "slower" in gates and of_side["busy"].any()
    ]


def _faults(
    base: pd.DataFrame, new: pd.DataFrame, found: pd.DataFrame, gates: Sequence[str]
) -> list[tuple[str, pd.Index]]:
    """What keeps a run from passing, and the cases: none for a gate with nothing to compare."""
    measured = base.index[base["status"] == "ok"]
    there = measured[measured.isin(new.index)]
    ok = there[new.loc[there, "status"] == "ok"]
    faults = [("missing", measured.difference(there, sort=False))]
    faults.append(("failed", there.difference(ok, sort=False)))
    unchecked = []
    for gate in gates:
        old, now = has(base.loc[ok], gate), has(new.loc[ok], gate)
        faults.append((gate, ok[found.loc[ok, gate].astype(bool)]))
        faults.append((f"no {GATES[gate][1]}", ok[old & ~now]))
        unchecked += [] if old.any() else [(f"{gate}: no {GATES[gate][1]}", ok[:0])]
    return [*((what, cases) for what, cases in faults if len(cases)), *unchecked]


def label_cases(sides: Sequence[Side]) -> tuple[pd.DataFrame, str]:
    """Names of all cases, and what those that are compared share.

    Columns are ``who`` and ``loss``; ``where``, without what is shared, and ``in_full``.
    """
    rows = pd.concat([side.rows for side in sides])
    rows = rows[~rows.index.duplicated()]
    records = rows.drop(columns=["samples_ms", "reason", "machine"]).to_dict("records")
    parts = pd.DataFrame(
        {
            "layout": [_layout(row) for row in records],
            "pass": rows["pass"],
            "dtype": rows["dtype"],
            "inputs": rows["inputs"] + " inputs",
            "setting": rows["setting"],
        },
        index=rows.index,
    )
    of_compared = parts.loc[compared(sides)]
    varying = [name for name in parts if of_compared[name].nunique() > 1]
    shared = of_compared.drop(columns=varying).iloc[0]
    labels = pd.DataFrame(
        {
            "who": [f"{loss_title(row)} {implementation(row)}" for row in records],
            "where": _join(parts[varying]),
            "in_full": _join(parts.loc[:, parts.nunique() > 1]),
            "loss": [loss_title(row) for row in records],
        },
        index=rows.index,
    )
    return labels, ", ".join(filter(None, shared))


def _join(texts: pd.DataFrame) -> list[str]:
    """Each row in words, even of no column."""
    return [" ".join(filter(None, row)) for row in texts.to_numpy()]


def _layout(row: Mapping[Any, Any]) -> str:
    shape = f"{row['batch']}x{row['dim']}"
    return shape if row["world"] == 1 else f"{row['world']}x{shape} {row['distribution']}"


def _cases(
    sides: Sequence[Side], found: Sequence[pd.DataFrame], labels: pd.DataFrame, common: str
) -> Section:
    """A row for each case and run, the runs of a case together."""
    cases = compared(sides)
    frame = _interleave(sides, found, cases)
    line = frame.groupby("place").cumcount()
    names = labels.loc[frame.index]
    # the rows of a case share its name: the first says who, the second where
    frame["label"] = names["who"].where(line == 0, names["where"].where(line == 1, ""))
    bounds = zip(frame["low"], frame["high"], strict=True)
    frame["interval"] = [_interval(low, high) for low, high in bounds]
    frame["outcome"] = frame["verdict"].where(frame["status"] == "ok", frame["status"])
    columns = {
        "label": Column("case", left=True),
        "run": Column("", left=True),
        "median_ms": Column("ms", milliseconds),
        "ratio": Column("to A", comparison.digits),
        "interval": Column("95%"),
        "outcome": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
        "fraction_of_ceiling": Column("of roof", "{:.0%}".format),
        "gradient_error": Column("error", "{:.0e}".format),
    }
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    said = " ".join(text for name, text in EXPLAINED.items() if name in shown)
    notes = [f"ms: median. {said}", *raised(frame), *_failed(sides, cases, labels)]
    title = f"Compared with A: {common}" if common else "Compared with A"
    return Section(title, frame.drop(columns=HIDDEN).reset_index(drop=True), shown, notes)


def _interleave(
    sides: Sequence[Side], found: Sequence[pd.DataFrame], cases: pd.Index
) -> pd.DataFrame:
    """The rows of all runs in the order of the first; ``place`` numbers the cases."""
    places = pd.Series(range(len(cases)), index=cases)
    parts = []
    for side, of_side in zip(sides, [None, *found], strict=True):
        rows = side.rows[side.rows.index.isin(cases)]
        rows = rows.assign(run=side.name, place=places.reindex(rows.index))
        parts.append(rows if of_side is None else rows.join(of_side))
    frame = pd.concat(parts).sort_values("place", kind="stable")
    known = frame["low"] > 0  # else it reaches from 0 to infinity, or there is none
    frame[["low", "high"]] = frame[["low", "high"]].where(known)
    return frame


def _interval(low: float, high: float) -> str | None:
    return None if pd.isna(low) else f"{comparison.digits(low)}-{comparison.digits(high)}"


def _failed(sides: Sequence[Side], cases: pd.Index, labels: pd.DataFrame) -> list[str]:
    notes = []
    for side in sides:
        rows = side.rows[(side.rows["status"] != "ok") & side.rows.index.isin(cases)]
        for (status, reason), same in rows.groupby(["status", "reason"], sort=False):
            why = str(reason).rstrip(".") or "no reason given"
            notes.append(f"{side.name} {status}: {_list(labels, same.index)}: {why}.")
    return notes


def _summary(sides: Sequence[Side], found: Sequence[pd.DataFrame], labels: pd.DataFrame) -> Section:
    rows = []
    for side, of_side in zip(sides[1:], found, strict=True):
        counts = of_side["verdict"].value_counts()
        rows.append(
            {
                "run": side.name,
                "path": str(side.path),
                "cases": int(of_side["ratio"].notna().sum()),
                "ratio": mean_ratio(of_side),
                **{verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS},
                **{gate: int(of_side[gate].sum()) for gate in GATES if gate != "slower"},
            }
        )
    columns = {
        "run": Column("run", left=True),
        "cases": Column("cases"),
        "ratio": Column("mean to A", comparison.digits),
        **{name: Column(name) for name in (*VERDICTS, "bigger", "wrong")},
    }
    notes = [
        f"Geometric mean over the cases that are ok in both. Bigger: peak memory, by more than "
        f"{PEAK_TOLERANCE:.0%}. Wrong: failed where A is ok, or a gradient clearly worse. Times "
        "were not taken in turn: the 95% intervals hold how far moments of a case differ, and "
        f"sessions of the same code: by {unpaired.DRIFT:.0%} as a rule, by more in some cases.",
        *(f"{side.name}: {side.path}, {side.rows['machine'].iloc[0]}." for side in sides),
        *(f"{side.name}: {said}" for side in sides for said in busy.note(side.rows)),
        *(note for side in sides[1:] for note in _warnings(sides[0], side)),
        *_unmatched(sides, labels),
    ]
    return Section("Summary", pd.DataFrame(rows), columns, notes)


def _warnings(base: Side, new: Side) -> list[str]:
    """What stands between the two runs and the difference that is looked for."""
    notes = []
    differ = "; ".join(differences(base, new))
    silent = [side.name for side in (base, new) if not side.environment]
    if silent:
        notes.append(f"WARNING: {' and '.join(silent)} do not say where they were run.")
    elif differ:
        notes.append(f"WARNING: {new.name} differs from A in its environment: {differ}.")
    for field in ("contender", "hyperparameters", "inputs_id", "chosen"):
        old, now = (side.rows[field].replace("", None).dropna() for side in (base, new))
        cases = old.index.intersection(now.index)
        changed = int((old[cases] != now[cases]).sum())
        if changed:
            notes.append(f"WARNING: in {changed} cases {field} of {new.name} is not that of A.")
    return notes


def _unmatched(sides: Sequence[Side], labels: pd.DataFrame) -> list[str]:
    """Cases that take no part."""
    notes = [
        f"{side.name} holds {side.repeated} cases more than once: the last record counts."
        for side in sides
        if side.repeated
    ]
    for new in sides[1:]:
        for one, other in ((sides[0], new), (new, sides[0])):
            cases = one.rows.index.difference(other.rows.index, sort=False)
            if len(cases):
                notes.append(f"In {one.name}, not in {other.name}: {_list(labels, cases)}.")
    return notes


def _list(labels: pd.DataFrame, cases: pd.Index) -> str:
    """Cases in words: each of a few, else how many of what."""
    if len(cases) <= LISTED:
        return ", ".join(text.strip() for text in _join(labels.loc[cases, ["who", "in_full"]]))
    of_cases = labels.loc[cases]
    by = "who" if of_cases["who"].nunique() <= LISTED else "loss"
    counts = of_cases[by].value_counts(sort=False)
    return (
        f"{len(cases)} cases, {', '.join(f'{count} of {name}' for name, count in counts.items())}"
    )
