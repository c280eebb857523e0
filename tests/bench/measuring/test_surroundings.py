"""What surrounds a loss: one that works within all of it, and for each check one that does not."""

import pytest
import torch

from lossbench import losses
from lossbench.bench.measuring.surroundings import CHECKS, check


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(1)
    z_a, z_b = (torch.randn(8, 16, generator=generator) for _ in "ab")
    return z_a, z_b


def plain(z_a, z_b):
    return (z_a.float() - z_b.float()).square().mean()


def breaks_the_graph(z_a, z_b):
    return plain(z_a, z_b) * (1.0 if plain(z_a, z_b).item() > 0 else 2.0)


def follows_autocast(z_a, z_b):
    return (z_a.float() @ z_b.float().T).float().square().mean()


class CountsCalls:
    """Its second call in a step, which recomputes the first, gives something else."""

    def __init__(self):
        self.calls = 0

    def __call__(self, z_a, z_b):
        self.calls += 1
        return plain(z_a, z_b * (1.0 if self.calls < 3 else 1.5))


def test_losses_work_within_all_of_it(views):
    """But a CUDA graph, which takes a GPU."""
    expected = [name for name in CHECKS if name != "CUDA graph"]
    found = check(losses.create("smi"), views)
    assert found == {"works_within": ", ".join(expected)}


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (breaks_the_graph, "torch.compile: "),
        (follows_autocast, "autocast: value or gradient differ by "),
    ],
)
def test_what_a_loss_does_not_work_within_is_named(views, loss, named):
    found = check(loss, views)
    assert found["status"] == "invalid"
    assert found["reason"].startswith(named)
    assert named.partition(":")[0] not in found["works_within"].split(", ")


def test_what_is_recomputed_must_be_the_same(views):
    assert CHECKS["checkpoint"](plain, views) == 0
    assert CHECKS["checkpoint"](CountsCalls(), views) > 0.1


def test_gradients_must_pass_through_data_parallel_training(views):
    class Forgets(torch.autograd.Function):
        """Its second backward pass gives another gradient."""

        passes = 0

        @staticmethod
        def forward(ctx, z):
            return z.clone()

        @staticmethod
        def backward(ctx, gradient):
            Forgets.passes += 1
            return gradient * Forgets.passes

    assert CHECKS["DDP"](plain, views) == 0
    assert CHECKS["DDP"](lambda z_a, z_b: plain(Forgets.apply(z_a), z_b), views) > 0.1
