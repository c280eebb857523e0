"""Timing: what is run and kept, never how long it takes."""

import os
import subprocess
import sys
import time

import pytest
import torch

from lossbench import losses
from lossbench.bench.cases.calls import make_call
from lossbench.bench.comparing.paired import time_ratio
from lossbench.bench.measuring import timing
from lossbench.bench.measuring.timing import (
    enough,
    enough_of_a_moment,
    few_enough,
    has_further_moments,
    sample_ms,
    summarise,
)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(6, 5, generator=generator) for _ in "ab")


def test_step_returns_value_and_gradients_of_both_views(views):
    loss = losses.create("vicreg")
    value, *gradients = make_call(loss, views, "step")()
    leaves = [view.clone().requires_grad_() for view in views]
    expected = loss(*leaves)
    expected.backward()
    assert torch.equal(value, expected)
    assert all(torch.equal(g, leaf.grad) for g, leaf in zip(gradients, leaves, strict=True))


def test_forward_keeps_no_graph_and_forward_grad_does(views):
    loss = losses.create("nt_xent")
    assert not make_call(loss, views, "forward")()[0].requires_grad
    assert make_call(loss, views, "forward_grad")()[0].requires_grad


def test_every_call_builds_a_fresh_graph(views):
    built = []
    loss = losses.create("smi")
    loss.register_forward_hook(lambda *_: built.append(1))
    call = make_call(loss, views, "step")
    samples, result = sample_ms(call, timing.make_timer("cpu"), enough)
    assert len(built) == len(samples)
    assert len(result) == 3


def test_sampling_stops_at_enough_samples(monkeypatch):
    monkeypatch.setattr(timing, "TARGET_S", 0.0)
    samples, _ = sample_ms(lambda: (), timing.make_timer("cpu"), enough)
    assert len(samples) == timing.MIN_SAMPLES


def test_slow_calls_stop_at_two_samples(monkeypatch):
    monkeypatch.setattr(timing, "LIMIT_S", 0.001)
    samples, _ = sample_ms(lambda: time.sleep(0.002), timing.make_timer("cpu"), enough)
    assert len(samples) == 2


def test_samples_of_a_case_are_taken_at_three_moments():
    """As many as at one moment, and of slow calls too: two, or three where that is quick."""
    for ms, count in ((1.0, 48), (100.0, 21), (1000.0, 3), (3000.0, 3), (9000.0, 2)):
        first: list[float] = []
        while not enough_of_a_moment(first):
            first.append(ms)
        samples, moments = list(first), 1
        while has_further_moments(samples, moments):
            samples, moments = samples + first, moments + 1
        assert len(samples) == count
        assert moments == min(count, timing.MOMENTS)


def test_summary_keeps_the_raw_samples():
    summary = summarise([3.0, 1.0, 2.0, 5.0, 4.0])
    assert summary["median_ms"] == 3.0
    assert summary["p20_ms"] == pytest.approx(1.8)
    assert summary["p80_ms"] == pytest.approx(4.2)
    assert summary["samples_ms"] == [3.0, 1.0, 2.0, 5.0, 4.0]


def test_ratio_of_scripted_times_is_exact(monkeypatch):
    slow, fast = (lambda: None), (lambda: ())
    clock = {slow: 6.0, fast: 2.0}
    monkeypatch.setattr(
        "lossbench.bench.comparing.paired.make_timer",
        lambda *_, **__: lambda call: (clock[call], None),
    )
    ratio = time_ratio(slow, fast, "cpu")
    assert ratio.value == pytest.approx(3.0)
    assert 2.9 < ratio.low < 3.0 < ratio.high < 3.1  # what no round shows stays unknown


def test_ratio_is_immune_to_a_drifting_clock(monkeypatch):
    # Each measurement takes 10% longer than the one before; both calls do the same work.
    now = [1.0]

    def timer(call: object) -> tuple[float, None]:
        now[0] *= 1.1
        return now[0], None

    monkeypatch.setattr("lossbench.bench.comparing.paired.make_timer", lambda *_, **__: timer)
    ratio = time_ratio(lambda: None, lambda: (), "cpu")
    assert ratio.value == pytest.approx(1.0)
    assert ratio.low <= 1.0 <= ratio.high


