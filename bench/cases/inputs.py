"""The views, or whatever else a loss declares, that a case is measured on."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from lossbench.bench.cases.case import DTYPES, Case
from lossbench.losses import Input, pick

SOURCES = ("random", "aligned", "collapsed", "digits", "file:PATH")
NORMAL = ("random", "aligned", "collapsed")
"""Sources that are made of a generator's numbers alone."""
SEED = 1
VIEWS = ("z_a", "z_b")
DEVIATIONS = (0.8, 1.25)
"""Of the features, in turn: either side of 1, where the gradient of VICReg's hinge jumps. At 1
itself rounding decides on which side a feature is, and a right gradient can seem wrong."""


def check_source(source: str) -> None:
    """Raise a ``ValueError`` unless ``source`` is one of ``SOURCES``."""
    if not source.startswith("file:"):
        pick("inputs", source, SOURCES)


def make_inputs(case: Case) -> tuple[Tensor, ...]:
    """What one evaluation is given, on the case's device; embeddings are of the case's dtype.

    The same case always gets the same values on one kind of device: they are made there, of its own
    random numbers. ``random`` is normal with features of the deviations
    ``DEVIATIONS``; ``aligned`` are such views as after training, with a correlation near 1;
    ``collapsed`` are samples that differ by a hundredth of what they share; ``digits`` are real
    images through a fixed projector; ``file:PATH`` is the first ``loss_batch`` rows of a user's own
    embeddings. Of a loss that declares its inputs, masks and indices are random whatever the
    source, and so are embeddings of another shape than N x D where the source has none.

    Raises:
        ValueError: an unknown source, or a file that does not hold these views.
        NotImplementedError: a CUDA case where there is no CUDA device.
    """
    check_source(case.inputs)
    if case.device == "cuda" and not torch.cuda.is_available():
        raise NotImplementedError("there is no CUDA device here")
    given = case.given
    generator = torch.Generator(case.device).manual_seed(SEED)
    if case.inputs in NORMAL:
        made = _normal(case.inputs, given, generator)
    elif case.inputs == "digits":
        made = _digits(case, given, generator)
    else:
        made = _of_file(case)
    dtype = getattr(torch, case.dtype)
    inputs = tuple(
        tensor.to(case.device, each.dtype(dtype)) for each, tensor in zip(given, made, strict=True)
    )
    if not all(bool(each.isfinite().all()) for each in inputs):
        raise ValueError(f"{case.inputs}: values too large for {case.dtype}")
    return inputs


def _of_file(case: Case) -> list[Tensor]:
    """The first rows of a user's embeddings."""
    path = case.inputs.removeprefix("file:")
    if not case.has_views:
        names = ", ".join(each.name for each in case.given)
        raise ValueError(f"{path} holds two views; {case.name} is given {names}")
    rows, dim, _ = file_facts(path)
    if dim != case.dim or rows < case.loss_batch:
        raise ValueError(
            f"{path} holds {rows} x {dim} embeddings; the case needs {case.loss_batch} x "
            f"{case.dim}: ask for dim {dim} and at most {rows} samples"
        )
    return [view[: case.loss_batch] for view in _load(path)]


def file_facts(path: str) -> tuple[int, int, str]:
    """N, D and dtype of a file of embeddings; reads and checks the file.

    Raises:
        ValueError: missing or unreadable file, arrays that are not ``z_a`` and ``z_b``, shapes that
            differ, NaN or infinity.
    """
    z_a, _ = _load(path)
    return z_a.shape[0], z_a.shape[1], str(z_a.dtype).removeprefix("torch.")


