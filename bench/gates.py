"""Gates against a committed baseline: exact counts, near-exact peak memory, time as a ratio.

Time is gated only on the machine that made the baseline, and only as the ratio to the loss's own
reference in the same session: neither a slower machine nor a noisy one is a regression.
"""

import json
from pathlib import Path
from typing import Any

EXACT = (
    "macs_cost_model",
    "macs_flop_counter",
    "forward_macs_fvcore",
    "off_diagonal_entries",
    "communicated_bytes",
    "saved_bytes",
)
PEAK_TOLERANCE = 0.01
TIME_TOLERANCE = 0.25
"""A ratio fails when its whole 95% interval is this much above the baseline's."""


class Baseline:
    """A committed file: case label -> counts, peak bytes by device, time ratio by machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def check(self, label: str, record: dict[str, Any]) -> list[str]:
        """What is worse, or merely different, than the baseline; nothing if the gate passes.

        Args:
            label: name of the case.
            record: ``EXACT`` fields, ``device``, ``machine``, ``peak_bytes``, and for all but the
                reference ``time_ratio`` (value, low, high).
        """
        entry = self._entries.get(label)
        if entry is None:
            return [f"{label} is not in {self.path.name}"]
        problems = [
            f"{name} is {record[name]:,}, baseline {entry[name]:,}"
            for name in EXACT
            if record[name] != entry[name]
        ]
        peak = entry["peak_bytes"].get(record["device"])
        if peak is not None and abs(record["peak_bytes"] - peak) > PEAK_TOLERANCE * peak:
            change = 100 * (record["peak_bytes"] / peak - 1)
            problems.append(f"peak_bytes is {record['peak_bytes']:,}, {change:+.1f}% of baseline")
        return problems + _slower(record, entry)

    def update(self, label: str, record: dict[str, Any]) -> None:
        """Take ``record`` as the new baseline of its case; other devices' peaks are kept."""
        entry = self._entries.setdefault(label, {"peak_bytes": {}, "time_ratio": {}})
        entry.update({name: record[name] for name in EXACT})
        entry["peak_bytes"][record["device"]] = record["peak_bytes"]
        if "time_ratio" in record:
            entry["time_ratio"][record["machine"]] = round(record["time_ratio"]["value"], 3)

    def write(self) -> None:
        """Write the file; entries are sorted so that a change reads as a small diff."""
        text = json.dumps(self._entries, indent=1, sort_keys=True)
        self.path.write_text(text + "\n")


def _slower(record: dict[str, Any], entry: dict[str, Any]) -> list[str]:
    allowed = entry["time_ratio"].get(record["machine"])
    ratio = record.get("time_ratio")
    if allowed is None or ratio is None or ratio["low"] <= allowed * (1 + TIME_TOLERANCE):
        return []
    return [
        f"takes {ratio['value']:.2f} times the reference's time "
        f"(95%: {ratio['low']:.2f} to {ratio['high']:.2f}), baseline {allowed:.2f}"
    ]
