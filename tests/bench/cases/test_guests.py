"""A loss that is none of ours is a loss: measured, checked, and no harm to the rows beside it."""

import json
import math
import re
from dataclasses import replace

import guests
import pytest
import torch
from command_line import HERE, assert_one_line_error, call_lossbench, lossbench, said

import lossbench as package
from lossbench import losses
from lossbench.bench.cases.calls import case_call, create_loss
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import make_cases
from lossbench.bench.cases.examining import MisbehaviourError, examine
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.counting.trace import trace
from lossbench.bench.counting.work import work
from lossbench.bench.measuring.memory import peak_bytes
from lossbench.bench.predicting.expected import count_and_predict
from lossbench.bench.pretraining.config import from_preset
from lossbench.bench.pretraining.trainer import Trainer
from lossbench.bench.running.sweep import case_key

SHAPE = ["--batch", "8", "--dim", "16", "--device", "cpu"]
WRONG = {
    "vector": ("invalid", r"vector returns shape \(8,\), not a scalar tensor"),
    "number": ("invalid", r"number returns float, not a scalar tensor"),
    "not_finite": ("invalid", r"not_finite returns (-?inf|nan) for ordinary inputs"),
    "one_view": ("invalid", "one_view ignores its second view"),
    "one_percent_off": (
        "invalid",
        "one_percent_off has a gradient for its first view that is 0\\.0(1|099?) of its length.*",
    ),
    "small_part_flipped": (
        "invalid",
        "small_part_flipped has a gradient for its second view that is 2 of its length off .*",
    ),
    "stops_in_silence": ("invalid", "stops_in_silence has a gradient .* stops_gradient = True"),
    "one_side_stopped": (
        "invalid",
        "one_side_stopped has no gradient for its second view; .* declare it as a teacher .*",
    ),
    "of_fp32_alone": ("invalid", "of_fp32_alone cannot be checked in fp64 .*fp32 alone"),
    "three_views": ("error", ".*missing 1 required positional argument: 'labels'"),
    "raises": ("error", "ZeroDivisionError: there is no loss"),
    "greedy": ("oom", ".*did not fit.*|.*memory.*"),
    "exits": ("error", "process ended with exit status 3.*"),
    "crashes": ("error", "process ended with SIGSEGV.*"),
    "missing": ("error", ".*unknown attribute of guests 'missing'.*"),
    "without_mask": ("invalid", "without_mask ignores its input mask"),
    "without_target": ("invalid", "without_target ignores its input target"),
    "without_student": ("error", ".*none of its inputs is a student: nothing is trained"),
    "of_no_size": ("error", ".*input z: 'K' is no size; it is a whole number, or one of N, D"),
    "NOTHING": ("error", ".*guests:NOTHING is not callable"),
}
RIGHT = {
    "alignment_and_uniformity": "a loss of its own: its gradient is that of its value",
    "Temperature": "a loss of its own: its gradient is that of its value",
    "stopped": "a loss of its own that stops gradients: unchecked",
    "with_a_reference": "another loss: equals its own reference",
    "predicted": "a loss of its own: its gradient is that of its value",
    **dict.fromkeys(
        ("Prototypes", "selected", "drawn", "tokens", "queue_first"),
        "a loss of its own: its gradient is that of its value",
    ),
    "banked": "a loss of its own: its gradient is that of its value",
    "forks": "a loss of its own: its gradient is that of its value",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """One run of ours beside all guests, the wrong ones first."""
    texts = [f"{name}=guests:{name}" for name in (*WRONG, *RIGHT)]
    texts += ["nowhere=no_such_module:loss", "halved=guests:weighted?weight=0.5"]
    texts += ["queued=guests:Queued?queue=96"]
    out = str(tmp_path_factory.mktemp("guests") / "run.jsonl")
    chosen = ["--loss", ",".join(["smi", *texts]), "--implementation", "reference"]
    return lossbench("run", *chosen, *SHAPE, "--timeout", "60s", "--out", out, "--json", cwd=HERE)


@pytest.fixture(scope="module")
def rows(result):
    """Loss -> record."""
    records = json.loads(result.stdout)
    assert len(records) == len(WRONG) + len(RIGHT) + 4
    return {record["loss"]: record for record in records}


def test_our_own_row_is_unaffected(result, rows):
    assert result.returncode == 1
    assert rows["smi"]["status"] == "ok"
    assert rows["smi"]["origin"] == ""


@pytest.mark.parametrize("name", WRONG)
def test_a_guest_that_is_wrong_is_a_row_that_says_how(rows, name):
    status, reason = WRONG[name]
    assert rows[name]["status"] == status, rows[name]["reason"]
    assert re.fullmatch(reason, rows[name]["reason"]), rows[name]["reason"]
    assert "median_ms" not in rows[name]


def test_a_module_that_is_not_there_is_a_row_too(rows):
    assert rows["nowhere"]["status"] == "error"
    assert "module no_such_module cannot be imported" in rows["nowhere"]["reason"]


@pytest.mark.parametrize("name", RIGHT)
def test_a_guest_that_is_right_is_measured(rows, name):
    record = rows[name]
    assert (record["status"], record["reason"]) == ("ok", "")
    assert record["parity"] == RIGHT[name]
    assert record["title"] == name
    assert record["origin"] == f"guests:{name}"
    assert record["value"] == pytest.approx(record["value_fp64"], rel=1e-5)
    assert record["gradient_error"] < 1e-5
    for measured in ("median_ms", "peak_bytes", "saved_bytes"):
        assert record[measured] > 0


def test_products_of_a_guest_are_counted_exactly(rows):
    # two Grams, and for each the product of its gradient with the view, twice: it is symmetric
    assert rows["alignment_and_uniformity"]["macs"] == 3 * 2 * 8 * 8 * 16
    assert "cost model" in rows["alignment_and_uniformity"]["counts_note"]


def test_keys_make_the_loss_and_are_its_hyperparameters(rows):
    record = rows["halved"]
    assert (record["status"], record["hyperparameters"]) == ("ok", "weight=0.5")
    views = [view.double() for view in _views(record)]
    expected = guests.alignment_and_uniformity(*views, weight=0.5).item()
    assert record["value_fp64"] == pytest.approx(expected, rel=1e-9)


def test_a_guest_is_given_what_it_declares(rows):
    n, d, queue = 8, 16, 96
    assert rows["predicted"]["input_bytes"] == 4 * 4 * n * d
    assert rows["banked"]["input_bytes"] == 4 * (n * d + 500 * d) + 8 * n + n
    record = rows["queued"]
    assert (record["status"], record["reason"]) == ("ok", "")
    assert record["input_bytes"] == 4 * (2 * n + queue) * d
    # the product with the queue, and that of its gradient with it: the queue itself gets none
    assert record["macs"] == 2 * n * queue * d
    assert record["gradient_error"] < 1e-5


def test_a_step_has_the_gradients_of_own_parameters(rows):
    # of the weights and of the view, after the forward pass; for each view
    assert rows["Prototypes"]["macs"] == 2 * 3 * 8 * 16 * 50


def test_products_of_chosen_rows_are_of_those_that_are_chosen(rows):
    # each row that is chosen against all teachers, forward and for the gradient
    chosen, rest = divmod(rows["selected"]["macs"], 2 * 8 * 16)
    assert 0 < chosen <= 8
    assert rest == 0


def test_sizes_are_those_of_the_tensors_that_have_them():
    loss = losses.create("mine=guests:queue_first")
    assert loss(torch.ones(96, 5), torch.ones(4, 5)).ndim == 0
    with pytest.raises(ValueError, match=r"q must have shape N x D \(D = 5, N = 4\), got \(4, 6\)"):
        loss(torch.ones(96, 5), torch.ones(4, 6))
    with pytest.raises(ValueError, match=r"q must be floating point, got torch\.int64"):
        loss(torch.ones(96, 5), torch.ones(4, 5).long())
    with pytest.raises(ValueError, match="mine needs queue, q, got 1 inputs"):
        loss(torch.ones(96, 5))
    masked = losses.create("mine=guests:selected")
    with pytest.raises(ValueError, match=r"mask must be of torch\.bool, got torch\.float32"):
        masked(torch.ones(4, 5), torch.ones(4, 5), torch.ones(4))


def test_two_students_are_two_views():
    """Whatever they are called: all that two views can do."""
    guests.named_views = lambda left, right: (left - right).square().mean()
    guests.named_views.inputs = {"left": "student", "right": "student N x D"}
    assert Case("mine=guests:named_views", world=2, distribution="gather").has_views
    assert losses.create("mine=guests:named_views").has_views


@pytest.mark.parametrize("source", ["random", "aligned", "collapsed", "digits"])
def test_two_views_of_a_declaration_are_those_of_every_loss(source):
    """SimSiam's students are the views that a loss of two views is given."""
    ours, given = (
        make_inputs(Case(loss, batch=8, dim=16, inputs=source))
        for loss in ("smi", "mine=guests:predicted")
    )
    assert len(given) == 4
    if source != "collapsed":  # whose centre is drawn after all views
        assert all(map(torch.equal, ours, given))
    for view in given[2:]:
        assert not torch.equal(view, given[0])


def test_a_guest_that_declares_its_inputs_is_counted_as_it_is_measured():
    case = Case("mine=guests:Queued?queue=256", batch=64, dim=32)
    for pass_ in losses.PASSES:
        of_pass = replace(case, pass_=pass_)
        assert work(of_pass).peak_bytes == pytest.approx(
            peak_bytes(case_call(of_pass, create_loss(of_pass), make_inputs(of_pass)), "cpu"),
            rel=0.02,
        )


def test_what_only_two_views_can_do_is_unsupported(tmp_path):
    loss = ["--loss", "mine=guests:predicted"]
    shape = [*SHAPE, "--world", "4", "--distribution", "gather", "--json"]
    gathered, *_ = json.loads(call_lossbench("count", *loss, *shape).stdout)
    assert gathered["status"] == "unsupported"
    given = "is given p_a, p_b, z_a, z_b"
    assert f"gather is of losses of two views; mine {given}" in gathered["reason"]
    step = ["--preset", "digits", "--steps", "1", "--out", str(tmp_path / "run.jsonl"), "--json"]
    (trained,) = json.loads(lossbench("pretrain", *loss, *step, cwd=HERE).stdout)
    assert trained["status"] == "unsupported"
    assert trained["reason"].endswith(f"two views; mine {given}")


def _views(record):
    return make_inputs(Case("smi", batch=record["batch"], dim=record["dim"]))


def test_a_guest_that_hangs_is_given_up(tmp_path):
    chosen = ["--loss", "smi,hangs=guests:hangs", "--implementation", "reference", *SHAPE]
    out = ["--timeout", "30s", "--out", str(tmp_path / "run.jsonl"), "--json"]
    ours, hangs = json.loads(lossbench("run", *chosen, *out, cwd=HERE).stdout)
    assert ours["status"] == "ok"
    assert (hangs["status"], hangs["reason"]) == ("timeout", "not finished after 30 s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine=guests", "loss mine is package.module:attribute"),
        ("=guests:vector", "a loss of your own is NAME=package.module:attribute"),
        ("my-loss=guests:vector", "a loss of your own is NAME="),
        ("smi=guests:vector", "there is a loss 'smi' here; give yours another name"),
        ("mine=guests:weighted?2=3", "'2' is not the name of an argument"),
        ("mine", "unknown loss 'mine'"),
    ],
)
def test_bad_texts_are_one_line_on_stderr(text, message):
    assert_one_line_error(call_lossbench("count", "--loss", text, *SHAPE), message)


