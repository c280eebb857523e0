"""Error of a loss's value and gradient against the fp64 reference on the same inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.cases.calls import case_call
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import Loss, in_fp64, specification
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring.timing import make_timer
from lossbench.bench.records.failures import is_out_of_memory
from lossbench.losses.auto import free_bytes

KINDS = ("random", "aligned", "collapsed")
"""Inputs of the accuracy columns."""
VALUE_TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 1e-3, "float16": 1e-3}
GRADIENT_TOLERANCE = {"float64": 1e-7, "float32": 1e-3, "bfloat16": 2e-2, "float16": 5e-3}
"""Relative errors above which an output is wrong, if it is also ..."""
WORSE_THAN_REFERENCE = 10.0
"""... this many times as far off as the reference in the same dtype: where inputs are degenerate,
no implementation keeps its digits."""
CANCELLATION = 1e-2
"""Share of the tolerance granted on the size of the terms, whose sum may be small."""
AFFORDABLE_MACS = 2**38
"""On a CPU, of a step of a reference with more work than this the gradient goes unchecked."""
QUICK_MACS = 2**34
"""On a CPU, one with more than this takes seconds in fp64: the truth is computed with less work."""
EXACT = ("reference", "gram", "chunked")
"""Implementations that are plain code: in fp64 they differ in the last digits alone."""
TRUTH_S, PRODUCT_SIDE = 3.0, 2048
"""On a GPU, one with more than it multiplies in fp64 in this time, going by a product of this side:
by its tensor cores an H100 does the (65536, 1024) of SMI in one second."""


@dataclass(frozen=True)
class Truth:
    """The fp64 reference, and how far off the reference is in the case's dtype.

    Attributes:
        value: value of the loss.
        size: sum of its terms' sizes.
        by: name of the implementation that computed it.
        gradient: of all that is trained; None where it was not asked for or is not affordable.
        reference_value_error: relative error of the reference's value.
        reference_gradient_error: relative error of the reference's gradient.
    """

    value: float
    size: float
    by: str
    gradient: Tensor | None
    reference_value_error: float | None
    reference_gradient_error: float | None


def judge(case: Case, output: tuple[Tensor, ...], scale: float = 1.0) -> dict[str, Any]:
    """Compare an output with the fp64 reference on the case's own (rounded) inputs.

    Args:
        case: what was computed.
        output: the value, and for a step the gradients of what is trained.
        scale: factor by which the output differs from ours by convention.

    Returns:
        ``status`` and ``reason``; if the output is finite also ``value``, ``value_fp64``,
        ``judged_by``, ``value_error``, ``gradient_error`` and their ratios to the reference's
        errors, None where they are unknown.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in output):
        return {"status": "invalid", "reason": "the value or its gradient is not finite"}
    same = _same_truth(case)
    truth = _truth(same, output if case == same else None)
    value = output[0].item() / scale
    value_error = _relative(abs(value - truth.value), abs(truth.value))
    fields = {
        "status": "ok",
        "reason": "",
        "value": value,
        "value_fp64": truth.value,
        "judged_by": truth.by,
        "value_error": value_error,
        "value_error_to_reference": _ratio(value_error, truth.reference_value_error),
        "gradient_error": None,
        "gradient_error_to_reference": None,
    }
    allowed = VALUE_TOLERANCE[case.dtype] * (abs(truth.value) + CANCELLATION * truth.size)
    floor = WORSE_THAN_REFERENCE * (truth.reference_value_error or 0) * abs(truth.value)
    if abs(value - truth.value) > max(allowed, floor):
        reason = f"the value is {value:.6g}; in fp64 it is {truth.value:.6g}"
        fields.update(status="invalid", reason=reason)
    if len(output) > 1 and truth.gradient is not None:
        fields.update(_judge_gradient(case, output[1:], truth, scale))
    return fields


