"""Code that is not ours, tried in a process of its own before it is let into this one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import is_foreign
from lossbench.bench.cases.examining import PARITY_ROWS
from lossbench.bench.running.worker import Worker

TRIAL_S = 600.0
"""Seconds after which a trial is given up."""


def failures(
    cases: Sequence[Case], measure: bool = True, trains: bool = False
) -> list[dict[str, Any]]:
    """Why third parties' code should not run in this process.

    Args:
        cases: what would run; each loss is tried once, on a small batch.
        measure: it is run and checked, and not only followed.
        trains: it is to train a network of two views.

    Returns:
        For each ``status`` and ``reason``; nothing of code that is ours, or that passes.
    """
    found: dict[Any, dict[str, Any]] = {}
    for case in cases:
        what = _what(case)
        if what not in found:
            found[what] = _failure(case, measure, trains) if is_foreign(case) else {}
    return [found[_what(case)] for case in cases]


def _what(case: Case) -> Any:
    return case.loss, case.implementation, case.contender, case.variant


def _failure(case: Case, measure: bool, trains: bool) -> dict[str, Any]:
    small = replace(case, batch=min(case.batch, PARITY_ROWS), world=1, distribution="local")
    worker = Worker(case.device)
    how = {"sample": False} if measure else {}
    found = worker.evaluate(small, TRIAL_S, measure=measure, **how)
    worker.stop()
    if found.get("status", "ok") != "ok":
        return {name: found[name] for name in ("status", "reason")}
    if trains and not case.has_views:
        names = ", ".join(each.name for each in case.given)
        reason = f"what is trained gives a loss two views; {case.name} is given {names}"
        return {"status": "unsupported", "reason": reason}
    return {}
