"""Exact, machine-independent counts of a case, three ways, without memory or a GPU.

The cost model is what the loss claims. fvcore (forward) and ``FlopCounterMode`` (forward and
backward) look at the operations that really run. A record says whether the three agree.
"""

import contextlib
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import kernels
import losses
from bench import contenders
from bench.calls import create_loss
from bench.case import Case, element_bytes, input_bytes
from bench.ceilings import Ceilings
from bench.polynomials import Polynomials
from bench.predict import predict_times
from bench.trace import any_views, trace
from bench.work import Work, followed, smaller_batches, with_batch, work
from losses.devices import as_if_on

FOLLOWED = ("executed_macs", "moved_bytes", "launches", "saved_bytes")
"""Fields of a record that a trace knows."""


def count(case: Case, ceilings: Ceilings | None = None) -> dict[str, Any]:
    """Count a case on tensors without values: nothing is allocated, nothing computed.

    Args:
        case: what to count.
        ceilings: of the device that the case is for: what the counts should take there is then
            added, ``predict_times`` and ``ceiling_ms``, below which no time can be.

    Returns:
        Flat fields. ``macs``, ``gmacs``, ``gflops`` and ``off_diagonal_entries`` are of all
        ``evaluations`` of the job, in the case's pass; ``*_cost_model``, ``*_fvcore`` and
        ``*_flop_counter`` of one evaluation, and so what a step executes beyond the algorithm,
        ``recomputed_macs`` and ``padding_macs``. ``executed_macs``, ``moved_bytes`` and
        ``launches`` are of the operations of one evaluation; bytes are those of one device.
        Communicated are those of the case as it is distributed, and of the loss's official
        data-parallel code.
    """
    if case.contender:
        return _count_contender(case, ceilings)
    spec, cost, choice = losses.spec(case.loss), case.cost, case.choice
    eager = _source(followed(case))
    done = work(eager, partial(trace, counter=True))
    counter = done.count(lambda each: each.macs or 0)
    forward_fvcore, unseen = _count_with_fvcore(eager)
    macs = case.evaluations * cost.macs(case.pass_)
    job = losses.Exchange(case.batch, case.dim, case.world, element_bytes(case.dtype), case.pass_)
    agree = counter == cost.macs(case.pass_) and forward_fvcore == cost.forward_macs
    return {
        "title": spec.title,
        "macs": macs,
        "gmacs": macs / 1e9,
        "gflops": case.evaluations * cost.flops(case.pass_) / 1e9,
        "macs_cost_model": cost.macs(case.pass_),
        "macs_flop_counter": counter,
        "recomputed_macs": cost.recomputed_macs,
        "padding_macs": cost.padding_macs,
        "forward_macs_cost_model": cost.forward_macs,
        "forward_macs_fvcore": forward_fvcore,
        "counts_agree": agree,
        "counts_note": "" if agree else f"operations that fvcore does not count: {unseen}",
        "off_diagonal_entries": case.evaluations * cost.off_diagonal_entries,
        "communicated_bytes": case.communicated_bytes,
        "official_communicated_bytes": spec.communicated_bytes(job),
        "input_bytes": input_bytes(case),
        "gather_layer": spec.gather_layer,
        "global_batch_norm": spec.global_batch_norm,
        "gradient_in_forward": cost.gradient_in_forward,
        "chosen": choice.implementation,
        "chosen_because": choice.reason,
        **_executed(followed(case), done, ceilings),
        **_floor(case, done, cost.macs(case.pass_), ceilings),
    }


def _source(case: Case) -> Case:
    """The case whose products are counted: compiled code does those of its source."""
    if case.implementation == "compiled":
        return replace(case, implementation="reference", options={})
    return case


def _executed(case: Case, source: Work, ceilings: Ceilings | None) -> dict[str, Any]:
    """What is known of the operations of a case.

    Of compiled code only where a prediction is asked for: the compiler takes a second to answer.
    """
    if case.implementation != "compiled":
        return _followed(source, ceilings)
    if ceilings is not None:
        with contextlib.suppress(NotImplementedError):  # it cannot be asked here
            return _followed(work(case), ceilings)
    return dict.fromkeys([*FOLLOWED, "predicted_peak_bytes"])


def _followed(done: Work, ceilings: Ceilings | None) -> dict[str, Any]:
    counts = {name: done.count(attrgetter(name)) for name in FOLLOWED}
    times = predict_times(done, ceilings) if ceilings else {}
    return {**counts, "predicted_peak_bytes": done.peak_bytes, **times}


def _floor(case: Case, done: Work, macs: int, ceilings: Ceilings | None) -> dict[str, float]:
    if ceilings is None:
        return {}
    return {"ceiling_ms": ceilings.floor_ms(done.traces[-1], macs, input_bytes(case))}


def _count_contender(case: Case, ceilings: Ceilings | None) -> dict[str, Any]:
    """What can be counted without a cost model: operations, by ``FlopCounterMode``'s formulas.

    Code that looks at values cannot run under FakeTensor: it is counted as it runs.
    """
    try:
        done = trace(case)
    except Exception:  # whatever third-party code raises on tensors without values
        contenders.examine(case, create_loss(case))  # says it if the loss itself is at fault
        done = trace(case, run=True)
    macs = case.evaluations * done.executed_macs
    return {
        "title": losses.spec(case.loss).title,
        "macs": macs,
        "gmacs": macs / 1e9,
        "gflops": 2 * macs / 1e9,
        "macs_flop_counter": done.executed_macs,
        "counts_agree": None,
        "counts_note": "a contender has no cost model: counted by FlopCounterMode's formulas alone",
        "input_bytes": input_bytes(case),
        "chosen": case.implementation,
        "contender_version": contenders.version(case.contender),
        **_followed(Work.of(done), ceilings),
        # its arithmetic may be avoidable: only its inputs must be read
        **_floor(case, Work.of(done), 0, ceilings),
    }


def _count_with_fvcore(case: Case) -> tuple[int, str]:
    """Forward MACs that fvcore sees, and the operations that it does not count."""
    batches = smaller_batches(case)
    if not batches:
        return _fvcore(case)
    found = [_fvcore(with_batch(case, batch)) for batch in batches]
    macs = Polynomials(batches, [[each] for each, _ in found]).at(case.loss_batch)
    return round(float(macs[0])), found[0][1]


def _fvcore(case: Case) -> tuple[int, str]:
    from fvcore.nn import FlopCountAnalysis

    # On meta tensors: tracing makes tensors of the sizes, whose values FakeTensor would hide.
    analysis = FlopCountAnalysis(create_loss(case), any_views(case, "meta"))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    for name, handle in kernels.FVCORE_HANDLES.items():
        analysis.set_op_handle(name, handle)
    for norm in ("batch_norm", "group_norm", "instance_norm", "layer_norm"):
        # elementwise work, which fvcore alone would count
        analysis.set_op_handle(f"aten::{norm}", lambda inputs, outputs: 0)
    with as_if_on(case.device):
        macs = int(analysis.total())
    return macs, ", ".join(sorted(analysis.unsupported_ops()))
