"""A sweep gone through on paper: its own code, with a worker that predicts, and costs as its clock.

What is predicted comes from a datasheet, what a process or a compiler takes is assumed: a rehearsal
says what will be done in which order, with how many launches and in about how long.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.energy import LEAST_S
from lossbench.bench.measuring.timing import VISIT_MS
from lossbench.bench.predicting import gpus
from lossbench.bench.predicting.expected import count_and_predict
from lossbench.bench.predicting.gpus import Gpu
from lossbench.bench.records.failures import guarded
from lossbench.bench.running.budget import CALLS, START_S, compile_s
from lossbench.bench.running.sweep import Limits, open_run, sweep
from lossbench.bench.running.worker import Worker

GPU = "h100-sxm"
"""The GPU that is imagined."""
TOLD = ("predicted_ms", "predicted_peak_bytes")
"""Of compiled code, by the eager code that it is made of, which launches more."""
BEGIN_S = 10.0
"""Until the first case begins: imports, and the calibration."""
KERNELS_S = 20.0
"""What it takes to compile the kernels of a stage ahead, on the cores of such a machine."""
EVALUATION_S = 0.3
"""Beside the calls of an evaluation: counting, waits before samples, the driver's counters."""
SURROUNDED_S = 5.0
"""What ``torch.compile``, data-parallel training and a graph take of one loss."""
KINDS = 3
"""Inputs whose truth is found once for all cases of a loss and shape."""
VISIT = 1.5
"""Time of a visit over that of its calls."""


class Rehearsal(Worker):
    """Takes the place of a worker.

    Args:
        gpu: that is imagined.
    """

    def __init__(self, gpu: Gpu) -> None:
        super().__init__("cuda")
        self._gpu = gpu
        self._clock_s = BEGIN_S
        self._runs = False
        self._known: set[str] = set()
        self._counts: dict[str, dict[str, Any]] = {}

    def now(self) -> float:
        """Seconds since the rehearsal began."""
        return self._clock_s

    def prepare(self, cases: Sequence[Case], timeout_s: float) -> dict[str, Any]:
        """The time of compiling kernels."""
        self._start()
        self._clock_s += KERNELS_S * any(case.implementation == "triton" for case in cases)
        return {}

    def evaluate(self, case: Case, timeout_s: float, **how: Any) -> dict[str, Any]:
        """Counts, and predictions in place of times and memory."""
        self._start()
        counts = self._count(case)
        if not how["measure"] or "status" in counts:
            return counts
        call_ms = counts["predicted_ms"]
        self._clock_s += EVALUATION_S + CALLS["cuda"] * call_ms / 1e3
        self._clock_s += self._new(f"compile {case.label}", compile_s(case))
        shape = f"truth {case.loss} {case.loss_batch} {case.dim} {case.dtype}"
        self._clock_s += self._new(shape, KINDS * self._truth_s(case))
        self._clock_s += SURROUNDED_S * how["surrounded"] + LEAST_S * how["energy"]
        needed = (counts["predicted_peak_bytes"] or 0) + counts["input_bytes"]
        if needed > self._gpu.memory_bytes:
            reason = f"{needed / 1e9:.0f} GB do not fit in {self._gpu.memory_bytes / 1e9:.0f}"
            return {**counts, "status": "oom", "reason": reason}
        times = dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "call_ms"), call_ms)
        peak = counts["predicted_peak_bytes"]
        measured = {"samples_ms": [call_ms], "peak_bytes": peak, "accuracy": "measured"}
        return {**counts, "status": "ok", "reason": "", **times, **measured}

    def compare(
        self,
        cases: Sequence[Case],
        rounds: Sequence[int],
        timeout_s: float,
        scales: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """The time of a process that visits cases in turn."""
        self._start()
        times = [self._count(case)["predicted_ms"] for case in cases]
        visits = zip(rounds, times, strict=True)
        self._clock_s += VISIT * sum(n * max(VISIT_MS, ms) / 1e3 for n, ms in visits)
        samples = [[ms] * number for number, ms in zip(rounds, times, strict=True)]
        checks = [{"status": "ok", "reason": ""} for _ in scales or ()]
        return {"samples_ms": samples, "checks": checks}

    def stop(self) -> None:
        """The process is gone."""
        self._runs = False

    def _start(self) -> None:
        self._clock_s += 0.0 if self._runs else START_S["cuda"]
        self._runs = True

    def _new(self, what: str, seconds: float) -> float:
        """Seconds of what is done once, in whatever process."""
        first = what not in self._known
        self._known.add(what)
        return seconds if first else 0.0

    def _truth_s(self, case: Case) -> float:
        macs = losses.spec(case.loss).estimate(case.problem).macs("step")
        return self._gpu.ceilings.compute_ms(macs, "float64") / 1e3

    def _count(self, case: Case) -> dict[str, Any]:
        """Counts and predictions; nobody here can ask a GPU's compiler what it makes of code."""
        key = repr(case)
        if key not in self._counts:
            fields = guarded(count_and_predict, case, self._gpu.ceilings)
            if "predicted_ms" not in fields and "status" not in fields:
                eager = replace(case, implementation="reference", options={})
                told = guarded(count_and_predict, eager, self._gpu.ceilings)
                fields.update({name: told[name] for name in TOLD if name in told})
            self._counts[key] = fields
        return self._counts[key]


class Timeline:
    """Progress of a rehearsal: what became known when.

    Args:
        worker: whose clock it is.
    """

    def __init__(self, worker: Rehearsal) -> None:
        self._worker = worker
        self.known: list[tuple[float, Case, dict[str, Any]]] = []
        self.lines: list[str] = []

    def skip(self, case: Case) -> None:
        """Nothing is."""

    def start(self, case: Case) -> None:
        """A case begins."""

    def compare(self, cases: Sequence[Case]) -> None:
        """Cases of a group are about to be timed in turn."""

    def finish(self, case: Case, record: dict[str, Any]) -> None:
        """A case ended."""
        self.known.append((self._worker.now(), case, record))

    def tell(self, line: str) -> None:
        """Something happened that the user should know."""
        self.lines.append(line)


def rehearse(cases: Sequence[Case], budget_s: float, **how: bool) -> Timeline:
    """Go through a sweep on paper.

    Args:
        cases: of CUDA, which need not be here.
        budget_s: as ``Limits`` has it.
        **how: as ``sweep`` takes it.
    """
    gpu = gpus.gpu(GPU)
    worker = Rehearsal(gpu)
    timeline = Timeline(worker)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.jsonl"
        writer, _ = open_run(out, "cpu", calibration=gpu.ceilings.describe, is_alone=False)
        with writer:
            limits = Limits(budget_s)
            imagined = [_imagined(case, gpu) for case in cases]
            sweep(imagined, writer, limits, timeline, **how, worker=worker, now=worker.now)
    return timeline


def _imagined(case: Case, gpu: Gpu) -> Case:
    """``auto`` chooses by the memory that is free: here that of the GPU."""
    if case.implementation != "auto" or case.is_share:
        return case
    return replace(case, options={"memory_bytes": int(gpu.memory_bytes), **case.options})
