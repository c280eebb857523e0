"""What the fused kernels cost: the algorithm's multiply-adds, and apart what they waste."""

import torch

from lossbench.kernels import configs
from lossbench.kernels.plan import Layout
from lossbench.losses import Cost, Problem, spec

SIDE = max(config.side for kinds in configs.table().values() for config in kinds.values())
"""Of the super-blocks of any configuration, at most."""


def gram_cost(
    loss: str, problem: Problem, grams: list[Layout], recompute: bool = False, at_once: int = 1
) -> Cost:
    """Counts of the sweep over the Grams of a loss.

    Args:
        loss: its name.
        problem: the batch.
        grams: layouts of its Grams; all are alive at once.
        recompute: the backward pass makes the tiles again.
        at_once: Grams whose tiles a program makes.
    """
    forward = sum(gram.macs for gram in grams)
    tiles = sum(_tile_entries(gram, at_once) * gram.depth for gram in grams)
    products = sum(
        (2 if gram.both else gram.views**2) * gram.rows**2 * gram.depth for gram in grams
    )
    keeps = all(gram.keeps for gram in grams)
    rows = sum(gram.views * gram.rows * gram.depth for gram in grams)
    held = sum(min(gram.gram.down, gram.gram.down if keeps else SIDE) ** 2 for gram in grams)
    return Cost(
        forward_macs=forward,
        backward_macs=2 * forward,
        off_diagonal_entries=spec(loss).cost("reference", problem).off_diagonal_entries,
        peak_elements=3 * rows + held,
        gradient_in_forward=not keeps and not recompute,
        recomputed_macs=tiles if recompute else 0,
        padding_macs=tiles + products - 3 * forward,
        # a view longer by one super-block: where the other begins, blocks are cut as before
        tile_side=SIDE,
    )


def _tile_entries(gram: Layout, at_once: int) -> int:
    """Entries of the tiles of the Gram, by ``configs.COUNTED`` and for operands of 16 bits."""
    config = configs.lookup(torch.device("cpu"), "16-bit").of_operands(at_once)
    return gram.gram.tiles(config.rows, config.columns) * config.rows * config.columns
