"""A call, itself again and a slowed copy, timed in turn: what ``lossbench noise`` judges."""

import time
from collections.abc import Sequence
from typing import Any

from lossbench.bench.cases.calls import Call, case_call, create_loss
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring.interleave import interleave
from lossbench.bench.measuring.timing import summarise

ROUNDS = 4
SESSIONS = 10
"""Comparisons that share their processes: a fresh one takes longer to start than to measure."""
SAMPLED = ("samples_ms", "control_ms", "again_ms", "slowed_ms")
"""Fields of the call, of its control, of itself again, and of the slowed copy."""


def sessions(case: Case, slowdown: float) -> dict[str, Any]:
    """What one process samples for ``SESSIONS`` comparisons, ``ROUNDS`` of each, as fields."""
    call = case_call(case, create_loss(case), make_inputs(case))
    calls: Sequence[Call] = (call, call, call, _slowed(call, slowdown))
    for warm_up in calls:
        warm_up()
    sittings = [interleave(calls, [ROUNDS] * len(calls), case.device) for _ in range(SESSIONS)]
    samples = {
        field: [ms for sitting in sittings for ms in sitting.samples[place]]
        for place, field in enumerate(SAMPLED)
    }
    disturbed = sum(sitting.disturbed[0] for sitting in sittings)
    times = summarise(samples["samples_ms"])
    return {"status": "ok", "reason": "", **times, **samples, "disturbed": disturbed}


def _slowed(call: Call, share: float) -> Call:
    """The same call, after which the processor is kept busy for a share of the call's own time."""

    def slowed() -> Any:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        wanted = end + share * (end - start)
        while time.perf_counter() < wanted:
            pass
        return result

    return slowed
