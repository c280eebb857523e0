"""Figures: what they draw is what the records say, and the same run gives the same file."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from lossbench import losses
from lossbench.bench.records.runfile import RunFileWarning
from lossbench.reports import style
from lossbench.reports.figures import compare, crossover, frontier, memory, roofline, scaling
from lossbench.reports.page import make_figure
from lossbench.reports.records import load

FIGURES = {
    module.__name__.rpartition(".")[2]: module
    for module in (compare, crossover, frontier, memory, roofline, scaling)
}
CALIBRATION = {
    "gemm_gflops": {"float32": 100.0, "bfloat16": 400.0, "float64": 50.0},
    "copy_gb_per_s": [[2**16, 80.0], [2**20, 40.0], [2**28, 10.0]],
    "launch_us": 5.0,
}
BATCHES = (64, 256, 1024)
OKABE_ITO = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]


def record(loss="smi", implementation="gram", batch=64, dim=512, status="ok", **fields):
    """A step that takes 1 us and 1 kB for each sample, twice that by the reference."""
    ms = batch / 1e3 * (2 if implementation == "reference" else 1)
    made = {
        **{"loss": loss, "title": losses.spec(loss).title, "implementation": implementation},
        **{"batch": batch, "loss_batch": batch, "dim": dim, "world": 1, "evaluations": 1},
        **{"dtype": "float32", "pass": "step", "distribution": "local", "inputs": "random"},
        **{"variant": "", "options": "", "products": "", "contender": ""},
        **{"status": status, "reason": "", "macs": 10**6, "gmacs": 0.001, "moved_bytes": 10**6},
    }
    if status == "ok":
        made |= {"median_ms": ms, "p20_ms": 0.9 * ms, "p80_ms": 1.2 * ms, "peak_bytes": 1e6 * ms}
        made |= {"samples_ms": [0.9 * ms, ms, ms, ms, 1.2 * ms]}
    return {"key": repr((*made.values(), *fields.values())), **made, **fields}


def several(**fields):
    """Two losses by two implementations, at three batches and two D."""
    return [
        record(loss, implementation, batch, dim, **fields)
        for loss in ("smi", "vicreg")
        for implementation in ("reference", "gram")
        for batch in BATCHES
        for dim in (512, 8192)
    ]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def frame(write_run):
    """A function from records of one machine, or several lists of them, to the loaded table."""

    def make(*machines):
        runs = [
            write_run(
                [{**each, "key": f"{number} {each['key']}"} for each in records],
                f"{number}.jsonl",
                environment={"cpu": f"CPU {number}", "threads": 2, "torch": "2.13.0"},
            )
            for number, records in enumerate(machines)
        ]
        return load(runs)

    return make


@pytest.fixture
def sides(write_run):
    """A function from records of several runs of one machine and code to what is compared."""
    return lambda *runs: compare.read([write_run(run, f"{n}.jsonl") for n, run in enumerate(runs)])


def calibrated(records):
    return records.assign(calibration=[CALIBRATION] * len(records))


def panels(figure):
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def line(axis, label):
    """Points of the line of a name."""
    (found,) = [each for each in axis.lines if each.get_label() == label]
    return np.column_stack([found.get_xdata(), found.get_ydata()]).tolist()


def bars(axis, label):
    """Points of a name, and the ends of the bars through them."""
    (found,) = [each for each in axis.containers if each.get_label() == label]
    points, _, (ends, *_) = found
    return points.get_xydata(), np.array(ends.get_segments())


def entries(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_scaling_draws_medians_and_intervals(frame):
    figure = scaling.draw(frame(several()))
    found = panels(figure)
    losses_, dims = ("SMI", "VICReg"), (512, 8192)
    assert list(found) == [f"{loss}, D = {dim}" for loss in losses_ for dim in dims]
    for axis in found.values():
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
        assert line(axis, "gram") == [[batch, batch / 1e3] for batch in BATCHES]
        assert line(axis, "reference") == [[batch, batch / 500] for batch in BATCHES]
        band = axis.collections[0].get_paths()[0].vertices  # the reference's: it comes first
        at_64 = band[band[:, 0] == 64][:, 1]
        assert (at_64.min(), at_64.max()) == pytest.approx((0.9 * 0.128, 1.2 * 0.128))
    assert entries(figure) == ["reference", "gram", "p20 to p80", "published shape"]


def test_predictions_are_dashed_and_go_on_where_memory_ran_out(frame):
    records = [record(batch=n, predicted_ms=n / 2e3) for n in BATCHES]
    records.append(record(batch=4096, status="oom", predicted_ms=2.048))
    figure = scaling.draw(frame(records))
    axis = panels(figure)["SMI, D = 512"]
    assert line(axis, "gram predicted") == [[n, n / 2e3] for n in (*BATCHES, 4096)]
    assert len(line(axis, "gram")) == len(BATCHES)
    styles = {each.get_label(): each.get_linestyle() for each in axis.lines}
    assert (styles["gram"], styles["gram predicted"]) == ("-", "--")
    assert "predicted" in entries(figure)


def test_the_published_shape_is_marked_where_it_was_measured(frame):
    """SMI is counted at 256 samples a device, VICReg at 2048 gathered ones, both at D = 8192."""
    found = panels(scaling.draw(frame(several())))
    marked = {
        title: [each.get_xdata()[0] for each in axis.lines if each.get_label() == "published"]
        for title, axis in found.items()
    }
    assert marked.pop("SMI, D = 8192") == [256]
    assert not any(marked.values())
    larger = [*several(), record("vicreg", batch=4096, dim=8192)]
    axis = panels(scaling.draw(frame(larger)))["VICReg, D = 8192"]
    assert line(axis, "published")[0][0] == 2048


def test_what_was_measured_at_one_batch_is_no_line(frame):
    records = [*several(), record("nt_xent")]
    assert not [title for title in panels(scaling.draw(frame(records))) if "NT-Xent" in title]


def test_losses_of_one_title_stay_apart(frame):
    other = [{**each, "loss": "mine", "key": f"mine {each['key']}"} for each in several()]
    for each in other:
        each["median_ms"] *= 3
    found = panels(scaling.draw(frame([*several(), *(o for o in other if o["title"] == "SMI")])))
    assert line(found["SMI (smi), D = 512"], "gram") == [[n, n / 1e3] for n in BATCHES]
    assert line(found["SMI (mine), D = 512"], "gram") == [[n, 3 * n / 1e3] for n in BATCHES]
    assert "VICReg, D = 512" in found


def test_more_machines_than_letters(frame):
    found = panels(scaling.draw(frame(*[[record(batch=n) for n in (64, 128)]] * 28)))
    assert {"SMI, Z, D = 512", "SMI, AA, D = 512", "SMI, AB, D = 512"} <= found.keys()


def test_machines_have_panels_of_their_own(frame):
    figure = scaling.draw(frame(several(), several()))
    assert len(panels(figure)) == 8
    assert {"SMI, A, D = 512", "SMI, B, D = 512"} <= panels(figure).keys()
    assert "B: CPU 1" in figure.get_suptitle()


def test_what_is_unusual_stands_apart(frame):
    records = several() + several(dtype="bfloat16") + several(variant="lambda_=1")
    assert {"SMI, D = 512", "SMI, bfloat16, D = 512", "SMI lambda_=1, D = 512"} <= panels(
        scaling.draw(frame(records))
    ).keys()


def test_memory_draws_peaks_and_the_devices_in_range(frame):
    records = [record(batch=n, predicted_peak_bytes=n * 1100) for n in BATCHES]
    axis = panels(memory.draw(frame(records)))["SMI, D = 512"]
    assert line(axis, "gram") == [[n, n * 1000] for n in BATCHES]
    assert line(axis, "gram predicted") == [[n, n * 1100] for n in BATCHES]
    assert not [each for each in axis.lines if each.get_label() == "device"]
    large = [record(batch=n, peak_bytes=n * 1e8) for n in BATCHES]  # 6.4 to 102 GB
    axis = panels(memory.draw(frame(large)))["SMI, D = 512"]
    devices = [each.get_ydata()[0] for each in axis.lines if each.get_label() == "device"]
    assert devices == [8e9, 24e9, 80e9]


def test_roofline_places_points_by_their_flops_bytes_and_time(frame):
    figure = roofline.draw(calibrated(frame(several())))
    axis = panels(figure)["SMI"]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    points, ends = bars(axis, "gram")
    # 2 * 10^6 FLOPs over 10^6 bytes; over 64 us they are 31.25 GFLOP/s
    assert set(points[:, 0]) == {2.0}
    assert sorted(set(points[:, 1])) == pytest.approx([2 / 1.024, 2 / 0.256, 2 / 0.064])
    place = points[:, 1].argmax()
    assert sorted(ends[place][:, 1]) == pytest.approx([31.25 / 1.2, 31.25 / 0.9])


def test_the_work_of_several_devices_counts_once(frame):
    records = several(evaluations=8, world=8, gmacs=0.008, distribution="local")
    points, _ = bars(panels(roofline.draw(calibrated(frame(records))))["SMI"], "gram")
    assert set(points[:, 0]) == {2.0}


def test_roofs_are_where_they_were_calibrated(frame):
    figure = roofline.draw(calibrated(frame(several())))
    axis = panels(figure)["VICReg"]
    roof = line(axis, "float32")
    assert {y for _, y in roof} == {100.0}
    assert roof[0][0] == 100 / 80  # from where the fastest cache meets it
    for name, bandwidth, ridge in (("main memory", 10, 10), ("fastest cache", 80, 1.25)):
        slope = line(axis, name)
        assert all(y == pytest.approx(bandwidth * x) for x, y in slope)
        assert slope[-1] == [ridge, 100]
    assert not [each for each in axis.lines if each.get_label() in ("bfloat16", "float64")]
    assert "float32: 100 GFLOP/s" in entries(figure)
    assert "main memory: 10 GB/s" in entries(figure)


def test_a_roof_that_a_result_beats_is_raised_to_it_in_all_panels_and_says_so(frame):
    """2 * 10^6 FLOPs in 16 us are 125 GFLOP/s; those of bfloat16 are below their own roof."""
    quick = record(batch=7, median_ms=0.016, p20_ms=0.0155, p80_ms=0.017)
    half = dict.fromkeys(("median_ms", "p20_ms", "p80_ms"), 0.01)
    records = [*several(), quick, record(batch=7, dtype="bfloat16", **half)]
    figure = roofline.draw(calibrated(frame(records)))
    roof = 2e6 / 0.0155e-3 / 1e9
    for panel in ("SMI", "VICReg"):
        assert [y for _, y in line(panels(figure)[panel], "float32")] == pytest.approx([roof] * 2)
    assert "float32: 129 (raised to a result) GFLOP/s" in entries(figure)
    assert "bfloat16: 400 GFLOP/s" in entries(figure)
    _, ends = bars(panels(figure)["SMI"], "gram")
    assert ends[..., 1].max() == pytest.approx(roof)


def test_points_without_work_or_bytes_are_left_out_aloud(frame):
    records = [*several(), record(batch=1, moved_bytes=0), record(batch=2, moved_bytes=1e-300)]
    records.append(record(batch=3, gmacs=0))
    with pytest.warns(RunFileWarning, match="left out 3 points"):
        figure = roofline.draw(calibrated(frame(records)))
    figure.draw_without_rendering()
    axis = panels(figure)["SMI"]
    assert len(bars(axis, "gram")[0]) == 6
    assert max(axis.get_xlim()) < 1e3


def test_every_precision_in_use_has_its_roof(frame):
    records = several() + several(products="bf16") + several(dtype="float64")
    found = panels(roofline.draw(calibrated(frame(records))))
    assert {y for _, y in line(found["SMI"], "bfloat16")} == {400.0}
    assert {y for _, y in line(found["SMI, float64"], "float64")} == {50.0}


def trials(fits, fails, **fields):
    """Half of what fits, what fits, and what does not."""
    return [
        *(record(batch=n, **fields) for n in (fits // 2, fits)),
        *(record(batch=n, status="oom", **fields) for n in (fails, 2 * fails)),
    ]


def test_frontier_reaches_from_what_fits_to_what_does_not(frame):
    records = trials(1000, 1200, predicted_largest_batch=1100)
    records += trials(500, 600, dim=1024, implementation="reference")
    figure = frontier.draw(frame(records))
    axis = panels(figure)["SMI"]
    assert axis.get_yscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["512", "1024"]
    for name, dim, fits, fails in (("gram", 0, 1000, 1200), ("reference", 1, 500, 600)):
        points, ends = bars(axis, name)
        (place,) = np.flatnonzero(~np.isnan(points[:, 1]))
        assert round(points[place, 0]) == dim
        assert points[place, 1] == fits
        assert ends[place][:, 1].tolist() == [fits, fails]
    assert line(axis, "gram predicted")[0][1] == 1100
    assert "predicted" in entries(figure)
    assert "none was too large" not in entries(figure)


def test_frontier_has_a_panel_for_each_amount_of_memory(frame):
    records = trials(1000, 1200) + trials(300, 400, memory_limit_bytes=24e9)
    records += trials(900, 950, memory_limit_bytes=80e9)
    found = panels(frontier.draw(frame(records)))
    assert list(found) == ["SMI, this device", "SMI, 24 GB", "SMI, 80 GB"]
    tops = [bars(axis, "gram")[0][0, 1] for axis in found.values()]
    assert tops == [1000, 300, 900]
    assert found["SMI, 24 GB"].get_ylim() == found["SMI, 80 GB"].get_ylim()


def test_a_bar_is_explained_where_one_is_seen(frame):
    said = "to the smallest that does not fit"
    assert said in entries(frontier.draw(frame(trials(1000, 2000))))
    assert said not in entries(frontier.draw(frame(trials(1000, 1010))))  # behind its marker


def test_an_open_frontier_is_an_arrow(frame):
    records = [record(batch=n, predicted_largest_batch=5000) for n in (64, 128)]
    figure = frontier.draw(frame(records))
    points, ends = bars(panels(figure)["SMI"], "gram")
    assert points[0, 1] == 128
    assert ends[0][:, 1].max() == 256
    assert "none was too large" in entries(figure)


def test_compare_draws_ratios_intervals_and_their_geometric_mean(sides):
    others = [
        {**each, **{name: each[name] * factor for name in ("median_ms", "p20_ms", "p80_ms")}}
        for each, factor in zip(several(), [0.5, 0.125] * 12, strict=True)
    ]
    for each in others:
        each["samples_ms"] = [0.99 * each["median_ms"], each["median_ms"], 1.01 * each["median_ms"]]
    figure = compare.draw(sides(several(), others))
    found = panels(figure)
    assert list(found) == ["SMI, B / A: mean 0.25x", "VICReg, B / A: mean 0.25x"]
    for axis in found.values():
        assert axis.get_xscale() == "log"
        assert line(axis, "mean")[0][0] == pytest.approx(math.sqrt(0.5 * 0.125))
        assert len(axis.get_yticklabels()) == 12
        assert axis.get_yticklabels()[0].get_text() == "reference, 64 x 512"
        ratios = np.vstack([bars(axis, verdict)[0] for verdict in compare.LOOKS])
        by_row = ratios[ratios[:, 1].argsort()]  # D = 512 first: by implementation, D, N
        assert by_row[:, 0] == pytest.approx([*[0.5] * 3, *[0.125] * 3] * 2)


def test_compare_says_what_is_resolved(sides):
    """Of few cases that changed: what most of them have in common may be the machine's."""
    quiet = [{**each, "samples_ms": [each["median_ms"]] * 9} for each in several()]
    changed = [each for each in quiet if (each["loss"], each["dim"]) == ("smi", 512)]
    slower = [
        {**each, "median_ms": 3 * each["median_ms"], "samples_ms": [3 * each["median_ms"]] * 9}
        if each in changed
        else {**each, "median_ms": 1.01 * each["median_ms"]}
        for each in quiet
    ]
    figure = compare.draw(sides(quiet, slower, quiet))
    assert len(panels(figure)) == 4
    assert entries(figure) == ["SLOWER", "SAME", "UNRESOLVED", "geometric mean"]
    (title,) = (each for each in panels(figure) if each.startswith("SMI, B / A"))
    points, ends = bars(panels(figure)[title], "SLOWER")
    assert len(points) == len(changed)
    assert (ends[:, :, 0].min(axis=1) < 3).all()
    assert (ends[:, :, 0].max(axis=1) > 3).all()


