"""Named grids of cases, most important first."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        stage: of a suite that has several.
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
    stage: str = ""

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
                        stage=self.stage,
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

CHECK, USE, HEADLINE, REST, LAST = "check", "use", "headline", "rest", "last"
"""Stages of the gpu suite, each worth having alone. Cases of different stages are timed apart, so
that none waits for a later one."""
ALONE = (CHECK, USE)
"""Stages whose cases are right or wrong: they are not timed in turn."""
HEADLINE_SHAPES = ((2048, 8192), (65536, 1024), (256, 8192))
"""N and D: where kernels should tell most, where eager code does not fit, the published shape."""
GPU_SHAPES = (*HEADLINE_SHAPES, (4096, 8192), (16384, 2048), (65536, 768))
STRATEGIES = tuple({"strategy": name} for name in ("fused", "cublas", "split"))


def _checks() -> Iterator[Grid]:
    """Every loss by kernels: on a ragged batch, in each dtype, by each strategy.

    Then on a batch whose Gram is swept twice, as there is no room to keep its gradient; and as
    users call a loss, within what may surround it.
    """
    dtypes = ("float32", "bfloat16", "float16")
    small, swept = ((300, 1, "local"),), ((4200, 1, "local"),)
    kernels = ("triton",)
    yield Grid((), kernels, small, (1000,), dtypes, options=STRATEGIES, stage=CHECK)
    yield Grid((), kernels, swept, (100,), ("bfloat16",), options=STRATEGIES, stage=CHECK)
    yield Grid((), kernels, small, (1000,), ("bfloat16",), stage=USE)


def _ways(shape: tuple[int, int], pass_: str) -> dict[str, tuple[Grid, ...]]:
    """SMI of bf16 embeddings by every way to compute it, by what is to be known of a shape."""
    batch, dim = shape
    common: dict[str, Any] = {
        "loss": ("smi",),
        "layouts": ((batch, 1, "local"),),
        "dim": (dim,),
        "dtype": ("bfloat16",),
        "pass_": (pass_,),
    }
    default, tuned = ({"mode": name} for name in ("default", "max-autotune-no-cudagraphs"))
    return {
        "first": (
            Grid(implementation=("triton",), options=STRATEGIES, **common),
            Grid(implementation=("reference",), products=("bf16", "tf32"), **common),
            Grid(implementation=("compiled",), products=("bf16",), options=(default,), **common),
        ),
        "more": (
            Grid(implementation=("reference",), products=("ieee",), **common),
            Grid(implementation=("gram", "chunked"), products=("tf32",), **common),
        ),
        # beside the kernels as they are called: they are timed in turn
        "tuned": (
            Grid(implementation=("triton",), **common),
            Grid(implementation=("compiled",), products=("bf16",), options=(tuned,), **common),
        ),
    }


def _timed() -> Iterator[Grid]:
    """What is timed of SMI: the headline, then all else, what takes minutes to compile last."""
    later: list[Grid] = []
    last: list[Grid] = []
    for pass_, shape in itertools.product(("step", "forward"), GPU_SHAPES):
        ways = _ways(shape, pass_)
        is_headline = pass_ == "step" and shape in HEADLINE_SHAPES
        yield from _staged(HEADLINE, ways["first"] if is_headline else ())
        later += _staged(REST, () if is_headline else (*ways["first"], *ways["more"]))
        last += _staged(LAST, (*(ways["more"] if is_headline else ()), *ways["tuned"]))
    yield from (*later, *last)


def _staged(stage: str, grids: Sequence[Grid]) -> list[Grid]:
    return [replace(grid, stage=stage) for grid in grids]


def _of_stages(*stages: str) -> tuple[Grid, ...]:
    return tuple(grid for grid in (*_checks(), *_timed()) if grid.stage in stages)


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
    "gpu-check": _of_stages(CHECK, USE),
    "gpu-headline": _of_stages(HEADLINE),
    "gpu": _of_stages(CHECK, USE, HEADLINE, REST, LAST),
}
PAIRED = ("gpu-check", "gpu-headline", "gpu")
"""Suites that are there to be compared: timed in pairs, with errors, without being asked."""


def suite(name: str) -> tuple[Grid, ...]:
    """The grids of a suite by its name.

    Raises:
        ValueError: unknown name; the known ones are listed.
    """
    return SUITES[pick("suite", name, SUITES)]
