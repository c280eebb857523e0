"""Choose tile sizes and strategies on the GPU at hand, for the table that the kernels read."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from lossbench.bench.measuring.timing import make_timer
from lossbench.kernels import configs
from lossbench.kernels.configs import Config
from lossbench.kernels.engine import sum_pairs
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.plan import layout
from lossbench.kernels.smi import information_entry

KINDS = {"16-bit": torch.float16, "tf32": torch.float32, "ieee": torch.float32}
TILES = {
    "block": (64, 128),
    "step": (32, 64),
    "warps": (4, 8),
    "stages": (2, 3, 4),
    "group": (4, 8, 16),
}
FINISH = {"finish_block": (32, 64, 128), "finish_warps": (4, 8)}
SIDES = {"side": (2048, 4096, 8192), "product_side": (1024, 2048, 4096)}
DEPTHS = (256, 512, 1024, 2048, 4096, 8192)
BATCH, DEPTH = 2048, 1024
"""What tiles are timed on; super-blocks on four times the batch."""
SAMPLES = 5

Time = Callable[[Config, str, str, int, int], float]
"""``time(config, kind, strategy, batch, depth)`` -> milliseconds, inf where it cannot run."""


def tune(start: dict[str, Config], time: Time) -> Iterator[tuple[str, Config]]:
    """The fastest configuration of each kind of operands.

    Args:
        start: the configurations so far, by kind.
        time: what says how long one takes.
    """
    for kind, config in start.items():
        for axes, strategy, batch in (
            (TILES, "fused", BATCH),
            (FINISH, "cublas", BATCH),
            (SIDES, "cublas", 4 * BATCH),
        ):
            config = _best(config, axes, partial(_cost, time, kind, strategy, batch))
        yield kind, replace(config, fused_up_to=_fused_up_to(config, kind, time))


def _cost(time: Time, kind: str, strategy: str, batch: int, config: Config) -> float:
    return time(config, kind, strategy, batch, DEPTH)


def _best(config: Config, axes: Mapping[str, Sequence[int]], cost: Callable[..., float]) -> Config:
    """The fastest of all combinations; the first of equals."""
    choices = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    timed = [(cost(config), config)]
    for choice in choices:
        try:
            candidate = replace(config, **choice)
        except ValueError:  # sides that do not fit together
            continue
        timed.append((cost(candidate), candidate))
    least, best = min(timed, key=lambda each: each[0])
    if least == float("inf"):
        raise RuntimeError(f"no tile of {choices} runs on this GPU")
    return best


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
    z = torch.randn(2 * batch, depth, device="cuda").to(KINDS[kind])
    precision = "tf32" if kind == "tf32" else "ieee"
    from triton.runtime.errors import OutOfResources

    epilogue = Epilogue(entry=information_entry, p0=1e-6, narrow=KINDS[kind])
    timer = make_timer("cuda")
    with configs.using(config):
        renorm = torch.full((2 * batch,), depth**-0.5, device="cuda")
        gram = Gram(z, renorm, layout((batch, depth)), strategy, precision)

        def call() -> tuple[torch.Tensor, ...]:
            return (sum_pairs(gram, epilogue, needs_grad=True)[0],)

        try:
            call()
        except OutOfResources:  # a tile that does not fit on this GPU
            return float("inf")
        return median(timer(call)[0] for _ in range(SAMPLES))


def write(capability: str, tuned: dict[str, Config], made_by: str) -> None:
    """Put an architecture's configurations into the table."""
    content: dict[str, Any] = json.loads(configs.TABLE.read_text())
    content["made_by"][capability] = made_by
    content["configurations"][capability] = {kind: asdict(c) for kind, c in tuned.items()}
    configs.TABLE.write_text(json.dumps(content, indent=1) + "\n")
    configs.table.cache_clear()
