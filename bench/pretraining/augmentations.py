"""Two views of each image, on the device, by the published pipelines (kornia).

Where arXiv:2606.08332 gives no probabilities they are those of the pipelines that it follows,
BYOL's and Barlow Twins'. For CIFAR and ImageNette table 4 gives crops and solarization.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossbench import losses

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, by which all are normalised."""


@dataclass(frozen=True)
class Pipeline:
    """How an image becomes a view.

    Attributes:
        scale: smallest share of the image's area that a crop keeps.
        saturation: of the colour jitter; brightness and contrast are 0.4, hue 0.1.
        blur: probability for each of the two views.
        solarize: probability for each of the two views.
        flip: probability of the mirror image.
        colour: whether colours are changed at all.
    """

    scale: float
    saturation: float = 0.2
    blur: tuple[float, float] = (0.5, 0.5)
    solarize: tuple[float, float] = (0.0, 0.0)
    flip: float = 0.5
    colour: bool = True


PIPELINES = {
    "imagenet": Pipeline(0.08, blur=(1.0, 0.1), solarize=(0.0, 0.2)),
    "cifar": Pipeline(0.2),
    "imagenette": Pipeline(0.08, saturation=0.4, solarize=(0.2, 0.2)),
    # digits have no colour, and their mirror images are no digits
    "digits": Pipeline(0.4, blur=(0.0, 0.0), flip=0.0, colour=False),
}


class TwoViews(nn.Module):
    """Two augmented views of a batch of images.

    Args:
        name: of the pipeline.
        size: side of the views in pixels.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        pipeline = PIPELINES[losses.pick("augmentation", name, PIPELINES)]
        self._views = nn.ModuleList(_view(pipeline, size, view) for view in range(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), uint8 -> two float32 views (N, 3, S, S), normalised."""
        images = images.float() / 255
        first, second = (view(images) for view in self._views)
        return first, second


def normalised(images: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8, as they are -> float32, normalised."""
    mean, std = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def _view(pipeline: Pipeline, size: int, view: int) -> nn.Module:
    kornia = _kornia()
    steps: list[Any] = [
        kornia.RandomResizedCrop((size, size), scale=(pipeline.scale, 1.0)),
        kornia.RandomHorizontalFlip(p=pipeline.flip),
    ]
    if pipeline.colour:
        steps += [
            kornia.ColorJitter(0.4, 0.4, pipeline.saturation, 0.1, p=0.8),
            kornia.RandomGrayscale(p=0.2),
        ]
    if pipeline.blur[view]:
        side = max(size // 10 // 2 * 2 + 1, 3)  # a tenth of the view, odd
        steps.append(kornia.RandomGaussianBlur((side, side), (0.1, 2.0), p=pipeline.blur[view]))
    if pipeline.solarize[view]:
        half = {"thresholds": (0.5, 0.5), "additions": (0.0, 0.0)}  # above 0.5 is inverted
        steps.append(kornia.RandomSolarize(**half, p=pipeline.solarize[view]))
    normalize = kornia.Normalize(mean=list(MEAN), std=list(STD))
    sequence: nn.Module = kornia.AugmentationSequential(*steps, normalize, data_keys=["input"])
    return sequence


def _kornia() -> Any:
    try:
        import kornia.augmentation
    except ImportError as error:
        raise ValueError("views need kornia: pip install 'lossbench[pretrain]'") from error
    return kornia.augmentation
