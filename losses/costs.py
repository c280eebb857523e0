"""What a loss costs on paper: exact counts, the same on every machine.

Only matrix products are counted (as fvcore and ``FlopCounterMode`` do): they are the terms in
N^2 D or N D^2. One MAC is one multiply-add, that is two FLOPs; the published tables call a MAC a
"flop", so every column of ours names its unit.
"""

from dataclasses import dataclass

from lossbench.losses.naming import pick

PASSES = ("forward", "forward_grad", "step")
"""``forward``: no gradient; ``forward_grad``: graph kept; ``step``: fresh forward and backward."""


@dataclass(frozen=True)
class Problem:
    """The batch that one evaluation of a loss sees.

    Attributes:
        batch: samples, N.
        dim: embedding dimension, D.
        views: number of views, V.
        element_bytes: bytes of an element of the dtype that the loss is computed in.
        device: type of the device, such as "cpu": it decides how work is cut up.
    """

    batch: int
    dim: int
    views: int = 2
    element_bytes: int = 4
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch", "dim", "views", "element_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Cost:
    """Counts of one evaluation of a loss on one batch of N x D views.

    Attributes:
        forward_macs: multiply-adds of the matrix products in the forward pass.
        backward_macs: multiply-adds of the matrix products of the gradient, for every view.
        off_diagonal_entries: pairs the loss pushes apart, as its paper counts them.
        peak_elements: elements that a step holds at most beyond its inputs, to about a third:
            enough to tell what fits.
        gradient_in_forward: the gradient is computed by the forward pass, if one is asked for.
        recomputed_macs: of a step, those done a second time to save memory, not counted above.
        padding_macs: of a step, those on what fills up tiles, not counted above.
        tile_side: side of the tiles that the batch is cut up into, 0 for none.
    """

    forward_macs: int
    backward_macs: int
    off_diagonal_entries: int
    peak_elements: int
    gradient_in_forward: bool = False
    recomputed_macs: int = 0
    padding_macs: int = 0
    tile_side: int = 0

    def macs(self, pass_: str) -> int:
        """Multiply-adds of one of ``PASSES``."""
        pick("pass", pass_, PASSES)
        if pass_ == "forward" or (pass_ == "forward_grad" and not self.gradient_in_forward):
            return self.forward_macs
        return self.forward_macs + self.backward_macs

    def flops(self, pass_: str) -> int:
        """Floating-point operations of one of ``PASSES``: two for each multiply-add."""
        return 2 * self.macs(pass_)


@dataclass(frozen=True)
class Exchange:
    """A data-parallel job, as far as communication depends on it.

    Attributes:
        batch: samples per device, N.
        dim: embedding dimension, D.
        world: number of devices, W.
        element_bytes: bytes of one element, b.
        pass_: one of ``PASSES``.
        views: number of views, V.
    """

    batch: int
    dim: int
    world: int
    element_bytes: int
    pass_: str
    views: int = 2

    def __post_init__(self) -> None:
        pick("pass", self.pass_, PASSES)


def all_gather_bytes(job: Exchange) -> int:
    """Bytes each device receives when every view is gathered from every device (ring algorithm).

    Returns:
        ``(W - 1) N D V b``, doubled for ``step``: the gather is differentiable, so the backward
        pass is a reduce-scatter of the same size.
    """
    received = (job.world - 1) * job.batch * job.dim * job.views * job.element_bytes
    return received * (2 if job.pass_ == "step" else 1)


def all_reduce_bytes(job: Exchange, elements: int) -> int:
    """Bytes each device moves to add up ``elements`` over all devices: ``2 (W - 1) / W n b``."""
    return round(2 * (job.world - 1) * elements * job.element_bytes / job.world)


def no_exchange(job: Exchange) -> int:
    """A loss of each device's own samples: nothing is communicated."""
    return 0
