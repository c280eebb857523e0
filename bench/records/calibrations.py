"""What runs found of a device's ceilings, and the shares of them that results reached."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SLACK = 0.25
"""Share by which a result may beat a ceiling: ceilings too are measured beside others."""
ROUNDING = 1e-9
"""Share by which two sums of the same terms may differ."""


def fastest(calibrations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The best of several calibrations of a device, rate by rate: others only make one slower.

    Args:
        calibrations: as ``bench.predicting.ceilings`` describes them, one at least.

    Returns:
        One like them, with what else the first of them holds, such as links.
    """
    gemm_gflops: dict[str, float] = {}
    copies: dict[int, float] = {}
    for each in calibrations:
        for name, rate in each["gemm_gflops"].items():
            gemm_gflops[name] = max(rate, gemm_gflops.get(name, rate))
        for size, rate in each["copy_gb_per_s"]:
            copies[size] = max(rate, copies.get(size, rate))
    return {
        **calibrations[0],
        "gemm_gflops": gemm_gflops,
        "copy_gb_per_s": [list(point) for point in sorted(copies.items())],
        "launch_us": min(each["launch_us"] for each in calibrations),
    }


def best_of_run(
    header: Mapping[str, Any], records: Iterable[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The best calibration of a run file, of its header and its records; None: there is none."""
    found = [each.get("calibration") for each in (header, *records)]
    known = [each for each in found if each is not None]
    return fastest(known) if known else None


def is_beaten(share: float) -> bool:
    """Whether a result is better than the ceiling of which it reaches this share."""
    return share > 1 + ROUNDING


def reached(share: float) -> tuple[float, float]:
    """A share of a ceiling that is raised to a result that beats it; and by how much it is."""
    return min(share, 1.0), share - 1 if is_beaten(share) else 0.0
