"""What the ranks of ``test_distributed.py`` run: all cases in one job, results in a file each."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from embeddings import eager, random_views
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from lossbench import losses
from lossbench.losses.collectives import World
from lossbench.losses.distributed import distribute, distributions

INPUTS = 7
"""Width of what the small model of the end-to-end cases is given."""
SUBGROUP = (1, 3)
"""Ranks of the cases that leave some ranks out."""


@dataclass(frozen=True)
class Case:
    """A loss of ``batch`` samples on each rank."""

    loss: str
    distribution: str
    implementation: str = "reference"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    batch: int = 5
    dim: int = 16
    views: int = 2
    dtype: torch.dtype = torch.float64
    pass_: str = "step"

    def __str__(self) -> str:
        settings = "-".join(f"{key}={value}" for key, value in self.hyperparameters.items())
        shape = f"{self.views}x{self.batch}x{self.dim}"
        parts = (self.loss, self.distribution, self.implementation, shape, settings)
        return "-".join([*filter(None, parts), str(self.dtype)[6:], self.pass_])

    def create(self) -> losses.Loss:
        return losses.create(self.loss, self.implementation, **self.hyperparameters)


VARIANTS = [
    ("smi", {"reduction": "sum"}, 2),
    ("smi", {"dependency": "squared_correlation", "target": 0.7}, 2),
    ("smi", {"dependency": "correlation", "lambda_": 2.0}, 2),
    ("smi", {}, 3),
    ("smi", {"reduction": "sum"}, 3),
    ("nt_xent", {"temperature": 0.02}, 2),
    ("nt_xent", {"temperature": 2.0}, 2),
    ("spectral_contrastive", {"mu": 16.0, "per_mu": True}, 2),
    ("barlow_twins", {"lambda_": 0.5, "eps": 0.1}, 2),
    ("vicreg", {"invariance": 2.0, "variance": 3.0, "covariance": 5.0, "eps": 0.1}, 2),
]
"""Hyperparameters other than as published, and numbers of views."""

SHAPES = ((5, 16), (9, 6))
"""Fewer samples than features on all ranks of a pair, and more."""


def cases() -> list[Case]:
    """Every loss in every way it can be distributed, at two shapes; then the variants."""
    found = []
    for name in losses.names():
        for distribution in distributions(name):
            ways = eager(name) if distribution == "gather" else ["reference"]
            found += [
                Case(name, distribution, way, batch=batch, dim=dim)
                for way in ways
                for batch, dim in SHAPES
            ]
    for name, settings, views in VARIANTS:
        found += [
            Case(name, distribution, hyperparameters=settings, views=views)
            for distribution in distributions(name)
            if distribution != "local"
        ]
    return found


def byte_cases() -> list[Case]:
    """Of the same, each pass and some dtypes, for what is communicated."""
    return [
        Case(name, distribution, dtype=dtype, pass_=pass_)
        for name in losses.names()
        for distribution in distributions(name)
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
        if dtype.itemsize > 2 or distribution == "gather"  # the others send fp32 or wider
        for pass_ in losses.PASSES
    ] + [Case("smi", each, views=3) for each in ("gather", "gram")]


def refused_cases() -> dict[str, list[list[tuple[tuple[int, ...], torch.dtype]]]]:
    """Name -> shapes and dtypes of the views of rank 0, and of all others."""
    good = ((4, 3), torch.float64)
    return {
        "batches": [[good, good], [((5, 3), good[1])] * 2],
        "features": [[good, good], [((4, 2), good[1])] * 2],
        "dtypes": [[good, good], [((4, 3), torch.float32)] * 2],
        "counts": [[good, good], [good] * 3],
        "one_sample": [[good, good], [((1, 3), good[1])] * 2],
        "two_shapes_on_one_rank": [[good, ((3, 3), good[1])], [good, good]],
        "no_views": [[], [good, good]],
    }


def global_views(case: Case, world: int) -> list[torch.Tensor]:
    """Views of the samples of all ranks; each rank's have a mean and a scale of their own."""
    views = random_views(world * case.batch, case.dim, case.views, seed=case.dim)
    place = torch.linspace(-1, 1, world * case.batch, dtype=torch.float64)[:, None]
    scale = torch.linspace(0.4, 1.5, case.dim, dtype=torch.float64)
    return [(view * (1.3 + place / 2) * scale + place).to(case.dtype) for view in views]