@pytest.mark.parametrize("name", ["weight", "keys"])
def test_settings_of_a_guest_are_its_keys(name):
    asked = ["count", "--loss", "mine=guests:weighted?weight=2", *SHAPE, "--set", f"mine.{name}=3"]
    result = call_lossbench(*asked)
    if name == "weight":
        assert result.returncode == 0, result.stderr
    else:
        assert_one_line_error(result, "unknown hyperparameter of mine 'keys'")


def test_keys_of_a_plain_function_say_that_they_call_it():
    with pytest.raises(ValueError, match=r"keys call it as a factory: guests:vector\(weight=2\)"):
        losses.create("mine=guests:vector?weight=2")


def test_a_guest_has_contenders():
    text = "mine=guests:alignment_and_uniformity"
    (case,) = make_cases("mine.fast=guests:alignment_and_uniformity", [Case(text, batch=8, dim=16)])
    assert (case.name, case.implementation) == ("mine", "fast")
    loss = guests.alignment_and_uniformity
    assert examine(case, loss) == {"scale": 1.0, "parity": "equals ours"}
    with pytest.raises(MisbehaviourError, match="fast is not mine"):
        examine(case, guests.stopped)


def test_compiled_code_of_a_guest_gives_the_same():
    text = "mine=guests:alignment_and_uniformity"
    views = torch.randn(2, 24, 10, dtype=torch.float64).unbind()
    eager, compiled, auto = (
        losses.create(text, way)(*views) for way in ("reference", "compiled", "auto")
    )
    assert compiled.item() == pytest.approx(eager.item(), rel=1e-12)
    assert auto.item() == eager.item()


