"""The table of noise: what was claimed of samples whose truth is known, alone and beside work."""

import numpy as np
import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing import trust
from lossbench.reports.records import load
from lossbench.reports.tables import noise

CASE = Case("smi", "gram", batch=4, dim=8).describe()


def processes(neighbour, **factors):
    """Records of five processes whose calls take a millisecond, give or take 1%."""
    generator = np.random.default_rng(0)
    for number in range(5):
        samples = {
            field: (factors.get(name, 1.0) * np.exp(generator.normal(0, 0.01, 40))).tolist()
            for name, field in trust.CALLS.items()
        }
        about = {"noise_pass": "step", "noise_slowdown": 0.15, "noise_neighbour": neighbour}
        about |= {"noise_rounds": 4, "noise_processes": 5}
        key = {"key": f"{neighbour}{number}", "status": "ok", "reason": ""}
        yield {**CASE, **about, **samples, **key, "pass": "noise", "median_ms": 1.0}


def test_a_row_for_what_is_alone_and_one_for_what_has_a_neighbour(write_run, monkeypatch):
    monkeypatch.setattr(trust, "DRAWS", 80)
    path = write_run([*processes(False, slowed=1.15), *processes(True, again=1.2, slowed=1.2)])
    (section,) = noise.build(load([path]))
    alone, beside = section.frame.to_dict("records")
    of_alone = [alone[name] for name in ("beside", "comparisons", "false", "slowdown", "found")]
    assert of_alone == ["nothing", 10, 0, 0.15, 10]
    assert alone["held_8"] > 0.9
    assert [beside[name] for name in ("beside", "comparisons", "false")] == [
        "a busy neighbour",
        10,
        10,
    ]
    assert beside["held_8"] < 0.1


def test_a_run_without_noise_is_refused(write_run, records):
    with pytest.raises(ValueError, match="run lossbench noise first"):
        noise.build(load([write_run(records[:1])]))
