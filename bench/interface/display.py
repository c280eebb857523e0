"""Records as terminal tables of at most 80 columns."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lossbench.bench.comparing.baselines import baseline
from lossbench.bench.comparing.moderation import Noise
from lossbench.bench.comparing.ratios import FLOOR, LOOKS, claimed, digits, noises_of, ratio_of
from lossbench.bench.comparing.trust import comparisons as compared
from lossbench.bench.comparing.trust import judge
from lossbench.bench.interface.console import COLUMNS, show_next
from lossbench.bench.predicting.ceilings import TERMS, Ceilings
from lossbench.bench.records.failures import OUT_OF_BUDGET
from lossbench.bench.records.numbers import amount, billions
from lossbench.losses import FORMS, PASSES

if TYPE_CHECKING:
    from lossbench.bench.cases.case import Case
    from lossbench.bench.predicting.predict import Device
    from lossbench.bench.running.frontier import Frontier


LONGEST = 16
"""Letters of a setting that is shown in a table: longer ones would be cut within a word."""
KINDS = ("random", "aligned", "collapsed")
IN_TURN = (
    "Ratio: to the time of the reference of its loss, or of the first row where there are "
    "references alone. A difference is claimed where all of the interval of "
    f"{claimed(1):.1%} to {claimed(LOOKS):.1%} confidence is beyond {FLOOR:.0%}."
)

REHEARSED = (
    "Nothing was run. Predicted for an H100 from its datasheet; what processes and compilers take "
    "is assumed, with nothing in any cache. Cases that are timed in turn get their times together."
)


def counts(records: list[dict[str, Any]]) -> None:
    """Print what was counted. MACs are of the whole job, other work and bytes of one device."""
    columns = ("GMACs", "other\nops", "exp,\nlog", "off-\ndiagonal", "saved\nMB", "agree")
    table = _table("N x D", "pass", *columns)
    labels = _Labels()
    for record in records:
        saved = record.get("saved_bytes")
        table.add_row(
            *labels.of(record),
            _billions(record.get("gmacs")),
            _amount(record.get("elementwise")),
            _amount(record.get("transcendentals")),
            _amount(record.get("off_diagonal_entries")),
            _number(saved and saved / 1e6, "{:,.1f}"),
            {True: "yes", None: "-"}.get(record.get("counts_agree", False), "NO"),
        )
    labels.print(table)
    notes = [record.get("counts_note", record.get("reason")) for record in records]
    of_all = len(notes) > 1 and len(set(notes)) == 1
    for record, note in zip(records[: 1 if of_all else None], notes, strict=False):
        if note:
            print(note if of_all else f"{record['loss']} {record['implementation']}: {note}")


def measurements(records: list[dict[str, Any]], out: Path) -> None:
    """Print what was measured on one device; of cases timed in turn their ratios and verdicts.

    Args:
        records: of a run.
        out: its run file, for the next command.
    """
    bases = baselines(records)
    paired = any(record.get("pair_group") for record in records)
    noises = noises_of(records)
    for shape, rows in _shapes(records) if paired else [("", records)]:
        _measured(rows, shape, bases, noises)
    if paired:
        print(textwrap.fill(IN_TURN, width=COLUMNS))
    _errors([record for record in records if record.get("accuracy")])
    for record in records:
        if record["status"] != "ok" and record["reason"] != OUT_OF_BUDGET:
            print(f"{' '.join(_case(record))}: {record['status']}: {record['reason']}")
    show_next(_table_of(records), out)


def _shapes(records: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Records apart for each shape and pass, in words."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        _, shape, pass_ = _case(record)
        found.setdefault(f"{shape}, {pass_}", []).append(record)
    return list(found.items())


def _measured(
    records: list[dict[str, Any]],
    shape: str,
    bases: Mapping[str, dict[str, Any]],
    noises: Mapping[str, Noise],
) -> None:
    """A table; of a shape that is said, with ratios to other records."""
    alone, in_turn = ("N x D", "pass", "GMACs", "ms", "spread"), ("ms", "ratio", "95%", "verdict")
    table = _table(*(in_turn if shape else alone), "peak MB", "status")
    labels = _Labels()
    if shape:
        print(f"{shape}:")
    for record in records:
        label, *where = labels.of(record)
        ms = _ms(record["median_ms"]) if "median_ms" in record else "-"
        peak = f"{record['peak_bytes'] / 1e6:,.1f}" if "peak_bytes" in record else "-"
        gmacs = _billions(record.get("gmacs"))
        cells = (
            [ms, *_ratio(record, bases, noises)] if shape else [*where, gmacs, ms, _spread(record)]
        )
        table.add_row(label, *cells, peak, record["status"])
    labels.print(table)


def baselines(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Key of each record that was timed in turn -> the record that its time is compared with."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record.get("pair_group") and record["status"] == "ok":
            groups.setdefault(record["pair_group"], []).append(record)
    return {
        record["key"]: rows[base]
        for rows in groups.values()
        for place, record in enumerate(rows)
        if (base := baseline(rows, place)) is not None
    }


def _spread(record: dict[str, Any]) -> str:
    """(p80 - p20) / median."""
    if "median_ms" not in record:
        return "-"
    return f"{(record['p80_ms'] - record['p20_ms']) / record['median_ms']:.0%}"


def _ratio(
    record: dict[str, Any], bases: Mapping[str, dict[str, Any]], noises: Mapping[str, Noise]
) -> list[str]:
    base = bases.get(record["key"])
    if base is None:
        return ["-", "-", "-"]
    found = ratio_of(record, base, noises[record["pair_group"]])
    interval = f"{digits(found.low)}-{digits(found.high)}"
    return [f"{digits(found.value)}x", interval, found.verdict]


def _errors(records: list[dict[str, Any]]) -> None:
    """Print the relative errors of value and gradient, on three kinds of inputs."""
    if not records:
        return
    print("\nRelative error against fp64, of the value / of the gradient:")
    table = _table("N x D", "pass", *KINDS)
    labels = _Labels()
    for record in records:
        table.add_row(*labels.of(record), *(_error(record, kind) for kind in KINDS))
    labels.print(table)


def _error(record: dict[str, Any], kind: str) -> str:
    errors = (record.get(f"accuracy_{kind}_{what}_error") for what in ("value", "gradient"))
    return " / ".join("-" if error is None else f"{error:.0e}" for error in errors)


def _table_of(records: list[dict[str, Any]]) -> str:
    """The table of ``lossreport`` that shows most of records."""
    if any(record["contender"] for record in records):
        return "third_parties"
    if all(record["world"] == 1 for record in records):
        return "implementations"
    forms = any(record["distribution"] in FORMS for record in records)
    return "distributed" if forms or "processes" in records[0] else "efficiency"


def predictions(records: list[dict[str, Any]], devices: "Sequence[Device]") -> None:
    """Print what was predicted by device and pass; the term that binds is marked."""
    for device, pass_ in itertools.product(devices, PASSES):
        rows = [r for r in records if (r["gpu"], r["pass"]) == (device.name, pass_)]
        own = [record for record in rows if record["status"] == "ok"]
        if not own:
            continue
        columns = ["ms", "compute", "memory", "launch", "GB", "fits", "largest N"]
        linked = any(record.get("communication_ms") for record in own)
        table = _table(*columns, *(["link ms"] if linked else []), first="loss, N x D")
        labels = _Labels()
        for record in own:
            name, shape, _ = labels.of(record)
            chosen = record.get("chosen", "") if record["implementation"] == "auto" else ""
            table.add_row(f"{name} {chosen}".strip() + f"\n{shape}", *_prediction(record, linked))
        size = f"{device.memory_bytes / 1e9:.0f} GB"
        print(textwrap.fill(f"{device.title}, {size}, {pass_}. {device.assumption}", width=80))
        labels.print(table)
        for name, what in dict.fromkeys((r["loss"], r["uncounted"]) for r in own if r["uncounted"]):
            print(textwrap.fill(f"{name}: not counted, so faster than it is: {what}", width=80))
    _reasons(records)


def _reasons(records: Sequence[dict[str, Any]]) -> None:
    """Print why cases failed, once for each name."""
    failed = [r for r in records if r["status"] != "ok" and r["reason"] != OUT_OF_BUDGET]
    for name, reason in dict.fromkeys((_case(each)[0], each["reason"]) for each in failed):
        print(textwrap.fill(f"{name}: {reason}", width=COLUMNS))


def _prediction(record: dict[str, Any], linked: bool) -> list[str]:
    bound = record["predicted_bound"]
    terms = [
        _brief(record[f"predicted_{term}_ms"]) + ("*" if term == bound else " ") for term in TERMS
    ]
    needed = record["predicted_peak_bytes"] + record["input_bytes"]
    fits = "yes" if record["fits"] else "NO"
    cells = [brief(record["predicted_ms"]), *terms, brief(needed / 1e9), fits]
    link = [brief(record["communication_ms"])] if linked else []
    return [*cells, f"{record['predicted_largest_batch']:,}", *link]


def frontiers(found: "Sequence[Frontier]", memory_bytes: int) -> None:
    """Print the largest batches that fit."""
    table = _table("D", "pass", "predicted", "largest N", "too large")
    labels = _Labels()
    for each in found:
        name, _, pass_ = labels.of(each.case.describe())
        batches = (each.predicted, each.largest or None, each.smallest)
        cells = [_number(batch, "{:,}") for batch in batches]
        table.add_row(name, str(each.case.dim), pass_, *cells)
    print(f"Largest batch in {memory_bytes / 1e9:.3g} GB, inputs included:")
    labels.print(table)
    for each in found:
        if each.note:
            print(f"{' '.join(_case(each.case.describe())[::2])}: {each.note}")


def rehearsal(known: "Sequence[tuple[float, Case, dict[str, Any]]]") -> None:
    """Print what a run would find out, and when; then the same of each stage.

    Args:
        known: seconds since its begin, case, and what would be recorded of it.
    """
    table, stages = _table("N x D", "pass", "launches", "ms", "after s"), _table("cases", "after s")
    labels = _Labels()
    ends: dict[str, list[float]] = {}
    for seconds, case, record in known:
        launches = _number(record.get("launches"), "{:,}")
        left_out = record["reason"] == OUT_OF_BUDGET
        status = "left out" if left_out else record["status"]
        ms = brief(record["median_ms"]) if "median_ms" in record else status
        table.add_row(*labels.of(record), launches, ms, f"{seconds:,.0f}")
        ends.setdefault(case.stage or "all", []).append(seconds)
    labels.print(table)
    for stage, seconds_ in ends.items():
        stages.add_row(stage, str(len(seconds_)), f"{max(seconds_):,.0f}")
    _print(stages)
    _reasons([record for _, _, record in known])
    print(textwrap.fill(REHEARSED, width=COLUMNS))


def trust(case: "Case", records: Sequence[Mapping[str, Any]]) -> None:
    """Print how far paired timing of a case can be trusted, by records of ``lossbench noise``."""
    first = records[0]
    found = judge(compared(records, first["noise_processes"]))
    beside = ", beside a busy neighbour" if first["noise_neighbour"] else ""
    said = (
        f"{case.label}{beside}: a difference from itself claimed {found.false_claims} times of "
        f"{found.comparisons}, {first['noise_slowdown']:.0%} slower found {found.found} times of "
        f"{found.comparisons} (at most {first['noise_processes']} processes of "
        f"{first['noise_rounds']} rounds)"
    )
    print(textwrap.fill(said, COLUMNS, break_on_hyphens=False, break_long_words=False))


def ceilings(found: Ceilings) -> None:
    """Print what was calibrated."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("ceiling", "of", "rate"):
        table.add_column(column, justify="right" if column == "rate" else "left", no_wrap=True)
    for name, rate in found.gemm_gflops.items():
        table.add_row("matrix products", name, f"{rate:,.1f} GFLOP/s")
    for size, rate in found.copy_gb_per_s:
        table.add_row("copies", f"{size / 1e6:,.3g} MB moved", f"{rate:,.1f} GB/s")
    table.add_row("launches", "one operation", f"{found.launch_us:.2f} us")
    Console().print(table)


