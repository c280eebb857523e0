"""Tiles so small that small batches have several, ragged."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest import mock

from lossbench.kernels.configs import Config, using

SMALL = Config(
    rows=16,
    columns=32,
    step=16,
    warps=4,
    stages=2,
    described=False,
    strip=16,
    finish_warps=4,
    side=64,
    product_side=64,
    fused_up_to=10**6,
    processors=7,
)
WIDE = replace(SMALL, rows=32, columns=64)
"""Tiles of two strips by four: as on Hopper, no strip is as high as a tile."""
FUSED = [
    ("barlow_twins", {}),
    ("nt_xent", {}),
    ("smi", {}),
    ("smi", {"dependency": "squared_correlation"}),
    ("smi", {"dependency": "correlation", "reduction": "sum", "target": 0.5}),
    ("spectral_contrastive", {}),
    ("spectral_contrastive", {"mu": 30.0, "per_mu": True}),
    ("vicreg", {}),
]
"""Every loss that has kernels, with settings that choose among them."""


@contextmanager
def small_tiles(keeps: bool = True, config: Config = SMALL) -> Iterator[None]:
    """Small tiles; without ``keeps`` in several super-blocks, whose gradients are not kept."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("lossbench.kernels.plan.ROW_MULTIPLE", config.rows))
        stack.enter_context(mock.patch("lossbench.kernels.plan.COLUMN_MULTIPLE", config.columns))
        stack.enter_context(mock.patch("lossbench.kernels.plan.DEPTH_MULTIPLE", config.step))
        stack.enter_context(mock.patch("lossbench.kernels.plan.KEPT_SIDE", 10**6 if keeps else 0))
        stack.enter_context(using(config))
        stack.enter_context(mock.patch("lossbench.kernels.rows.CHUNK", 64))
        yield
