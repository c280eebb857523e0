"""Progress of pretraining, on stderr, and its records as terminal tables."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lossbench.bench.interface.console import prints_lines, say, shows_bars
from lossbench.bench.interface.display import brief

if TYPE_CHECKING:
    from lossbench.bench.predicting.predict import Device

PLAIN_STEPS = 10
"""Lines that a run prints in CI."""
NOT_MODELLED = (
    "Link: what the loss communicates. Reduce: what the backward pass does not hide of the "
    "gradients' all-reduce. Eff.: images/s of a device, to one alone. Not modelled: reading and "
    "augmenting images, stragglers, slower links between machines, what hiding costs."
)
TIMES = {
    "predicted_network_ms": ("network", brief),
    "predicted_optimizer_ms": ("optimizer", brief),
    "predicted_loss_ms": ("loss", brief),
    "predicted_communication_ms": ("link", brief),
    "predicted_gradient_reduction_ms": ("reduce", brief),
    "predicted_step_ms": ("step", brief),
}
FOLLOWS = {
    "predicted_images_per_s": ("images/s", brief),
    "predicted_efficiency": ("eff.", "{:.0%}".format),
    "predicted_loss_share": ("loss", "{:.1%}".format),
    "predicted_communication_share": ("link", "{:.1%}".format),
    "predicted_peak_bytes": ("GB", lambda size: brief(size / 1e9)),
    "fits": ("fits", lambda fits: "yes" if fits else "NO"),
    "schedule_device_hours": ("device h", lambda hours: "-" if hours is None else brief(hours)),
}


class Steps:
    """A bar with ETA on a terminal, plain lines in CI and in notebooks, nothing on a pipe.

    Args:
        quiet: nothing at all: another process tells.
    """

    def __init__(self, quiet: bool = False) -> None:
        terminal = shows_bars() and not quiet
        self._plain = prints_lines() and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=Console(stderr=True),
            transient=True,
            disable=not terminal,
        )
        self._label, self._total = "", 0
        self._task = self._bar.add_task("", loss="")

    def __enter__(self) -> "Steps":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, label: str, done: int, total: int) -> None:
        """Steps are about to be made."""
        self._label, self._total = label, total
        self._bar.reset(self._task, description=label, completed=done, total=total, loss="")

    def step(self, done: int, loss: float) -> None:
        """One was made."""
        self._bar.update(self._task, completed=done, loss=f"loss {loss:.4g}")
        if self._plain and (done % max(self._total // PLAIN_STEPS, 1) == 0 or done == self._total):
            say(f"{self._label}: step {done}/{self._total}, loss {loss:.4g}")


def steps(records: list[dict[str, Any]]) -> None:
    """Print what each run reached."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("loss", overflow="fold")
    for column in ("images/s", "ms a step", "loss share", "peak GB", "steps", "last loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for record in records:
        table.add_row(_label(record), *_cells(record))
    Console(markup=False, emoji=False, highlight=False).print(table)
    for record in records:
        name = f"{record['loss']} {record['implementation']}"
        if record["reason"]:
            print(f"{name}: {record['reason']}")
        if record.get("images_skipped"):
            names = ", ".join(record["images_skipped_names"])
            _say(f"{name}: {record['images_skipped']} image(s) could not be read: {names}")


def _cells(record: Mapping[str, Any]) -> list[str]:
    shown = (
        ("images_per_s", "{:,.1f}"), ("step_ms", "{:,.1f}"), ("loss_share", "{:.2%}"),
        ("peak_gb", "{:.2f}"), ("steps", "{:,}"), ("value", "{:.4g}"),
    )  # fmt: skip
    peak = record.get("peak_bytes")
    known = {**record, "peak_gb": None if peak is None else peak / 1e9}
    return [
        form.format(known[name]) if known.get(name) is not None else "-" for name, form in shown
    ]


def predictions(records: list[dict[str, Any]], devices: "Sequence[Device]") -> None:
    """Print what steps were predicted to take on each device, by part, and what follows."""
    done = [record for record in records if record["status"] == "ok"]
    for device in devices:
        own = [record for record in done if record["gpu"] == device.name]
        for what in dict.fromkeys(map(_what, own)):
            _say(f"{device.title}, {device.memory_bytes / 1e9:.0f} GB. {device.assumption}")
            rows = [record for record in own if _what(record) == what]
            _table(f"{what}, ms of a step", rows, TIMES)
            _table("shares, memory, schedule (EXTRAPOLATED)", rows, FOLLOWS)
    failed = [record for record in records if record["status"] != "ok"]
    for label, reason in dict.fromkeys((_label(each), each["reason"]) for each in failed):
        _say(f"{label}: {reason}")
    if done:
        _say(NOT_MODELLED)


def _what(record: Mapping[str, Any]) -> str:
    return (
        f"{record['pretrain_encoder']}, {record['pretrain_image_size']} pixels, "
        f"N = {record['batch']}, {record['pretrain_precision']}, {record['distribution']}"
    )


def _label(record: Mapping[str, Any]) -> str:
    """Loss, and the implementation that runs."""
    return f"{record['loss']} {record.get('chosen') or record['implementation']}"


def _table(
    title: str, records: list[dict[str, Any]], columns: Mapping[str, tuple[str, Any]]
) -> None:
    print(f"{title}:")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("loss", overflow="fold")  # gives way, so that no number is cut
    for heading in ("W", *(heading for heading, _ in columns.values())):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        cells = [show(record.get(name)) for name, (_, show) in columns.items()]
        table.add_row(_label(record), str(record["world"]), *cells)
    Console(markup=False, emoji=False, highlight=False).print(table)


def _say(text: str) -> None:
    print(textwrap.fill(text, width=80))


def presets(known: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the presets, and where each comes from."""
    for name, preset in known.items():
        settings = ", ".join(_setting(*each) for each in preset.items() if each[0] != "source")
        text = f"{name}: {settings}"
        print(textwrap.fill(text, 80, subsequent_indent="  ", break_on_hyphens=False))
        print(textwrap.fill(preset["source"], 80, initial_indent="  ", subsequent_indent="  "))


def _setting(name: str, value: Any) -> str:
    """As ``--set`` takes it."""
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
