"""What is trained and how: settings, presets as data, and what does not go together."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

from lossbench import losses
from lossbench.bench.cases import settings as named_settings

ENCODERS = ("resnet18", "resnet50", "vit_s", "vit_b")
STEMS = ("imagenet", "cifar")
OPTIMIZERS = ("lars", "adamw", "sgd")
AUGMENTATIONS = ("imagenet", "cifar", "imagenette", "digits")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
RATES = (
    *("learning_rate", "vector_learning_rate", "rate_scaled_by", "weight_decay"),
    *("warmup_epochs", "final_rate", "schedule_images"),
)
PRESETS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "presets.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Config:
    """Settings of a pretraining run; every one changes what is trained or what is timed.

    Attributes:
        loss: name of the loss, or a guest as ``losses.spec`` takes it.
        implementation: how it is computed; "auto" chooses.
        hyperparameters: of the loss.
        options: of the implementation.
        distribution: how the loss sees other devices' samples: local, gather, or one of
            ``losses.FORMS``, which take the place of the implementation.
        encoder: architecture, without its head.
        stem: "imagenet", or "cifar": a 3 x 3 convolution of stride 1, no max-pool
            (arXiv:2606.08332, A.1.2).
        image_size: side of a view in pixels.
        projector: widths of its linear layers; the last is the embedding dimension D.
        augmentation: pipeline of the two views.
        optimizer: lars, adamw or sgd.
        learning_rate: at the end of the warm-up.
        rate_scaled_by: the rate is for a batch of this size and grows with it; 0: as it is.
        vector_learning_rate: of biases and norms, scaled alike; 0: that of the matrices.
        weight_decay: of matrices; vectors have none.
        warmup_epochs: of a rate that grows from 0.
        final_rate: share of the rate that cosine decay ends at.
        epochs: of the whole schedule.
        batch: samples per device and step, N.
        accumulation: batches whose gradients are added before a step of the optimizer.
        precision: fp32, tf32, or mixed: bf16, fp16.
        channels_last: memory format of images and weights.
        compiled: the encoder and projector go through ``torch.compile``.
        global_batch_norm: statistics over all devices' batches.
        data: where images come from.
        seed: of weights, order and augmentation.
        schedule_images: images of the published schedule, which its cost is extrapolated to.
    """

    loss: str
    implementation: str = "auto"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    distribution: str = "local"
    encoder: str = "resnet18"
    stem: str = "imagenet"
    image_size: int = 224
    projector: tuple[int, ...] = (8192, 8192, 8192)
    augmentation: str = "imagenet"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    rate_scaled_by: int = 0
    vector_learning_rate: float = 0.0
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0
    final_rate: float = 0.0
    epochs: int = 1
    batch: int = 256
    accumulation: int = 1
    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False
    global_batch_norm: bool = False
    data: str = "synthetic"
    seed: int = 0
    schedule_images: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("encoder", ENCODERS),
            ("stem", STEMS),
            ("augmentation", AUGMENTATIONS),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
        ):
            losses.pick(name, getattr(self, name), known)
        self._check_loss()
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        self._check_numbers()
        if self.stem == "cifar" and self.encoder.startswith("vit"):
            raise ValueError(f"{self.encoder} has no stem to replace; --set stem=imagenet")

    def _check_loss(self) -> None:
        spec, ways = losses.spec(self.loss), losses.distributions(self.loss)
        if self.implementation != "auto":
            known = spec.implementations
            losses.pick(f"implementation of {spec.name}", self.implementation, known)
            for name in self.options:
                losses.pick(f"option of {self.label}", name, spec.options(self.implementation))
        spec.configure(**self.hyperparameters)
        losses.pick(f"distribution of {spec.name}", self.distribution, ways)
        if self.distribution in losses.FORMS and self.implementation != "auto":
            raise ValueError(
                f"distribution={self.distribution} takes the place of the implementation: leave "
                f"{self.implementation} out"
            )

    def _check_numbers(self) -> None:
        if self.batch < 2:
            raise ValueError(
                f"a loss needs a batch of at least 2 images on each device, got {self.batch}"
            )
        for name in ("image_size", "epochs", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.projector or min(self.projector) < 1:
            raise ValueError(f"projector needs widths such as 2048,256, got {list(self.projector)}")
        for name in RATES:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"{self.warmup_epochs:g} epochs of warm-up do not fit in {self.epochs} epochs"
            )

    @property
    def dim(self) -> int:
        """Embedding dimension D."""
        return self.projector[-1]

    def describe(self) -> dict[str, Any]:
        """All settings, as JSON holds them."""
        return {**asdict(self), "projector": list(self.projector)}

    @property
    def label(self) -> str:
        """Loss and implementation."""
        return f"{losses.spec(self.loss).name} {self.implementation}"


def from_preset(name: str, **changes: Any) -> Config:
    """The settings of a preset, some of them changed.

    Raises:
        ValueError: unknown preset or setting, or values that do not go together.
    """
    preset = PRESETS[losses.pick("preset", name, PRESETS)]
    settings = {key: value for key, value in preset.items() if key != "source"}
    known = [each.name for each in fields(Config)]
    for key in changes:
        losses.pick("setting", key, known)
    settings |= changes
    return Config(**{**settings, "projector": tuple(settings["projector"])})


def spread(
    preset: str,
    losses_: Sequence[str],
    ways: Sequence[str],
    settings: Mapping[str, Any],
    **changes: Any,
) -> list[Config]:
    """The settings of a preset for each loss and implementation.

    Args:
        preset: name of it.
        losses_: names of losses.
        ways: names of implementations.
        settings: ``name`` -> value for all of them, or ``loss.name`` and
            ``loss.implementation.name`` -> value for a loss alone; text as the type of it.
        **changes: further settings for all of them; none of 0 or "".

    Raises:
        ValueError: as ``from_preset``, or one of them is named twice.
    """
    changes = {name: value for name, value in changes.items() if value}
    own = {name: value for name, value in settings.items() if "." in name}
    shared = typed({name: settings[name] for name in settings if name not in own})
    for name in shared:
        if name in ("loss", "implementation", *changes):
            raise ValueError(f"--set {name}=...: give --{name}, and once")
    shared |= changes
    names = [losses.spec(loss).name for loss in losses_]
    parsed = [_of_a_loss(name, value, names, ways) for name, value in own.items()]
    configs = []
    for loss, way in itertools.product(losses_, ways):
        kinds: dict[str, dict[str, Any]] = {"hyperparameters": {}, "options": {}}
        for of_loss, of_way, entry in parsed:
            if of_loss == losses.spec(loss).name and of_way in ("", way):
                kinds["options" if of_way else "hyperparameters"].update(entry)
        configs.append(from_preset(preset, loss=loss, implementation=way, **shared, **kinds))
    if len({each.label for each in configs}) < len(configs):
        raise ValueError("a loss and implementation were given twice")
    return configs


def _of_a_loss(
    name: str, value: Any, names: Sequence[str], ways: Sequence[str]
) -> tuple[str, str, dict[str, Any]]:
    loss, way, setting = named_settings.owner(name, value)
    if loss not in names or way not in ("", *ways):
        of = f"{loss}.{way}" if way else loss
        raise ValueError(f"--set {name}={value}: {of} is not pretrained here")
    return loss, way, {setting: named_settings.value(value)}


def typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``Config`` by name; text becomes what its type is.

    Raises:
        ValueError: unknown setting, or a value of another type.
    """
    types = {each.name: each.type for each in fields(Config)}
    for name in settings:
        losses.pick("setting", name, types)
    return {name: _of_type(name, types[name], value) for name, value in settings.items()}


