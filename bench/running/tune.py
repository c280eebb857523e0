"""Choose tile sizes and strategies on the GPU at hand, for the table that the kernels read."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch

from lossbench.bench.measuring.timing import make_timer
from lossbench.kernels import configs
from lossbench.kernels.configs import Config
from lossbench.kernels.engine import sum_pairs
from lossbench.kernels.gram import Gram
from lossbench.kernels.pair_sum import LOSSES
from lossbench.kernels.plan import layout

KINDS = {"16-bit": torch.float16, "tf32": torch.float32, "ieee": torch.float32}
BATCH, DEPTH = 2048, 1024
"""What tiles are timed on; super-blocks on four times the batch."""
AXES: dict[str, tuple[Sequence[Any], str, int]] = {
    "rows": ((64, 128), "fused", BATCH),
    "columns": ((64, 128, 256), "fused", BATCH),
    "warps": ((4, 8), "fused", BATCH),
    "described": ((False, True), "fused", BATCH),
    "step": ((32, 64, 128), "fused", BATCH),
    "stages": ((2, 3, 4), "fused", BATCH),
    "strip": ((32, 64, 128), "fused", BATCH),
    "finish_warps": ((4, 8), "cublas", BATCH),
    "side": ((2048, 4096, 8192), "cublas", 4 * BATCH),
    "product_side": ((1024, 2048, 4096), "cublas", 4 * BATCH),
}
"""Settings with their values, and the strategy and batch that tell which is fastest."""
BETTER = 0.98
"""Share of the time that a setting must stay below to be taken instead."""
DEPTHS = (256, 512, 1024, 2048, 4096, 8192)
SAMPLES = 5

Time = Callable[[Config, str, str, int, int], float]
"""``time(config, kind, strategy, batch, depth)`` -> milliseconds, inf where it cannot run."""


def tune(
    start: dict[str, Config], time: Time, left_s: Callable[[], float]
) -> Iterator[tuple[str, Config]]:
    """Better and better configurations of each kind of operands, the last of each kind the best.

    One setting after the other is changed where that is faster, until none is or the kind's share
    of the time is over: all combinations would take hours to compile.

    Args:
        start: the configurations so far, by kind.
        time: what says how long one takes.
        left_s: seconds that are left.

    Raises:
        RuntimeError: nothing that was tried runs.
    """
    for number, (kind, config) in enumerate(start.items()):
        end_s = left_s() * (1 - 1 / (len(start) - number))
        search = _Search(kind, time, lambda end_s=end_s: left_s() > end_s)  # type: ignore[misc]
        best = config
        for best in search.improve(config):
            yield kind, best
        if search.cost(best, "rows") == float("inf"):
            raise RuntimeError(f"no {kind} tile that was tried runs on this GPU")
        yield kind, replace(best, fused_up_to=_fused_up_to(best, kind, time))


class _Search:
    """Looks for the fastest configuration of a kind; nothing is timed twice."""

    def __init__(self, kind: str, time: Time, may_go: Callable[[], bool]) -> None:
        self._kind, self._time, self._may_go = kind, time, may_go
        self._known: dict[tuple[Config, str, int], float] = {}

    def improve(self, config: Config) -> Iterator[Config]:
        """Configurations, each faster than the one before."""
        before = None
        while config != before:
            before = config
            for name, value in ((name, v) for name, axis in AXES.items() for v in axis[0]):
                if not self._may_go():
                    return
                candidate = _changed(config, name, value)
                if candidate and self.cost(candidate, name) < BETTER * self.cost(config, name):
                    config = candidate
                    yield config

    def cost(self, config: Config, name: str) -> float:
        """Milliseconds by which a setting is chosen."""
        _, strategy, batch = AXES[name]
        key = config, strategy, batch
        if key not in self._known:
            self._known[key] = self._time(config, self._kind, strategy, batch, DEPTH)
        return self._known[key]


def _changed(config: Config, name: str, value: Any) -> Config | None:
    """None where sides do not fit together."""
    try:
        return replace(config, **{name: value})
    except ValueError:
        return None


def _fused_up_to(config: Config, kind: str, time: Time) -> int:
    """The largest depth up to which fused tiles are never slower than the library's and a pass."""
    found = 0
    for depth in DEPTHS:
        if time(config, kind, "fused", BATCH, depth) > time(config, kind, "cublas", BATCH, depth):
            break
        found = depth
    return found


def measure(config: Config, kind: str, strategy: str, batch: int, depth: int) -> float:
    """Milliseconds of a forward pass with its gradient on this GPU."""
    from triton.compiler import CompilationError
    from triton.runtime.errors import OutOfResources

    timer = make_timer("cuda")
    with configs.using(config):
        call = sweep(kind, strategy, batch, depth, "cuda")
        try:
            call()
        except (OutOfResources, CompilationError, RuntimeError):  # not for this GPU
            return float("inf")
        return median(timer(call)[0] for _ in range(SAMPLES))


def sweep(
    kind: str, strategy: str, batch: int, depth: int, device: str
) -> Callable[[], tuple[torch.Tensor, ...]]:
    """SMI's pass over the Gram, with its gradient, as the loss makes it of normalised rows."""
    dtype = KINDS[kind]
    z = torch.randn(2 * batch, depth, device=device).to(dtype)
    renorm = torch.full((2 * batch,), depth**-0.5, device=device)
    mean = torch.zeros(2, depth, device=device) if dtype.itemsize == 2 else None
    precision = "tf32" if kind == "tf32" else "ieee"
    gram = Gram(z, renorm, layout((batch, depth)), strategy, precision, mean)
    epilogue = LOSSES["smi_mutual_information"].epilogue(1e-6, 0.0)
    return lambda: (sum_pairs(gram, epilogue, needs_grad=True)[0],)


def write(capability: str, tuned: dict[str, Config], made_by: str) -> None:
    """Put an architecture's configurations into the table."""
    content: dict[str, Any] = json.loads(configs.TABLE.read_text())
    content["made_by"][capability] = made_by
    content["configurations"][capability] = {kind: asdict(c) for kind, c in tuned.items()}
    configs.TABLE.write_text(json.dumps(content, indent=1) + "\n")
    configs.table.cache_clear()
