"""What people come for, from an installed wheel: each in five commands at most."""

import json
from pathlib import Path

import pytest
import yaml

from lossbench.reports.figures import versus
from lossbench.reports.records import load

ROOT = Path(__file__).parents[2]
LOSS = '''
from torch.nn.functional import normalize


def alignment_and_uniformity(z_a, z_b):
    """Wang and Isola, 2020."""
    a, b = normalize(z_a, dim=1), normalize(z_b, dim=1)
    uniformity = [(2 - 2 * (z @ z.T)).mul(-2).exp().mean().log() for z in (a, b)]
    return (a - b).square().sum(dim=1).mean() + sum(uniformity) / 2
'''
BATCHES, DIMS = (64, 128, 256, 512, 1024), (128, 256, 512, 1024, 2048)


@pytest.mark.long
def test_a_researcher_measures_a_loss_of_his_own(shell):
    (shell.folder / "my_loss.py").write_text(LOSS)
    chosen = "--loss smi,vicreg,au=my_loss:alignment_and_uniformity --implementation reference"
    shapes = "--batch 64..1024 --dim 128..2048"
    counts = json.loads(shell(f"lossbench count {chosen} {shapes} --json").stdout)
    own = [record for record in counts if record["loss"] == "au"]
    assert {(record["batch"], record["dim"]) for record in own} == {
        (batch, dim) for batch in BATCHES for dim in DIMS
    }
    for record in own:  # two Grams, and the gradient of each, of both of its factors
        assert record["macs"] == 3 * 2 * record["batch"] ** 2 * record["dim"]
        assert record["transcendentals"] >= 2 * record["batch"] ** 2
    shell(f"lossbench run {chosen} {shapes} --device cpu --out run.jsonl")
    grid = "lossreport table grid run.jsonl --rows loss,dim --across batch"
    shell(f"{grid} --out grid.tex && lossreport figure versus run.jsonl --out versus.pdf")
    latex = (shell.folder / "grid.tex").read_text()
    assert latex.count(r"\begin{table}") == 1
    assert sum(line.startswith("au &") for line in latex.splitlines()) == len(DIMS)
    assert (shell.folder / "versus.pdf").stat().st_size > 1000
    axes = versus.draw(load([shell.folder / "run.jsonl"])).axes
    assert len([axis for axis in axes if axis.get_title()]) == len(DIMS)
    trained = "--loss smi,au=my_loss:alignment_and_uniformity --batch 32 --steps 8 --device cpu"
    steps = shell(f"lossbench pretrain {trained} --set encoder=resnet18 --out steps.jsonl --json")
    records = json.loads(steps.stdout)
    assert [record["loss"] for record in records] == ["smi", "au"]
    assert all(0 < record["loss_share"] < 1 for record in records)


KERNELS = """
import torch
import triton
import triton.language as tl
from lossbench import losses


@triton.jit
def row_logsumexp(x, out, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + at, mask=at < columns, other=float("-inf"))
    most = tl.max(values, 0)
    tl.store(out + row, most + tl.log(tl.sum(tl.exp(values - most), 0)))


class LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        out = logits.new_empty(len(logits))
        block = triton.next_power_of_2(logits.shape[1])
        row_logsumexp[(len(logits),)](logits, out, logits.shape[1], BLOCK=block)
        ctx.save_for_backward(logits, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        logits, out = ctx.saved_tensors
        return (logits - out[:, None]).exp() * gradient[:, None]


def nt_xent(hyperparameters, z_a, z_b, factor=1.0):
    z = torch.nn.functional.normalize(torch.cat([z_a, z_b]), dim=1)
    logits = z @ z.T / hyperparameters.temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf"))
    positives = (z[: len(z_a)] * z[len(z_a) :]).sum(dim=1) / hyperparameters.temperature
    return {"loss": factor * (LogSumExp.apply(logits).mean() - positives.mean())}


losses.implementation("nt_xent", "mine")(nt_xent)


@losses.implementation("nt_xent", "off")
def off_by_one_percent(hyperparameters, z_a, z_b):
    return nt_xent(hyperparameters, z_a, z_b, 1.01)
"""