def test_sessions_of_the_same_code_are_compared_file_by_file(write_run):
    slower = [{**each, "median_ms": 2 * each["median_ms"]} for each in several()]
    runs = [write_run(run, f"{n}.jsonl") for n, run in enumerate((several(), slower, slower))]
    figure = compare.draw(compare.read(runs))
    titles = [f"{loss}, {run} / A: mean 2x" for run in "BC" for loss in ("SMI", "VICReg")]
    assert list(panels(figure)) == titles
    assert all(run.name in figure.get_suptitle().replace("\n", "") for run in runs)
    with pytest.raises(ValueError, match="one run alone"):
        compare.read(runs[:1])


def test_many_runs_are_compared_in_order(sides):
    titles = list(panels(compare.draw(sides(*[[record()]] * 28))))
    assert titles[0].startswith("SMI, B / A")
    assert titles[-2:] == ["SMI, AA / A: mean 1x", "SMI, AB / A: mean 1x"]


def test_a_panel_is_as_high_as_it_has_cases(sides):
    figure = compare.draw(sides(several(), several(), [several()[0]]))
    figure.draw_without_rendering()
    heights = {title: axis.get_position().height for title, axis in panels(figure).items()}
    assert heights["SMI, C / A: mean 1x"] < 0.4 * heights["SMI, B / A: mean 1x"]


