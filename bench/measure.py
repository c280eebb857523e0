"""A case to its measurement: peak memory, time, and whether the output is right."""

from typing import Any

import torch
from torch import Tensor

import losses
from bench.case import Case
from bench.counting import create_loss
from bench.failures import is_out_of_memory
from bench.inputs import make_views
from bench.memory import peak_bytes
from bench.timing import make_call, sample_ms, summarise

TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 1e-3, "float16": 1e-3}
"""Relative error of the value against fp64 above which a record is invalid."""
CANCELLATION = 1e-2
"""Share of the tolerance granted on the size of the terms, whose sum may be small."""


def measure(case: Case) -> dict[str, Any]:
    """Measure one evaluation of a case in this process.

    Returns:
        Flat fields: ``status`` (ok or invalid), ``reason``, ``value``, its fp64 truth,
        ``peak_bytes`` and times.
    """
    views = make_views(case)
    call = make_call(create_loss(case), views, case.pass_)
    peak = peak_bytes(call, case.device)  # also warms up
    samples, result = sample_ms(call, case.device)
    # The output of the last timed call is the one that is checked, after its graph is freed.
    output = tuple(tensor.detach() for tensor in result)
    del result
    return {**check(case, views, output), "peak_bytes": peak, **summarise(samples)}


def check(case: Case, views: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> dict[str, Any]:
    """Compare an output with the fp64 reference on the same (rounded) inputs, on the same device.

    Args:
        case: what was computed.
        views: the inputs.
        output: the value, and for a step the gradients of both views.

    Returns:
        ``status`` and ``reason``, and if it is finite ``value`` and ``value_fp64``; the truth is
        None where fp64 does not fit in memory, which leaves the value unverified.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in output):
        return {"status": "invalid", "reason": "the value or its gradient is not finite"}
    value = output[0].item()
    try:
        truth, size = _truth(case, views)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {"value": value, "value_fp64": None, "status": "ok", "reason": "not verified: oom"}
    allowed = TOLERANCE[case.dtype] * (abs(truth) + CANCELLATION * size)
    fields = {"value": value, "value_fp64": truth, "status": "ok", "reason": ""}
    if abs(value - truth) > allowed:
        fields["status"] = "invalid"
        fields["reason"] = f"the value is {value:.6g}; in fp64 it is {truth:.6g}"
    return fields


_truths: dict[tuple[Any, ...], tuple[float, float]] = {}


def _truth(case: Case, views: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The fp64 reference's value and the sum of its terms' sizes, once for each set of inputs."""
    options = tuple(sorted(case.hyperparameters.items()))
    key = (case.loss, options, *views[0].shape, case.dtype, case.inputs)
    if key not in _truths:
        reference = losses.create(case.loss, **case.hyperparameters)
        with torch.no_grad():
            terms = reference.terms(*(view.double() for view in views)).values()
        parts = [term.item() for term in terms]
        _truths[key] = sum(parts), sum(abs(part) for part in parts)
    return _truths[key]