def inputs(case: Case, world: int) -> list[torch.Tensor]:
    """What the model makes the embeddings of."""
    return random_views(world * case.batch, INPUTS, case.views, seed=11)


def model(case: Case) -> nn.Module:
    """A layer with the same weights on every rank."""
    torch.manual_seed(3)
    return nn.Linear(INPUTS, case.dim, dtype=torch.float64)


class CommunicatedBytes(TorchDispatchMode):
    """Bytes that collectives of floating point move on each rank, by ring algorithms.

    The facts that ranks agree on before they start are integers.
    """

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world = world
        self.bytes = 0.0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace == "c10d":
            self.bytes += self._moved(operation.__name__.split(".")[0], *args[:2])
        return operation(*args, **(kwargs or {}))

    def _moved(self, name, first, second):
        others = self.world - 1
        if name == "allreduce_":
            return sum(2 * others / self.world * _size(each) for each in first)
        if name == "_allgather_base_":
            return others * _size(second)
        if name == "_reduce_scatter_base_":
            return others * _size(first)
        raise AssertionError(f"{name} is not counted")


def _size(tensor):
    return tensor.nbytes if tensor.is_floating_point() else 0


def start(world: int, folder: Path) -> list[dict[str, dict[str, Any]]]:
    """Run all cases on ``world`` processes; for each rank, the results by kind and case."""
    multiprocessing.spawn(_rank, (world, folder), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    results = {
        "exact": {str(case): _evaluate(case, rank, world) for case in cases()},
        "bytes": {str(case): _evaluate(case, rank, world)["bytes"] for case in byte_cases()},
        "end_to_end": {str(case): _train(case, rank, world) for case in cases()},
        "refused": {name: _refused(views[rank > 0]) for name, views in refused_cases().items()},
    }
    if world > max(SUBGROUP):
        group = dist.new_group(list(SUBGROUP))  # every rank must call it
        if rank in SUBGROUP:
            place = SUBGROUP.index(rank)
            results["subgroup"] = {
                str(case): _evaluate(case, place, len(SUBGROUP), group) for case in cases()
            }
        else:
            results["outside"] = _outside(group)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def _own(views: list[torch.Tensor], batch: int, rank: int) -> list[torch.Tensor]:
    return [view[rank * batch : (rank + 1) * batch] for view in views]


def _evaluate(case: Case, rank: int, world: int, group: Any = None) -> dict[str, Any]:
    """Value and gradients of this rank's views, and what was communicated."""
    step = case.pass_ == "step"
    views = [view.clone() for view in _own(global_views(case, world), case.batch, rank)]
    leaves = [view.requires_grad_(case.pass_ != "forward") for view in views]
    loss = distribute(case.create(), case.distribution, World(group))
    with CommunicatedBytes(world) as count:
        value = loss(*leaves)
        gradients = torch.autograd.grad(value, leaves) if step else []
    return {"value": value.detach(), "gradients": list(gradients), "bytes": count.bytes}


def _train(case: Case, rank: int, world: int) -> list[torch.Tensor]:
    """Gradients of the parameters, as DDP averages them."""
    parallel = DistributedDataParallel(model(case))
    own = _own(inputs(case, world), case.batch, rank)
    embeddings = parallel(torch.cat(own)).chunk(case.views)
    distribute(case.create(), case.distribution)(*embeddings).backward()
    return [parameter.grad for parameter in parallel.parameters()]


def _outside(group: Any) -> str:
    """What a rank is told that is not in the group."""
    try:
        distribute(losses.create("smi"), "gram", World(group))
    except ValueError as error:
        return str(error)
    return ""


def _refused(views: list[tuple[tuple[int, ...], torch.dtype]]) -> dict[str, str]:
    """What each distribution says to views that do not fit together."""
    said = {}
    for distribution in ("gather", "gram"):
        loss = distribute(losses.create("smi"), distribution)
        try:
            loss(*(torch.ones(shape, dtype=dtype) for shape, dtype in views))
        except ValueError as error:
            said[distribution] = str(error)
    return said
