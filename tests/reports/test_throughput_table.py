"""The table and the figure of pretraining steps: stalls, few steps, rates that are hardly known."""

import json

import pandas as pd
import pytest
from made_up import case, measured

from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.pretraining import throughput as measuring
from lossbench.bench.pretraining.config import from_preset
from lossbench.reports.page import make_figure, make_table
from lossbench.reports.records import load
from lossbench.reports.tables import throughput

STEP = {**dict.fromkeys(PHASES, 1.0), "encoder_forward": 12.0, "step": 21.0}
MEMORY = dict.fromkeys(throughput.MEMORY, 1_000_000)


def run(loss, factors, **changes):
    """A made-up run; its steps take 21 ms times the factors."""
    config = from_preset("digits", batch=8, loss=loss)
    steps = [{name: ms * factor for name, ms in STEP.items()} for factor in factors]
    settings = {f"pretrain_{name}": value for name, value in config.describe().items()}
    of_steps = {**MEMORY, **settings, **measuring.times(config, 1, steps)}
    alone = {"pass": "pretrain", "pair_group": None, "pair_processes": None, "mfu": 0.5}
    return {**case(loss, "gram", loss=loss), **measured(1.0), **of_steps, **alone, **changes}


def numbers(sections):
    """All numbers of tables, without the interval, which one step more or less may change."""
    frames = [section.frame.drop(columns="interval", errors="ignore") for section in sections]
    return pd.concat([frame.select_dtypes("number").stack() for frame in frames])


def test_a_stall_changes_no_table_by_more_than_5_percent(write_run):
    """2 s once in 22 steps that are 21 ms long."""
    steady = [1.0, 1.02, 0.98, 1.01, 0.97, 1.03, 0.99, 1.0, 1.02, 1.01, 0.98] * 2
    stalled = [*steady[:-1], 1 + 2000 / 21]
    before, after = (
        numbers(throughput.build(load([write_run([run("smi", steady), run("vicreg", factors)])])))
        for factors in (steady, stalled)
    )
    assert len(before) > 20
    assert (after / before - 1).abs().max() < 0.05


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "latex", "terminal"])
def test_few_steps_have_a_rate_without_an_interval(write_run, form):
    records = [run("smi", [1.0] * 3), run("vicreg", [1.0, 1.1] * 3)]
    assert records[0]["images_per_s_low"] is None
    text = make_table("throughput", [write_run(records)], form)
    assert "images" in text
    if form == "json":
        few, enough = json.loads(text)[0]["rows"]
        assert few["interval"] is None
        assert 0 < enough["interval"] < 0.2
    if form == "terminal":
        rate, interval = text.splitlines()[3].split()[2:4]
        assert (rate, interval) == ("381.0", "-")


def test_without_any_interval_there_is_no_column_of_it(write_run, tmp_path):
    path = write_run([run("smi", [1.0] * 3)])
    text = make_table("throughput", [path], "terminal")
    assert "381.0" in text
    assert "+-" not in text
    make_figure("step", [path], tmp_path / "step.svg")


def test_an_mfu_is_never_above_all_and_says_what_was_raised(write_run):
    """An older record; one whose ceiling was raised; one that no ceiling allows."""
    unknown = {"mfu": None, "reason": "MFU is not known: why"}
    for record, shown, said in (
        (run("smi", [1.0] * 9, mfu=1.03), "100.0%", "by up to 3.0%"),
        (run("smi", [1.0] * 9, mfu=1.0, ceiling_raised=0.03), "100.0%", "by up to 3.0%"),
        (run("smi", [1.0] * 9, mfu=1.4), "-", None),
        (run("smi", [1.0] * 9, **unknown), "-", "MFU is not known: why."),
    ):
        text = make_table("throughput", [write_run([record, run("vicreg", [1.0] * 9)])], "terminal")
        assert text.splitlines()[3].split()[-1] == shown
        assert (said or "") in " ".join(text.split())
        assert "103" not in text


def test_a_rate_that_is_hardly_known_has_no_absurd_interval(write_run):
    records = [run("smi", [1.0, 1.0, 1.0, 100.0, 100.0, 100.0])]
    text = make_table("throughput", [write_run(records)], "terminal")
    assert ">100%" in text
    for old in ({"images_per_s_high": 1e16}, {"images_per_s_high": 0.0, "images_per_s_low": 0.0}):
        text = make_table("throughput", [write_run([run("smi", [1.0] * 9) | old])], "terminal")
        assert ">100%" in text or "+-" not in text
