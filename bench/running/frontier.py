"""The largest batch before a device is out of memory, by bisection about the predicted one.

Each trial is a record like any other, of one call, in a child process that may hold no more than
the device, or a smaller one that is emulated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.growth import Growth
from lossbench.bench.counting.work import followed, with_batch
from lossbench.bench.predicting.ceilings import Ceilings, of_ceiling
from lossbench.bench.predicting.predict import predict_times
from lossbench.bench.records.environment import content_hash
from lossbench.bench.records.failures import guarded
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running.sweep import case_key, describe
from lossbench.bench.running.worker import SHARE_OF_MEMORY, Worker
from lossbench.losses.auto import free_bytes

RESOLUTION = 0.02
"""Between the largest batch that fits and the smallest that does not, as a share."""
FIRST = 256
"""Batch to begin with where nothing is predicted."""
LARGEST = 2**24
TELLING = ("ok", "oom")
"""Statuses that say on which side of the frontier a batch is."""


@dataclass(frozen=True)
class Frontier:
    """What was found for one kind of case.

    Attributes:
        case: of any batch.
        predicted: largest batch that should fit; None: not predicted.
        largest: largest batch that did, 0 for none.
        smallest: smallest that did not; None: none was found.
        note: why the search ended early, "" if it did not.
        failed: it ended because a trial did.
    """

    case: Case
    predicted: int | None
    largest: int
    smallest: int | None
    note: str
    failed: bool

    def describe(self) -> dict[str, Any]:
        """JSON-safe fields."""
        fields = {**self.case.describe(), **asdict(self)}
        for name in ("case", "batch", "loss_batch", "key"):
            fields.pop(name, None)
        return fields


class Told(Protocol):
    """What a search tells while it runs."""

    def start(self, case: Case) -> None:
        """A batch is about to be tried."""

    def finish(self, case: Case, record: dict[str, Any]) -> None:
        """It was tried, and its record is on the disk."""


def device_bytes(device: str, emulated: int | None) -> int:
    """Memory that may be taken: of the emulated device, or most of what is free here.

    Raises:
        ValueError: less than the emulated device has is free.
    """
    free = free_bytes(torch.device(device))
    if emulated is None:
        return int(SHARE_OF_MEMORY * free)
    if emulated > free:
        raise ValueError(
            f"{free / 1e9:.1f} GB are free here: --memory cannot emulate {emulated / 1e9:g} GB"
        )
    return emulated


def kinds(cases: Sequence[Case]) -> list[Case]:
    """One case for each loss, implementation, dimension, dtype and pass, whatever the batch.

    Raises:
        ValueError: there are none but of ``auto``, which has no frontier of its own, or they are of
            several devices.
    """
    if any(case.world > 1 for case in cases):
        raise ValueError("--frontier is that of one device: leave --world out")
    found = {
        with_batch(case, FIRST).label: with_batch(case, FIRST)
        for case in cases
        if case.implementation != "auto"
    }
    if not found:
        raise ValueError("auto runs what fits: --frontier needs --implementation gram, ...")
    return list(found.values())


class Search:
    """Bisects batches, one child process after another.

    Args:
        writer: the run file; trials that it holds are not made again.
        memory_bytes: of the device, inputs included.
        timeout_s: for a trial; batches that should take longer are not tried.
        told: told of the trials.
    """

    def __init__(self, writer: Writer, memory_bytes: int, timeout_s: float, told: Told) -> None:
        self._writer, self._memory_bytes = writer, memory_bytes
        self._timeout_s, self._told = timeout_s, told
        self._ceilings = Ceilings.of(writer.header.get("calibration"))

    def run(self, case: Case) -> Frontier:
        """Find the largest batch of a kind of case that fits."""
        growth = guarded(lambda: {"growth": Growth(followed(case))}).get("growth")
        predicted = growth.largest_batch(self._memory_bytes) if growth else None
        low, high, share = 0, LARGEST, RESOLUTION if predicted else 1.0
        batch, said = predicted or FIRST, ""
        while high - low > max(1, RESOLUTION * low):
            said = self._too_slow(growth, batch)
            if said:
                break
            status, said = self._try(case, batch, predicted)
            if status not in TELLING:
                return Frontier(case, predicted, low, _known(high), said, failed=True)
            low, high = (batch, high) if status == "ok" else (low, batch)
            batch, share = _next(low, high, share)
        return Frontier(case, predicted, low, _known(high), said, failed=False)

    def _too_slow(self, growth: Growth | None, batch: int) -> str:
        if growth is None or self._ceilings is None:
            return ""
        seconds = predict_times(growth.work(batch), self._ceilings)["predicted_ms"] / 1e3
        if seconds <= self._timeout_s:
            return ""
        return f"N = {batch:,} should take {seconds:,.0f} s or more: not tried"

    def _try(self, case: Case, batch: int, predicted: int | None) -> tuple[str, str]:
        """Status of a trial, and what there is to say of a failed one."""
        case = with_batch(case, batch)
        # one call in a limited process is another record than that of a run
        key = content_hash([case_key(case, self._writer.header), "frontier"])
        record = self._writer.records.get(key)
        if record is None or record["status"] not in TELLING:
            self._told.start(case)
            worker = Worker(case.device, device_bytes=self._memory_bytes)
            how = {"once": True, "ceilings": self._ceilings}
            fields = worker.evaluate(case, self._timeout_s, **how)
            worker.stop()
            record = {**describe(case, self._writer.header), "key": key, **fields}
            record.update(
                predicted_largest_batch=predicted,
                memory_limit_bytes=self._memory_bytes,
                **of_ceiling(record),
            )
            self._writer.append(record)
            self._told.finish(case, record)
        told = record["status"] in TELLING
        return record["status"], "" if told else f"N = {batch:,}: {record['reason']}"


def _known(high: int) -> int | None:
    return high if high < LARGEST else None


def _next(low: int, high: int, share: float) -> tuple[int, float]:
    """The batch to try next, and the share by which to go on from there."""
    if high == LARGEST:
        return max(low + 1, min(LARGEST - 1, int(low * (1 + share)))), 2 * share
    if low == 0:
        return max(2, min(high - 1, int(high / (1 + share)))), 2 * share
    return (low + high) // 2, share
