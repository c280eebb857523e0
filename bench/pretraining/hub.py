"""Data sets of Hugging Face: from the hub, or from a folder that ``datasets`` saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossbench.bench.pretraining.pixels import Decoded, optional


def open_hub(source: str, place: str, size: int) -> Decoded:
    """The images of NAME or NAME:SPLIT, by the first column of images and of class labels.

    Raises:
        ValueError: a data set or split that is not there, without images or empty.
    """
    datasets = optional("datasets", source)
    optional("PIL.Image", source)
    name, _, split = place.partition(":")
    data = _load(datasets, name, split).with_format(None)  # one may have been saved with it
    column = _first_column(data, datasets.Image)
    if column is None:
        found = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in data.features.items())
        raise ValueError(f"{source} has no column of images; it has {found or 'no columns'}")
    if not len(data):
        raise ValueError(f"{source} is empty; name another split")
    labels, classes = _labels(data, _first_column(data, datasets.ClassLabel))
    encoded = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    reader = datasets.Image()
    return Decoded(
        source,
        _Names(source, len(data)),
        lambda index: reader.decode_example(encoded[index][column]),
        size,
        labels,
        classes,
    )


def _load(datasets: Any, name: str, split: str) -> Any:
    """A data set with one split."""
    folder = Path(name).expanduser()
    saved = any((folder / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        if not saved:
            return datasets.load_dataset(name, split=split or "train")
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # of the network, of the file system, of Arrow
        why = (str(error).splitlines() or [""])[0]
        raise ValueError(f"hf:{name} cannot be loaded: {type(error).__name__}: {why}") from error
    if isinstance(data, datasets.DatasetDict):
        wanted = split or "train"
        if wanted not in data:
            raise ValueError(f"hf:{name} has no split {wanted!r}; known: {', '.join(sorted(data))}")
        return data[wanted]
    if split and split != str(data.split):
        raise ValueError(f"hf:{name} was saved without splits; leave ':{split}' out")
    return data


def _first_column(data: Any, kind: type) -> str | None:
    return next((key for key, found in data.features.items() if isinstance(found, kind)), None)


def _labels(data: Any, column: str | None) -> tuple[Tensor | None, int]:
    """Labels and how many classes; images that have none are of class -1."""
    if column is None:
        return None, 0
    values = data.select_columns([column])[:][column]
    labels = torch.tensor([-1 if value is None else value for value in values])
    return labels, data.features[column].num_classes


class _Names(Sequence[str]):
    """Images of a data set have indices for names: ``hf:NAME[7]``."""

    def __init__(self, source: str, count: int) -> None:
        self._source, self._indices = source, range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return f"{self._source}[{self._indices[index]}]"
