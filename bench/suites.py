"""Named grids of cases, most important first."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import losses
from bench.case import Case
from losses import pick

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

    def cases(self) -> Iterator[Case]:
        """The cases of this grid.

        Raises:
            ValueError: a value that no case accepts.
        """
        axes = (self.pass_, self.layouts, self.dim, self.dtype, self.loss or losses.names())
        for pass_, (batch, world, distribution), dim, dtype, loss in itertools.product(*axes):
            implementations = _implementations(loss, self)
            settings = self.variants.get(loss, ({},))
            for implementation, setting in itertools.product(implementations, settings):
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
                )


def _implementations(loss: str, grid: Grid) -> list[str]:
    """Those that are asked for and that the loss has, or that no loss of the grid has."""
    spec = losses.spec(loss)
    if not grid.implementation:
        cuda = grid.device == "cuda"
        return [name for name in spec.implementations if cuda or name not in spec.fused]
    specs = [losses.spec(each) for each in grid.loss or losses.names()]
    known = {name for each in specs for name in each.implementations}
    return [n for n in grid.implementation if n in spec.implementations or n not in known]


PUBLISHED = ("barlow_twins", "nt_xent", "smi", "vicreg")
"""The losses of the published table."""
ABLATION = {"smi": [{"dependency": "squared_correlation"}, {"dependency": "correlation"}]}
"""SMI without its logarithm, the ablation that the paper's reviewer asked for."""

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
}


def suite(name: str) -> tuple[Grid, ...]:
    """The grids of a suite by its name.

    Raises:
        ValueError: unknown name; the known ones are listed.
    """
    return SUITES[pick("suite", name, SUITES)]
