"""Records as terminal tables of at most 80 columns."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.ceilings import TERMS, Ceilings
from bench.failures import OUT_OF_BUDGET
from losses import FORMS, PASSES

if TYPE_CHECKING:
    from bench.frontier import Frontier
    from bench.predict import Device


def counts(records: list[dict[str, Any]]) -> None:
    """Print what was counted. MACs and FLOPs are of the whole job, bytes of one device."""
    table = _table("N x D", "pass", "GMACs", "GFLOPs", "off-diagonal", "saved MB", "agree")
    for record in records:
        saved = record.get("saved_bytes")
        table.add_row(
            *_case(record),
            _number(record.get("gmacs"), "{:,.3f}"),
            _number(record.get("gflops"), "{:,.3f}"),
            _number(record.get("off_diagonal_entries"), "{:,}"),
            _number(saved and saved / 1e6, "{:,.1f}"),
            {True: "yes", None: "-"}.get(record.get("counts_agree", False), "NO"),
        )
    Console().print(table)
    for record in records:
        note = record.get("counts_note", record.get("reason"))
        if note:
            print(f"{record['loss']} {record['implementation']}: {note}")


def measurements(records: list[dict[str, Any]]) -> None:
    """Print what was measured on one device; spread is (p80 - p20) / median."""
    table = _table("N x D", "pass", "GMACs", "ms", "spread", "peak MB", "status")
    for record in records:
        measured = "median_ms" in record
        table.add_row(
            *_case(record),
            f"{record['gmacs']:,.3f}" if "gmacs" in record else "-",
            _ms(record["median_ms"]) if measured else "-",
            f"{(record['p80_ms'] - record['p20_ms']) / record['median_ms']:.0%}"
            if measured
            else "-",
            f"{record['peak_bytes'] / 1e6:,.1f}" if measured else "-",
            record["status"],
        )
    Console().print(table)
    for record in records:
        if record["status"] != "ok" and record["reason"] != OUT_OF_BUDGET:
            print(f"{' '.join(_case(record))}: {record['status']}: {record['reason']}")


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
        for record in own:
            name, shape, _ = _case(record)
            chosen = record.get("chosen", "") if record["implementation"] == "auto" else ""
            table.add_row(f"{name} {chosen}".strip() + f"\n{shape}", *_prediction(record, linked))
        size = f"{device.memory_bytes / 1e9:.0f} GB"
        print(textwrap.fill(f"{device.title}, {size}, {pass_}. {device.assumption}", width=80))
        _print(table)
    failed = [record for record in records if record["status"] != "ok"]
    for name, reason in dict.fromkeys((_case(each)[0], each["reason"]) for each in failed):
        print(textwrap.fill(f"{name}: {reason}", width=80))


def _prediction(record: dict[str, Any], linked: bool) -> list[str]:
    bound = record["predicted_bound"]
    terms = [
        brief(record[f"predicted_{term}_ms"]) + ("*" if term == bound else " ") for term in TERMS
    ]
    needed = record["predicted_peak_bytes"] + record["input_bytes"]
    fits = "yes" if record["fits"] else "NO"
    cells = [brief(record["predicted_ms"]), *terms, brief(needed / 1e9), fits]
    link = [brief(record["communication_ms"])] if linked else []
    return [*cells, f"{record['predicted_largest_batch']:,}", *link]


def frontiers(found: "Sequence[Frontier]", memory_bytes: int) -> None:
    """Print the largest batches that fit."""
    table = _table("D", "pass", "predicted", "largest N", "too large")
    for each in found:
        name, _, pass_ = _case(each.case.describe())
        batches = (each.predicted, each.largest or None, each.smallest)
        cells = [_number(batch, "{:,}") for batch in batches]
        table.add_row(name, str(each.case.dim), pass_, *cells)
    print(f"Largest batch in {memory_bytes / 1e9:.3g} GB, inputs included:")
    Console().print(table)
    for each in found:
        if each.note:
            print(f"{' '.join(_case(each.case.describe())[::2])}: {each.note}")


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
        number = column not in ("N x D", "pass", "agree", "status", "fits")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


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


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
