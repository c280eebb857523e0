"""Peak memory: known allocations are seen to the byte, inputs and the past are not."""

import torch

from lossbench import losses
from lossbench.bench.cases.calls import make_call
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring.memory import peak_bytes

KB = 1024


def test_peak_is_the_most_that_was_alive_at_once():
    def call() -> torch.Tensor:
        first = torch.empty(100 * KB, dtype=torch.uint8)
        second = torch.empty(200 * KB, dtype=torch.uint8)
        del first
        third = torch.empty(50 * KB, dtype=torch.uint8)
        del second
        return third

    assert peak_bytes(call, "cpu") == 300 * KB


def test_what_was_live_before_does_not_count():
    held = torch.ones(1000 * KB, dtype=torch.uint8)

    def call() -> torch.Tensor:
        nonlocal held
        held = held[:1].clone()
        return torch.empty(10 * KB, dtype=torch.uint8)

    # freeing an earlier tensor must not hide ten kilobytes of new ones
    assert 10 * KB <= peak_bytes(call, "cpu") <= 10 * KB + 64


def test_peak_is_repeatable_and_holds_the_matrices():
    batch, dim = 16, 256
    case = Case("barlow_twins", batch=batch, dim=dim)
    peaks = {
        peak_bytes(make_call(losses.create("barlow_twins"), make_inputs(case), "step"), "cpu")
        for _ in range(3)
    }
    assert len(peaks) == 1
    # at least C and its gradient (D x D), and the gradients of both views
    assert peaks.pop() >= 4 * (2 * dim**2 + 2 * batch * dim)
