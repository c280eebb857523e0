"""Datasheets of GPUs, for predictions of those that are not here: ``gpus.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.links import Link
from lossbench.bench.records import fields, kinds
from lossbench.losses import pick

TABLE = Path(__file__).with_name("gpus.json")
OF_COMPUTE, OF_BANDWIDTH = 0.75, 0.85
"""Shares of the datasheet's figures that large products and copies are assumed to reach."""
LAUNCH_US = 5.0
"""Between the starts of two operations of eager PyTorch: no datasheet has it."""
OWN_LINK = "nvlink"
"""The link that a GPU's own datasheet names: NVLink, Infinity Fabric or PCI Express."""
SMALLEST, LARGEST = 1e-3, 1e7
"""Figures of any device, in the units of the table."""
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class Gpu:
    """Datasheet of a GPU.

    Attributes:
        name: short name.
        title: full name.
        memory_bytes: of 10^9 to the GB, so that what the driver takes is left over.
        bandwidth_gb_per_s: of its memory, 10^9 bytes/s.
        link_gb_per_s: to others of its kind, one direction.
        tflops: dtype, or "tf32" -> 10^12 FLOP/s of dense matrix products.
    """

    name: str
    title: str
    memory_bytes: float
    bandwidth_gb_per_s: float
    link_gb_per_s: float
    tflops: Mapping[str, float]

    @property
    def ceilings(self) -> Ceilings:
        """What is assumed that it reaches."""
        gflops = {name: OF_COMPUTE * value * 1e3 for name, value in self.tflops.items()}
        return Ceilings(gflops, [(1, OF_BANDWIDTH * self.bandwidth_gb_per_s)], LAUNCH_US)


def assumption() -> str:
    """What a prediction from a datasheet takes for granted, in one sentence."""
    return (
        f"Assumed: {OF_COMPUTE:.0%} of the datasheet's FLOP/s, {OF_BANDWIDTH:.0%} of its "
        f"bandwidth, {LAUNCH_US:g} us from one operation to the next."
    )


def names() -> list[str]:
    """Names of the GPUs in the table."""
    return list(_table()["gpus"])


def gpu(name: str) -> Gpu:
    """The datasheet of a GPU in the table.

    Raises:
        ValueError: an unknown name; the nearest ones are listed.
    """
    pick("GPU", name, names())
    return _parse(name, _table()["gpus"][name], str(TABLE))


def read(path: Path) -> list[Gpu]:
    """Datasheets of one's own, in a file of the form of ``gpus.json``.

    Raises:
        ValueError: a file that cannot be read, or a figure that is missing or not above 0.
    """
    found = _load(path).get("gpus")
    if not isinstance(found, dict) or not found:
        raise ValueError(f'{path} must hold {{"gpus": {{NAME: {{...}}}}}}, as {TABLE.name} does')
    return [_parse(name, fields, str(path)) for name, fields in found.items()]


def _load(path: Path) -> dict[str, Any]:
    try:
        return fields.parse(path.read_text(encoding="utf-8-sig").encode())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _links(table: Mapping[str, Any], path: str) -> dict[str, Link]:
    rates, delays = (_figures(table, path, name) for name in ("links_gb_per_s", "links_us"))
    return {name: Link(rate, rate, delays.get(name, 0.0)) for name, rate in rates.items()}


def _figures(table: Mapping[str, Any], path: str, what: str) -> dict[str, float]:
    given = table.get(what, {})
    if not isinstance(given, dict):
        raise ValueError(f"{path}: {what} must be an object of figures, got {given!r:.60}")
    return {name: _figure(f"{path}: {what}", given, name) for name in given}


def links() -> dict[str, Link]:
    """Links of the table between devices."""
    return _links(_table(), str(TABLE))


def read_links(path: Path) -> dict[str, Link]:
    """Those of the table, and those that a file of one's own adds.

    Raises:
        ValueError: as ``read``.
    """
    return links() | _links(_load(path), str(path))


def link(known: Mapping[str, Link], name: str, of: Gpu | None) -> Link:
    """A link by its name.

    Args:
        known: links by their names.
        name: one of them, or ``OWN_LINK`` for that of a GPU.
        of: the GPU.

    Raises:
        ValueError: an unknown link.
    """
    pick("link", name, [*known, *([OWN_LINK] if of else [])])
    if of is None or name != OWN_LINK:
        return known[name]
    step_us = _figures(_table(), str(TABLE), "links_us")[OWN_LINK]
    return Link(of.link_gb_per_s, of.link_gb_per_s, step_us)


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text()))


def _parse(name: str, sheet: Any, path: str) -> Gpu:
    if not isinstance(sheet, dict):
        raise ValueError(f"{path}: {name} must be an object of figures, got {sheet!r:.60}")
    where = f"{path}: {name}"
    title = sheet.get("title", name)
    if not (kinds.NAME.holds(name) and kinds.NAME.holds(title)):
        raise ValueError(f"{where}: a GPU needs a name and a title of one line, got {title!r:.60}")
    tflops = sheet.get("tflops")
    if not isinstance(tflops, dict) or not tflops:
        raise ValueError(f"{where}: tflops must name at least one of {', '.join(PRECISIONS)}")
    for precision in tflops:
        pick(f"precision of {where}", precision, PRECISIONS)
    return Gpu(
        name,
        title,
        1e9 * _figure(where, sheet, "memory_gb"),
        _figure(where, sheet, "bandwidth_gb_per_s"),
        _figure(where, sheet, "link_gb_per_s"),
        {precision: _figure(f"{where}: tflops", tflops, precision) for precision in tflops},
    )


def _figure(where: str, sheet: Mapping[str, Any], name: str) -> float:
    """A number, or a number with its source."""
    given = sheet.get(name)
    value = given[0] if isinstance(given, list) and given else given
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {name} must be a number or [number, source], got {given!r:.60}")
    if not value > 0:
        raise ValueError(f"{where}: {name} must be above 0, got {value!r:.60}")
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"{where}: {name} is in other units: no device has {value:.3g}")
    return float(value)