def test_views_of_16_bits_are_computed_in_fp32():
    views = torch.randn(2, 24, 10).bfloat16().unbind()
    value = losses.create("mine=guests:alignment_and_uniformity")(*views)
    assert value.dtype == torch.float32
    wide = guests.alignment_and_uniformity(*(view.float() for view in views))
    assert value.item() == wide.item()


def test_tensors_of_a_guest_are_its_own_and_move_with_it():
    first, second = (losses.create("mine=guests:Temperature?start=2") for _ in "ab")
    assert [p.item() for p in first.parameters()] == [2.0]
    assert next(first.parameters()) is not next(second.parameters())
    assert len(list(first.double().buffers())) == 1
    assert all(tensor.dtype == torch.float64 for tensor in first.state_dict().values())


def test_parameters_of_a_guest_are_trained():
    config = from_preset("digits", loss="mine=guests:Temperature", batch=8, data="synthetic")
    trainer = Trainer(config, steps=10, device="cpu")
    before = next(trainer.loss.parameters()).item()
    size = (8, 3, config.image_size, config.image_size)
    images = torch.randint(256, size, dtype=torch.uint8)
    for _ in range(4):
        trainer.train_step(iter([images]))
    assert next(trainer.loss.parameters()).item() != before
    assert math.isfinite(next(trainer.loss.parameters()).item())
    again = Trainer(config, steps=10, device="cpu")
    again.load(trainer.state())
    assert next(again.loss.parameters()).item() == next(trainer.loss.parameters()).item()


