"""Small pictures for the tests of the sources, and what is asked of a source."""

import pytest
import torch
from PIL import Image

from lossbench.bench.pretraining.images import open_images

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def solid(colour, size=(4, 4)):
    return Image.new("RGB", size, colour)


def colour_of(image):
    """Of an image that has one colour only."""
    assert image.dtype == torch.uint8
    assert (image == image[:, :1, :1]).all()
    return tuple(image[:, 0, 0].tolist())


def refused(source, words, size=4):
    with pytest.raises(ValueError, match=words) as error:
        open_images(source, size)
    assert "\n" not in str(error.value)
