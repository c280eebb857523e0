"""Sources: synthetic images and digits; unknown sources and missing packages are a line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import refused

from lossbench.bench.pretraining.images import open_images
from lossbench.bench.pretraining.pixels import InMemory


def test_synthetic_images_depend_on_the_seed_alone():
    first, again, other = (open_images("synthetic", 6, seed) for seed in (1, 1, 2))
    assert len(first) == 2048
    assert first[7].shape == (3, 6, 6)
    assert first[7].dtype == torch.uint8
    assert torch.equal(first[7], again[7])
    assert not torch.equal(first[7], other[7])
    assert first.labels is None


def test_no_two_synthetic_images_are_the_same():
    images = open_images("synthetic", 5, count=300)
    assert len(images) == 300
    assert len({images[index].numpy().tobytes() for index in range(300)}) == 300


def test_synthetic_images_of_full_size_take_little_memory():
    assert open_images("synthetic", 224).pixels.untyped_storage().nbytes() < 10e6


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    images, real = open_images("digits", 8), load_digits()
    assert len(images) == 1797
    assert images.classes == 10
    assert images.labels.tolist() == real.target.tolist()
    for channel in images[5]:
        assert (channel.numpy() == np.round(real.images[5] / 16 * 255)).all()
    assert images[5].max() == 255


def test_images_in_memory_are_resized_bilinearly():
    pixels = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8).expand(1, 3, 2, 2)
    edge = [0, 25, 75, 100]  # pixel centres lie at quarters; beyond the outer ones it is flat
    expected = [[row + column for column in edge] for row in edge]
    assert InMemory("two by two", pixels, 4)[0][2].tolist() == expected
    halves = torch.tensor([0, 0, 80, 80], dtype=torch.uint8).expand(1, 3, 4, 4)
    shrunk = InMemory("halves", halves, 2)[0][0]
    assert shrunk.tolist() == [[11, 69]] * 2  # weights 3, 3, 1 of 7: a pixel reaches over


@pytest.mark.parametrize("size", [2, 3, 7, 9, 40])
def test_resizing_bytes_is_resizing_floats_within_rounding(size):
    images = open_images("digits", 8)
    indices = torch.arange(5)
    images.size = size
    pixels = images.pixels[indices].double()
    exact = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    assert (images.take(indices) - exact).abs().max() <= 1.5  # rounded once for each direction
    assert images.take(indices).is_contiguous()


def test_an_image_alone_is_the_one_of_its_batch():
    images = open_images("digits", 13)
    batch = images.take(torch.tensor([3, 1796, 3]))
    assert torch.equal(batch[1], images[-1])
    assert torch.equal(batch[0], batch[2])
    with pytest.raises(IndexError):
        images[1797]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("digitz", "did you mean 'digits'.*cifar10:PATH.*synthetic"),
        ("imagefolder", "did you mean 'imagefolder:PATH'"),
        ("cifar10:", "did you mean 'cifar10:PATH'"),
        ("digits:/tmp", "unknown data 'digits:/tmp'"),
        ("", "unknown data ''"),
    ],
)
def test_unknown_sources_are_answered_with_the_known(source, words):
    refused(source, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digits", 1), "at least 2 pixels, got 1"),
        (("synthetic", 4, 0, 0), "at least 1, got 0"),
        (("digits", 8, 0, 100), "only synthetic images can be counted"),
    ],
)
def test_bad_numbers_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        open_images(*arguments)


@pytest.mark.parametrize(
    ("source", "module", "package"),
    [("hf:mnist", "datasets", "datasets"), ("imagefolder:.", "PIL.Image", "pillow")],
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, source, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    refused(source, rf"needs {package}: pip install 'lossbench\[pretrain\]'")


def test_optional_packages_are_imported_only_for_their_sources():
    code = (
        "import sys; from lossbench.bench.pretraining.images import open_images; "
        "open_images('digits', 8); "
        "assert not {'PIL', 'datasets'} & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
