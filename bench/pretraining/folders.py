"""Folders of image files, one folder a class: torchvision's layout."""

import os
from pathlib import Path

import torch

from lossbench.bench.pretraining.pixels import Decoded, optional

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""As in torchvision."""
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def open_folder(source: str, place: str, size: int) -> Decoded:
    """The images of PATH/class_name/, at any depth below it.

    Raises:
        ValueError: not a folder, no images, a class without images, or fewer than two classes.
    """
    pillow = optional("PIL.Image", "imagefolder")
    classes = _classes(Path(place).expanduser())
    files: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        found = _files(folder)
        if not found:
            raise ValueError(
                f"{folder} holds no images ({' '.join(SUFFIXES)}); fill or remove the class"
            )
        files += found
        labels += [label] * len(found)
    return Decoded(
        source,
        files,
        lambda index: pillow.open(files[index]),
        size,
        torch.tensor(labels),
        len(classes),
    )


def _classes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; imagefolder:PATH needs PATH/class_name/*.jpg")
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    if not classes:
        raise ValueError(f"{folder} holds no class folders; it needs {folder}/class_name/*.jpg")
    names = {each.name.lower() for each in classes}
    if names <= SPLITS:
        listed = ", ".join(each.name for each in classes)
        raise ValueError(
            f"{folder} holds splits ({listed}), not classes; give {classes[0]} or such"
        )
    if len(classes) == 1:
        raise ValueError(
            f"{folder} holds one class only ({classes[0].name}), so labels mean nothing and PATH "
            "may be a level too high; it needs two class folders or more"
        )
    return classes


def _files(folder: Path) -> list[str]:
    """Images below a folder, sorted; hidden files are none, whatever their suffix."""
    # a million Paths would be slow
    return sorted(
        os.path.join(parent, name)  # noqa: PTH118
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(SUFFIXES) and name[0] != "."
    )
