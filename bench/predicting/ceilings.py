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

TERMS = ("compute", "memory", "launch")
SLACK = 0.25
"""Share by which a time may be below the floor: ceilings too are measured beside others."""


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


def of_ceiling(record: Mapping[str, Any]) -> dict[str, Any]:
    """``fraction_of_ceiling`` of a measured record, and that it is invalid if it cannot be.

    Args:
        record: with ``ceiling_ms`` and, if it was measured, ``median_ms``.
    """
    if record["status"] != "ok" or "ceiling_ms" not in record:
        return {}
    fraction = record["ceiling_ms"] / record["median_ms"]
    if fraction <= 1 + SLACK:
        return {"fraction_of_ceiling": fraction}
    reason = (
        f"{record['median_ms']:.3g} ms is faster than the {record['ceiling_ms']:.3g} ms that the "
        "calibrated device needs at least: not all of the work was done, or the calibration was "
        "disturbed"
    )
    return {"fraction_of_ceiling": fraction, "status": "invalid", "reason": reason}
