"""One case through pytest-benchmark's fixture."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from lossbench.bench.cases.calls import case_call, create_loss
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import is_examined
from lossbench.bench.cases.examining import examine
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.comparing.paired import time_ratio
from lossbench.bench.counting.counting import count
from lossbench.bench.measuring.measure import check
from lossbench.bench.measuring.memory import peak_bytes
from lossbench.bench.measuring.spin import Beside
from lossbench.bench.records import environment
from lossbench.bench.records.failures import guarded


def benchmark_and_describe(benchmark: Any, case: Case) -> dict[str, Any]:
    """Time a case with ``benchmark``; return its counts, peak memory, correctness and time ratio.

    The time ratio is measured in pairs: to the loss's reference, and for the reference itself to
    one matrix product of as many MACs. What other work did meanwhile is said in the fields of
    ``bench.measuring.spin``, whose small work is here the case itself.
    """
    call = case_call(case, create_loss(case), make_inputs(case))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore counts by tracing, which torch deprecates
        counts = count(case)
    record = {**case.describe(), **counts, "peak_bytes": peak_bytes(call, case.device)}
    examined = guarded(examine, case, create_loss(case)) if is_examined(case) else {}
    output = tuple(tensor.detach() for tensor in call())
    record.update(check(case, output, examined.get("scale", 1.0)) | examined)
    facts = environment.describe(case.device, torch.get_num_threads())
    cpu = " ".join(filter(None, (facts["cpu"], environment.cpu_kind())))
    record["machine"] = facts["gpu"] or f"{cpu}, {facts['threads']} threads"
    test = Beside()
    benchmark(_synchronised(call, case.device))
    if case.device == "cpu" and benchmark.stats:  # not where timing is switched off
        record.update(test.stop(benchmark.stats.stats.data).fields())
    record["time_ratio"] = asdict(time_ratio(call, _yardstick(case), case.device))
    return record


def _yardstick(case: Case) -> Callable[[], Any]:
    if case.implementation == "reference":
        side = round(case.cost.macs(case.pass_) ** (1 / 3))
        left, right = (torch.rand(side, side, device=case.device) for _ in range(2))
        return lambda: left @ right
    reference = replace(case, implementation="reference", options={}, contender="")
    return case_call(reference, create_loss(reference), make_inputs(reference))


def _synchronised(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    if device == "cpu":
        return call

    def wait() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return wait
