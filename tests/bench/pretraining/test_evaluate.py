"""Judging features: right ones score high, noise scores chance, and the split is hard."""

import numpy as np
import pytest
import torch
from torch import nn

from lossbench.bench.pretraining import evaluate
from lossbench.bench.pretraining.images import InMemory, open_images
from lossbench.bench.pretraining.pixels import CorruptImageError


@pytest.fixture(scope="module")
def digits():
    return open_images("digits", 8)


class Told(nn.Module):
    """Features that are the labels, or say nothing of them."""

    def __init__(self, images, noise):
        super().__init__()
        labels = nn.functional.one_hot(images.labels).float()
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(labels.shape, generator=generator) if noise else labels
        self.place = 0

    def forward(self, images):
        found = self.features[self.place : self.place + len(images)]
        self.place += len(images)
        return found


def test_features_that_are_the_labels_score_one(digits):
    found = evaluate.evaluate(Told(digits, noise=False), digits, "cpu")
    assert found["probe_accuracy"] == found["knn_accuracy"] == 1
    assert found["probe_accuracy_std"] == 0


def test_noise_scores_chance(digits):
    found = evaluate.evaluate(Told(digits, noise=True), digits, "cpu")
    assert found["probe_accuracy"] == pytest.approx(0.1, abs=0.04)
    assert found["knn_accuracy"] == pytest.approx(0.1, abs=0.04)


def test_a_split_learns_from_ten_of_each_class(digits):
    labels = digits.labels.numpy()
    few = evaluate._few(labels, np.random.default_rng(0))
    assert few.sum() == 100
    assert (np.bincount(labels[few]) == 10).all()
    assert not np.array_equal(few, evaluate._few(labels, np.random.default_rng(1)))


def test_images_without_labels_are_refused():
    with pytest.raises(ValueError, match="no labels"):
        evaluate.evaluate(nn.Identity(), open_images("synthetic", 8, count=32), "cpu")


def test_too_few_labels_are_refused(tmp_path):
    few = InMemory("few", torch.zeros(12, 3, 8, 8, dtype=torch.uint8), 8, torch.arange(12) % 2)
    with pytest.raises(ValueError, match=r"more than 10 images .* few has 2 of up to 6 images"):
        evaluate.check_labels(few)


def test_images_that_cannot_be_read_are_left_out(digits):
    class SomeCorrupt:
        labels, name = digits.labels, digits.name

        def __len__(self):
            return len(digits)

        def __getitem__(self, index):
            if index % 7 == 3:
                raise CorruptImageError(f"image {index}", "made up")
            return digits[index]

    _, read = evaluate._features(nn.Flatten(), SomeCorrupt(), "cpu")
    assert read == [index for index in range(len(digits)) if index % 7 != 3]


def test_batch_norms_settle_on_the_images(digits):
    norm = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())
    evaluate.settle_norms(norm, digits, "cpu")
    images = torch.stack([digits[i] for i in range(len(digits))])
    mean = evaluate.normalised(images).mean(dim=(0, 2, 3))
    # eight batches at a momentum of 0.1 come more than half of the way from 0
    assert (norm[0].running_mean / mean > 0.5).all()
