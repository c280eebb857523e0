"""Named grids of cases, most important first."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.losses import pick

Layout = tuple[int, int, str]
"""Batch per device, number of devices, distribution."""

GATHERED: Layout = (256, 8, "gather")
"""One batch of 2048 gathered from eight devices: how the published table counts most losses."""
LOCAL: Layout = (256, 8, "local")
"""Eight batches of 256, one on each device: how the published table counts SMI."""


@dataclass(frozen=True)
class Grid:
    """The product of lists of case fields.

    Passes vary slowest, then layouts: a budget cuts whole passes before it cuts losses.

    Attributes:
        loss: names of losses; default: all.
        implementation: names of implementations, each for the losses that have it; default: all
            that each loss has on the device.
        layouts: how samples are spread over devices.
        dim: embedding dimensions.
        dtype: names of dtypes.
        pass_: names of passes.
        device: "cpu" or "cuda".
        inputs: where the embeddings come from.
        variants: for each loss, sets of hyperparameters; default: as published.
        options: sets of options, each for the implementations that have them.
        products: precisions of products of implementations in PyTorch; "" for their own.
    """

    loss: Sequence[str] = ()
    implementation: Sequence[str] = ()
    layouts: Sequence[Layout] = ((256, 1, "local"),)
    dim: Sequence[int] = (8192,)
    dtype: Sequence[str] = ("float32",)
    pass_: Sequence[str] = ("step",)
    device: str = "cpu"
    inputs: str = "random"
    variants: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    options: Sequence[Mapping[str, Any]] = ({},)
    products: Sequence[str] = ("",)

    def cases(self) -> Iterator[Case]:
        """The cases of this grid.

        Raises:
            ValueError: a value that no case accepts.
        """
        axes = (self.pass_, self.layouts, self.dim, self.dtype, self.loss or losses.names())
        for pass_, (batch, world, distribution), dim, dtype, loss in itertools.product(*axes):
            implementations = _implementations(loss, distribution, self)
            settings = self.variants.get(loss, ({},))
            for implementation, setting in itertools.product(implementations, settings):
                for options, products in self._ways(loss, implementation):
                    yield Case(
                        loss=loss,
                        implementation=implementation,
                        batch=batch,
                        dim=dim,
                        dtype=dtype,
                        pass_=pass_,
                        world=world,
                        distribution=distribution,
                        device=self.device,
                        inputs=self.inputs,
                        hyperparameters=dict(setting),
                        options=dict(options),
                        products=products,
                    )

    def _ways(self, loss: str, implementation: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Options and precisions that an implementation has; its own where it has none of them."""
        spec = losses.spec(loss)
        known = implementation in spec.implementations
        names = set(spec.options(implementation)) if known else set()
        options = [each for each in self.options if names.issuperset(each)]
        products = [""] if implementation in spec.fused else self.products
        yield from itertools.product(options or [{}], products)


def _implementations(loss: str, distribution: str, grid: Grid) -> list[str]:
    """Those that are asked for and that the loss has, or that no loss of the grid has."""
    spec = losses.spec(loss)
    if distribution in losses.FORMS:
        having = [each for each in grid.loss or losses.names() if _has(each, distribution)]
        return ["auto"] if _has(loss, distribution) or not having else []
    if not grid.implementation:
        cuda = grid.device == "cuda"
        return [name for name in spec.implementations if cuda or name not in spec.fused]
    specs = [losses.spec(each) for each in grid.loss or losses.names()]
    known = {name for each in specs for name in each.implementations}
    return [n for n in grid.implementation if n in spec.implementations or n not in known]


def _has(loss: str, distribution: str) -> bool:
    return distribution in losses.distributions(loss)


PUBLISHED = ("barlow_twins", "nt_xent", "smi", "vicreg")
"""The losses of the published table."""
ABLATION = {"smi": [{"dependency": "squared_correlation"}, {"dependency": "correlation"}]}
"""SMI without its logarithm, the ablation that the paper's reviewer asked for."""

GPU_SHAPES = ((256, 8192), (2048, 8192), (4096, 8192), (16384, 2048), (65536, 1024), (65536, 768))
"""N and D of the gpu suite: the published shape, and others up to what needs fused kernels."""


def _correctness() -> Iterator[Grid]:
    """Every loss by kernels, on a ragged batch, in each dtype and by each strategy."""
    strategies = [{"strategy": name} for name in ("fused", "cublas", "split")]
    dtypes = ("float32", "bfloat16", "float16")
    yield Grid((), ("triton",), ((300, 1, "local"),), (1000,), dtypes, options=strategies)


def _contenders(batch: int, dim: int) -> Iterator[Grid]:
    """SMI by every way to compute it, on bf16 embeddings."""
    for pass_ in ("step", "forward"):
        shape: dict[str, Any] = {
            "loss": ("smi",),
            "layouts": ((batch, 1, "local"),),
            "dim": (dim,),
            "dtype": ("bfloat16",),
            "pass_": (pass_,),
        }
        strategies = [{"strategy": name} for name in ("fused", "cublas", "split")]
        modes = [{"mode": name} for name in ("default", "max-autotune-no-cudagraphs")]
        yield Grid(implementation=("triton",), options=strategies, **shape)
        yield Grid(implementation=("reference",), products=("ieee", "tf32", "bf16"), **shape)
        yield Grid(implementation=("compiled",), products=("bf16",), options=modes, **shape)
        yield Grid(implementation=("gram", "chunked"), products=("tf32",), **shape)


SUITES: dict[str, tuple[Grid, ...]] = {
    "smoke": (
        Grid(
            implementation=("reference",),
            layouts=((32, 1, "local"), (32, 2, "gather")),
            dim=(128,),
            dtype=("float32", "bfloat16"),
            pass_=("step", "forward_grad", "forward"),
        ),
    ),
    "efficiency": (
        Grid(PUBLISHED, ("reference", "auto"), layouts=(LOCAL, GATHERED)),
        Grid(("smi",), ("auto",), layouts=(LOCAL,), variants=ABLATION),
    ),
    "scaling": (
        Grid(
            layouts=tuple((batch, 1, "local") for batch in (64, 256, 1024)),
            dim=(512, 2048, 8192),
            pass_=("step", "forward_grad", "forward"),
        ),
    ),
    "implementations": (
        Grid(layouts=((256, 1, "local"), (1024, 1, "local"))),
        Grid(("smi",), ("reference", "gram"), variants=ABLATION),
        Grid(layouts=((8192, 1, "local"),), dim=(512,)),
    ),
    "distributed": (
        Grid(PUBLISHED, ("auto",), layouts=tuple((256, 8, way) for way in losses.DISTRIBUTIONS)),
    ),
    "gpu": (
        *_correctness(),
        *(grid for batch, dim in GPU_SHAPES for grid in _contenders(batch, dim)),
    ),
}
PAIRED = ("gpu",)
"""Suites that are there to be compared: timed in pairs, with errors, without being asked."""


def suite(name: str) -> tuple[Grid, ...]:
    """The grids of a suite by its name.

    Raises:
        ValueError: unknown name; the known ones are listed.
    """
    return SUITES[pick("suite", name, SUITES)]
