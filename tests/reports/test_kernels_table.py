"""The table of fused kernels: shares of the floor, ratios, and targets met or missed."""

import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.counting import count
from lossbench.reports.page import make_table
from lossbench.reports.records import load
from lossbench.reports.tables import kernels

SHAPE = {"batch": 2048, "dim": 64, "dtype": "bfloat16", "device": "cuda"}
WAYS = {
    "fused": Case("smi", "triton", options={"strategy": "fused"}, **SHAPE),
    "cublas": Case("smi", "triton", options={"strategy": "cublas"}, **SHAPE),
    "eager": Case("smi", products="bf16", **SHAPE),
    "exact": Case("smi", products="ieee", **SHAPE),
    "tuned": Case(
        "smi", "compiled", options={"mode": "max-autotune-no-cudagraphs"}, products="bf16", **SHAPE
    ),
}


def record(way: str, ms: float | None, floor_ms: float = 1.0, **fields) -> dict:
    case = WAYS[way]
    macs = case.cost.macs("step")
    counts = {"macs": macs, "gmacs": macs / 1e9, "title": "SMI"}
    made = {"key": case.label, "status": "ok", "reason": "", **case.describe(), **counts}
    if ms is None:
        return {**made, "status": "unsupported", "reason": "no GPU", **fields}
    measured = {
        "median_ms": ms,
        "p20_ms": ms,
        "p80_ms": ms,
        "samples_ms": [ms * f for f in (0.99, 1.0, 1.01, 1.0)],
    }
    measured |= {"peak_bytes": 2_000_000, "gradient_error": 3e-3, "floor_ms": floor_ms}
    measured |= {"pair_group": "g", "pair_processes": 2, "pair_noise": 0.02, "energy_mj": 500.0}
    return {**made, **measured, **fields}


@pytest.fixture
def build(write_run):
    def build(*records):
        return kernels.build(load([write_run(list(records))]))

    return build


def test_rates_are_of_the_least_work_whoever_does_more(build):
    section = build(record("fused", 1.25), record("eager", 2.5))[0]
    frame = section.frame.set_index("implementation")
    least = 2 * 6 * 2048**2 * 64
    assert frame["tflops"]["triton strategy=fused"] == pytest.approx(least / 1.25e-3 / 1e12)
    assert frame["tflops"]["reference bf16"] == pytest.approx(least / 2.5e-3 / 1e12)
    assert frame["of_floor"]["triton strategy=fused"] == pytest.approx(0.8)


def test_ratios_are_to_the_fastest_kernel(build):
    section = build(record("fused", 1.25), record("cublas", 1.0), record("eager", 3.0))[0]
    frame = section.frame.set_index("implementation")
    assert frame["ratio"]["reference bf16"] == pytest.approx(3.0)
    assert frame["verdict"]["triton strategy=fused"] == "SLOWER"
    assert frame["ratio"].isna()["triton strategy=cublas"]


@pytest.mark.parametrize(
    ("kernel_ms", "share", "to_eager", "to_compiled"),
    [
        (1.1, "met", "met", "met"),
        (1.2, "MISSED", "met", "met"),
        (2.0, "MISSED", "MISSED", "MISSED"),
    ],
)
def test_targets(build, kernel_ms, share, to_eager, to_compiled):
    rows = [record("fused", kernel_ms), record("eager", 1.9), record("tuned", 1.7)]
    notes = [note for note in build(*rows)[0].notes if "target" in note]
    assert [note.rpartition(": ")[2] for note in notes] == [
        f"{share}.",
        f"{to_eager}.",
        f"{to_compiled}.",
    ]


def test_a_kernel_that_did_not_run_meets_nothing(build):
    section = build(record("fused", None), record("eager", 1.9))[0]
    assert "No fused kernel was measured here: no target is met or missed." in section.notes
    assert "triton strategy=fused: no GPU." in section.notes


def test_invalid_eager_code_is_a_row_that_says_why(build):
    wrong = record("eager", None, status="invalid", reason="the value is not finite")
    section = build(record("fused", 1.0), wrong)[0]
    assert section.frame.set_index("implementation")["status"]["reference bf16"] == "invalid"
    assert "reference bf16: the value is not finite." in section.notes


def test_a_run_without_kernels_is_refused(build):
    with pytest.raises(ValueError, match="run lossbench run --suite gpu"):
        build(record("eager", 1.0))


def test_fits_80_columns(write_run):
    run = write_run([record(way, 1.0 + index) for index, way in enumerate(WAYS)])
    text = make_table("kernels", [run], "terminal")
    assert max(map(len, text.splitlines())) <= 80


def test_counts_of_a_kernel_case_agree():
    assert count(WAYS["fused"])["counts_agree"]
