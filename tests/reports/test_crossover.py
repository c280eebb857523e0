"""The crossover figure: what it maps, and that it is drawn the same again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import case, measured

from lossbench import losses
from lossbench.reports import style
from lossbench.reports.figures import crossover
from lossbench.reports.page import make_figure
from lossbench.reports.records import load

RESULTS = Path(__file__).parents[2] / "reports/results/amd-epyc-2-cores"


@pytest.fixture
def run(records, write_run):
    local = [r for r in records if r["distribution"] == "local" and r["pass"] == "step"]
    return write_run([dict(r, implementation="gram") for r in local if not r["variant"]])


def test_feature_losses_cross_over_where_n_passes_d():
    table = crossover._cheapest_way("barlow_twins")
    gram, reference = (crossover.WAYS.index(way) for way in ("gram", "reference"))
    for row, dim in enumerate(crossover.DIMS):
        for column, batch in enumerate(crossover.BATCHES):
            if 4 * batch <= 2 * dim:  # 4 N^2 D at most, against 3 N D^2
                assert table[row, column] == gram
            if 3 * batch >= 4 * dim:  # 3 N^2 D at least
                assert table[row, column] == reference


def test_sample_losses_go_through_tiles_where_their_gram_is_far_larger_than_their_views():
    gram, chunked = (crossover.WAYS.index(way) for way in ("gram", "chunked"))
    table = crossover._cheapest_way("smi")
    assert set(np.unique(table)) == {gram, chunked}
    for row, dim in enumerate(crossover.DIMS):
        for column, batch in enumerate(crossover.BATCHES):
            if batch <= dim:
                assert table[row, column] == gram
            if batch >= 16 * dim and batch >= 8192:
                assert table[row, column] == chunked
    assert set(np.unique(crossover._cheapest_way("nt_xent"))) == {gram}  # recomputing is work


def test_the_same_run_gives_the_same_file(run, tmp_path):
    for name in ("one.svg", "two.svg"):
        make_figure("crossover", [run], tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.svg", "two.svg"))
    assert one == two
    assert b"Barlow Twins" in one


def test_the_committed_figure_is_that_of_its_run(tmp_path):
    make_figure("crossover", [RESULTS / "scaling.jsonl"], tmp_path / "crossover.svg")
    assert (tmp_path / "crossover.svg").read_bytes() == (RESULTS / "crossover.svg").read_bytes()


def test_a_panel_for_each_loss_and_one_for_all(run):
    figure = crossover.draw(load([run]))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:4] == ["Barlow Twins", "NT-Xent", "SMI", "VICReg"]
    assert len(titles) == 5


def test_whoever_is_fastest_is_drawn(write_run):
    ways = {"triton": 1.0, "gram": 2.0, "their.loss": 0.5}
    records = [case(way, way) | measured(ms) for way, ms in ways.items()]
    records.append(case("b", "triton", loss_batch=4, batch=4) | measured(1.0))
    figure = crossover.draw(load([write_run(records)]))
    fastest = {line.get_label(): line for line in figure.axes[0].lines}
    assert fastest["their.loss"].get_xydata().tolist() == [[8, 16]]
    assert fastest["triton"].get_xydata().tolist() == [[4, 16]]
    assert fastest["triton"].get_marker() == style.LOOKS["triton"][1]
    assert {"their.loss", "triton", "gram", "SMI"} <= set(entries(figure))


def test_losses_of_others_have_no_map(write_run):
    own = [case("a", "apex", loss="mine", title="mine") | measured(1.0)]
    figure = crossover.draw(load([write_run(own)]))
    assert [axis.get_title() for axis in figure.axes] == ["mine", "The cheapest loss"]
    assert not any(axis.collections for axis in figure.axes)
    both = [*own, case("b") | measured(2.0)]
    figure = crossover.draw(load([write_run(both)]))
    assert [axis.get_title() for axis in figure.axes] == ["SMI", "mine", "The cheapest loss"]
    assert [len(axis.collections) for axis in figure.axes] == [1, 0, 1]
    (fastest,) = [line for line in figure.axes[2].lines if line.get_label() == "mine"]
    assert fastest.get_xydata().tolist() == [[8, 16]]


def test_what_is_drawn_is_not_told_by_colour_alone():
    figure = crossover.draw(load([RESULTS / "scaling.jsonl"]))
    markers = [line.get_marker() for line in figure.legends[0].legend_handles]
    assert len(set(markers)) == len(markers) > 4
    for axis in figure.axes[:5]:
        shown = {line.get_label().removesuffix(" counted") for line in axis.lines}
        assert shown <= set(entries(figure))


def entries(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crosover", "RUN"], "did you mean 'crossover'?"),
        (["crossover", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["crossover", "RUN", "--out", "map.bmp"], "--out must end in .svg, .png or .pdf"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, message):
    arguments = [str(run) if argument == "RUN" else argument for argument in arguments]
    command = [sys.executable, "-m", "lossbench.reports", "figure", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_has_a_map_whichever_implementations_it_has(name):
    known = {crossover.WAYS[index] for index in np.unique(crossover._cheapest_way(name))}
    assert known <= losses.spec(name).cost_models.keys()
