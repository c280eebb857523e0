"""What a loss costs on paper: exact counts, the same on every machine.

Only matrix products are counted (as fvcore and ``FlopCounterMode`` do): they are the terms in
N^2 D or N D^2. One MAC is one multiply-add, that is two FLOPs; the published tables call a MAC a
"flop", so every column of ours names its unit.
"""

from dataclasses import dataclass

from losses.naming import pick

PASSES = ("forward", "forward_grad", "step")
"""``forward``: no gradient; ``forward_grad``: graph kept; ``step``: fresh forward and backward."""


@dataclass(frozen=True)
class Cost:
    """Counts of one evaluation of a loss on one batch of N x D views.

    Attributes:
        forward_macs: multiply-adds of the matrix products in the forward pass.
        backward_macs: multiply-adds of the matrix products in the backward pass, with a gradient
            for every view.
        off_diagonal_entries: pairs the loss pushes apart, as its paper counts them.
    """

    forward_macs: int
    backward_macs: int
    off_diagonal_entries: int

    def macs(self, pass_: str) -> int:
        """Multiply-adds of one of ``PASSES``."""
        pick("pass", pass_, PASSES)
        return self.forward_macs + (self.backward_macs if pass_ == "step" else 0)

    def flops(self, pass_: str) -> int:
        """Floating-point operations of one of ``PASSES``: two for each multiply-add."""
        return 2 * self.macs(pass_)


def all_gather_bytes(
    batch: int, dim: int, views: int, world: int, element_bytes: int, pass_: str
) -> int:
    """Bytes each device receives when every view is gathered from every device (ring algorithm).

    The gather is differentiable, so a ``step`` pays for it again as a reduce-scatter.

    Args:
        batch: samples per device, N.
        dim: embedding dimension, D.
        views: number of views, V.
        world: number of devices, W.
        element_bytes: bytes of one element.
        pass_: one of ``PASSES``.

    Returns:
        ``(W - 1) N D V b``, doubled for ``step``.
    """
    pick("pass", pass_, PASSES)
    received = (world - 1) * batch * dim * views * element_bytes
    return received * (2 if pass_ == "step" else 1)