def test_another_version_of_a_guest_is_another_record(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_guest.py"
    module.write_text("def loss(z_a, z_b):\n    return (z_a - z_b).square().mean()\n")
    header = {"code_hash": "c", "environment_hash": "e"}
    case = Case("mine=own_guest:loss", batch=8, dim=16)
    before = case_key(case, header)
    assert case_key(case, header) == before
    module.write_text(module.read_text() + "# other\n")
    assert case_key(case, header) != before


def test_pretraining_by_a_guest_and_by_one_that_crashes(tmp_path):
    texts = "smi,mine=guests:alignment_and_uniformity,bad=guests:crashes"
    out = ["--out", str(tmp_path / "run.jsonl"), "--json"]
    asked = ["pretrain", "--loss", texts, "--batch", "16", "--steps", "4", "--device", "cpu"]
    records = json.loads(lossbench(*asked, *out, cwd=HERE).stdout)
    ours, mine, bad = records
    assert [ours["status"], mine["status"]] == ["ok", "ok"]
    assert (mine["loss"], mine["title"]) == ("mine", "mine")
    assert mine["images_per_s"] > 0
    assert (bad["status"], bad["reason"]) == ("error", "process ended with SIGSEGV")


def test_prediction_of_a_guest():
    asked = ["predict", "--loss", "mine=guests:alignment_and_uniformity,bad=guests:crashes"]
    more = ["--implementation", "reference", *SHAPE[:4], "--gpu", "h100-sxm", "--json"]
    done = lossbench(*asked, *more, cwd=HERE)
    mine, bad = json.loads(done.stdout)
    assert mine["status"] == "ok"
    assert mine["predicted_ms"] > 0
    assert "SIGSEGV" in bad["reason"]
    assert said(done) == []


def test_a_function_without_a_name_reaches_the_processes(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    factor = 3.0
    found = package.run(
        loss=["smi", {"mine": lambda a, b: factor * (a - b).square().mean()}],
        implementation="reference",
        batch=8,
        dim=16,
        device="cpu",
    )
    assert list(found["status"]) == ["ok", "ok"]
    assert list(found["loss"]) == ["smi", "mine"]
    expected = [3 * (a - b).square().mean().item() for a, b in [_views(found.iloc[1])]]
    assert found["value"].iloc[1] == pytest.approx(expected[0], rel=1e-5)


def test_a_function_with_a_name_is_found_by_it(monkeypatch):
    assert losses.outside.describe("mine", guests.vector) == "mine=guests:vector"
    assert losses.outside.describe("mine", guests.Temperature) == "mine=guests:Temperature"
    by_value = losses.outside.describe("mine", guests.Temperature(2.0))
    assert by_value.endswith(".pickle")
    assert [p.item() for p in losses.create(by_value).parameters()] == [2.0]
    with pytest.raises(ValueError, match="loss mine must be callable, got int"):
        losses.outside.describe("mine", 3)


PLUGIN = """
from dataclasses import dataclass
from lossbench import losses

@losses.implementation("smi", "{name}")
def fast(hyperparameters, z_a, z_b):
    terms = losses.spec("smi").implementations["reference"](hyperparameters, z_a, z_b)
    return {{name: {factor} * term for name, term in terms.items()}}

@losses.register(
    "{name}_loss", title="Plugged in", source="a test", family="test", gather_layer=False,
    global_batch_norm=False, communicated_bytes=lambda job: 0,
)
@dataclass(frozen=True)
class Hyperparameters:
    weight: float = 1.0

@losses.implementation("{name}_loss", "reference")
def reference(hyperparameters, z_a, z_b):
    return {{"loss": hyperparameters.weight * (z_a - z_b).square().mean()}}
"""


@pytest.mark.parametrize(("name", "factor"), [("plugged", 1.0), ("plugged_wrong", 1.01)])
def test_a_plugin_registers_losses_and_implementations(tmp_path, name, factor):
    (tmp_path / "my_plugin.py").write_text(PLUGIN.format(name=name, factor=factor))
    chosen = ["--loss", f"smi,{name}_loss", "--implementation", f"reference,{name}", *SHAPE]
    out = ["--out", str(tmp_path / "run.jsonl"), "--json"]
    done = lossbench("run", "--plugin", "my_plugin", *chosen, *out, cwd=tmp_path)
    ours, theirs, own = json.loads(done.stdout)
    assert (ours["status"], own["status"]) == ("ok", "ok")
    assert own["title"] == "Plugged in"
    assert own["parity"] == "a loss of its own: its gradient is that of its value"
    if factor == 1:
        assert theirs["status"] == "ok"
    else:
        assert theirs["status"] == "invalid"
        assert "fp64" in theirs["reason"]


DECLARING = """
from dataclasses import dataclass
from lossbench import losses

def given(hyperparameters):
    yield losses.Input("z", ("N", "D"))
    yield losses.Input("bank", (hyperparameters.bank, "D"), "teacher")

@losses.register(
    "against_bank", title="Against a bank", source="a test", family="test", gather_layer=False,
    global_batch_norm=False, communicated_bytes=lambda job: 0, inputs=given,
)
@dataclass(frozen=True)
class Hyperparameters:
    bank: int = 40

@losses.implementation("against_bank", "reference")
def reference(hyperparameters, z, bank):
    return {"loss": (z @ bank.T).logsumexp(dim=1).mean()}
"""


def test_a_registered_loss_declares_its_inputs(tmp_path):
    (tmp_path / "my_plugin.py").write_text(DECLARING)
    chosen = ["--loss", "against_bank", "--set", "against_bank.bank=24", *SHAPE]
    out = ["--out", str(tmp_path / "run.jsonl"), "--json", "--accuracy"]
    done = lossbench("run", "--plugin", "my_plugin", *chosen, *out, cwd=tmp_path)
    for record in json.loads(done.stdout):
        assert (record["status"], record["reason"]) == ("ok", "")
        assert record["input_bytes"] == 4 * (8 + 24) * 16
        assert record["macs"] == 2 * 8 * 24 * 16
        assert record["accuracy_aligned_gradient_error"] < 1e-5


def test_a_plugin_that_is_not_there_is_one_line():
    asked = ["count", "--loss", "smi", *SHAPE, "--plugin", "no_such_plugin"]
    assert_one_line_error(call_lossbench(*asked), "plugin no_such_plugin cannot be imported")


@pytest.mark.parametrize("name", ["predicted", "banked", "Queued?queue=256"])
@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_compiled_code_of_a_guest_is_counted_as_it_is_measured(name, pass_):
    case = Case(f"mine=guests:{name}", "compiled", batch=256, dim=64, pass_=pass_)
    call = case_call(case, create_loss(case), make_inputs(case))
    call()
    assert work(case).peak_bytes == pytest.approx(peak_bytes(call, "cpu"), rel=0.05)


@pytest.mark.parametrize("name", ["alignment_and_uniformity", "Temperature"])
def test_compiled_code_that_was_followed_still_computes(name):
    case = Case(f"mine=guests:{name}", "compiled", batch=16, dim=8)
    count_and_predict(case, None)
    views = make_inputs(case)
    expected = create_loss(replace(case, implementation="reference"))(*views)
    assert create_loss(case)(*views).item() == pytest.approx(expected.item(), rel=1e-5)


def test_tensors_of_a_guest_are_followed_without_values():
    assert trace(Case("mine=guests:Temperature", batch=16, dim=8)).transcendentals == 1
