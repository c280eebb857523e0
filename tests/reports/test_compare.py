"""Comparing runs: what is compared with what, what is averaged, and what fails a gate."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import case, lossreport, measured

from lossbench.reports.compare import CASE, NoCommonCaseError, mean_ratio, open_sides, pair
from lossbench.reports.naming import letter
from lossbench.reports.records import load
from lossbench.reports.section import FORMS

RESULTS = Path(__file__).parents[2] / "reports" / "results"
AT_HOME = RESULTS / "amd-epyc-2-cores"
OF_NOISE = AT_HOME / "noise.jsonl"
RUNS = sorted({*RESULTS.glob("*/*.jsonl")} - {OF_NOISE})
OVERLAPPING = [
    AT_HOME / f"{name}.jsonl" for name in ("implementations", "scaling", "third_parties")
]
OTHER = {
    **{"loss": "vicreg", "implementation": "gram", "variant": "eps=1", "options": "side=64"},
    **{"products": "bf16", "batch": 9, "dim": 17},
    **{"dtype": "bfloat16", "pass": "forward", "world": 2, "distribution": "gather"},
    "inputs": "aligned",
}


@pytest.fixture
def compare(write_run):
    """A function that compares records with others, and returns rows by implementation."""

    def run(base: list[dict], new: list[dict]):
        sides = open_sides([write_run(base, "a.jsonl"), write_run(new, "b.jsonl")])
        found = pair(*sides)
        return found.set_index(sides[0].rows.loc[found.index, "implementation"])

    return run


@pytest.fixture
def gate(write_run):
    """A function that runs ``lossreport compare --fail-on``."""

    def run(base: list[dict], new: list[dict], fail_on: str):
        runs = write_run(base, "a.jsonl"), write_run(new, "b.jsonl")
        return lossreport("compare", *runs, "--fail-on", fail_on)

    return run


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_run_is_the_same_as_itself(run):
    sides = open_sides([run, run])
    found = pair(*sides)
    assert len(found) == len(sides[0].rows)
    measured = found[found["verdict"].notna()]
    assert len(measured) == (load([run])["status"] == "ok").sum()
    assert set(measured["verdict"]) == {"SAME"}
    assert (measured[["ratio", "low", "high"]] == 1).all(axis=None)
    assert not found[["slower", "bigger", "wrong"]].any(axis=None)


def test_a_run_of_noise_has_no_cases_to_compare():
    with pytest.raises(NoCommonCaseError, match=r"noise\.jsonl is of lossbench noise"):
        open_sides([OF_NOISE, OF_NOISE])


@pytest.mark.parametrize("new", OVERLAPPING[1:], ids=lambda run: run.stem)
def test_exchanging_two_runs_mirrors_everything(new):
    there = pair(*open_sides([OVERLAPPING[0], new]))
    back = pair(*open_sides([new, OVERLAPPING[0]])).loc[there.index]
    for name, mirror in (("ratio", "ratio"), ("low", "high"), ("high", "low")):
        assert (there[name] * back[mirror]).to_numpy() == pytest.approx(1, rel=1e-12)
    turned = back["verdict"].replace({"FASTER": "SLOWER", "SLOWER": "FASTER"})
    assert (there["verdict"] == turned).all()


def test_sessions_of_the_same_code_are_told_apart_almost_never():
    sides = open_sides(OVERLAPPING)
    verdicts = [verdict for side in sides[1:] for verdict in pair(sides[0], side)["verdict"]]
    claims = [verdict for verdict in verdicts if verdict in ("FASTER", "SLOWER")]
    assert len(claims) <= 0.05 * len(verdicts)


@pytest.mark.parametrize("field", CASE)
def test_cases_match_by_what_they_are(compare, field):
    base = [case("a") | measured(10.0), case("b", "chunked") | measured(10.0)]
    other = {"pretrain_seed": 1} if field == "setting" else {field: OTHER[field]}
    new = [case("c", **other) | measured(10.0), case("d", "chunked") | measured(20)]
    assert list(compare(base, new).index) == ["chunked"]


def test_cases_match_whatever_their_device_code_and_order(compare):
    base = [case("a", device="cpu") | measured(10.0), case("b", "gram") | measured(10.0)]
    new = [case("c", "gram") | measured(20.0), case("d", device="cuda") | measured(30.0)]
    assert compare(base, new)["ratio"].to_dict() == pytest.approx({"reference": 3, "gram": 2})


def test_failed_cases_are_named_and_never_averaged(write_run):
    base = [case("a") | measured(10.0), case("b", "gram") | measured(10.0), case("c", "chunked")]
    base += [case("d", "compiled") | measured(10.0)]
    new = [case("e") | measured(20.0), case("f", "gram") | measured(5.0)]
    new += [case("g", "chunked") | measured(1.0)]
    new += [case("h", "compiled", status="invalid", reason="the value is 2")]
    sides = open_sides([write_run(base, "a.jsonl"), write_run(new, "b.jsonl")])
    found = pair(*sides)
    assert mean_ratio(found) == pytest.approx(1)  # of 2 and 1/2
    assert found["ratio"].notna().sum() == 2
    text = lossreport("compare", sides[0].path, sides[1].path).stdout
    assert "A oom: SMI chunked: 2 GB more did not fit in memory." in text
    assert "B invalid: SMI compiled: the value is 2." in text
    assert mean_ratio(found.iloc[2:]) != mean_ratio(found.iloc[2:])  # NaN: of none


def test_cases_of_one_run_only_are_listed(write_run):
    base = write_run([case("a") | measured(1.0), case("b", "gram") | measured(1.0)], "a.jsonl")
    new = [case("a") | measured(1.0)]
    new += [case(str(batch), "gram", batch=batch) | measured(1.0) for batch in range(100, 120)]
    text = lossreport("compare", base, write_run(new, "b.jsonl")).stdout
    assert "In A, not in B: SMI gram 8x16." in text.replace("\n", " ")
    assert "In B, not in A: 20 cases, 20 of SMI gram." in text.replace("\n", " ")


def test_runs_without_a_common_case_are_an_error(write_run):
    base = write_run([case("a") | measured(1.0)], "a.jsonl")
    new = write_run([case("a", dim=17) | measured(1.0)], "b.jsonl")
    result = lossreport("compare", base, new)
    assert (result.returncode, result.stdout) == (2, "")
    assert "no case is in both runs" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_case_that_a_run_holds_twice_is_taken_once_and_said(write_run):
    base = write_run([case("a") | measured(10.0)], "a.jsonl")
    new = write_run([case("b") | measured(10.0), case("c") | measured(20.0)], "b.jsonl")
    assert pair(*open_sides([base, new]))["ratio"].tolist() == pytest.approx([2.0])
    assert "B holds 1 cases more than once" in lossreport("compare", base, new).stdout


def test_environments_that_differ_are_named(write_run):
    records = [case("a") | measured(10.0)]
    facts = {"cpu": "Test CPU", "threads": 2, "torch": "2.13.0"}
    base = write_run(records, "a.jsonl", environment=facts)
    new = write_run(records, "b.jsonl", environment=facts | {"threads": 4})
    silent = write_run(records, "c.jsonl", environment={})
    text = " ".join(lossreport("compare", base, new, silent, base).stdout.split())
    assert "WARNING: B differs from A in its environment: threads (2, 4)." in text
    assert "WARNING: C do not say where they were run." in text
    assert "WARNING: D" not in text


def test_what_changes_times_most_is_named_first(write_run):
    records = [case("a") | measured(10.0)]
    facts = {"memory_bytes": 1, "system": "A", "python": "3.10", "threads": 2, "torch": "2.12"}
    other = {"memory_bytes": 2, "system": "B", "python": "3.11", "threads": 4, "torch": "2.13"}
    base = write_run(records, "a.jsonl", environment=facts)
    new = write_run(records, "b.jsonl", environment=other)
    text = " ".join(lossreport("compare", base, new).stdout.split())
    assert (
        "in its environment: threads (2, 4); torch (2.12, 2.13); memory_bytes (1, 2); "
        "system (A, B); python (3.10, 3.11)." in text
    )


def test_a_third_partys_loss_is_compared_with_times_under_its_name(write_run, tmp_path):
    theirs = case("a", "pml", contender="some.module:Loss") | measured(10.0)
    path = tmp_path / "theirs.csv"
    path.write_text(
        "loss,implementation,batch,dim,dtype,pass,ms\n" + "smi,pml,8,16,float32,step,30\n" * 3
    )
    found = pair(*open_sides([write_run([theirs], "a.jsonl"), path]))
    assert found["ratio"].tolist() == pytest.approx([3.0])
    moved = {**theirs, "contender": "other.module:Loss"}
    runs = write_run([theirs], "a.jsonl"), write_run([moved], "b.jsonl")
    text = lossreport("compare", *runs).stdout
    assert "WARNING: in 1 cases contender of B is not that of A." in text


def test_what_a_name_hides_is_said(write_run):
    base = write_run([case("a", hyperparameters="eps=1") | measured(1.0)], "a.jsonl")
    new = write_run([case("a", hyperparameters="eps=2") | measured(1.0)], "b.jsonl")
    text = lossreport("compare", base, new).stdout
    assert "WARNING: in 1 cases hyperparameters of B is not that of A." in text


@pytest.mark.parametrize(
    ("fields", "failing"),
    [
        ({}, set()),
        (measured(5.0), set()),
        (measured(10.5), set()),  # below what sessions differ by
        (measured(17.0), set()),  # nor is that beyond what they may differ by
        (measured(20.0), {"slower"}),
        ({"peak_bytes": 1_005_000}, set()),
        ({"peak_bytes": 1_020_000}, {"bigger"}),
        ({"gradient_error": 1.9e-7}, set()),
        ({"gradient_error": 2.2e-7}, set()),  # more than twice, but a rounding of fp32
        ({"gradient_error": 1e-5}, {"wrong"}),
        (measured(20.0, peak_bytes=10**9, gradient_error=1.0), {"slower", "bigger", "wrong"}),
    ],
)
def test_gates(gate, fields, failing):
    base, new = [case("a") | measured(10.0)], [case("b") | measured(10.0) | fields]
    for name in ("slower", "bigger", "wrong"):
        result = gate(base, new, name)
        assert result.returncode == (1 if name in failing else 0)
        assert (f"lossreport: {name} in B" in result.stderr) == (name in failing)
    assert gate(base, new, "slower, bigger,wrong").returncode == (1 if failing else 0)
    assert gate(base, new, "").returncode == 0


ALL = "slower,bigger,wrong"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([], "missing in B, {}: SMI gram"),
        ([case("b", "gram")], "failed in B, {}: SMI gram"),
        ([case("b", "gram", status="invalid")], "failed in B, {}: SMI gram"),
    ],
)
@pytest.mark.parametrize("gates", ["slower", "bigger", "wrong", ALL])
def test_a_case_that_is_lost_fails_every_gate(gate, tmp_path, new, said, gates):
    base = [case("a") | measured(10.0), case("b", "gram") | measured(10.0), case("c", "chunked")]
    result = gate(base, [base[0], *new], gates)
    assert result.returncode == 1
    assert said.format(tmp_path / "b.jsonl") in result.stderr
    assert gate(base, base, gates).returncode == 0


@pytest.mark.parametrize(
    ("gates", "field", "said"),
    [
        ("slower", "samples_ms", "two samples of the time"),
        ("wrong", "gradient_error", "gradient error"),
    ],
)
def test_a_quantity_that_is_lost_fails_its_gate(gate, tmp_path, gates, field, said):
    base = [case("a") | measured(10.0), case("b", "gram") | measured(10.0)]
    less = [base[0], {name: value for name, value in base[1].items() if name != field}]
    result = gate(base, less, ALL)
    assert result.returncode == 1
    assert result.stderr == f"lossreport: no {said} in B, {tmp_path / 'b.jsonl'}: SMI gram\n"
    assert gate(less, base, ALL).returncode == 0  # what A does not say is not asked for
    result = gate([less[1]], [less[1]], gates)
    assert result.returncode == 1
    assert f"{gates}: no {said} in B" in result.stderr
    assert "nothing could be compared" in result.stderr


def test_times_alone_pass_no_gate_of_memory_or_errors(tmp_path):
    lines = ["loss,implementation,batch,dim,dtype,pass,ms", *["smi,gram,8,16,float32,step,1"] * 3]
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("\n".join([*lines, ""]))
    runs = tmp_path / "a.csv", tmp_path / "b.csv"
    result = lossreport("compare", *runs, "--fail-on", "bigger,wrong")
    assert (result.returncode, result.stderr.count("nothing could be compared")) == (1, 2)
    assert lossreport("compare", *runs, "--fail-on", "slower").returncode == 0


def test_what_was_wrong_before_is_no_failure(gate):
    base, new = [case("a"), case("b", "gram") | measured(1.0)], [case("a"), case("b", "gram")]
    assert gate(base, [new[0], base[1]], "slower,bigger,wrong").returncode == 0
    assert gate(base, new, "wrong").returncode == 1


def test_older_records_lack_fields(compare):
    base, new = case("a") | measured(10.0), case("b") | measured(20.0)
    for name in ("gradient_error", "samples_ms", "pair_group", "pair_processes"):
        del base[name]
    found = compare([base], [new]).iloc[0]
    assert found["ratio"] == pytest.approx(2)
    assert (found["verdict"], found["wrong"]) == ("UNRESOLVED", False)


def test_every_form_says_the_same(write_run):
    base = write_run([case("a") | measured(10.0), case("b", "gram")], "a.jsonl")
    new = write_run([case("a") | measured(20.0), case("b", "gram") | measured(1.0)], "b.jsonl")
    texts = {
        form: lossreport("compare", base, new, "--format", form).stdout for form in sorted(FORMS)
    }
    assert all("SLOWER" in text for text in texts.values())
    cases, summary = json.loads(texts["json"])
    assert [row["ratio"] for row in cases["rows"]] == [None, pytest.approx(2), None, None]
    assert (summary["rows"][0]["SLOWER"], summary["rows"][0]["cases"]) == (1, 1)
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [row["status"] for row in rows] == ["ok", "ok", "oom", "ok", ""]
    assert float(rows[1]["ratio"]) == pytest.approx(2)


def test_an_unknown_interval_is_json_too(write_run):
    base = write_run([case("a") | measured(10.0, samples_ms=[10.0], pair_processes=1)], "a.jsonl")
    new = write_run([case("b") | measured(10.0, samples_ms=[10.0], pair_processes=1)], "b.jsonl")
    row = json.loads(lossreport("compare", base, new, "--format", "json").stdout)[0]["rows"][1]
    assert (row["low"], row["high"], row["verdict"]) == (None, None, "UNRESOLVED")


def test_out_writes_a_file(write_run, tmp_path):
    run = write_run([case("a") | measured(10.0)])
    result = lossreport("compare", run, run, "--out", tmp_path / "out.txt")
    assert (result.returncode, result.stdout) == (0, "")
    assert (tmp_path / "out.txt").read_text() == lossreport("compare", run, run).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-on", "slow"], "unknown gate 'slow' in --fail-on; known: slower, bigger, wrong"),
        (["--format", "html"], "unknown format 'html'"),
        (["--out", "/proc/x/y.txt"], "No such file"),
    ],
)
def test_bad_usage_is_one_line(write_run, arguments, message):
    run = write_run([case("a") | measured(10.0)])
    result = lossreport("compare", run, run, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_out_is_never_one_of_the_runs(write_run, tmp_path, form):
    base, new = (write_run([case("a") | measured(10.0)], name) for name in ("a.jsonl", "b.jsonl"))
    content = new.read_bytes()
    (tmp_path / "link.svg").symlink_to(new)
    for command in (
        ("compare", base, new, "--format", form, "--out", new),
        ("table", "devices", base, new, "--format", form, "--out", tmp_path / "." / "b.jsonl"),
        ("figure", "scaling", base, new, "--out", tmp_path / "link.svg"),
    ):
        result = lossreport(*command)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "is a file that is read" in result.stderr
        assert new.read_bytes() == content


def test_huge_values_fit_80_columns(write_run):
    huge = {"peak_bytes": 10**24, "fraction_of_ceiling": 1e24, "gradient_error": 1e24}
    base = write_run([case("a") | measured(1e-8, fraction_of_ceiling=0.5)], "a.jsonl")
    new = write_run([case("a") | measured(1e11, **huge)], "b.jsonl")
    for runs in ((base, new), (new, base)):
        text = lossreport("compare", *runs).stdout
        assert max(map(len, text.splitlines())) <= 80
        assert "1.0e+18" in text  # MB
    usual = lossreport("compare", base, base).stdout
    assert "e+" not in usual


def test_any_number_of_runs_fits_80_columns():
    text = lossreport("compare", *OVERLAPPING, *OVERLAPPING).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert f"{letter(2 * len(OVERLAPPING) - 1)}: " in text


def test_names_of_many_runs():
    names = [letter(number) for number in range(800)]
    assert (names[0], names[25], names[26], names[701], names[702]) == ("A", "Z", "AA", "ZZ", "AAA")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("arguments", [["--help"], [str(run) for run in OVERLAPPING[:2]]])
def test_comparing_needs_no_torch(arguments):
    code = (
        "import sys\nfrom lossbench.reports.cli import main\n"
        f"sys.argv = ['lossreport', 'compare', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code in (0, None)\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