def _of_type(name: str, type_: Any, value: Any) -> Any:
    if get_origin(type_) is dict:
        raise ValueError(f"--set {name}: give those of a loss as smi.lambda_=2")
    if isinstance(value, str):
        return _parse(name, type_, value)
    if get_origin(type_) is tuple:
        fits = isinstance(value, Sequence) and {type(each) for each in value} == {int}
        value = tuple(value) if fits else value
    else:
        fits = type(value) is type_ or (type_ is float and type(value) is int)
    if not fits:
        raise _type_error(name, type_, value)
    return value


def _parse(name: str, type_: Any, text: str) -> Any:
    if type_ is bool:
        known = {"true": True, "false": False}
        return known[losses.pick(name, text.lower(), known)]
    try:
        if get_origin(type_) is tuple:
            return tuple(int(part) for part in text.split(","))
        return type_(text)
    except ValueError:
        raise _type_error(name, type_, text) from None


def _type_error(name: str, type_: Any, value: Any) -> ValueError:
    kind = "numbers such as 2048,256" if get_origin(type_) else f"a value of type {type_.__name__}"
    return ValueError(f"--set {name}={value}: {kind} needed")


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Settings in which two descriptions differ, in words."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return [f"{name} ({there.get(name)!r} there, {here.get(name)!r} here)" for name in names]