def _judge_gradient(
    case: Case, gradients: tuple[Tensor, ...], truth: Truth, scale: float
) -> dict[str, Any]:
    gradient = _joined(gradients) / scale
    error = _distance(gradient, truth.gradient)
    reference_error = truth.reference_gradient_error
    fields: dict[str, Any] = {
        "gradient_error": error,
        "gradient_error_to_reference": _ratio(error, reference_error),
    }
    allowed = max(GRADIENT_TOLERANCE[case.dtype], WORSE_THAN_REFERENCE * (reference_error or 0.0))
    if error is not None and error > allowed:
        fields["status"] = "invalid"
        fields["reason"] = f"the gradient is off by {error:.2g} of its length against fp64"
    return fields


def accuracy(
    case: Case, run: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], scale: float = 1.0
) -> dict[str, Any]:
    """Errors on each of ``KINDS``, as fields ``accuracy_KIND_...``.

    Args:
        case: what is computed; its inputs are replaced.
        run: inputs -> output, as ``judge`` takes it.
        scale: as ``judge`` takes it.

    Returns:
        The errors, and what ``judge`` says of each kind; ``status`` and ``reason`` if an output is
        wrong, unless the case asks for a precision of products that is not the implementation's
        own; ``accuracy`` says whether a reference step in fp64 was affordable.
    """
    if not _affordable(case):
        return {"accuracy": "too large for fp64"}
    fields: dict[str, Any] = {"accuracy": "measured"}
    for kind in KINDS:
        other = replace(case, inputs=kind)
        found = judge(other, run(make_inputs(other)), scale)
        for name in ("value_error", "gradient_error"):
            for suffix in ("", "_to_reference"):
                fields[f"accuracy_{kind}_{name}{suffix}"] = found.get(name + suffix)
        if found["status"] != "ok" and not case.products:  # of which being wrong is the point
            fields.update(status=found["status"], reason=f"{kind} inputs: {found['reason']}")
        fields[f"accuracy_{kind}_status"] = found["status"]
    return fields


def _same_truth(case: Case) -> Case:
    """The case that all implementations of a loss share their truth with."""
    ours = isinstance(specification(case), losses.Loss)
    contender = "" if ours else case.contender
    return replace(case, implementation="reference", options={}, products="", contender=contender)


def _affordable(case: Case) -> bool:
    if case.device == "cpu":
        return _reference_macs(case) <= AFFORDABLE_MACS
    judge = replace(_same_truth(case), implementation=_judge(case))
    return judge.cost.macs("step") <= _gpu_macs()


def _reference_macs(case: Case) -> float:
    """Of a step of the reference; of a loss that declares its inputs, of N rows with all others."""
    same = _same_truth(case)
    if same.has_cost_model or same.has_views:
        return same.cost.macs("step")
    return 3 * case.loss_batch * sum(prod(each.shape) for each in case.given if each.is_embedding)


@cache
def _gpu_macs() -> float:
    x = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, dtype=torch.float64, device="cuda")

    def call() -> tuple[Tensor]:
        return (x @ x,)

    timer = make_timer("cuda")
    timer(call)  # warms up
    return max(AFFORDABLE_MACS, TRUTH_S * 1e3 * PRODUCT_SIDE**3 / timer(call)[0])


def _judge(case: Case) -> str:
    """The implementation that computes the truth: the reference, if that is quick and fits.

    Else, on a GPU that cannot hold it, tiles; on a CPU the one whose forward pass has least work.
    """
    models = losses.spec(case.loss).cost_models
    known = [name for name in EXACT if name in models]
    if case.contender or len(known) <= 1:
        return "reference"
    if case.device == "cuda":
        return "reference" if "chunked" not in known or _fits(case) else "chunked"
    if _reference_macs(case) <= QUICK_MACS:
        return "reference"
    return min(known, key=lambda name: models[name](_wide(case)).macs("forward"))


def _wide(case: Case) -> losses.Problem:
    return losses.Problem(case.loss_batch, case.dim, element_bytes=8, device=case.device)


def _fits(case: Case) -> bool:
    """Whether a GPU holds the reference in fp64."""
    needed = 8 * losses.spec(case.loss).cost("reference", _wide(case)).peak_elements
    return needed <= free_bytes(torch.device(case.device))


Key = tuple[Any, ...]
_truths: dict[Key, tuple[Case, Truth]] = {}
_held: set[Key] = set()


