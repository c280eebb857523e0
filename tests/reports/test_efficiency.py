"""The efficiency table: published figures to the last digit, then like for like."""

import csv
import io

import pandas as pd
import pytest

from lossbench.reports.page import make_table
from lossbench.reports.records import load
from lossbench.reports.tables.efficiency import build

KEYS = ("key", "status", "reason", "loss", "implementation", "pass", "dtype", "inputs")
PUBLISHED = {"Barlow Twins": "137.43", "VICReg": "274.87", "NT-Xent": "103.07", "SMI": "12.88"}


@pytest.fixture
def sections(records, write_run):
    return build(load([write_run(records)]))


def test_published_figures_are_reproduced_to_the_last_digit(sections):
    shown = sections[0].text().set_index("loss")
    assert shown["published"].to_dict() == PUBLISHED
    assert shown["cut"].to_dict() == PUBLISHED
    assert set(shown["difference"]) == {"0.00"}
    # 2048 x 8192^2, 2 x 2048 x 8192^2, 3 x 2048^2 x 8192 and 8 x 3 x 256^2 x 8192, in 10^9
    assert shown["ours, GMACs"].to_dict() == {
        "Barlow Twins": "137.438953472",
        "VICReg": "274.877906944",
        "NT-Xent": "103.079215104",
        "SMI": "12.884901888",
    }


def test_a_wrong_count_shows_as_a_difference(records, write_run):
    wrong = [dict(record) for record in records]
    for record in wrong:
        record["forward_macs_cost_model"] += 10**10 if record["loss"] == "vicreg" else 0
    shown = build(load([write_run(wrong)]))[0].text().set_index("loss")
    assert shown["difference"]["VICReg"] == "10.00"
    assert shown["difference"]["SMI"] == "0.00"


def test_like_for_like_is_the_same_batch_for_every_loss(sections):
    table = sections[1].frame.set_index("loss")
    n, local, d = 2048, 256, 8192
    gathered = {"SMI": 3 * n * n * d, "NT-Xent": 3 * n * n * d, "VICReg": 2 * n * d * d}
    for loss, macs in gathered.items():
        assert table["gather_gmacs"][loss] * 1e9 == macs
        assert table["gather_gflops"][loss] * 1e9 == 2 * macs
    assert table["local_gmacs"]["SMI"] * 1e9 == 8 * 3 * local * local * d
    assert table["local_gmacs"]["Barlow Twins"] * 1e9 == 8 * local * d * d
    assert table["gather_to_smi"]["NT-Xent"] == 1.0
    assert table["gather_to_smi"]["VICReg"] == pytest.approx(8 / 3)  # 2 N D^2 / 3 N^2 D = 2D/3N
    assert table["local_to_smi"]["VICReg"] == pytest.approx(64 / 3)


def test_what_each_loss_needs(sections):
    table = sections[2].frame.set_index("loss")
    assert table["off_diagonal_gather"]["Barlow Twins"] == 8192 * 8191
    assert table["off_diagonal_gather"]["NT-Xent"] == 4096 * 4094
    assert table["off_diagonal_local"]["SMI"] == 8 * 3 * 256 * 255
    assert table["gather_layer_published"]["Barlow Twins"] == "yes"
    assert table["gather_layer_published"]["SMI"] == "no"
    assert table["official_communicated_bytes"]["SMI"] == 0
    assert table["official_communicated_bytes"]["VICReg"] == 2 * 7 * 256 * 8192 * 2 * 4


def test_bytes_of_a_step_are_not_taken_from_another_pass(records, write_run):
    sections = build(load([write_run([r for r in records if r["pass"] == "forward"])]))
    assert set(sections[2].text()["MB a step"]) == {"-"}


def test_a_run_without_smi_has_counts_and_no_ratios(records, write_run):
    sections = build(load([write_run([r for r in records if r["loss"] == "nt_xent"])]))
    assert set(sections[1].text()["to SMI"].iloc[:, 0]) == {"-"}
    assert sections[1].frame["gather_gmacs"].item() == 103.079215104


def test_a_run_in_which_everything_failed(records, write_run):
    failed = [
        {k: v for k, v in r.items() if not k.endswith("_ms") and k != "peak_bytes"}
        | {"status": "oom"}
        for r in records
    ]
    published, *_, measured, _ = build(load([write_run(failed)]))
    assert set(published.text()["difference"]) == {"0.00"}
    assert set(measured.text()["ms"]) == {"-"}
    uncounted = [
        {k: r[k] for k in (*KEYS, "batch", "world", "dim", "distribution")} for r in failed
    ]
    with pytest.raises(ValueError, match="run lossbench run --suite efficiency"):
        build(load([write_run(uncounted)]))


def test_invalid_measurements_are_not_shown(records, write_run):
    invalid = [dict(r, status="invalid") if r["loss"] == "smi" else r for r in records]
    rows = build(load([write_run(invalid)]))[3].text()
    assert set(rows[rows["loss"] == "SMI"]["ms"]) == {"-"}
    assert set(rows["to SMI"]) == {"-"}


