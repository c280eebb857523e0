"""What the commands do, from Python: the same records, tables and errors."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import lossbench
from lossbench.bench.records import runfile
from lossbench.bench.running.script import _is_guarded
from lossbench.reports.page import make_table

RESULTS = Path(__file__).parents[2] / "reports/results/amd-epyc-2-cores"
TINY = {"loss": ["smi", "vicreg"], "implementation": ["reference", "gram"], "batch": 16, "dim": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Records of a run, and its file."""
    path = tmp_path_factory.mktemp("runs") / "run.jsonl"
    return lossbench.run(**TINY, device="cpu", out=path), path


def test_a_run_is_a_row_for_each_case_and_a_file(run):
    records, path = run
    cases = [("smi", "reference"), ("smi", "gram"), ("vicreg", "reference"), ("vicreg", "gram")]
    assert [*zip(records["loss"], records["implementation"], strict=True)] == cases
    assert (records["status"] == "ok").all()
    assert (records["median_ms"] > 0).all()
    pd.testing.assert_frame_equal(records, lossbench.load(path), check_like=True)


def test_the_same_call_measures_nothing_again(run):
    records, path = run
    before = path.read_bytes()
    again = lossbench.run(**TINY, device="cpu", out=str(path))
    pd.testing.assert_frame_equal(records, again)
    assert path.read_bytes() == before


def test_a_run_may_be_part_of_its_file(run):
    records, path = run
    only = lossbench.run(loss="smi", implementation="gram", batch=16, dim=32, out=path)
    assert list(only["key"]) == list(records["key"][1:2])


def test_a_run_in_memory_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = {"batch": [8, 16], "dim": np.int64(4)}
    records = lossbench.run(loss="smi", implementation="reference", **shape, device="cpu")
    assert list(records["batch"]) == [8, 16]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_timed_in_turn_with_errors():
    records = lossbench.run(**TINY, device="cpu", paired=True, accuracy=True)
    assert records["pair_group"].nunique() == 1
    assert (records["accuracy_random_gradient_error"] < 1e-4).all()
    text = lossbench.table("implementations", records).text()
    assert "times" in text
    assert max(map(len, text.splitlines())) <= 80


def test_counts_are_those_of_the_command_line():
    counted = lossbench.count(loss="nt_xent", batch=[8, 16], dim=4, implementation="reference")
    assert list(counted["macs"]) == [3 * 3 * n * n * 4 for n in (8, 16)]  # 3 products, 3 passes
    assert counted["counts_agree"].all()


def test_hyperparameters_and_options():
    settings = {"smi.lambda_": 2, "smi.chunked.workspace_bytes": 4096}
    counted = lossbench.count(loss="smi", batch=50, dim=16, set_=settings)
    by = counted.set_index("implementation")
    assert set(by["variant"]) == {"lambda_=2"}
    assert by["options"]["chunked"] == "workspace_bytes=4096"


def test_predictions_of_a_gpu_and_of_a_step():
    case = lossbench.predict(loss="smi", implementation="gram", batch=256, gpu=["h200", "l40s"])
    assert list(case["gpu"]) == ["h200", "l40s"]
    assert (case["predicted_ms"] > 0).all()
    steps = lossbench.predict(
        preset="digits", loss="smi", world=[1, 8], gpu="h200", link="nvlink", set_={"batch": 16}
    )
    assert list(steps["world"]) == [1, 8]
    assert set(steps["batch"]) == {16}
    assert steps["predicted_efficiency"][1] < 1


def test_pretraining():
    small = {"projector": (32, 16), "image_size": 8}
    records = lossbench.pretrain(loss=["smi"], batch=8, steps=6, set_=small, device="cpu")
    assert list(records["loss"]) == ["smi"]
    assert records["status"][0] == "ok"
    assert records["dim"][0] == 16


def test_a_table_is_that_of_the_command_line_in_every_form():
    run = RESULTS / "efficiency.jsonl"
    made = lossbench.table("efficiency", lossbench.load(run))
    forms = {
        "terminal": made.text, "markdown": made.markdown, "latex": made.latex, "csv": made.csv,
        "json": made.json,
    }  # fmt: skip
    for name, form in forms.items():
        assert form() == make_table("efficiency", [run], name)
    assert str(made) == repr(made) == made.text()
    assert [section.title for section in made][:1] == [made[0].title]
    assert made[0].title.startswith("As published")


