"""Where the images of a pretraining run come from: one function, one source a name."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.pretraining.cifar import open_cifar
from lossbench.bench.pretraining.folders import open_folder
from lossbench.bench.pretraining.hub import open_hub
from lossbench.bench.pretraining.pixels import CorruptImageError, InMemory

__all__ = ["SOURCES", "CorruptImageError", "Images", "open_images"]

SOURCES = (
    "synthetic",
    "digits",
    "imagefolder:PATH",
    "cifar10:PATH",
    "cifar100:PATH",
    "hf:NAME",
    "hf:NAME:SPLIT",
)
_WITH_PLACE: dict[str, Callable[[str, str, int], "Images"]] = {
    "imagefolder": open_folder,
    "cifar10": open_cifar,
    "cifar100": open_cifar,
    "hf": open_hub,
}
SYNTHETIC_COUNT = 2048
_STRIDE = 4099
"""Bytes between the beginnings of two synthetic images: prime, so that rows never coincide."""


class Images(Protocol):
    """Images of one size, by index.

    ``images[i]`` is a uint8 tensor (3, size, size); it raises ``CorruptImageError`` where image i
    cannot be read.

    Attributes:
        name: the source.
        labels: int64 (M,), or None: the source has none.
        classes: how many there are; 0 without labels.
    """

    name: str
    labels: Tensor | None
    classes: int

    @property
    def skipped(self) -> list[str]:
        """Names of the images that could not be read so far, each once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


def open_images(source: str, size: int, seed: int = 0, count: int | None = None) -> Images:
    """The training images of a source.

    ``synthetic`` is noise. ``digits`` are scikit-learn's 1797 handwritten ones, all of them.
    ``imagefolder:PATH`` holds PATH/class_name/image.jpg. ``cifar10:PATH`` and ``cifar100:PATH`` are
    the official files, Python's or binary. ``hf:NAME`` is a data set of Hugging Face or a folder
    that ``datasets`` saved, its split ``train`` unless another is named.

    Args:
        source: one of ``SOURCES``.
        size: side in pixels that images are given out in. Files are resized to it by their shorter
            side and cut to their centre.
        seed: of synthetic images.
        count: of synthetic images; 2048 unless given.

    Raises:
        ValueError: unknown source, nothing to read there, or a package is missing.
    """
    if size < 2:  # torch cannot resize bytes to one pixel
        raise ValueError(f"image size must be at least 2 pixels, got {size}")
    kind, _, place = source.partition(":")
    if count is not None and kind != "synthetic":
        raise ValueError(
            f"only synthetic images can be counted out; {source} has as many as it has"
        )
    if kind in _WITH_PLACE and place:
        return _WITH_PLACE[kind](source, place, size)
    losses.pick("data", source, SOURCES)
    if source == "digits":
        return _digits(size)
    return _synthetic(size, seed, SYNTHETIC_COUNT if count is None else count)


def _synthetic(size: int, seed: int, count: int) -> InMemory:
    """Windows of one stretch of noise: thousands of different images in the memory of a few."""
    if count < 1:
        raise ValueError(f"count of synthetic images must be at least 1, got {count}")
    length = 3 * size * size
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(
        256, (length + (count - 1) * _STRIDE,), dtype=torch.uint8, generator=generator
    )
    pixels = noise.unfold(0, length, _STRIDE).view(count, 3, size, size)
    return InMemory("synthetic", pixels, size)


def _digits(size: int) -> InMemory:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    return InMemory("digits", grey[:, None].expand(-1, 3, -1, -1), size, labels, classes=10)