def brief(value: float) -> str:
    """Three digits, or all of them before the point."""
    return f"{value:,.0f}" if 100 <= value < 1e5 else f"{value:.3g}"


def _print(table: Table) -> None:
    Console(markup=False, emoji=False, highlight=False).print(table)  # quicker plain


def _table(*columns: str, first: str = "loss") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")  # gives way, so that no number is cut
    for column in columns:
        number = column not in ("N x D", "pass", "agree", "status", "fits", "verdict")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


class _Labels:
    """First cells of a table; settings that are too long for one stand below it, by number."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}

    def of(self, record: dict[str, Any]) -> tuple[str, str, str]:
        """Loss, shape and pass, see ``_case``."""
        name, shape, pass_ = _case(record)
        words = [self._shortened(word) for word in name.split()]
        return " ".join(words), shape, pass_

    def _shortened(self, word: str) -> str:
        if len(word) <= LONGEST:
            return word
        return f"({self._notes.setdefault(word, len(self._notes) + 1)})"

    def print(self, table: Table) -> None:
        """Print the table and what its numbers stand for."""
        _print(table)
        for word, number in self._notes.items():
            print(f"({number}) {word}")


def _case(record: dict[str, Any]) -> tuple[str, str, str]:
    """Loss, shape and pass; what is the same as usual is not said."""
    usual = {"variant": "", "implementation": "reference", "options": "", "products": ""}
    usual |= {"dtype": "float32", "inputs": "random"}
    unusual = [record[name] for name, value in usual.items() if record[name] != value]
    unusual += [record["distribution"]] if record["distribution"] in FORMS else []
    loss = " ".join([record["loss"], *unusual])
    devices = f"{record['world']}x" if record["evaluations"] > 1 else ""
    return loss, f"{devices}{record['loss_batch']} x {record['dim']}", record["pass"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _brief(value: float | None) -> str:
    return "-" if value is None else brief(value)


def _billions(value: float | None) -> str:
    return "-" if value is None else billions(value)


def _amount(value: float | None) -> str:
    return "-" if value is None else amount(value)


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
