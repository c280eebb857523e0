"""Pixels of images: all held in memory, or decoded one by one when they are asked for."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class CorruptImageError(ValueError):
    """An image that cannot be read.

    Args:
        name: of the image.
        why: what its reader said.

    Attributes:
        name: of the image.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be read: {why}")
        self.name = name


@dataclass
class InMemory:
    """Images whose pixels are all at hand.

    Attributes:
        name: the source.
        pixels: uint8 (M, 3, H, W).
        size: side in pixels that they are given out in.
        labels: int64 (M,), or None.
        classes: how many there are; 0 without labels.
        skipped: empty, as nothing is decoded.
    """

    name: str
    pixels: Tensor
    size: int
    labels: Tensor | None = None
    classes: int = 0
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.take(torch.tensor([range(len(self))[index]]))[0]

    def take(self, indices: Tensor) -> Tensor:
        """Images of these indices (N,) -> uint8 (N, 3, size, size)."""
        chosen = self.pixels[indices]
        if chosen.shape[-2:] == (self.size, self.size):
            return chosen
        # only now, as CIFAR at 224 pixels would take 7 GB; as bytes, many times faster than floats
        side = (self.size, self.size)
        return functional.interpolate(chosen, side, mode="bilinear", antialias=True)


@dataclass
class Decoded:
    """Images that are decoded when they are asked for; threads may ask at once.

    Attributes:
        name: the source.
        names: of the images.
        decode: index -> image of Pillow; raises whatever its reader does.
        size: side in pixels that they are given out in.
        labels: int64 (M,), or None.
        classes: how many there are; 0 without labels.
    """

    name: str
    names: Sequence[str]
    decode: Callable[[int], Any]
    size: int
    labels: Tensor | None = None
    classes: int = 0
    _skipped: dict[str, None] = field(default_factory=dict)

    @property
    def skipped(self) -> list[str]:
        """Names of the images that could not be read so far, each once."""
        return list(self._skipped)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        name = self.names[index]
        try:
            with self.decode(index) as image:
                return square(image, self.size)
        except MemoryError:  # says nothing about the image
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
            self._skipped[name] = None  # a dict: threads may add the same name at once
            why = " ".join(str(error).split()) or type(error).__name__
            raise CorruptImageError(name, why) from error


def square(image: Any, size: int) -> Tensor:
    """The centre of an image of Pillow, its shorter side resized -> uint8 (3, size, size), RGB."""
    from PIL import Image, ImageOps

    if image.mode.startswith("I"):  # 16 bits, which convert would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:  # which Pillow warns of when a palette is converted to RGB
        image = image.convert("RGBA")
    fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    # NumPy copies in the thread that asks; torch would start threads of its own in each of them
    return torch.from_numpy(np.asarray(fitted).transpose(2, 0, 1).copy())


def optional(module: str, what: str) -> Any:
    """A module of the ``pretrain`` extra.

    Raises:
        ValueError: it is not installed; the message says how ``what`` gets it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0].replace("PIL", "pillow")
        raise ValueError(f"{what} needs {package}: pip install 'lossbench[pretrain]'") from error