def test_waiting_for_a_core_is_not_the_calls_time_but_sleeping_is():
    # Other processes take turns on this core; the call itself sleeps 20 ms and works a little.
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        timer = timing.make_timer("cpu", alone=True)
        elapsed, _ = timer(lambda: (time.sleep(0.02), sum(range(3_000_000))))
        start = time.thread_time()
        sum(range(3_000_000))
        work_ms = (time.thread_time() - start) * 1e3
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert elapsed >= 20
    assert elapsed < 20 + 3 * work_ms


def test_a_few_samples_end_after_one_that_is_long():
    timer = timing.make_timer("cpu")
    assert len(sample_ms(lambda: (), timer, few_enough)[0]) == timing.FEW
    slow = sample_ms(lambda: time.sleep(timing.VISIT_MS / 1e3), timer, few_enough)[0]
    assert len(slow) == 1


class FakeGpu:
    """A GPU, and Python that launches work on it, on one clock in milliseconds.

    Work that is launched runs when all before it is done. Nothing else of ``torch.cuda`` is here.
    """

    def __init__(self):
        self.now = self.free = 0.0
        self.waits = []

    def launch(self, host_ms, work_ms):
        self.now += host_ms
        self.free = max(self.now, self.free) + work_ms

    def sleep(self, cycles):
        self.waits.append(cycles / timing.CYCLES_PER_MS)
        self.launch(0.0, self.waits[-1])

    def event(self, enable_timing):
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpu):
        self.gpu, self.at = gpu, 0.0

    def record(self):
        self.gpu.launch(0.0, 0.0)
        self.at = self.gpu.free

    def query(self):
        return self.gpu.now >= self.at

    def synchronize(self):
        self.gpu.now = max(self.gpu.now, self.at)

    def elapsed_time(self, end):
        return end.at - self.at


@pytest.fixture
def gpu(monkeypatch):
    gpu = FakeGpu()
    properties = type("Properties", (), {"L2_cache_size": 8})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "_sleep", gpu.sleep, raising=False)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: gpu.now / 1e3)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, device=None, **k: empty(*a, **k))
    return gpu


@pytest.mark.parametrize(("host_ms", "work_ms"), [(0.01, 0.2), (0.1, 0.05), (0.4, 0.01), (0.3, 2)])
def test_a_gpu_is_timed_and_not_what_launches_its_work(gpu, host_ms, work_ms):
    """A call of ten launches, each of which takes the host and the GPU as long as it says."""

    def call():
        for _ in range(10):
            gpu.launch(host_ms, work_ms)
        return ()

    timer = timing.CudaTimer()
    for _ in range(2):
        elapsed, result = timer(call)
        assert timer.ahead
        assert elapsed == pytest.approx(10 * work_ms)
        assert result == ()
    assert gpu.waits[-1] == gpu.waits[-2]  # known from the first time


def test_each_call_has_a_wait_of_its_own(gpu):
    timer = timing.CudaTimer()
    slow, quick = (lambda: gpu.launch(4.0, 1.0)), (lambda: gpu.launch(0.1, 1.0))
    timer(slow)
    timer(quick)
    assert gpu.waits[-1] == timing.SHORTEST_WAIT_MS


def test_a_call_that_waits_for_the_gpu_is_timed_with_its_launches_and_says_so(gpu):
    def call():
        gpu.launch(0.3, 0.1)
        gpu.now = max(gpu.now, gpu.free)  # such as .item()
        gpu.launch(0.3, 0.1)

    timer = timing.CudaTimer()
    elapsed, _ = timer(call)
    assert not timer.ahead
    assert elapsed == pytest.approx(0.1 + 0.3 + 0.1)
    assert max(gpu.waits) <= 3 * timing.LONGEST_WAIT_MS


def test_what_is_launched_for_long_is_not_called_again(gpu):
    calls = []

    def call():
        calls.append(1)
        gpu.launch(2 * timing.LONGEST_WAIT_MS, 5.0)

    timing.CudaTimer()(call)
    assert len(calls) == 1