def identity(source: str, device: str) -> str:
    """What the inputs are, for the content key of a record: a file is known by its content."""
    if source in NORMAL and device != "cpu":
        return f"{source}:{SEED}:{device}"
    if not source.startswith("file:"):
        return f"{source}:{SEED}"
    path = Path(source.removeprefix("file:"))
    return _content_hash(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _content_hash(path: Path, modified_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _normal(source: str, given: Sequence[Input], generator: torch.Generator) -> list[Tensor]:
    """Normal embeddings, of which a part may be shared by those of one shape or by all samples."""
    made = [draw(each, generator) for each in given]
    shared: dict[Any, Tensor] = {}
    for place, each in enumerate(given):
        if not each.is_embedding:
            continue
        drawn, dim = made[place], each.shape[-1]
        if source == "collapsed":
            if dim not in shared:
                shared[dim] = torch.randn(dim, generator=generator, device=generator.device)
            made[place] = shared[dim] + 0.01 * drawn
            continue
        if source == "aligned":
            first = shared.setdefault(each.shape, drawn)
            drawn = drawn if drawn is first else first + 0.03 * drawn
        made[place] = _deviations(dim, drawn.device) * drawn
    return made


def draw(given: Input, generator: torch.Generator) -> Tensor:
    """Random values, made where they are needed: copying the largest to a GPU takes seconds."""
    return draw_on(generator.device, given, generator=generator)


def draw_on(
    device: torch.device | str,
    given: Input,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random values on any device, even one whose tensors have none, which has no generator."""
    how: dict[str, Any] = {"generator": generator, "device": device}
    if given.role == "index":
        return torch.randint(given.limit, given.shape, **how)
    if given.role == "mask":
        return torch.rand(given.shape, **how) < 0.5
    return torch.randn(given.shape, dtype=dtype, **how)


def _deviations(dim: int, device: torch.device) -> Tensor:
    features = torch.arange(dim, device=device)
    return torch.tensor(DEVIATIONS, device=device)[features % len(DEVIATIONS)]


def _digits(case: Case, given: Sequence[Input], own: torch.Generator) -> list[Tensor]:
    """Augmented views of handwritten digits through a fixed random two-layer projector.

    Args:
        case: of N samples and D features.
        given: one more view is made for each embedding of N x D.
        own: makes all others.
    """
    from sklearn.datasets import load_digits

    generator = torch.Generator().manual_seed(SEED)
    images = torch.from_numpy(load_digits().images).float() / 16
    mean = images.mean(dim=0)
    images = images[torch.arange(case.loss_batch) % len(images)]
    hidden = torch.randn(64, 512, generator=generator) / 8
    output = torch.randn(512, case.dim, generator=generator) / 512**0.5

    def make(each: Input) -> Tensor:
        if not (each.is_embedding and each.shape == (case.loss_batch, case.dim)):
            return draw(each, own)
        view = _augment(images, generator)
        return torch.tanh((view - mean).flatten(1) @ hidden) @ output

    return [make(each) for each in given]


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift some images by a pixel, change every contrast, add noise."""
    batch, height, width = images.shape
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    moved = torch.rand(2, batch, 1, generator=generator) < 0.3
    top, left = 1 + moved * torch.randint(-1, 2, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    shifted = padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
    contrast = 0.8 + 0.4 * torch.rand(batch, 1, 1, generator=generator)
    return shifted * contrast + 0.1 * torch.randn(images.shape, generator=generator)


@lru_cache(maxsize=1)
def _load(path: str) -> tuple[Tensor, Tensor]:
    arrays = _read(path)
    missing = [name for name in VIEWS if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(f"{path} must hold arrays z_a and z_b; it holds {found}")
    try:
        z_a, z_b = (arrays[name]() for name in VIEWS)
    except Exception as error:
        raise ValueError(f"{path}: z_a and z_b cannot be read: {error}") from error
    for name, view in zip(VIEWS, (z_a, z_b), strict=True):
        _check_view(path, name, view)
    for what in ("shape", "dtype"):
        if getattr(z_a, what) != getattr(z_b, what):
            got = f"{getattr(z_a, what)} and {getattr(z_b, what)}".replace("torch.", "")
            raise ValueError(f"{path}: z_a and z_b must have the same {what}, got {got}")
    return z_a, z_b


def _check_view(path: str, name: str, view: Tensor) -> None:
    if view.ndim != 2 or view.shape[0] < 2 or view.shape[1] < 1:
        shape = tuple(view.shape)
        raise ValueError(f"{path}: {name} must have shape N x D with N at least 2, got {shape}")
    dtype = str(view.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"{path}: {name} must be one of {', '.join(DTYPES)}, got {dtype}")
    broken = (~view.isfinite()).nonzero()
    if len(broken):
        row, column = broken[0].tolist()
        raise ValueError(
            f"{path}: {name} holds {len(broken)} NaN or infinite value(s), "
            f"the first at row {row}, column {column}"
        )


def _read(path: str) -> dict[str, Callable[[], Tensor]]:
    """Names of the arrays in a file, each with a function that reads it."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    if not path.endswith((".npz", ".safetensors")):
        raise ValueError(f"{path}: embeddings must be an .npz or .safetensors file")
    try:
        if path.endswith(".npz"):
            archive = np.load(path, allow_pickle=False)
            return {name: partial(_from_numpy, archive, name) for name in archive.files}
        tensors = safe_open(path, framework="pt")
        return {name: partial(tensors.get_tensor, name) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # whatever the readers raise on a damaged file
        raise ValueError(f"{path} cannot be read: {error}") from error


def _from_numpy(archive: Mapping[str, Any], name: str) -> Tensor:
    """A tensor of an array of any byte order; long doubles are rounded to float64."""
    array = archive[name]
    if array.dtype.kind == "f":
        array = array.astype(f"=f{min(array.dtype.itemsize, 8)}", copy=False)
    return torch.from_numpy(array)
