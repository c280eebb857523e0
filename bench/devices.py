"""Devices that cases are predicted for: GPUs by their datasheets, or the device at hand."""

from pathlib import Path

from bench import environment, gpus
from bench.calibrate import calibrate
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
    wanted = gpus.names() if names == "all" else [name.strip() for name in names.split(",") if name]
    sheets = [gpus.gpu(name) for name in wanted] + (gpus.read(spec) if spec else [])
    if sheets:
        return [_of_sheet(sheet, link) for sheet in sheets]
    rate = gpus.link_bytes_per_s(link, None) if link else 0.0
    title, memory = environment.hardware(device)
    return [Device(HERE, title, memory, calibrate(device), "Ceilings measured just now.", rate)]


def _of_sheet(sheet: gpus.Gpu, link: str) -> Device:
    rate = gpus.link_bytes_per_s(link, sheet) if link else 0.0
    title, memory = sheet.title, sheet.memory_bytes
    return Device(sheet.name, title, memory, sheet.ceilings, gpus.assumption(), rate)