def test_a_table_shows_itself_in_a_notebook():
    sections = lossbench.table("fair", RESULTS / "fair.jsonl")
    page = sections._repr_html_()
    tables = pd.read_html(page, flavor="lxml") if _has_lxml() else []
    assert page.count("<table") == page.count("</table>") == len(sections)
    for section in sections:
        assert section.title in page
        assert all(cell in page for cell in section.text().iloc[:, 0])
    assert len(tables) in (0, len(sections))


def _has_lxml() -> bool:
    try:
        import lxml  # noqa: F401
    except ImportError:
        return False
    return True


def test_what_stands_in_a_record_is_no_markup():
    records = lossbench.load(RESULTS / "third_parties.jsonl")
    records.loc[records["implementation"] == "pml", "implementation"] = "<b>pml</b>"
    page = lossbench.table("third_parties", records)._repr_html_()
    assert "<b>pml" not in page
    assert "&lt;b&gt;pml" in page


def test_figures_are_matplotlibs():
    drawn = lossbench.figure("scaling", lossbench.load(RESULTS / "scaling.jsonl"))
    assert isinstance(drawn, Figure)
    paths = [RESULTS / "scaling.jsonl", RESULTS / "scaling.jsonl"]
    assert isinstance(lossbench.figure("compare", paths), Figure)
    assert pyplot.get_fignums() == []  # nothing is left to be shown again


def test_runs_and_records_are_compared_alike(run):
    records, path = run
    of_files = lossbench.compare(path, path)
    of_records = lossbench.compare(records, lossbench.load(path))
    assert of_files[0].text().equals(of_records[0].text())
    assert set(of_files[0].frame["verdict"].dropna()) == {"SAME"}


def test_records_may_be_chosen_and_put_together():
    """Rows keep their pairs whatever their index says; a record that is there twice counts once."""
    records = lossbench.load(RESULTS / "third_parties.jsonl")
    expected = lossbench.table("implementations", records).markdown()
    half = len(records) // 2
    parts = [records[:half].reset_index(drop=True), records[half:].reset_index(drop=True)]
    assert lossbench.table("implementations", pd.concat(parts)).markdown() == expected
    assert lossbench.table("implementations", pd.concat([records] * 2)).markdown() == expected
    vicreg = lossbench.table("implementations", records[records["loss"] == "vicreg"])
    assert set(vicreg[0].frame["loss"]) == {"VICReg"}
    with pytest.raises(ValueError, match="there are no records"):
        lossbench.table("implementations", records[records["batch"] == 0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lossbench.run(), "choose cases"),
        (lambda: lossbench.run(loss="smo", batch=4), "did you mean 'smi'"),
        (lambda: lossbench.run(loss="smi,vicreg", batch=4), r"give a list such as \['smi'"),
        (lambda: lossbench.run(loss=3, batch=4), "loss must be a name .*got 3"),
        (lambda: lossbench.run(loss="smi", batch=4, budget=0), "a duration is written"),
        (lambda: lossbench.run(loss="smi", batch=4, set_=["smi.lambda_=2"]), "set_ must be a dict"),
        (lambda: lossbench.pretrain(batch="8"), "batch must be a whole number"),
        (lambda: lossbench.pretrain(batch=0), "batch must be a whole number, 1 or more, got 0"),
        (lambda: lossbench.pretrain(batch=[8, 16]), r"1 or more, got \[8, 16\]"),
        (lambda: lossbench.pretrain(every=2), "give --checkpoint FOLDER too"),
        (lambda: lossbench.load(None), "a path or a list of paths, got NoneType"),
        (lambda: lossbench.load(pd.DataFrame()), "got records"),
        (lambda: lossbench.table("fair", [{}]), "a run file is given as a path, got dict"),
        (lambda: lossbench.compare(RESULTS / "fair.jsonl", None), "as a path, got NoneType"),
        (lambda: lossbench.run(loss=[1], batch=4), r"loss must be a name .*got \[1\]"),
        (lambda: lossbench.run(loss="smi", batch="4"), "batch must be a whole number .*got '4'"),
        (lambda: lossbench.run(loss="smi", batch=2.5), "batch must be a whole number .*got 2.5"),
        (lambda: lossbench.run(loss="smi", batch=1), "batch must be at least 2"),
        (lambda: lossbench.run(loss="smi", batch=4, budget="soon"), "a duration is written"),
        (lambda: lossbench.run(loss="smi", batch=4, launcher="local"), "give out"),
        (lambda: lossbench.run(loss="smi", batch=4, jobs=2), "are of jobs"),
        (lambda: lossbench.run("eficiency"), "did you mean 'efficiency'"),
        (lambda: lossbench.run(loss="smi", batch=4, memory="1GB"), "give it with --?frontier"),
        (
            lambda: lossbench.run(loss="smi", batch=4, frontier=True, paired=True),
            "--?frontier times nothing",
        ),
        (lambda: lossbench.count(loss="smi", set_={"lambda_": 2}), "got 'lambda_=2'"),
        (lambda: lossbench.predict(loss="smi", gpu="h2000"), "did you mean 'h200'"),
        (lambda: lossbench.predict(loss="smi", gpu="h200", device="cpu"), "leave it out"),
        (lambda: lossbench.predict(preset="digits", dim=3), "leave --dim out"),
        (lambda: lossbench.pretrain("digit"), "did you mean 'digits'"),
        (lambda: lossbench.pretrain(set_={"seed": 0.5}), "a value of type int needed"),
        (lambda: lossbench.pretrain(steps=-1), "steps must be a whole number, 1 or more, got -1"),
        (lambda: lossbench.load([]), "no run file"),
        (lambda: lossbench.table("eficiency", RESULTS / "fair.jsonl"), "did you mean"),
        (lambda: lossbench.table("fair", lossbench.count(loss="smi", batch=4)), "of what run"),
        (lambda: lossbench.table("fair", "none.jsonl"), "none.jsonl cannot be read"),
        (lambda: lossbench.figure("compare", pd.DataFrame()), "give their files"),
        (lambda: lossbench.compare(RESULTS / "fair.jsonl"), "give compare two or more"),
    ],
)
def test_bad_input_is_one_clear_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_names_are_there_before_anything_is_imported():
    code = "import sys, lossbench; print(*dir(lossbench)); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported = done.stdout.splitlines()
    assert {"run", "count", "table", "__version__"} <= set(names.split())
    assert imported == "False"
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        lossbench.rum  # noqa: B018