@pytest.mark.long
def test_a_kernel_engineer_measures_a_kernel_of_his_own(shell):
    (shell.folder / "my_kernels").mkdir()
    (shell.folder / "my_kernels" / "__init__.py").write_text(KERNELS)
    chosen = "--plugin my_kernels --loss nt_xent --implementation reference,mine,off"
    run = f"lossbench run {chosen} --batch 16 --dim 24 --device cpu --paired --json"
    first = json.loads(shell(f"{run} --out a.jsonl", status=1, TRITON_INTERPRET="1").stdout)
    reference, mine, off = first
    assert (reference["status"], mine["status"], off["status"]) == ("ok", "ok", "invalid")
    assert mine["gradient_error"] < 1e-6
    assert mine["gmacs"] is None
    assert "row_logsumexp" in mine["uncounted"]
    assert "fp64" in off["reason"]
    shell(f"{run} --out b.jsonl", status=1, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    compared = shell("lossreport compare a.jsonl b.jsonl").stdout
    assert "NT-Xent mine" in compared
    assert "threads" in compared  # the two machines differ in that
    audit = shell(
        "lossbench audit --capability 90 --kernel my_kernels:row_logsumexp "
        "--signature '*fp32:16,*fp32:16,i32,1024'"
    ).stdout
    assert "row_logsumexp" in audit
    tables = shell("lossreport table implementations a.jsonl").stdout.split("\n\n")
    named = {table.partition(":")[0]: table.count("row_logsumexp") for table in tables}
    assert named == {"Implementations": 1, "Arithmetic": 1}  # below each that has a dash for it


BENCHMARKS = """
import pytest

from lossbench.bench.cases.case import Case

CASES = [
    Case("smi", "gram", batch=64, dim=256),
    Case("mine=own:loss", batch=64, dim=256),
    Case("smi", "theirs", batch=64, dim=256, contender="own:smi"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cost(benchmark_case, case):
    benchmark_case(case)
"""
OWN = """
from lossbench import losses

_smi = losses.create("smi")


def smi(z_a, z_b):
    return _smi(z_a, z_b)


def loss(z_a, z_b):
    return (z_a @ z_b.T).square().mean()
"""
SLOWER = OWN.replace("return (z_a @ z_b.T)", "return (z_a @ z_b.T @ z_b @ z_b.T)")


@pytest.mark.long
def test_a_maintainer_gates_a_repository_of_his_own(shell):
    folder = shell.folder
    (folder / "costs").mkdir()
    (folder / "costs" / "test_costs.py").write_text(BENCHMARKS)
    (folder / "own.py").write_text(OWN)
    options = ["[pytest]", "pythonpath = .", "lossbench_benchmarks = costs"]
    (folder / "pytest.ini").write_text("\n".join([*options, "lossbench_baseline = costs.json"]))
    python = "python -m pytest -q -p no:cacheprovider --benchmark"
    shell(f"{python} --benchmark-update-baseline")
    assert len(json.loads((folder / "costs.json").read_text())) == 3
    shell(f"{python} --benchmark-json old.json")
    (folder / "own.py").write_text(SLOWER)  # a planted regression
    planted = shell(f"{python} --benchmark-json new.json", status=1).stdout
    assert "macs_flop_counter is" in planted
    assert "1 failed, 2 passed" in planted
    compare = "lossreport compare old.json new.json --fail-on bigger,wrong --format github"
    comment = shell(compare, status=1).stdout
    assert comment.startswith("### lossbench: ")
    assert "<details><summary>All cases</summary>" in comment


@pytest.mark.long
def test_a_noisy_machine_does_not_fail_a_pull_request(shell):
    """Times that look slower, but were measured beside other work: the step passes."""
    records = ROOT / "reports/results/amd-epyc-2-cores/predictions.jsonl"
    lines = records.read_text().splitlines()
    (shell.folder / "old.jsonl").write_text("\n".join(lines) + "\n")
    slower = [json.loads(line) for line in lines]
    for number, record in enumerate(slower):
        if record.get("samples_ms"):
            factor = 1.01 if number % 10 else 4  # where most are slower, the machine is
            record["samples_ms"] = [factor * ms for ms in record["samples_ms"]]
            record["median_ms"] *= factor
            record["disturbed"] = len(record["samples_ms"]) - 1 if factor == 4 else 0
    (shell.folder / "new.jsonl").write_text("\n".join(map(json.dumps, slower)) + "\n")
    compare = "lossreport compare old.jsonl new.jsonl --fail-on slower --format github"
    done = shell(f"{compare} --out comment.md || test $? -eq 3")
    assert "cannot judge slower" in done.stderr
    assert "0 slower" in (shell.folder / "comment.md").read_text()


def workflow():
    """That of docs/ci.md."""
    text = (ROOT / "docs/ci.md").read_text()
    return yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])


def test_the_workflow_of_the_docs_is_one():
    jobs = workflow()["jobs"]
    assert set(jobs) == {"baseline", "compare"}
    for job in jobs.values():
        assert job["runs-on"] == "ubuntu-latest"
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


@pytest.mark.long
def test_the_workflow_runs_step_by_step(shell, tmp_path):
    """All that it runs, in a repository whose pull request makes a loss do twice the products."""
    base, head = tmp_path / "origin", tmp_path / "work"
    (base / "tests" / "benchmarks").mkdir(parents=True)
    (base / "tests" / "benchmarks" / "test_costs.py").write_text(BENCHMARKS)
    (base / "own.py").write_text(OWN)
    (base / "pyproject.toml").write_text(
        '[project]\nname = "own"\nversion = "0"\n[tool.setuptools]\npy-modules = ["own"]\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    git = "git -c user.name=a -c user.email=a@b"
    start = f"cd {base} && git init -qb main && {git} add . && {git} commit -qm base"
    work = f"git clone -q {base} {head}"
    shell(f"{start} && {work}")
    (head / "own.py").write_text(SLOWER)
    steps = [step for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    commands = [step["run"] for step in steps if not step["run"].startswith("pip install")]
    assert len(commands) == 5
    _, fetch, old, new, compare = commands
    runner = {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    # packages are installed already: the code of each side is found in its own folder
    fetch = fetch.replace("${{ github.base_ref }}", "main").partition("pip install")[0]
    shell(f"cd {head} && {fetch}")
    side = {"PYTHONPATH": "."}
    module = "python -m pytest -p no:cacheprovider"  # the environment has no script of pytest's
    first, second = (each.replace("pytest", module, 1) for each in (old, new))
    update = first.replace("--benchmark", "--benchmark --benchmark-update-baseline", 1)
    shell(f"cd {tmp_path}/base && {update}", **runner, **side)
    shell(f"cd {head} && {second}", **runner, **side)
    shell(f"cd {head} && {compare}", status=1, **runner)
    summary = Path(runner["GITHUB_STEP_SUMMARY"]).read_text()
    assert summary.startswith("### lossbench: ")