@pytest.mark.parametrize("factor", [1, 1.2, 3, 8, 30, 300, 1e4, 1e7])
@pytest.mark.parametrize("losses_", [("smi",), ("smi", "vicreg")])
def test_labels_of_ratios_keep_apart(sides, factor, losses_):
    base = [each for each in several() if each["loss"] in losses_]
    other = [{**each, "median_ms": factor * each["median_ms"]} for each in base]
    figure = compare.draw(sides(base, other))
    figure.draw_without_rendering()
    left, right = 0, figure.bbox.width
    for axis in figure.axes:
        texts = [text for text in axis.get_xticklabels() if text.get_text()]
        boxes = [text.get_window_extent() for text in texts if text.get_visible()]
        low, high = axis.bbox.x0 - 1, axis.bbox.x1 + 1
        boxes = sorted((box.x0, box.x1) for box in boxes if low < (box.x0 + box.x1) / 2 < high)
        assert len(boxes) > 1
        space = style.SMALL * figure.dpi / 72 / 4
        assert all(one[1] + space < two[0] for one, two in itertools.pairwise(boxes))
        names = [text.get_window_extent() for text in axis.get_yticklabels()]
        assert left + 0.09 * figure.dpi < min(name.x0 for name in names)
        assert axis.get_tightbbox().x1 < right


