"""One case through pytest-benchmark's fixture."""

from dataclasses import asdict, replace
from typing import Any

import torch

from bench import environment
from bench.case import Case
from bench.counting import count, create_loss
from bench.inputs import make_views
from bench.memory import peak_bytes
from bench.paired import time_ratio
from bench.timing import Call, make_call


def benchmark_and_describe(benchmark: Any, case: Case) -> dict[str, Any]:
    """Time a case with ``benchmark``; return its counts, peak memory, device and time ratio.

    The time ratio to the loss's reference, measured in pairs, is given for all other
    implementations.
    """
    call = _call(case)
    record = {**case.describe(), **count(case), "peak_bytes": peak_bytes(call, case.device)}
    facts = environment.describe(case.device, torch.get_num_threads())
    record["machine"] = facts["gpu"] or f"{facts['cpu']}, {facts['threads']} threads"
    benchmark(_synchronised(call, case.device))
    if case.implementation != "reference":
        reference = _call(replace(case, implementation="reference"))
        reference()
        record["time_ratio"] = asdict(time_ratio(call, reference, case.device))
    return record


def _call(case: Case) -> Call:
    return make_call(create_loss(case), make_views(case), case.pass_)


def _synchronised(call: Call, device: str) -> Call:
    if device == "cpu":
        return call

    def wait() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return wait
