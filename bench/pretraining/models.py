"""Encoders of transformers, built from their configurations, and the projector on top."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lossbench.bench.pretraining.config import Config

_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
    },
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3]},
}
_VITS: dict[str, dict[str, Any]] = {
    "vit_s": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "vit_b": {},
}
VIT_PATCH = {32: 4, 224: 16}
"""Patches of the usual sizes; others get an eighth of their side."""


class Network(nn.Module):
    """Encoder and projector.

    Args:
        config: which.

    Attributes:
        features: dimension of what the encoder makes of an image.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = encoder(config)
        self.features = self.encoder.features
        self.projector = projector(self.features, config.projector)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) -> embeddings (N, D)."""
        embeddings: Tensor = self.projector(self.encoder(images))
        return embeddings


class Encoder(nn.Module):
    """A model of transformers as images -> features.

    Args:
        model: returns an output with ``pooler_output``, or else hidden states, of which the first
            stands for the image.
        features: dimension of its output.
        pooled: whether it pools.
    """

    def __init__(self, model: nn.Module, features: int, pooled: bool) -> None:
        super().__init__()
        self.model, self.features, self._pooled = model, features, pooled

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) -> features (N, F)."""
        output = self.model(pixel_values=images)
        found: Tensor = output.pooler_output.flatten(1) if self._pooled else output[0][:, 0]
        return found


def encoder(config: Config) -> Encoder:
    """The encoder of a configuration, with new weights.

    Raises:
        ValueError: the image is too small for it, or the package that has it is not installed.
    """
    transformers = _transformers()
    if config.encoder in _RESNETS:
        settings = transformers.ResNetConfig(**_RESNETS[config.encoder])
        model = transformers.ResNetModel(settings)
        if config.stem == "cifar":
            stem = model.embedder
            convolution = nn.Conv2d(3, settings.embedding_size, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            stem.embedder.convolution = convolution
            stem.pooler = nn.Identity()
        return Encoder(model, settings.hidden_sizes[-1], pooled=True)
    patch = VIT_PATCH.get(config.image_size, max(config.image_size // 8, 1))
    settings = transformers.ViTConfig(
        image_size=config.image_size, patch_size=patch, **_VITS[config.encoder]
    )
    model = transformers.ViTModel(settings, add_pooling_layer=False)
    return Encoder(model, settings.hidden_size, pooled=False)


def projector(features: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them, as in arXiv:2606.08332, A.1.1."""
    layers: list[nn.Module] = []
    for before, width in zip((features, *widths[:-2]), widths[:-1], strict=True):
        layers += [
            nn.Linear(before, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        ]
    before = widths[-2] if len(widths) > 1 else features
    return nn.Sequential(*layers, nn.Linear(before, widths[-1], bias=False))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("encoders need transformers: pip install 'lossbench[pretrain]'") from error
    return transformers
