"""Records as terminal tables of at most 80 columns."""

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.sweep import OUT_OF_BUDGET


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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("loss", overflow="fold")  # gives way, so that no number is cut
    for column in columns:
        number = column not in ("N x D", "pass", "agree", "status")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _case(record: dict[str, Any]) -> tuple[str, str, str]:
    """Loss, shape and pass; what is the same as usual is not said."""
    usual = {"variant": "", "implementation": "reference", "options": "", "products": ""}
    usual |= {"dtype": "float32", "inputs": "random"}
    unusual = [record[name] for name, value in usual.items() if record[name] != value]
    loss = " ".join([record["loss"], *unusual])
    devices = f"{record['world']}x" if record["evaluations"] > 1 else ""
    return loss, f"{devices}{record['loss_batch']} x {record['dim']}", record["pass"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
