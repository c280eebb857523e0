"""Devices that cases are predicted for: GPUs by their datasheets, or the device at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lossbench.bench.predicting import gpus
from lossbench.bench.predicting.calibrate import calibrate
from lossbench.bench.predicting.links import Link
from lossbench.bench.predicting.predict import Device
from lossbench.bench.records import environment

HERE = "here"


def choose(names: Sequence[str], spec: Path | None, link: str, device: str) -> list[Device]:
    """Devices that are named.

    Args:
        names: of GPUs, or ``all``.
        spec: file of further ones.
        link: between devices, "" for none.
        device: "cpu" or "cuda": what is calibrated where no GPU is named.

    Raises:
        ValueError: an unknown GPU or link, or a file that does not hold datasheets.
    """
    links = gpus.read_links(spec) if spec else gpus.links()
    sheets = [*_of_table(names), *(gpus.read(spec) if spec else [])]
    for sheet in sheets:
        if [each.name for each in sheets].count(sheet.name) > 1:
            raise ValueError(f"{spec}: there is another GPU {sheet.name!r}; rename this one")
    if sheets:
        return [_of_sheet(sheet, links, link) for sheet in sheets]
    between = gpus.link(links, link, None) if link else None
    title, memory = environment.hardware(device)
    return [Device(HERE, title, memory, calibrate(device), "Ceilings measured just now.", between)]


def _of_table(names: Sequence[str]) -> list[gpus.Gpu]:
    chosen = gpus.names() if "all" in names else []
    return [gpus.gpu(name) for name in dict.fromkeys([*chosen, *names]) if name != "all"]


def _of_sheet(sheet: gpus.Gpu, links: Mapping[str, Link], link: str) -> Device:
    between = gpus.link(links, link, sheet) if link else None
    title, memory = sheet.title, sheet.memory_bytes
    return Device(sheet.name, title, memory, sheet.ceilings, gpus.assumption(), between)
