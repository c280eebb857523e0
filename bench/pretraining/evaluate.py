"""Whether training worked: features of the encoder judged by a linear probe and by neighbours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.pretraining.augmentations import normalised
from bench.pretraining.images import Images

LABELS_PER_CLASS = 10
"""Of the harder split: all other images are tested on."""
SPLITS = 3
NEIGHBOURS = 5
AT_ONCE = 256


def evaluate(encoder: nn.Module, images: Images, device: str) -> dict[str, Any]:
    """Accuracy with few labels, over random splits.

    Args:
        encoder: images -> features (N, F).
        images: with labels.
        device: "cpu" or "cuda".

    Returns:
        ``probe_accuracy`` and ``knn_accuracy``, means over the splits, and their ``..._std``.

    Raises:
        ValueError: the images have no labels.
    """
    if images.labels is None:
        raise ValueError(f"{images.name} has no labels to judge features by")
    features, labels = _features(encoder, images, device), images.labels.numpy()
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
        for batch in _batches(images, device):
            encoder(batch)


def _features(encoder: nn.Module, images: Images, device: str) -> np.ndarray:
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        parts = [encoder(batch).float().cpu() for batch in _batches(images, device)]
    encoder.train(was_training)
    return torch.cat(parts).numpy()


def _batches(images: Images, device: str) -> Iterator[Tensor]:
    for first in range(0, len(images), AT_ONCE):
        batch = [images[i] for i in range(first, min(first + AT_ONCE, len(images)))]
        yield normalised(torch.stack(batch).to(device))


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
