"""Devices that cases are predicted for: GPUs by their datasheets, or the device at hand."""

from collections.abc import Mapping
from pathlib import Path

from bench import environment, gpus
from bench.calibrate import calibrate
from bench.console import parse_list
from bench.links import Link
from bench.predict import Device

HERE = "here"


def choose(names: str, spec: Path | None, link: str, device: str) -> list[Device]:
    """Devices that a command line names.

    Args:
        names: of GPUs, comma-separated, or ``all``.
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


def _of_table(names: str) -> list[gpus.Gpu]:
    wanted = parse_list("--gpu", names) if names else []
    chosen = gpus.names() if "all" in wanted else []
    return [gpus.gpu(name) for name in dict.fromkeys([*chosen, *wanted]) if name != "all"]


def _of_sheet(sheet: gpus.Gpu, links: Mapping[str, Link], link: str) -> Device:
    between = gpus.link(links, link, sheet) if link else None
    title, memory = sheet.title, sheet.memory_bytes
    return Device(sheet.name, title, memory, sheet.ceilings, gpus.assumption(), between)
