"""A case to its measurement: peak memory, time, and whether the output is right."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lossbench.bench.cases import contenders, examining
from lossbench.bench.cases.calls import Call, case_call, create_loss
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.counting.trace import any_inputs
from lossbench.bench.measuring import nvml, surroundings
from lossbench.bench.measuring.accuracy import accuracy, held, judge
from lossbench.bench.measuring.disturbance import Stretch, Watch, describe
from lossbench.bench.measuring.energy import millijoules
from lossbench.bench.measuring.floor import floor_ms
from lossbench.bench.measuring.interleave import interleave
from lossbench.bench.measuring.memory import peak_and_result
from lossbench.bench.measuring.timing import (
    CudaTimer,
    enough_of_a_moment,
    few_enough,
    make_timer,
    sample_ms,
    summarise,
)
from lossbench.bench.records.failures import is_out_of_memory

SLOW_MS = 1000.0
"""A longer call on a CPU is not made again to see how long it takes: warming up is little of it."""


def try_once(case: Case) -> dict[str, Any]:
    """Peak and time of a single call, on any values: whether it fits is all that is asked.

    Returns:
        The fields of ``measure`` that say so.
    """
    call = case_call(case, create_loss(case), any_inputs(case, case.device))
    start = time.perf_counter()
    peak, _ = peak_and_result(call, case.device)
    fields = summarise([(time.perf_counter() - start) * 1e3])
    return {"peak_bytes": peak, **fields, "status": "ok", "reason": "not verified: a single call"}


def measure(
    case: Case,
    sample: bool = True,
    errors: bool = False,
    energy: bool = False,
    surrounded: bool = False,
) -> dict[str, Any]:
    """Measure one evaluation of a case in this process.

    Args:
        case: what to measure.
        sample: take the samples of a first moment. Otherwise a few: the time will be measured in
            turn with others.
        errors: add the error of value and gradient on random, aligned and collapsed inputs.
        energy: add the energy of a call, which takes seconds, where it is counted.
        surrounded: add whether it works within what surrounds a loss in training.

    Returns:
        Flat fields: ``status`` (ok or invalid), ``reason``, ``value``, its fp64 truth and error,
        ``peak_bytes``, ``first_call_ms`` where code is compiled, ``call_ms`` of one call and its
        launches, times; on CUDA ``floor_ms`` of its products, ``launched_ahead``, ``energy_mj`` of
        a call, and ``nvml.state`` before and after.
    """
    if case.is_share:
        raise NotImplementedError(
            f"a share of {case.world} devices is measured by as many processes: "
            f"torchrun --standalone --nproc-per-node {case.world} -m lossbench run ..."
        )
    inputs = make_inputs(case)
    loss = create_loss(case)
    fields: dict[str, Any] = {f"{name}_before": x for name, x in nvml.state(case.device).items()}
    is_foreign = contenders.is_foreign(case)
    if contenders.is_examined(case):
        fields.update(_examine(case))
    call = case_call(case, loss, inputs)
    if case.device == "cuda" or case.choice.implementation == "compiled" or is_foreign:
        fields["first_call_ms"] = _milliseconds(call, case.device)
    times, result = _times(case, call, sample)
    fields.update(times)
    _warm.add(case.label)
    # The output of the last call is the one that is checked, after its graph is freed.
    output = tuple(tensor.detach() for tensor in result)
    del result
    scale = fields.get("scale", 1.0)
    fields.update(check(case, output, scale))
    if errors and fields["status"] == "ok":
        step = replace(case, pass_="step")
        fields.update(accuracy(case, lambda some: case_call(step, loss, some)(), scale))
    if surrounded and fields["status"] == "ok" and case.has_views:
        fields.update(surroundings.check(loss, (inputs[0], inputs[1])))
    if case.device == "cuda":
        fields["floor_ms"] = floor_ms(case)
        if energy:
            fields["energy_mj"] = millijoules(call, case.device)
        fields.update(nvml.state(case.device))
    return fields


def _examine(case: Case) -> dict[str, Any]:
    """How a third party's code behaves; of compiled code, that which it is made of."""
    if not case.contender and case.choice.implementation in ("compiled", "reference"):
        case = replace(case, implementation="reference", options={})
    return examining.examine(case, create_loss(case))


