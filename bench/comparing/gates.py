"""Gates against a committed baseline: exact counts, near-exact peak memory, time as a ratio.

Time is gated as a ratio measured in the same session, and only on the kind of machine that made the
baseline: neither a slower machine nor a noisy one is a regression.
"""

import json
from collections.abc import Iterator
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
TIME_TOLERANCE = 0.15
"""A ratio fails when all of the interval that claims rest on is this much above the baseline's,
which is of another session."""


class Baseline:
    """A committed file: case label -> counts, peak bytes by device, time ratio by machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unchecked: list[str] = []
        try:
            self._entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); restore it from git") from error

    def check(self, label: str, record: dict[str, Any]) -> list[str]:
        """What is worse, or merely different, than the baseline; nothing if the gate passes.

        A gate that the baseline cannot answer for is noted in ``unchecked``.

        Args:
            label: name of the case.
            record: ``EXACT`` fields and their ``counts_note``, ``status``, ``device``, ``machine``,
                ``peak_bytes`` and ``time_ratio`` (value, least, most).
        """
        entry = self._entries.get(label)
        if entry is None:
            return [f"{label} is not in {self.path.name}"]
        problems = [
            f"{name} is {record[name]:,}, baseline {entry[name]:,}"
            for name in self._comparable(label, record, entry)
            if record[name] != entry[name]
        ]
        if record["status"] != "ok":
            problems.append(record["reason"])
        problems += self._bigger(label, record, entry["peak_bytes"].get(record["device"]))
        return problems + self._slower(label, record, entry["time_ratio"].get(record["machine"]))

    def _comparable(
        self, label: str, record: dict[str, Any], entry: dict[str, Any]
    ) -> Iterator[str]:
        """Counts that both have: one of an optional package may be missing."""
        for name in EXACT:
            if name not in record and entry.get(name) is None:
                continue  # there is no cost model
            if record.get(name) is None:
                self.unchecked.append(f"{label}: {record['counts_note']}")
            elif entry.get(name) is None:
                self.unchecked.append(f"{label}: no {name} in the baseline")
            else:
                yield name

    def _bigger(self, label: str, record: dict[str, Any], peak: int | None) -> list[str]:
        if peak is None:
            self.unchecked.append(f"{label}: no peak memory of {record['device']} in the baseline")
            return []
        if abs(record["peak_bytes"] - peak) <= PEAK_TOLERANCE * peak:
            return []
        change = 100 * (record["peak_bytes"] / peak - 1)
        return [f"peak_bytes is {record['peak_bytes']:,}, {change:+.1f}% of baseline"]

    def _slower(self, label: str, record: dict[str, Any], allowed: float | None) -> list[str]:
        ratio = record["time_ratio"]
        if allowed is None:
            self.unchecked.append(f"{label}: no time ratio of {record['machine']} in the baseline")
            return []
        if ratio["least"] <= allowed * (1 + TIME_TOLERANCE):
            return []
        return [
            f"takes {ratio['value']:.2f} times its yardstick's time "
            f"(99.9%: {ratio['least']:.2f} to {ratio['most']:.2f}), baseline {allowed:.2f}"
        ]

    def update(self, label: str, record: dict[str, Any]) -> None:
        """Take ``record`` as the new baseline of its case; other devices' peaks are kept."""
        entry = self._entries.setdefault(label, {"peak_bytes": {}, "time_ratio": {}})
        entry.update({name: record.get(name) for name in EXACT})
        entry["peak_bytes"][record["device"]] = record["peak_bytes"]
        entry["time_ratio"][record["machine"]] = round(record["time_ratio"]["value"], 3)

    def write(self) -> None:
        """Write the file; entries are sorted so that a change reads as a small diff."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._entries, indent=1, sort_keys=True) + "\n")
