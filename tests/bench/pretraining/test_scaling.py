"""The scaling model: closed forms worked by hand, what must be monotone, and the command line."""

import json
from dataclasses import replace

import pytest
import torch
from command_line import call_lossbench
from torch import nn

from lossbench.bench.predicting import links
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.links import Link
from lossbench.bench.predicting.predict import Device
from lossbench.bench.pretraining import followed, scaling
from lossbench.bench.pretraining.followed import follow_network
from lossbench.bench.pretraining.scaling import PARTS, StepPredictor, expected
from lossbench.bench.pretraining.steps import Step, select_steps
from lossbench.bench.pretraining.throughput import network_macs

N, SIDE, D = 8, 4, 16
WEIGHTS = 3 * SIDE**2 * D
SLOW = Ceilings({"float32": 1.0}, [(1, 1.0)], 0.0)
"""10^9 FLOP/s and bytes/s."""
FAST = Ceilings({"float32": 1e15}, [(1, 1e15)], 0.0)


class Linear(nn.Module):
    """A network of one matrix."""

    def __init__(self, config):
        super().__init__()
        self.encoder = nn.Flatten()
        self.projector = nn.Linear(3 * config.image_size**2, config.dim, bias=False)


@pytest.fixture
def linear(small, monkeypatch):
    """Settings of a step of that network."""
    monkeypatch.setattr(followed, "Network", Linear)

    def make(**changes):
        sizes = {"batch": N, "image_size": SIDE, "projector": (D,)}
        return small(**{**sizes, "implementation": "gram", **changes})

    return make


def predicted(config, world, ceilings=SLOW, link=None, memory=1e12):
    device = Device("made up", "Made up", memory, ceilings, "", link)
    found = StepPredictor().predict(Step(config, world, "cpu"), device)
    assert found["status"] == "ok", found["reason"]
    return found


def test_a_linear_network_by_hand(linear):
    """One product forward and, as images need no gradient, one backward, of each view."""
    found = follow_network(linear(optimizer="sgd"), "cpu")
    assert found.forward.executed_macs == found.backward.executed_macs == 2 * N * WEIGHTS
    assert found.macs == N * network_macs_of_one_image()
    assert found.view_bytes == 2 * N * 3 * SIDE**2 * 4
    momenta = gradients = WEIGHTS * 4
    assert found.state == {
        "parameter_bytes": WEIGHTS * 4,
        "gradient_bytes": gradients,
        "optimizer_bytes": momenta,
    }
    embeddings = 2 * N * D * 4
    assert found.forward.held[-1][0] == embeddings
    rest = found.view_bytes + WEIGHTS * 4 + momenta
    # where the loss holds most, gradients are not there yet
    assert found.peak_bytes(10**6) == rest + embeddings + 10**6


def network_macs_of_one_image():
    return 2 * 2 * WEIGHTS


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"optimizer": "lars"}], ids=str)
def test_as_many_multiply_adds_as_flop_counter_mode_counts(small, changes):
    config = small(**changes)
    found = follow_network(config, "cpu")
    assert found.macs == config.batch * network_macs(config)
    precision = "bfloat16" if changes.get("precision") else "float32"
    assert {each.precision for each in found.forward.operations if each.macs} == {precision}


def test_attention_is_counted(small):
    """A fused kernel of N tokens: two products forward; its backward pass makes five."""
    config = small(encoder="vit_s", stem="imagenet", image_size=8, batch=2)
    found = follow_network(config, "cpu")
    tokens = 8**2 + 1
    products = 12 * 2 * config.batch * tokens**2 * 384  # layers, views
    assert found.macs == config.batch * network_macs(config) + products  # one again


def test_an_optimizer_moves_what_it_reads_and_writes(linear):
    """SGD on a GPU, all matrices at once: decay, momentum (twice), step; each reads two."""
    found = follow_network(linear(optimizer="sgd"), "cuda").optimizer
    decay, momentum_scaled, momentum, step = 3, 2, 3, 3
    assert found.moved_bytes == (decay + momentum_scaled + momentum + step) * WEIGHTS * 4


@pytest.mark.parametrize("setting", ["compiled", "global_batch_norm"])
def test_what_is_not_modelled_is_a_row_that_says_so(linear, setting):
    device = Device("made up", "Made up", 1e12, SLOW, "")
    step = Step(linear(**{setting: True}), 1, "cpu")
    found = StepPredictor().predict(step, device)
    assert found["status"] == "unsupported"
    assert setting in found["reason"]
    assert expected(step.config, 1, "cpu", SLOW.describe()) == {}
    assert expected(step.config, 1, "cpu", None) == {}