SCRIPT = """
import lossbench

def measure():
    return lossbench.run(loss="smi", implementation="gram", batch=8, dim=4, out="run.jsonl")

"""


@pytest.mark.parametrize(
    "end",
    [
        "measure()",
        "for _ in range(2):\n    records = measure()",
        "import other",
        "import threading\nt = threading.Thread(target=measure)\nt.start()\nt.join()",
    ],
)
def test_a_script_without_a_guard_gets_one_error_before_anything_is_started(tmp_path, end):
    (tmp_path / "other.py").write_text("from script import measure\nmeasure()\n")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + end + "\n")
    done = run_script(script)
    assert done.stderr.count("RuntimeError: ") == 1
    assert 'put what it does under  if __name__ == "__main__":' in done.stderr
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.parametrize(
    "end",
    [
        'if __name__ == "__main__":\n    measure()',
        pytest.param(
            "if '__main__' == __name__:\n    print(len(measure()))\nelse:\n    print('a child')",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_script_with_a_guard_measures(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + end + "\n")
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    assert len(runfile.read(tmp_path / "run.jsonl").records) == 1


@pytest.mark.parametrize(
    "end",
    [
        '__name__ == "__main__" and measure()',
        'measure() if __name__ == "__main__" else None',
        'if __name__ != "__main__":\n    pass\nelse:\n    measure()',
    ],
)
def test_a_guard_may_be_written_in_other_ways(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(end)
    assert _is_guarded(script, len(end.splitlines()))


def test_a_script_from_a_pipe_cannot_be_imported(tmp_path):
    code = SCRIPT + "measure()"
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("cannot import <stdin>: save the script as a file")


def run_script(script: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script.name]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True)


NOTEBOOK = [
    "import lossbench",
    "records = lossbench.run(loss='smi', implementation=['reference', 'gram'], batch=8, dim=4)",
    "lossbench.table('implementations', records)",
]


def test_in_a_jupyter_kernel():
    """No guard is needed there, and progress is plain lines."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's own
        book = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, NOTEBOOK)))
        nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    progress = "".join(output.get("text", "") for output in book.cells[1].outputs)
    assert "[2/2] smi-gram-8x4-float32-step: ok" in progress
    (shown,) = book.cells[2].outputs
    assert "<table" in shown["data"]["text/html"]
    assert "Implementations: N = 8, D = 4, step" in shown["data"]["text/plain"]
    assert json.dumps(book)