def test_an_ablation_is_a_row_of_its_own_and_never_the_yardstick(records, write_run):
    faster = [
        dict(r, samples_ms=[ms / 2 for ms in r["samples_ms"]]) if r["variant"] else r
        for r in records
    ]
    rows = build(load([write_run(faster)]))[3].frame
    rows = rows.set_index(["layout", "loss", "implementation"]).sort_index()
    for dependency in ("correlation", "squared correlation"):
        assert rows["time_to_smi"][256, f"SMI {dependency}", "auto: gram"] == pytest.approx(0.5)
    assert pd.isna(rows["time_to_smi"][256, "SMI", "reference"])


def test_times_that_were_not_taken_in_turn_have_no_ratio(records, write_run):
    apart = [dict(r, pair_group=r["key"]) for r in records]
    section = build(load([write_run(apart)]))[3]
    assert section.frame["time_to_smi"].isna().all()
    alone = [{k: v for k, v in r.items() if not k.startswith("pair_")} for r in records]
    section = build(load([write_run(alone)]))[3]
    assert section.frame["time_to_smi"].isna().all()
    assert "run lossbench run --paired" in section.notes[1]


def test_numbers_are_never_cut_in_the_terminal(records, write_run):
    long = [dict(r, status="invalid") if r["loss"] == "vicreg" else dict(r) for r in records]
    for record in long:
        record["median_ms"] *= 1_000_000
    text = make_table("efficiency", [write_run(long)], "terminal")
    assert "\u2026" not in text
    assert "10,000,000" in text


def test_measured_ratios_compare_equal_batches(sections):
    assert [section.title.split(",")[0] for section in sections[3:-1]] == [
        "Measured: step",
        "Measured: forward",
    ]
    for section in sections[3:-1]:
        rows = section.frame.set_index(["layout", "loss", "implementation"]).sort_index()
        assert rows["time_to_smi"][256, "VICReg", "reference"] == pytest.approx(2.5)
        assert rows["verdict"][256, "VICReg", "reference"] == "SLOWER"
        assert rows["verdict"][2048, "SMI", "auto: gram"] == "SAME"
        assert pd.isna(rows["time_to_smi"][2048, "SMI", "reference"])
        assert "Test CPU, 2 threads, torch 2.13.0, 2026-11-20, commit 012345678" in section.notes[0]


def test_failed_and_missing_cases_are_shown_not_averaged(records, write_run):
    steps = [dict(record) for record in records if record["pass"] == "step"]
    missing = ("vicreg", "reference", "gather")
    kept = [r for r in steps if (r["loss"], r["implementation"], r["distribution"]) != missing]
    failed = next(r for r in kept if r["loss"] == "barlow_twins")
    for name in ("median_ms", "p20_ms", "p80_ms", "peak_bytes"):
        del failed[name]
    failed["status"] = "oom"
    published, _, _, measured, _ = build(load([write_run(kept)]))
    shown = measured.text()
    row = shown[(shown["loss"] == "Barlow Twins") & (shown["batch"] == "256")].iloc[-1]
    assert row["ms"] == "-"
    assert row["status"] == "oom"
    counted = published.text().set_index("loss")
    assert counted["cut"]["Barlow Twins"] == "137.43"  # counted, though it did not run
    assert counted["cut"]["VICReg"] == "-"


def test_runs_of_two_machines_stay_apart(records, write_run):
    one = write_run(records, "one.jsonl")
    other = [dict(record, key=f"other {record['key']}") for record in records]
    two = write_run(other, "two.jsonl", environment={"gpu": "Test GPU", "torch": "2.11.0"})
    sections = build(load([one, two]))
    machines = [section.notes[0].split(",")[0] for section in sections[3:-1]]
    assert machines == ["Test CPU", "Test CPU", "Test GPU", "Test GPU"]


def test_merging_a_run_with_itself_changes_nothing(records, write_run):
    path = write_run(records)
    pd.testing.assert_frame_equal(load([path]), load([path, path]))


def test_runs_of_another_suite_are_refused(records, write_run):
    other = [dict(record, batch=32) for record in records]
    with pytest.raises(ValueError, match="run lossbench run --suite efficiency"):
        build(load([write_run(other)]))
    with pytest.raises(ValueError, match="no records yet"):
        load([write_run([])])


def test_terminal_form_fits_80_columns(records, write_run):
    text = make_table("efficiency", [write_run(records)], "terminal")
    assert max(map(len, text.splitlines())) <= 80
    assert "Barlow Twins  2048 gathered     137.43  137.438953472  137.43" in text


def test_csv_form_is_tidy_and_full_precision(records, write_run):
    text = make_table("efficiency", [write_run(records)], "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    published = [row for row in rows if row["section"].startswith("As published")]
    assert [row["gmacs"] for row in published][-1] == "12.884901888"
    assert len({row["section"] for row in rows}) == 6


def test_latex_form_escapes_and_markdown_form_aligns(records, write_run):
    latex = make_table("efficiency", [write_run(records)], "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 6
    assert "10\\textasciicircum{}6" in latex
    markdown = make_table("efficiency", [write_run(records)], "markdown")
    assert "| SMI          | 8 x 256 local" in markdown
    assert "|-------------:|" in markdown