def test_failed_cases_are_not_compared(sides):
    failed = [record(status="oom"), *several()[1:]]
    found = panels(compare.draw(sides(several(), failed)))
    rows = {title.split(",")[0]: len(axis.get_yticklabels()) for title, axis in found.items()}
    assert rows == {"SMI": 11, "VICReg": 12}


def test_implementations_differ_in_colour_and_marker():
    looks = style.looks([*style.LOOKS, "triton strategy=fused", "pml.VICReg", "triton bf16"])
    markers = [look["marker"] for look in looks.values()]
    assert len(set(markers)) == len(looks)
    assert {to_hex(look["color"]) for look in looks.values()} <= set(OKABE_ITO)
    colours = [looks[name]["color"] for name in style.LOOKS]
    assert len(set(colours)) == len(style.LOOKS)
    assert looks["triton bf16"]["color"] == looks["triton"]["color"]


@pytest.fixture
def drawn(frame):
    """Records that every figure can be drawn of."""
    records = several(predicted_ms=1.0, predicted_peak_bytes=1e6)
    found = calibrated(frame([*records, *trials(2048, 4096, dim=1024)], several()))
    return found.assign(mark=np.where(found["machine"].str.startswith("CPU 0"), "A", "B"))


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_readable_in_a_column(drawn, name):
    figure = FIGURES[name].draw(drawn)
    assert figure.get_figwidth() in (style.COLUMN, style.DOUBLE)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 6.5


