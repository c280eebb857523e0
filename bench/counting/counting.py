"""Exact, machine-independent counts of a case, three ways, without memory or a GPU.

The cost model is what the loss claims. fvcore (forward) and ``FlopCounterMode`` (forward and
backward) look at the operations that really run. A record says whether the three agree; where
fvcore is not installed, whether the other two do.
"""

from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from lossbench import kernels, losses
from lossbench.bench.cases import contenders, examining
from lossbench.bench.cases.calls import create_loss
from lossbench.bench.cases.case import Case, element_bytes, input_bytes
from lossbench.bench.counting.polynomials import Polynomials
from lossbench.bench.counting.trace import Trace, any_inputs, trace
from lossbench.bench.counting.work import Work, followed, smaller_batches, with_batch, work
from lossbench.losses import outside
from lossbench.losses.devices import as_if_on

FOLLOWED = ("executed_macs", "moved_bytes", "launches", "saved_bytes")
"""Fields of a record that a trace knows."""


@dataclass(frozen=True)
class Counted:
    """What was counted of a case, and how.

    Attributes:
        fields: as ``count`` returns them.
        source: operations of the eager code that the counts are of.
        least_macs: multiply-adds of one evaluation that cannot be avoided.
    """

    fields: dict[str, Any]
    source: Work
    least_macs: int


def count(case: Case) -> dict[str, Any]:
    """Count a case on tensors without values: nothing is allocated, nothing computed.

    Returns:
        Flat fields. ``macs``, ``gmacs``, ``gflops`` and ``off_diagonal_entries`` are of all
        ``evaluations`` of the job, in the case's pass; ``*_cost_model``, ``*_fvcore`` and
        ``*_flop_counter`` of one evaluation, and so what a step executes beyond the algorithm,
        ``recomputed_macs`` and ``padding_macs``. ``executed_macs``, ``moved_bytes`` and
        ``launches`` are of the operations of one evaluation; bytes are those of one device.
        Communicated are those of the case as it is distributed, and of the loss's official
        data-parallel code.
    """
    return examine(case).fields


def examine(case: Case) -> Counted:
    """Count a case, and keep what was followed to do so."""
    if not case.has_cost_model:
        return _count_unmodelled(case)
    spec, cost, choice = losses.spec(case.loss), case.cost, case.choice
    eager = _source(followed(case))
    done = work(eager, partial(trace, counter=True))
    counter = done.count(lambda each: each.macs or 0)
    forward_fvcore, about_fvcore = _count_with_fvcore(eager)
    macs = case.evaluations * cost.macs(case.pass_)
    job = losses.Exchange(case.batch, case.dim, case.world, element_bytes(case.dtype), case.pass_)
    agree = counter == cost.macs(case.pass_) and forward_fvcore in (None, cost.forward_macs)
    fields = {
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
        "counts_note": "" if agree and forward_fvcore is not None else about_fvcore,
        "off_diagonal_entries": case.evaluations * cost.off_diagonal_entries,
        "communicated_bytes": case.communicated_bytes,
        "official_communicated_bytes": spec.communicated_bytes(job),
        "input_bytes": input_bytes(case),
        "gather_layer": spec.gather_layer,
        "global_batch_norm": spec.global_batch_norm,
        "gradient_in_forward": cost.gradient_in_forward,
        "chosen": choice.implementation,
        "chosen_because": choice.reason,
        **_executed(case, done),
        **_elementwise(done),
    }
    return Counted(fields, done, cost.macs(case.pass_))


def _source(case: Case) -> Case:
    """The case whose products are counted: compiled code does those of its source."""
    if case.implementation == "compiled":
        return replace(case, implementation="reference", options={})
    return case


def _executed(case: Case, source: Work) -> dict[str, Any]:
    """What is known of the operations of a case; nothing of compiled code, which takes a second."""
    if followed(case).implementation == "compiled":
        return dict.fromkeys([*FOLLOWED, "predicted_peak_bytes"])
    return executed(source)


def executed(done: Work) -> dict[str, Any]:
    """Fields of the operations of one evaluation."""
    counts = {name: done.count(attrgetter(name)) for name in FOLLOWED}
    return {**counts, "predicted_peak_bytes": done.peak_bytes}


def _elementwise(source: Work) -> dict[str, Any]:
    """Arithmetic beside matrix products of one evaluation; None where some of it is not known."""
    names = source.uncounted
    fields: dict[str, Any] = {"uncounted": ", ".join(sorted(names))}
    for name in ("elementwise", "transcendentals"):
        fields[name] = None if names else source.count(attrgetter(name))
    return fields


def _count_unmodelled(case: Case) -> Counted:
    """What can be counted without a cost model: operations, by ``FlopCounterMode``'s formulas."""
    source = _source(followed(case))
    done = forward = _followed_or_run(source)
    if case.pass_ != "forward":
        forward = _followed_or_run(replace(source, pass_="forward"))
    macs: float | None = case.evaluations * done.executed_macs
    note = "without a cost model: counted by the formulas of its operations alone"
    if done.uncounted:
        macs, note = None, f"not counted: {', '.join(sorted(done.uncounted))}"
    fields = {
        "title": losses.spec(case.loss).title,
        "macs": macs,
        "gmacs": macs and macs / 1e9,
        "gflops": macs and 2 * macs / 1e9,
        "macs_flop_counter": macs and done.executed_macs,
        "forward_macs_flop_counter": None if forward.uncounted else forward.executed_macs,
        "counts_agree": None,
        "counts_note": note,
        "input_bytes": input_bytes(case),
        "chosen": case.choice.implementation,
        "contender_version": outside.version(case.contender or losses.spec(case.loss).origin),
        **executed(Work.of(done)),
        **_elementwise(Work.of(done)),
    }
    # its arithmetic may be avoidable: only its inputs must be read
    return Counted(fields, Work.of(done), 0)


def _followed_or_run(source: Case) -> Trace:
    """What a case does; of code that looks at values, as it runs."""
    try:
        return trace(source)
    except Exception:  # whatever third-party code raises on tensors without values
        if contenders.is_examined(source):
            # says it if the loss itself is at fault
            examining.examine(source, create_loss(source))
        return trace(source, run=True)


def _count_with_fvcore(case: Case) -> tuple[int | None, str]:
    """Forward MACs that fvcore sees, and what it does not count; None where it cannot be had."""
    batches = smaller_batches(case)
    try:
        found = [_fvcore(with_batch(case, batch)) for batch in batches or [case.loss_batch]]
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed: nothing is counted by fvcore"
    unseen = f"operations that fvcore does not count: {found[0][1]}"
    if not batches:
        return found[0][0], unseen
    macs = Polynomials(batches, [[each] for each, _ in found]).at(case.loss_batch)
    return round(float(macs[0])), unseen


def _fvcore(case: Case) -> tuple[int, str]:
    from fvcore.nn import FlopCountAnalysis

    # On meta tensors: tracing makes tensors of the sizes, whose values FakeTensor would hide.
    analysis = FlopCountAnalysis(create_loss(case), any_inputs(case, "meta"))
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