@contextmanager
def held(cases: Sequence[Case]) -> Iterator[None]:
    """Know the truths of all of these cases meanwhile, and no others: judging then takes no time.

    Those that do not fit in memory are not known.
    """
    same = {_key(case): case for case in map(_same_truth, cases)}
    for key in _truths.keys() - same.keys():
        del _truths[key]
    _held.update(same)
    try:
        for case in same.values():
            _try_truth(case)
        yield
    finally:
        _held.clear()


def _try_truth(case: Case) -> None:
    try:
        _truth(case, None)
    except Exception as error:
        if not is_out_of_memory(error):
            raise


def _truth(case: Case, own: tuple[Tensor, ...] | None) -> Truth:
    """The latest truth of each loss and kind of inputs is remembered: they are large."""
    key = _key(case)
    if key not in _truths:
        for other, (known, _) in list(_truths.items()):
            if (known.loss, known.inputs) == (case.loss, case.inputs) and other not in _held:
                del _truths[other]
        _truths[key] = case, _find_truth(case, own)
    return _truths[key][1]


def _key(case: Case) -> Key:
    return tuple(sorted(case.describe().items()))


def _find_truth(case: Case, own: tuple[Tensor, ...] | None) -> Truth:
    """The truth by the judge; of one that the reference does not agree with by the reference.

    Args:
        case: the reference.
        own: its output, if that is what is judged. It must not excuse itself: only a truth that
            does not come from the reference, and that it agrees with, takes it for granted.
    """
    judge = _judge(case)
    found = _compute_truth(case, judge, None if judge == "reference" else own)
    errors = found.reference_value_error or 0.0, found.reference_gradient_error or 0.0
    allowed = VALUE_TOLERANCE[case.dtype], GRADIENT_TOLERANCE[case.dtype]
    if found.by != "reference" and any(e > most for e, most in zip(errors, allowed, strict=True)):
        return _compute_truth(case, "reference")
    return found


def _compute_truth(case: Case, name: str, own: tuple[Tensor, ...] | None = None) -> Truth:
    reference = specification(case)
    judge = reference if name == "reference" else _created(case, name)
    inputs, given = make_inputs(case), case.given
    steps = case.pass_ == "step" and _affordable(case)
    wide = [x.double() if each.is_embedding else x for x, each in zip(inputs, given, strict=True)]
    students = [x for x, each in zip(wide, given, strict=True) if each.is_trained]
    for student in students:
        student.requires_grad_(steps)
    with torch.set_grad_enabled(steps):
        terms = _terms(in_fp64(judge), wide)
        total = sum(terms[1:], terms[0])
        gradient = _joined(torch.autograd.grad(total, students)) if steps else None
    parts = [term.item() for term in terms]
    value, size = sum(parts), sum(abs(part) for part in parts)
    runs = name == "reference" or case.device == "cpu"
    if not (runs and _affordable(case)):
        return Truth(value, size, name, gradient, None, None)
    step = replace(case, pass_="step")
    own_value, *own_gradients = own or case_call(step, reference, inputs)()
    gradient_error = None
    if gradient is not None:
        gradient_error = _distance(_joined(own_gradients), gradient)
    value_error = _relative(abs(own_value.item() - value), abs(value))
    return Truth(value, size, name, gradient, value_error, gradient_error)


def _created(case: Case, implementation: str) -> Loss:
    return losses.create(case.loss, implementation, **case.hyperparameters)


def _terms(reference: Loss, inputs: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(reference, losses.Loss):
        return list(reference.terms(*inputs).values())
    return [reference(*inputs)]


def _joined(gradients: Sequence[Tensor]) -> Tensor:
    """All gradients as one vector, in fp64."""
    return torch.cat([each.double().flatten() for each in gradients])


def _distance(gradient: Tensor, truth: Tensor | None) -> float | None:
    if truth is None:
        return None
    length = torch.linalg.vector_norm(truth).item()
    return _relative(torch.linalg.vector_norm(gradient - truth).item(), length)


def _relative(error: float, size: float) -> float | None:
    """None where the truth is zero: nothing is relative to it."""
    return error / size if size else None


def _ratio(error: float | None, reference: float | None) -> float | None:
    """None where the reference happens to be exact."""
    return error / reference if error is not None and reference else None