@pytest.mark.parametrize("name", FIGURES)
def test_title_panels_and_legend_do_not_overlap(drawn, name):
    figure = FIGURES[name].draw(drawn)
    figure.draw_without_rendering()
    panels = [axis.get_tightbbox() for axis in figure.axes]  # with their labels
    boxes = [figure.texts[0].get_window_extent(), figure.legends[0].get_window_extent(), *panels]
    pairs = itertools.combinations(filter(None, boxes), 2)
    assert not [pair for pair in pairs if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_run_gives_the_same_file(drawn, name, tmp_path, monkeypatch):
    monkeypatch.setattr("lossbench.reports.functions.load", lambda runs: drawn)
    monkeypatch.setattr(compare, "read", lambda runs: drawn)
    for file in ("one.svg", "two.svg"):
        make_figure(name, [], tmp_path / file)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("name", "records", "message"),
    [
        ("scaling", [record()], "no step was measured at two batches; run lossbench run --suite"),
        ("memory", [record(**{"pass": "forward"})], "no step was measured at two batches"),
        ("roofline", several(), "no calibration in the run; measure it anew with lossbench run"),
        ("frontier", several(), "no batch was too large; find the largest with lossbench run --fr"),
    ],
)
def test_what_is_missing_is_said_in_a_line(frame, name, records, message):
    with pytest.raises(ValueError, match=message) as caught:
        FIGURES[name].draw(frame(records))
    assert "\n" not in str(caught.value)


def test_a_calibrated_run_without_bytes_says_so(frame):
    records = calibrated(frame([record(moved_bytes=None)]))
    with pytest.raises(ValueError, match="no step with its bytes counted; measure it anew"):
        roofline.draw(records)


def test_a_run_of_other_cases_cannot_be_compared(sides):
    records = sides([record(batch=64)], [record(batch=64)], [record(batch=64, status="oom")])
    with pytest.raises(ValueError, match="no measured step in common of A and C"):
        compare.draw(records)
