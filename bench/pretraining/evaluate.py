"""Whether training worked: features of the encoder judged by a linear probe and by neighbours."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossbench.bench.pretraining.augmentations import normalised
from lossbench.bench.pretraining.images import Images
from lossbench.bench.pretraining.pixels import CorruptImageError

LABELS_PER_CLASS = 10
"""Of the harder split: all other images are tested on."""
SPLITS = 3
NEIGHBOURS = 5
AT_ONCE = 256


def check_labels(images: Images) -> None:
    """Refuse images that features cannot be judged by.

    Raises:
        ValueError: they have no labels, or no class has images to test on.
    """
    if images.labels is None:
        raise ValueError(f"{images.name} has no labels to judge features by: leave --evaluate out")
    counts = np.unique(images.labels.numpy(), return_counts=True)[1]
    if counts.max() <= LABELS_PER_CLASS or len(counts) < 2:
        raise ValueError(
            f"--evaluate needs two classes, and more than {LABELS_PER_CLASS} images of one to "
            f"test on; {images.name} has {len(counts)} of up to {counts.max()} images"
        )


def evaluate(encoder: nn.Module, images: Images, device: str) -> dict[str, Any]:
    """Accuracy with few labels, over random splits.

    Args:
        encoder: images -> features (N, F).
        images: with labels.
        device: "cpu" or "cuda".

    Returns:
        ``probe_accuracy`` and ``knn_accuracy``, means over the splits, and their ``..._std``.

    Raises:
        ValueError: as ``check_labels``.
    """
    check_labels(images)
    features, read = _features(encoder, images, device)
    assert images.labels is not None  # so it was checked
    labels = images.labels.numpy()[read]
    scores = [_scores(features, labels, seed) for seed in range(SPLITS)]
    found: dict[str, Any] = {}
    for name, values in zip(("probe", "knn"), zip(*scores, strict=True), strict=True):
        found[f"{name}_accuracy"] = float(np.mean(values))
        found[f"{name}_accuracy_std"] = float(np.std(values, ddof=1))
    return found


def settle_norms(encoder: nn.Module, images: Images, device: str) -> None:
    """Let batch norms see the images once: those of an encoder that was not trained saw none."""
    encoder.train()
    with torch.no_grad():
        for _, batch in _batches(images, device):
            encoder(batch)


def _features(encoder: nn.Module, images: Images, device: str) -> tuple[np.ndarray, list[int]]:
    """Features of the images that can be read, and which these are."""
    was_training = encoder.training
    encoder.eval()
    parts, read = [], []
    with torch.no_grad():
        for places, batch in _batches(images, device):
            parts.append(encoder(batch).float().cpu())
            read += places
    encoder.train(was_training)
    return torch.cat(parts).numpy(), read


def _batches(images: Images, device: str) -> Iterator[tuple[list[int], Tensor]]:
    """Images that can be read, with their places."""
    found: dict[int, Tensor] = {}
    for place in range(len(images)):
        with contextlib.suppress(CorruptImageError):
            found[place] = images[place]
        if found and (len(found) == AT_ONCE or place == len(images) - 1):
            yield list(found), normalised(torch.stack(list(found.values())).to(device))
            found = {}


def _scores(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    few = _few(labels, np.random.default_rng(seed))
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        KNeighborsClassifier(NEIGHBOURS, metric="cosine"),
    )
    probe, knn = (
        model.fit(features[few], labels[few]).score(features[~few], labels[~few])
        for model in models
    )
    return float(probe), float(knn)


def _few(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A mask of ``LABELS_PER_CLASS`` images of each class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for name in np.unique(labels):
        of_class = np.flatnonzero(labels == name)
        chosen[generator.permutation(of_class)[:LABELS_PER_CLASS]] = True
    return chosen