@pytest.mark.parametrize("distribution", ["local", "gather", "gram"])
def test_one_device_sends_nothing_and_parts_add_up(linear, distribution):
    config = linear(distribution=distribution, implementation="auto")
    for world in (1, 2, 64):
        found = predicted(config, world, link=Link(1.0, 1.0, 5.0))
        parts = [found[f"predicted_{name}_ms"] for name in PARTS]
        assert found["predicted_step_ms"] == pytest.approx(sum(parts))
        if world == 1:
            assert parts[-2:] == [0, 0]
            assert found["predicted_efficiency"] == 1
            assert found["predicted_communication_share"] == 0


@pytest.mark.parametrize("world", [2, 3, 8, 1024])
def test_gradients_are_added_up_in_a_tree(linear, world):
    """2 (W - 1) / W P b bytes, and there and back through a tree; nothing hides it here."""
    found = predicted(linear(), world, FAST, Link(9.0, 2.0, 7.0))
    deep = {2: 1, 3: 2, 8: 3, 1024: 10}[world]
    sent_ms = 2 * (world - 1) / world * WEIGHTS * 4 / 2e9 * 1e3
    assert found["predicted_gradient_reduction_ms"] == pytest.approx(sent_ms + 2 * deep * 7e-3)


def test_the_backward_pass_hides_all_but_the_last_bucket(linear, monkeypatch):
    monkeypatch.setattr(scaling, "BUCKET_BYTES", WEIGHTS * 4 // 4)
    found = predicted(linear(), 2, SLOW, Link(1.0, 1000.0))
    assert found["predicted_gradient_reduction_ms"] == pytest.approx(WEIGHTS / 1e12 * 1e3)
    slow = predicted(linear(), 2, SLOW, Link(1.0, 0.001))
    backward = follow_network(linear(), "cpu").backward
    hidden_ms = sum(max(2 * o.macs, o.moved_bytes) for o in backward.operations) / 1e6
    assert slow["predicted_gradient_reduction_ms"] == pytest.approx(WEIGHTS * 4e-3 - hidden_ms)


@pytest.mark.parametrize(("precision", "element"), [("fp32", 4), ("bf16", 2)])
def test_views_are_gathered_and_their_gradients_scattered_in_a_ring(linear, precision, element):
    ceilings = replace(FAST, gemm_gflops={"float32": 1e15, "bfloat16": 1e15})
    config = linear(distribution="gather", precision=precision)
    found = predicted(config, 8, ceilings, Link(0.5, 1.0, 3.0))
    received = 2 * 7 * N * D * 2 * element
    expected_ms = received / 0.5e9 * 1e3 + 2 * 7 * 3e-3
    assert found["predicted_communication_ms"] == pytest.approx(expected_ms)
    local = predicted(linear(precision=precision), 8, ceilings, Link(0.5, 1.0, 3.0))
    assert local["predicted_communication_ms"] == 0


def test_batches_that_are_accumulated_are_reduced_once(linear):
    link = Link(1.0, 1.0)
    one, two = (
        predicted(linear(distribution="gather", accumulation=n), 4, FAST, link) for n in (1, 2)
    )
    for name in ("network", "loss", "communication"):
        assert two[f"predicted_{name}_ms"] == pytest.approx(2 * one[f"predicted_{name}_ms"])
    for name in ("optimizer", "gradient_reduction"):
        assert two[f"predicted_{name}_ms"] == pytest.approx(one[f"predicted_{name}_ms"])


def test_sums_are_added_up_in_a_tree_and_each_device_computes_its_share(linear):
    """Barlow Twins: means, variances, then D x D sums; 3 N D^2 multiply-adds of own samples."""
    config = linear(loss="barlow_twins", implementation="auto", distribution="allreduce")
    for world in (2, 16):
        step = Step(config, world, "cpu")
        assert step.case.cost.macs("step") == 3 * N * D**2
        found = predicted(config, world, FAST, Link(1.0, 0.5, 3.0))
        sent_ms = step.case.communicated_bytes / 0.5e9 * 1e3
        deep_ms = 3 * 2 * (world.bit_length() - 1) * 3e-3
        assert found["predicted_communication_ms"] == pytest.approx(sent_ms + deep_ms)


def test_a_fast_link_leaves_no_loss_of_efficiency(linear):
    found = predicted(linear(), 1024, SLOW, Link(1e12, 1e12))
    assert found["predicted_efficiency"] == pytest.approx(1, abs=1e-9)
    alone = predicted(linear(), 1)
    assert found["predicted_images_per_s"] == pytest.approx(1024 * alone["predicted_images_per_s"])


def test_a_faster_link_is_no_slower_and_more_devices_send_no_less(linear):
    config = linear(distribution="gather")
    by_link = [predicted(config, 8, SLOW, Link(rate, rate, 1.0)) for rate in (0.01, 0.1, 1, 10)]
    times = [each["predicted_step_ms"] for each in by_link]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]
    by_world = [predicted(config, 2**power, SLOW, Link(1.0, 1.0, 1.0)) for power in range(8)]
    for name in ("communication", "gradient_reduction", "loss"):
        parts = [each[f"predicted_{name}_ms"] for each in by_world]
        assert parts == sorted(parts)
    falling = [each["predicted_efficiency"] for each in by_world]
    assert falling == sorted(falling, reverse=True)


