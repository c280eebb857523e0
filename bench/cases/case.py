"""A case: one thing to count and measure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import torch

import lossbench.kernels  # noqa: F401 - registers its implementations
from lossbench import losses
from lossbench.losses import plugins

DTYPES = ("float64", "float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")
LIMIT = 2**31
plugins.load()


@dataclass(frozen=True)
class Case:
    """Loss x implementation x batch x dim x dtype x pass x world size x device.

    Attributes:
        loss: name of the loss, or a guest as ``losses.spec`` takes it.
        implementation: name of the implementation.
        batch: samples per device, N.
        dim: embedding dimension, D.
        dtype: name of the embeddings' torch dtype.
        pass_: one of ``losses.PASSES``.
        world: number of devices, W.
        distribution: one of ``losses.DISTRIBUTIONS`` that the loss has. Forms (``losses.FORMS``)
            take the place of the implementation, which is then "auto".
        device: "cpu" or "cuda".
        inputs: "random", "aligned", "collapsed", "digits" or "file:PATH".
        hyperparameters: those that differ from the published defaults.
        options: of the implementation, those that differ from its defaults.
        products: one of ``losses.PRODUCTS``, if not the implementation's own precision.
        contender: "" for an implementation of ours; else where a third party's is found, as
            ``package.module:attribute?key=value``. ``implementation`` is then the name it goes by.
        stage: of a suite that has several, see ``cases.suites``. It says when and how a case is
            measured, not what it is: cases that differ in it alone are equal.
    """

    loss: str
    implementation: str = "reference"
    batch: int = 256
    dim: int = 8192
    dtype: str = "float32"
    pass_: str = "step"
    world: int = 1
    distribution: str = "local"
    device: str = "cpu"
    inputs: str = "random"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    products: str = ""
    contender: str = ""
    stage: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        spec = losses.spec(self.loss)
        if not self.contender:
            losses.pick(f"implementation of {spec.name}", self.implementation, spec.implementations)
            known = spec.options(self.implementation)
            if self.options and not known:
                raise ValueError(f"{spec.name} {self.implementation} has no options")
            for name in self.options:
                losses.pick(f"option of {spec.name} {self.implementation}", name, known)
        losses.pick("dtype", self.dtype, DTYPES)
        losses.pick("pass", self.pass_, losses.PASSES)
        self._check_distribution()
        losses.pick("device", self.device, DEVICES)
        if self.products:
            losses.pick("precision of products", self.products, losses.PRODUCTS)
        for name, least in (("batch", 2), ("dim", 1), ("world", 1)):
            if not least <= getattr(self, name) < LIMIT:
                got = getattr(self, name)
                raise ValueError(f"{name} must be at least {least} and below 2^31, got {got}")
        spec.configure(**self.hyperparameters)

    def _check_distribution(self) -> None:
        known = losses.distributions(self.loss)
        losses.pick(f"distribution of {self.name}", self.distribution, known)
        if self.is_share and (self.implementation != "auto" or self.options or self.contender):
            raise ValueError(
                f"{self.distribution} takes the place of the implementation: "
                f"give {self.name} --implementation auto, without options"
            )

    @property
    def is_share(self) -> bool:
        """Whether a device computes its share of the loss of all devices' samples."""
        return self.distribution in losses.FORMS

    @property
    def loss_batch(self) -> int:
        """Samples whose embeddings one evaluation of the loss is given."""
        return self.batch * (self.world if self.distribution == "gather" else 1)

    @property
    def evaluations(self) -> int:
        """Independent evaluations of the loss that the whole job needs."""
        return 1 if self.distribution == "gather" else self.world

    @property
    def cost(self) -> losses.Cost:
        """The cost model's counts of one evaluation; without one, what to plan by."""
        if self.is_share:
            return losses.share_cost(self.loss, self.distribution, self.problem, self.world)
        spec = losses.spec(self.loss)
        if not self.has_cost_model:
            return spec.estimate(self.problem)
        options = {} if self.implementation == "auto" else self.options
        return spec.cost(self.choice.implementation, self.problem, **options)

    @property
    def has_cost_model(self) -> bool:
        """Whether it is known on paper what the case computes."""
        models = losses.spec(self.loss).cost_models
        return self.is_share or (not self.contender and self.choice.implementation in models)

    @property
    def problem(self) -> losses.Problem:
        """What one evaluation of the loss is given."""
        element = max(element_bytes("float32"), element_bytes(self.dtype))
        return losses.Problem(self.loss_batch, self.dim, element_bytes=element, device=self.device)

    @property
    def given(self) -> tuple[losses.Input, ...]:
        """What one evaluation of the loss is given. A guest is looked for.

        Raises:
            ValueError: a guest that is not there.
            NotImplementedError: a loss that declares its inputs, distributed.
        """
        spec = losses.spec(self.loss)
        found = spec.given(spec.configure(**self.hyperparameters), self.problem)
        if self.distribution != "local" and not self.has_views:
            names = ", ".join(each.name for each in found)
            raise NotImplementedError(
                f"{self.distribution} is of losses of two views; {self.name} is given {names}"
            )
        return found

    @property
    def has_views(self) -> bool:
        """Whether the loss is given two views, and nothing else. A guest is looked for."""
        spec = losses.spec(self.loss)
        return spec.declared(spec.configure(**self.hyperparameters)) is None

    @property
    def communicated_bytes(self) -> int:
        """Bytes that each device communicates for one evaluation (ring algorithms)."""
        # views are gathered as they are; what is computed with is sent in fp32 or wider
        element = self.problem.element_bytes if self.is_share else element_bytes(self.dtype)
        job = losses.Exchange(self.batch, self.dim, self.world, element, self.pass_)
        return losses.communicated_bytes(self.loss, self.distribution, job)

    @property
    def choice(self) -> losses.Choice:
        """The implementation that runs: the case's own, or the one that ``auto`` chooses."""
        if self.is_share:
            name = f"{self.distribution} share"
            return losses.Choice(name, "it takes the place of the implementation", ())
        if self.implementation != "auto" or self.contender:
            return losses.Choice(self.implementation, "as asked for", ())
        return losses.explain(
            self.loss,
            batch=self.loss_batch,
            dim=self.dim,
            pass_="forward" if self.pass_ == "forward" else "step",
            dtype=getattr(torch, self.dtype),
            device=self.device,
            **self.options,
        )

    @property
    def variant(self) -> str:
        """Hyperparameters that differ from the published ones, "" for none."""
        return _settings(self.hyperparameters)

    @property
    def name(self) -> str:
        """Of the loss."""
        return losses.spec(self.loss).name

    @property
    def label(self) -> str:
        """Short name for progress lines and test ids."""
        layout = f"{self.world}x{self.batch}" if self.world > 1 else f"{self.batch}"
        how = f"-{self.distribution}" if self.world > 1 else ""
        options = f"-{self.variant}" if self.variant else ""
        settings = _settings(self.options), self.products
        way = "-".join([self.implementation, *filter(None, settings)])
        shape = f"{layout}x{self.dim}-{self.dtype}"
        return f"{self.name}{options}-{way}-{shape}{how}-{self.pass_}"

    def describe(self) -> dict[str, Any]:
        """The case as flat, JSON-safe fields; every hyperparameter is spelled out."""
        fields = asdict(self)
        del fields["stage"]
        fields["loss"], fields["origin"] = self.name, losses.spec(self.loss).origin
        fields["options"] = _settings(self.options)
        fields["pass"] = fields.pop("pass_")
        chosen = losses.spec(self.loss).configure(**self.hyperparameters)
        fields["hyperparameters"] = ", ".join(f"{k}={v}" for k, v in asdict(chosen).items())
        fields["variant"] = self.variant
        fields["loss_batch"] = self.loss_batch
        fields["evaluations"] = self.evaluations
        return fields


def _settings(values: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(values.items()))


def element_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype named in ``DTYPES``."""
    return {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}[dtype]


def input_bytes(case: Case) -> int:
    """Bytes of what one evaluation is given."""
    dtype = getattr(torch, case.dtype)
    return sum(prod(each.shape) * each.dtype(dtype).itemsize for each in case.given)
