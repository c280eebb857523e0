"""The fastest that a device computes, copies and starts operations: measured, or from a datasheet.

An operation takes at least as long as its arithmetic at the rate of large matrix products, as its
bytes at the rate of a copy of as many, and as it takes to be started (the roofline model, Williams
et al. 2009, for one operation at a time).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lossbench.bench.counting.operations import Operation
from lossbench.bench.counting.trace import Trace
from lossbench.bench.records.calibrations import SLACK, fastest, is_beaten, reached

TERMS = ("compute", "memory", "launch")


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best.

    Attributes:
        gemm_gflops: name of a dtype, or "tf32" -> 10^9 FLOP/s of matrix products (1 MAC = 2 FLOPs).
        copy_gb_per_s: (bytes read and written, 10^9 bytes/s), smallest first: caches, then memory.
        launch_us: microseconds between the starts of two operations.
    """

    gemm_gflops: Mapping[str, float]
    copy_gb_per_s: Sequence[tuple[int, float]]
    launch_us: float

    @classmethod
    def of(cls, fields: Mapping[str, Any] | None) -> "Ceilings | None":
        """The inverse of ``describe``; None of None."""
        if fields is None:
            return None
        points = [(int(size), float(rate)) for size, rate in fields["copy_gb_per_s"]]
        return cls(fields["gemm_gflops"], points, fields["launch_us"])

    @classmethod
    def best(cls, found: Sequence["Ceilings"]) -> "Ceilings":
        """The best of several calibrations, rate by rate."""
        best = cls.of(fastest([each.describe() for each in found]))
        assert best is not None
        return best

    def describe(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {**asdict(self), "copy_gb_per_s": [list(point) for point in self.copy_gb_per_s]}

    def terms_ms(self, operation: Operation) -> tuple[float, float, float]:
        """Milliseconds of an operation's arithmetic, of its bytes, and of its start."""
        return (
            self.compute_ms(operation.macs, operation.precision),
            operation.moved_bytes / self._bytes_per_ms(operation.moved_bytes),
            self.launch_us / 1e3,
        )

    def compute_ms(self, macs: float, precision: str) -> float:
        """Milliseconds of multiply-adds of operands of a precision.

        Raises:
            ValueError: there is no ceiling for it.
        """
        if not macs:
            return 0.0
        if precision not in self.gemm_gflops:
            known = ", ".join(sorted(self.gemm_gflops))
            raise ValueError(f"no rate of {precision} products is known of this device: {known}")
        return 2 * macs / self.gemm_gflops[precision] / 1e6

    def floor_ms(self, trace: Trace, least_macs: int, input_bytes: int) -> float:
        """Milliseconds below which no call can be: its least work at the highest rates.

        Args:
            trace: of the call or of a smaller batch: says in which precisions.
            least_macs: multiply-adds that cannot be avoided.
            input_bytes: read at least once.
        """
        executed = trace.executed_macs
        compute = sum(self.compute_ms(each.macs, each.precision) for each in trace.operations)
        fastest = max(rate for _, rate in self.copy_gb_per_s)
        scale = least_macs / executed if executed else 0.0
        return max(compute * scale, input_bytes / fastest / 1e6)

    def _bytes_per_ms(self, moved: int) -> float:
        sizes, rates = zip(*self.copy_gb_per_s, strict=True)
        return float(np.interp(np.log(max(1.0, float(moved))), np.log(sizes), rates)) * 1e6


def beats(record: Mapping[str, Any]) -> bool:
    """Whether a result is better than the ceiling that it is held against."""
    share = _share(record)
    return share is not None and is_beaten(share)


def of_ceiling(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a result reached of a ceiling, which is raised to a result that beats it.

    Args:
        record: with ``mfu``, of pretraining, or ``ceiling_ms`` and, if it was measured,
            ``median_ms``.

    Returns:
        ``mfu`` or ``fraction_of_ceiling``, and ``ceiling_raised``, by how much. By more than
        ``SLACK`` no ceiling is raised: the record of a case is invalid, and ``mfu`` is not known.
        Nothing of a case that is not ok, and of what no ceiling is known for.
    """
    share = _share(record)
    if share is None:
        return {}
    is_mfu = record.get("mfu") is not None
    if share > 1 + SLACK:
        return _too_much(record) if is_mfu else _too_fast(record)
    fraction, raised = reached(share)
    return {"mfu" if is_mfu else "fraction_of_ceiling": fraction, "ceiling_raised": raised}


def _share(record: Mapping[str, Any]) -> float | None:
    """Of the ceiling, as it was calibrated; None: not known."""
    if record.get("mfu") is not None:
        return float(record["mfu"])
    if record["status"] != "ok":
        return None
    return record["ceiling_ms"] / record["median_ms"] if "ceiling_ms" in record else None


def _too_fast(record: Mapping[str, Any]) -> dict[str, Any]:
    reason = (
        f"{record['median_ms']:.3g} ms is faster than the {record['ceiling_ms']:.3g} ms that the "
        "calibrated device needs at least: not all of the work was done, or the calibration was "
        "disturbed"
    )
    return {"status": "invalid", "reason": reason}


def _too_much(record: Mapping[str, Any]) -> dict[str, Any]:
    reason = (
        f"MFU is not known: the network's multiply-adds a second are {record['mfu']:.2f} times "
        "what the calibrated device does of matrix products at best: its convolutions need fewer "
        "than are counted, or the calibration was disturbed"
    )
    return {"mfu": None, "reason": record["reason"] or reason}
