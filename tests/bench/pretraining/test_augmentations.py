"""Views: of the right shape and kind, two different ones, and as likely as published."""

import pytest
import torch

from lossbench.bench.pretraining.augmentations import MEAN, PIPELINES, STD, TwoViews, normalised


def images(count=8, size=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", PIPELINES)
def test_views_are_normalised_pixels_of_the_asked_size(name):
    first, second = TwoViews(name, 32)(images())
    for view in (first, second):
        assert view.shape == (8, 3, 32, 32)
        assert view.dtype == torch.float32
        pixels = view * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        assert -1e-4 <= pixels.min() < pixels.max() <= 1 + 1e-4
    assert not torch.equal(first, second)


def test_the_same_seed_draws_the_same_views():
    views = TwoViews("imagenet", 32)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(views(images()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_samples_of_a_batch_are_drawn_apart():
    first, _ = TwoViews("cifar", 32)(images(1).repeat(8, 1, 1, 1))
    assert len({tuple(each.flatten().tolist()) for each in first}) == 8


def test_solarization_inverts_what_is_above_a_half():
    import kornia.augmentation

    step = kornia.augmentation.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=1.0)
    found = step(torch.tensor([0.1, 0.4, 0.6, 0.9]).view(1, 1, 2, 2).repeat(1, 3, 1, 1))
    expected = torch.tensor([0.1, 0.4, 0.4, 0.1])
    torch.testing.assert_close(found[0, 0].flatten(), expected)


def test_normalised_pixels():
    grey = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(normalised(grey)[0, :, 0, 0], expected)


def test_an_unknown_pipeline_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'cifar'"):
        TwoViews("cifr", 32)