def _times(case: Case, call: Call, sample: bool) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """Peak memory and times of a call, and what it last returned."""
    stretches: list[Stretch] = []

    def watched() -> tuple[Tensor, ...]:
        watch = Watch()  # in the call: profilers take a second to start
        result = call()
        stretches.append(watch.stop())
        return result

    peak, result = peak_and_result(watched, case.device)  # also warms up
    once = stretches[-1]
    once_ms = once.wall_s * 1e3
    fields: dict[str, Any] = {"peak_bytes": peak, "call_ms": once_ms}
    if case.device == "cpu" and once_ms > SLOW_MS and not sample:
        return {**fields, **summarise([once_ms]), **describe([once_ms], [once])}, result
    del result  # freed before the first sample, which then has as much room as the others
    timer = make_timer(case.device)
    samples, beside, result = _sample(call, timer, enough_of_a_moment if sample else few_enough)
    fields.update({**summarise(samples), **beside, "call_ms": samples[0]})
    if sample:
        fields["moments"] = 1
    if isinstance(timer, CudaTimer):
        fields["call_ms"] = _milliseconds(call, case.device)
    return fields, result


def sample_again(case: Case, count: int) -> dict[str, Any]:
    """Sample a case that was measured at an earlier moment.

    Args:
        case: what to time.
        count: samples.

    Returns:
        ``samples_ms`` and the fields beside them that ``measure`` returns.
    """
    call = _warm_call(case, make_inputs(case))
    samples, beside, _ = _sample(call, make_timer(case.device), lambda some: len(some) >= count)
    return {"samples_ms": samples, **beside, **nvml.state(case.device)}


def _warm_call(case: Case, inputs: Sequence[Tensor]) -> Call:
    """A call of a new loss, which has run before if that may make a difference."""
    call = case_call(case, create_loss(case), inputs)
    if contenders.is_foreign(case) or case.label not in _warm:  # what it does first is not known
        call()
    return call


def _sample(
    call: Call,
    timer: Callable[[Call], tuple[float, Any]],
    is_enough: Callable[[Sequence[float]], bool],
) -> tuple[list[float], dict[str, Any], tuple[Tensor, ...]]:
    """Samples of a call, fields of what is known of them, and what it last returned."""
    stretches: list[Stretch] = []

    def watched(call: Call) -> tuple[float, Any]:
        watch = Watch()
        timed = timer(call)
        stretches.append(watch.stop())
        return timed

    samples, result = sample_ms(call, watched, is_enough)
    if isinstance(timer, CudaTimer):
        return samples, {"launched_ahead": timer.ahead}, result
    return samples, describe(samples, stretches), result


def compare(
    cases: Sequence[Case], rounds: Sequence[int], scales: Sequence[float] | None = None
) -> dict[str, Any]:
    """Time cases in turn, in this process.

    Args:
        cases: what to time.
        rounds: how often each is visited; even, or 1.
        scales: factors by which outputs differ from ours; their last outputs are then checked.

    Returns:
        ``samples_ms``: for each case its samples in milliseconds, one a round; ``cpu_shares``,
        ``disturbed`` and ``retaken`` as ``Sitting`` has them. ``checks``: for each case what
        ``check`` says of its last output. ``state``: ``nvml.state`` at the end.
    """
    inputs: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}
    calls = []
    for case in cases:
        kind = (case.inputs, case.loss_batch, case.dim, case.dtype, case.given)
        if kind not in inputs:
            inputs[kind] = make_inputs(case)
        calls.append(_warm_call(case, inputs[kind]))
    checks: list[dict[str, Any]] = [{} for _ in scales or ()]

    def look(place: int, output: tuple[Tensor, ...]) -> None:
        if scales and place < len(scales):
            checks[place] = check(cases[place], output, scales[place])

    with held(cases[: len(checks)]):
        found = interleave(calls, rounds, cases[0].device, look)
    return {
        "samples_ms": found.samples,
        "cpu_shares": found.cpu_shares,
        "disturbed": found.disturbed,
        "retaken": found.retaken,
        "checks": checks,
        "state": nvml.state(cases[0].device),
    }


_warm: set[str] = set()
"""Labels of the cases that this process has run."""


def check(case: Case, output: tuple[Tensor, ...], scale: float = 1.0) -> dict[str, Any]:
    """``judge`` an output; where fp64 does not fit in memory it stays unverified, and says so."""
    try:
        return judge(case, output, scale)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        value = output[0].item()
        return {"value": value, "value_fp64": None, "status": "ok", "reason": "not verified: oom"}


def _milliseconds(call: Call, device: str) -> float:
    """Of a call and its launches, on a device that has nothing else to do."""
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3
