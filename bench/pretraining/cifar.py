"""CIFAR-10 and CIFAR-100 as they are published: Python's pickles or the binary version.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Pickles can run code, so that no more than
arrays and plain values are read from them.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossbench.bench.pretraining.pixels import InMemory

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """One way a data set is published.

    Attributes:
        folder: that the archive unpacks to.
        files: of the training split.
        classes: how many there are.
        labels: their key in a pickle.
        head: bytes before the pixels of a binary record, the last of them the label; 0: pickles.
    """

    folder: str
    files: tuple[str, ...]
    classes: int
    labels: bytes = b""
    head: int = 0


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS = {
    "cifar10": (
        Layout("cifar-10-batches-py", _BATCHES, 10, b"labels"),
        Layout("cifar-10-batches-bin", tuple(f"{name}.bin" for name in _BATCHES), 10, head=1),
    ),
    "cifar100": (
        Layout("cifar-100-python", ("train",), 100, b"fine_labels"),
        Layout("cifar-100-binary", ("train.bin",), 100, head=2),  # of which the first is coarse
    ),
}


def open_cifar(source: str, place: str, size: int) -> InMemory:
    """The training images of CIFAR; PATH is the folder of the files or the one that holds it.

    Raises:
        ValueError: a file is missing, damaged, or holds more than arrays and plain values.
    """
    layout, folder = _find(source.partition(":")[0], Path(place).expanduser())
    parts = [_read(folder / name, layout) for name in layout.files]
    pixels = torch.from_numpy(np.concatenate([part[0] for part in parts]))
    labels = torch.from_numpy(np.concatenate([part[1] for part in parts])).long()
    return InMemory(source, pixels.view(-1, 3, SIDE, SIDE), size, labels, layout.classes)


def _find(kind: str, place: Path) -> tuple[Layout, Path]:
    """The layout whose files are there, and their folder."""
    if not place.is_dir():
        raise ValueError(f"{place}: no such folder; {kind}:PATH needs the unpacked archive")
    for layout in LAYOUTS[kind]:
        for folder in (place, place / layout.folder):
            missing = [name for name in layout.files if not (folder / name).is_file()]
            if not missing:
                return layout, folder
            if len(missing) < len(layout.files):
                raise ValueError(f"{folder} lacks {', '.join(missing)}; unpack the archive again")
    wanted = " or ".join(f"{layout.folder}/{layout.files[0]}" for layout in LAYOUTS[kind])
    raise ValueError(f"{place} holds no {kind} files; it needs {wanted}")


def _read(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (M, 3072) and labels (M,) of a file."""
    try:
        pixels, labels = _read_binary(path, layout) if layout.head else _read_pickle(path, layout)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused or damaged: {error}; unpack the archive again"
        ) from error
    except Exception as error:  # whatever a damaged pickle raises
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}); unpack the archive again"
        ) from error
    right = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == PIXELS
    if not right or labels.shape != (len(pixels),) or not len(pixels):
        raise ValueError(
            f"{path} holds {pixels.dtype} pixels {pixels.shape} and labels {labels.shape}, "
            f"not uint8 (M, {PIXELS}) and (M,); unpack the archive again"
        )
    if labels.min() < 0 or labels.max() >= layout.classes:
        raise ValueError(
            f"{path} holds labels from {labels.min()} to {labels.max()}; "
            f"those of {layout.folder} are below {layout.classes}"
        )
    return pixels, labels


def _read_binary(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    records = np.fromfile(path, np.uint8).reshape(-1, layout.head + PIXELS)
    return records[:, layout.head :], records[:, layout.head - 1]


def _read_pickle(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    with path.open("rb") as file:
        content = _ArraysOnly(file, encoding="bytes").load()
    return np.asarray(content[b"data"]), np.asarray(content[layout.labels], dtype=np.int64)


def _dtype(name: str | bytes, *_: object) -> np.dtype[Any]:
    """A dtype by its name alone: NumPy warns of the integers that old pickles give with it."""
    return np.dtype(name.decode() if isinstance(name, bytes) else name)


_REBUILD: Any = np.empty(0).__reduce__()[0]
"""NumPy's own function; its module differs among versions."""
_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays and plain values; code in a pickle is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """Called for whatever is no plain value."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are read")
        return _KNOWN[module, name]
