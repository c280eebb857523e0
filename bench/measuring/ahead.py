"""Fused kernels of cases compiled in parallel, before any of them is measured."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.recording import CAN_RECORD, Note
from lossbench.bench.counting.trace import trace
from lossbench.bench.counting.work import work
from lossbench.kernels import configs


def compile_ahead(cases: Sequence[Case]) -> int:
    """Compile what cases will launch, on all cores at once, into Triton's cache.

    A kernel takes seconds to compile, and the cases would wait for one after the other. What does
    not compile is left to its case, which says so.

    Args:
        cases: of the GPU at hand.

    Returns:
        How many kernels there are.
    """
    fused = [case for case in cases if case.implementation == "triton"]
    if not (fused and CAN_RECORD):
        return 0
    from triton import AsyncCompileMode
    from triton.runtime.jit import JITFunction

    compile_or_run = JITFunction.run

    def note(kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        compile_or_run(kernel, grid=grid, warmup=True, **arguments)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        AsyncCompileMode(pool, ignore_errors=True) as mode,
    ):
        for case in fused:
            for pass_ in dict.fromkeys((case.pass_, "step")):  # its errors are those of a step
                follow_launches(replace(case, pass_=pass_), note)
    return len(mode.future_kernels)


def follow_launches(case: Case, note: Note) -> None:
    """Tell what a case launches on the GPU at hand, or smaller ones of its kind, without values."""
    capability = configs.architecture(torch.device("cuda"))
    work(case, partial(trace, capability=capability, watch=note))
