"""Exact, machine-independent counts of a case, three ways, without memory or a GPU.

The cost model is what the loss claims. fvcore (forward) and ``FlopCounterMode`` (forward and
backward) look at the operations that really run. A record says whether the three agree.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

import kernels
import losses
from bench import contenders
from bench.case import Case, element_bytes, input_bytes


def count(case: Case) -> dict[str, Any]:
    """Count a case under FakeTensor: nothing is allocated, nothing computed.

    Returns:
        Flat fields. ``macs``, ``gmacs``, ``gflops`` and ``off_diagonal_entries`` are of all
        ``evaluations`` of the job, in the case's pass; ``*_cost_model``, ``*_fvcore`` and
        ``*_flop_counter`` of one evaluation, and so what a step executes beyond the algorithm,
        ``recomputed_macs`` and ``padding_macs``; bytes are those of one device. Communicated are
        those of the case as it is distributed, and of the loss's official data-parallel code.
    """
    if case.contender:
        return _count_contender(case)
    spec, cost, choice = losses.spec(case.loss), case.cost, case.choice
    eager = _eager(case)
    counter, saved_bytes = _count_flops_and_saved_bytes(eager)
    forward_fvcore, unseen = _count_with_fvcore(eager)
    macs = case.evaluations * cost.macs(case.pass_)
    job = losses.Exchange(case.batch, case.dim, case.world, element_bytes(case.dtype), case.pass_)
    gathers = case.distribution == "gather"
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
        "communicated_bytes": losses.all_gather_bytes(job) if gathers else 0,
        "official_communicated_bytes": spec.communicated_bytes(job),
        "input_bytes": input_bytes(case),
        "saved_bytes": None if choice.implementation == "compiled" else saved_bytes,
        "gather_layer": spec.gather_layer,
        "global_batch_norm": spec.global_batch_norm,
        "gradient_in_forward": cost.gradient_in_forward,
        "chosen": choice.implementation,
        "chosen_because": choice.reason,
    }


def _eager(case: Case) -> Case:
    """The case whose operations are looked at.

    Compiled code does the products of its source (but decides itself what it saves); ``auto``
    would choose for each way of looking.
    """
    if case.choice.implementation == "compiled":
        return replace(case, implementation="reference", options={})
    if case.implementation == "auto":
        return replace(case, implementation=case.choice.implementation, options={})
    return case


def create_loss(case: Case) -> Callable[..., Tensor]:
    """The loss of a case: a module of ours, or a contender."""
    if case.contender:
        return contenders.resolve(case.contender)
    return losses.create(case.loss, case.implementation, **case.hyperparameters, **case.options)


def _count_contender(case: Case) -> dict[str, Any]:
    """What can be counted without a cost model: what ``FlopCounterMode`` sees.

    Code that looks at values cannot run under FakeTensor: it is counted as it runs.
    """
    try:
        counter, saved_bytes = _count_flops_and_saved_bytes(case)
    except Exception:  # whatever third-party code raises on tensors without values
        contenders.examine(case, create_loss(case))  # says it if the loss itself is at fault
        counter, saved_bytes = _count_flops_and_saved_bytes(case, nullcontext())
    macs = case.evaluations * counter
    return {
        "title": losses.spec(case.loss).title,
        "macs": macs,
        "gmacs": macs / 1e9,
        "gflops": 2 * macs / 1e9,
        "macs_flop_counter": counter,
        "counts_agree": None,
        "counts_note": "a contender has no cost model: counted by FlopCounterMode alone",
        "input_bytes": input_bytes(case),
        "saved_bytes": saved_bytes,
        "chosen": case.implementation,
        "contender_version": contenders.version(case.contender),
    }


def _any_views(case: Case, requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    shape, dtype = (case.loss_batch, case.dim), getattr(torch, case.dtype)
    z_a, z_b = (torch.randn(shape, dtype=dtype, requires_grad=requires_grad) for _ in "ab")
    return z_a, z_b


def _count_flops_and_saved_bytes(
    case: Case, mode: AbstractContextManager[Any] | None = None
) -> tuple[int, int]:
    """MACs that ``FlopCounterMode`` sees, and bytes kept for the backward pass."""
    with mode or FakeTensorMode():
        views = _any_views(case, requires_grad=case.pass_ != "forward")
        kept: list[torch.UntypedStorage] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.untyped_storage())
            return tensor

        with FlopCounterMode(display=False) as counter:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                value = create_loss(case)(*views)
            if case.pass_ == "step":
                value.backward()
        inputs = {view.untyped_storage()._cdata for view in views}
        saved = {s._cdata: s.nbytes() for s in kept if s._cdata not in inputs}
        return counter.get_total_flops() // 2, sum(saved.values())


def _count_with_fvcore(case: Case) -> tuple[int, str]:
    """Forward MACs that fvcore sees, and the operations that it does not count."""
    from fvcore.nn import FlopCountAnalysis

    # On meta tensors: tracing makes tensors of the sizes, whose values FakeTensor would hide.
    with torch.device("meta"):
        views = _any_views(case)
    analysis = FlopCountAnalysis(create_loss(case), views)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    for name, handle in kernels.FVCORE_HANDLES.items():
        analysis.set_op_handle(name, handle)
    for norm in ("batch_norm", "group_norm", "instance_norm", "layer_norm"):
        # elementwise work, which fvcore alone would count
        analysis.set_op_handle(f"aten::{norm}", lambda inputs, outputs: 0)
    macs = int(analysis.total())
    return macs, ", ".join(sorted(analysis.unsupported_ops()))