def test_memory_is_that_of_all_parts(linear):
    alone, two = (predicted(linear(), world, link=Link(1.0, 1.0)) for world in (1, 2))
    buckets = WEIGHTS * 4
    assert two["predicted_peak_bytes"] == alone["predicted_peak_bytes"] + buckets
    enough = alone["predicted_peak_bytes"]
    assert predicted(linear(), 1, memory=enough)["fits"]
    assert not predicted(linear(), 1, memory=enough - 1)["fits"]


def test_a_schedule_takes_as_many_device_hours_more_as_efficiency_falls(linear):
    config = linear(schedule_images=1000, epochs=2)
    alone, eight = (predicted(config, w, SLOW, Link(0.001, 0.001)) for w in (1, 8))
    more = eight["schedule_device_hours"] / alone["schedule_device_hours"]
    assert more == pytest.approx(1 / eight["predicted_efficiency"])
    assert alone["schedule_hours"] == pytest.approx(2000 / alone["predicted_images_per_s"] / 3600)


def test_links_survive_json():
    link = Link(1.5, 2.5, 30.0)
    assert Link.of(json.loads(json.dumps({**SLOW.describe(), **link.describe()}))) == link
    assert Link.of(SLOW.describe()) is None  # of a run of one process, or an old one
    assert Link.of(None) is None


def test_lists_of_steps():
    steps = select_steps(
        "digits",
        device="cpu",
        loss=["smi"],
        world=[1, 2, 4, 8, 2],
        distribution=["local", "gather"],
    )
    chosen = [(step.config.distribution, step.world) for step in steps]
    assert chosen == [(how, world) for how in ("local", "gather") for world in (1, 2, 4, 8)]
    shared = select_steps("digits", device="cpu", distribution=["allreduce"])
    assert [step.config.loss for step in shared] == ["barlow_twins", "vicreg"]


def test_command_line():
    chosen = ("--preset", "digits", "--loss", "smi", "--implementation", "gram", "--batch", "16")
    devices = ("--gpu", "h200,l40s", "--link", "ib400", "--distribution", "gather")
    done = call_lossbench("predict", *chosen, *devices, "--world", "1,8..32", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["world"], row["gpu"]) for row in rows] == [
        (world, gpu) for world in (1, 8, 16, 32) for gpu in ("h200", "l40s")
    ]
    text = call_lossbench("predict", *chosen, *devices, "--world", "8..1024")
    assert text.returncode == 0, text.stderr
    lines = text.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\u2026" not in text.stdout
    assert "EXTRAPOLATED" in text.stdout
    assert "Not modelled" in " ".join(text.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "digit"], "did you mean 'digits'"),
        (["--preset", "digits", "--world", "8..1000"], "powers of two such as 8..1024"),
        (["--preset", "digits", "--world", "0"], "world must be at least 1"),
        (["--preset", "digits", "--dim", "512"], "leave --dim out"),
        (["--preset", "digits", "--set", "encoder=resnet19"], "did you mean 'resnet18'"),
        (["--preset", "digits", "--distribution", "gathered"], "did you mean 'gather'"),
        (["--preset", "digits", "--loss", "smi", "--distribution", "allreduce"], "allreduce"),
        (["--preset", "digits", "--loss", "smi,smi"], "given twice"),
        (["--preset", "digits", "--gpu", "h200", "--world", "8"], "add --link"),
    ],
)
def test_bad_input_is_one_line(arguments, said):
    done = call_lossbench("predict", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr


def test_a_link_is_measured_in_whole_messages(monkeypatch):
    """Two processes, one second a collective: each receives half of the gathered message."""

    class Pair:
        size = 2

        def gather(self, part):
            sizes.append(part.nbytes)

    sizes = []
    monkeypatch.setattr(links, "World", Pair)
    monkeypatch.setattr(links.dist, "all_reduce", lambda tensor: sizes.append(tensor.nbytes))
    monkeypatch.setattr(links, "_seconds", lambda device, collective: collective() or 1.0)
    found = links.measure("cpu")
    assert sizes == [links.SENT_BYTES // 2, links.SENT_BYTES, torch.float32.itemsize]
    assert found.all_gather_gb_per_s == pytest.approx(links.SENT_BYTES / 2 / 1e9)
    assert found.all_reduce_gb_per_s == pytest.approx(links.SENT_BYTES / 1e9)
    assert found.step_us == pytest.approx(1e6 / 2)
