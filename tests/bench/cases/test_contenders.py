"""Contenders: a third party's loss is told from ours, and cannot harm the rows beside it."""

import json
import re

import pytest
import third_party
import torch
from command_line import HERE, assert_one_line_error, call_lossbench, lossbench, said

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import make_cases, resolve
from lossbench.bench.cases.examining import MisbehaviourError, examine
from lossbench.bench.running.sweep import case_key

PML = "pytorch_metric_learning.losses"
SMALL = ["--implementation", "reference", "--batch", "8", "--dim", "16"]
OURS = ["barlow_twins", "vicreg", "nt_xent"]
MISBEHAVING = {
    "raises": ("error", "ZeroDivisionError: there is no loss"),
    "vector": ("invalid", r"vector returns shape \(8,\), not a scalar tensor"),
    "mutates": ("invalid", "mutates changes its first view in place"),
    "one_view": ("invalid", "one_view ignores its second view"),
    "noisy": ("invalid", r"noisy is not deterministic: [\d.]+, then [\d.]+ on equal inputs"),
    "detached": (
        "invalid",
        "detached is not barlow_twins: value and gradient are 0.5 to 1 times ours",
    ),
    "one_sided": ("invalid", "one_sided has no gradient for its second view"),
    "another_loss": ("invalid", "another_loss is not barlow_twins: value and gradient are .* ours"),
    "dies": ("error", "process ended with SIGABRT.*"),
}
WELL_BEHAVED = {
    "scaled": ("barlow_twins", "third_party:scaled", 0.025),
    "looks": ("barlow_twins", "third_party:looks_at_values", 1),
    "weighted": ("barlow_twins", "third_party:Weighted?factor=0.5", 0.5),
    "plain": ("barlow_twins", "third_party:Weighted", 1),
    "pml_vicreg": ("vicreg", f"{PML}:VICRegLoss", 1),
    "pml_nt_xent": ("nt_xent", f"{PML}:SelfSupervisedLoss?loss={PML}:NTXentLoss", 1),
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """One run of our references, and of all contenders, the misbehaving ones first."""
    wanted = [f"barlow_twins.{name}=third_party:{name}" for name in MISBEHAVING]
    wanted += [f"{loss}.{name}={target}" for name, (loss, target, _) in WELL_BEHAVED.items()]
    contenders = [argument for text in wanted for argument in ("--contender", text)]
    chosen = ["--loss", ",".join(OURS), *SMALL, "--set", "nt_xent.temperature=0.07"]
    out = ["--out", str(tmp_path_factory.mktemp("contenders") / "run.jsonl"), "--json"]
    return lossbench("run", *chosen, *contenders, *out, cwd=HERE)


@pytest.fixture(scope="module")
def rows(result):
    """Loss and implementation -> record."""
    records = json.loads(result.stdout)
    assert len(records) == len(OURS) + len(MISBEHAVING) + len(WELL_BEHAVED)
    return {(record["loss"], record["implementation"]): record for record in records}


def test_a_run_with_contenders_that_fail_says_so(result):
    assert result.returncode == 1
    (summary,) = said(result)
    assert "18 done now, 18 of 18 cases" in summary
    assert summary.endswith(f", {len(MISBEHAVING)} failed")


@pytest.mark.parametrize("loss", OURS)
def test_our_own_rows_are_unaffected(rows, loss):
    record = rows[loss, "reference"]
    assert record["status"] == "ok"
    assert record["value"] == pytest.approx(record["value_fp64"])
    assert record["median_ms"] > 0
    assert record["contender"] == ""


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_contender_that_misbehaves_is_a_row_that_says_how(rows, name):
    status, reason = MISBEHAVING[name]
    record = rows["barlow_twins", name]
    assert re.fullmatch(status, record["status"])
    assert re.fullmatch(reason, record["reason"])
    assert record["contender"] == f"third_party:{name}"
    assert "median_ms" not in record


@pytest.mark.parametrize("name", WELL_BEHAVED)
def test_a_contender_that_behaves_is_measured_and_what_it_equals_is_said(rows, name):
    loss, target, factor = WELL_BEHAVED[name]
    record = rows[loss, name]
    assert (record["status"], record["reason"]) == ("ok", "")
    assert record["parity"] == ("equals ours" if factor == 1 else f"equals {factor} x ours")
    assert record["scale"] == pytest.approx(factor, rel=1e-4)
    assert record["value"] == pytest.approx(rows[loss, "reference"]["value"], rel=1e-5)
    assert record["gradient_error"] < 1e-5
    assert record["contender"] == target
    for measured in ("median_ms", "peak_bytes", "saved_bytes", "first_call_ms", "macs"):
        assert record[measured] > 0


def test_contenders_are_counted_by_what_they_run(rows):
    ours = rows["barlow_twins", "reference"]
    for name in ("scaled", "looks", "weighted"):
        assert rows["barlow_twins", name]["macs"] == ours["macs"] == 3 * 8 * 16**2
    assert "cost model" in rows["barlow_twins", "scaled"]["counts_note"]


def test_hyperparameters_are_those_of_the_contenders_loss(rows):
    for name in ("reference", "pml_nt_xent"):
        assert rows["nt_xent", name]["hyperparameters"] == "temperature=0.07"


BARLOW = ["count", "--loss", "barlow_twins", *SMALL]


@pytest.mark.parametrize(
    ("contender", "message"),
    [
        ("barlow_twins.own", "--contender needs NAME=package.module:attribute, got"),
        ("=third_party:scaled", "--contender needs NAME=package.module:attribute, got"),
        ("barlow_twins.own=third_party", "a contender is package.module:attribute.*'third_party'"),
        ("barlow_twins.own=third_party:", "a contender is package.module:attribute"),
        ("barlow_twins.own=no_such_module:f", "no_such_module cannot be imported: No module named"),
        ("barlow_twins.own=third_party:scald", "unknown attribute .*did you mean 'scaled'"),
        ("barlow_twin.own=third_party:scaled", "did you mean 'barlow_twins'"),
        ("vicreg.own=third_party:scaled", "'vicreg' is not among the chosen losses"),
        ("barlow_twins.gram=third_party:scaled", "barlow_twins has an implementation 'gram'"),
        ("barlow_twins.own=third_party:FACTOR", "third_party:FACTOR is not callable"),
        ("barlow_twins.own=third_party:NeedsArgument", "NeedsArgument cannot be .*'factor'"),
        ("barlow_twins.own=third_party:Weighted?factr=1", "cannot be .*'factr'"),
        ("barlow_twins.own=third_party:Weighted?factor=torch:nn", "not callable"),
        ("barlow_twins.own=third_party:Weighted?factor=torch:nothing", "unknown attribute of"),
    ],
)
def test_bad_contenders_are_one_line_on_stderr(contender, message):
    assert_one_line_error(call_lossbench(*BARLOW, "--contender", contender), message)


def test_counting_a_contender_that_raises_is_not_called_a_bug_of_ours():
    result = call_lossbench(*BARLOW, "--contender", "barlow_twins.raises=third_party:raises")
    assert result.returncode != 0
    assert "there is no loss" in result.stdout + result.stderr
    assert "a bug" not in result.stderr


def make(text, *losses_, **changes):
    ours = [Case(loss, batch=8, dim=16, **changes) for loss in losses_]
    return make_cases(text, ours)


def test_a_label_alone_is_enough_for_one_loss():
    (case,) = make("own=third_party:scaled", "barlow_twins")
    assert (case.loss, case.implementation) == ("barlow_twins", "own")
    (case,) = make("barlow_twins=third_party:scaled", "barlow_twins", "smi")
    assert (case.loss, case.implementation) == ("barlow_twins", "third_party")
    with pytest.raises(ValueError, match="unknown loss 'own'"):
        make("own=third_party:scaled", "barlow_twins", "smi")


def test_a_contender_runs_once_for_each_shape_whatever_our_implementations():
    ways = [("reference", {}), ("chunked", {}), ("chunked", {"workspace_bytes": 4096})]
    ours = [
        Case("barlow_twins", way, batch=batch, dim=16, options=options)
        for batch in (8, 9)
        for way, options in ways
    ]
    rows = make_cases("barlow_twins.own=third_party:scaled", ours)
    assert [(row.batch, row.options) for row in rows] == [(8, {}), (9, {})]
    # a second contender is no contender of the first
    assert len(make_cases("barlow_twins.other=third_party:scaled", [*ours, *rows])) == 2


def test_another_version_of_a_contender_is_another_record(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_loss.py"
    module.write_text("def loss(z_a, z_b):\n    return (z_a - z_b).square().mean()\n")
    header = {"code_hash": "c", "environment_hash": "e"}
    (case,) = make("vicreg.own=own_loss:loss", "vicreg")
    before = case_key(case, header)
    assert case_key(case, header) == before
    module.write_text(module.read_text() + "# other\n")
    assert case_key(case, header) != before


def test_the_second_view_may_be_named():
    def loss(embeddings, ref_emb=None):
        return third_party.scaled(embeddings, ref_emb)

    views = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    third_party.named = loss
    try:
        value = resolve("third_party:named")(*views)
    finally:
        del third_party.named
    assert torch.equal(value, third_party.scaled(*views))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("loss", losses.names())
def test_our_own_losses_pass_the_examination_in_every_dtype(loss, dtype):
    case = Case(loss, batch=32, dim=64, dtype=dtype)
    ours = {"reference", "gram", "chunked"} & losses.spec(loss).implementations.keys()
    for implementation in ours:
        found = examine(case, losses.create(loss, implementation))
        assert found == {"scale": 1.0, "parity": "equals ours"}


@pytest.mark.parametrize("loss", losses.names())
@pytest.mark.parametrize("other", losses.names())
def test_no_loss_passes_for_another(loss, other):
    case = Case(loss, batch=32, dim=64)
    if loss != other:
        with pytest.raises(MisbehaviourError, match=f"is not {loss}"):
            examine(case, losses.create(other))


@pytest.mark.parametrize(("name", "value"), [("lambda_", 0.006), ("eps", 1e-2)])
def test_other_hyperparameters_are_another_loss(name, value):
    case = Case("barlow_twins", batch=32, dim=64)
    with pytest.raises(MisbehaviourError, match="is not barlow_twins"):
        examine(case, losses.create("barlow_twins", **{name: value}))
