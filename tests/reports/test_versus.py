"""The figure of several losses on one axis."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_grid import BATCHES, DIMS, records  # noqa: F401 - a fixture

from lossbench.reports import style
from lossbench.reports.figures import versus
from lossbench.reports.functions import figure
from lossbench.reports.records import load


def lines(axis):
    """What is drawn in a panel, without the bars."""
    drawn = [line for line in axis.get_lines() if len(line.get_xdata())]
    return [line for line in drawn if line.get_color() != style.FAINT]


def test_against_the_batch_there_is_a_panel_for_each_dimension(records, write_run):  # noqa: F811
    drawn = versus.draw(load([write_run(records)]))
    assert [axis.get_title() for axis in drawn.axes] == [f"D = {dim}" for dim in DIMS]
    for axis, dim in zip(drawn.axes, DIMS, strict=True):
        smi, vicreg = lines(axis)[:2]
        assert list(smi.get_xdata()) == list(BATCHES)
        assert list(smi.get_ydata()) == pytest.approx([n * dim / 1e4 for n in BATCHES])
        assert vicreg.get_ydata()[0] == pytest.approx(3 * 64 * dim / 1e4)


def test_against_the_dimension_there_is_a_panel_for_each_batch(records, write_run):  # noqa: F811
    drawn = versus.draw(load([write_run(records)]), against="dim")
    assert [axis.get_title() for axis in drawn.axes] == [f"N = {batch}" for batch in BATCHES]


def test_against_memory_there_is_a_panel_for_each_shape(records, write_run):  # noqa: F811
    drawn = versus.draw(load([write_run(records)]), against="memory")
    assert len(drawn.axes) == len(BATCHES) * len(DIMS)
    assert drawn.axes[0].get_title() == "N = 64, D = 128"


def test_a_loss_keeps_its_colour_in_every_panel(records, write_run):  # noqa: F811
    drawn = versus.draw(load([write_run(records)]))
    colours = [[line.get_color() for line in lines(axis)[:2]] for axis in drawn.axes]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 2


def test_bad_axes_and_empty_runs_are_refused(records, write_run):  # noqa: F811
    path = write_run(records)
    with pytest.raises(ValueError, match="unknown axis of figure versus 'time'"):
        figure("versus", path, against="time")
    with pytest.raises(ValueError, match="figure scaling is shown in one way: leave against out"):
        figure("scaling", path, against="dim")
    failed = [{**records[0], "status": "oom", "reason": "too large"}]
    with pytest.raises(ValueError, match="no step was measured"):
        figure("versus", write_run(failed))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_front_holds_exactly_what_nothing_beats(points):
    rows = pd.DataFrame(points, columns=["peak_bytes", "median_ms"])
    front = set(versus.pareto(rows).itertuples(index=False, name=None))
    for memory, ms in points:
        beaten = any(m <= memory and t <= ms and (m, t) != (memory, ms) for m, t in points)
        assert ((memory, ms) in front) == (not beaten)
