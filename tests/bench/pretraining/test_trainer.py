"""A training step: the same gradients as without the cut, the same run after a resume."""

import itertools
import time

import pytest
import torch

from lossbench.bench.measuring.phases import PHASES, PhaseClock
from lossbench.bench.pretraining.batches import Batches
from lossbench.bench.pretraining.images import open_images
from lossbench.bench.pretraining.optimizers import rate_share
from lossbench.bench.pretraining.trainer import Trainer

EXACT = {"ieee", "none"}
"""What torch calls products of full precision; "none" leaves them as they are by default."""


def batches_of(config, start=0):
    images = open_images(config.data, config.image_size, config.seed)
    return Batches(images, config.batch, config.seed).start(start)


def weights(trainer):
    return torch.cat([each.detach().flatten() for each in trainer.network.parameters()])


def test_the_cut_at_the_embeddings_changes_no_gradient(small):
    config = small(optimizer="sgd", learning_rate=0.1, warmup_epochs=0.0, weight_decay=0.0)
    cut, whole = Trainer(config, 10, "cpu"), Trainer(config, 10, "cpu")
    images = next(batches_of(config))
    cut.train_step(iter([images]))

    views = whole._augment(images, 0)
    whole.loss(*(whole.network(view) for view in views)).backward()
    for mine, theirs in zip(cut.network.parameters(), whole.network.parameters(), strict=True):
        expected = theirs.detach() - config.learning_rate * theirs.grad
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-4, atol=1e-6)


def test_phases_add_up_to_the_step(small):
    trainer = Trainer(small(batch=64), 10, "cpu")
    batches = batches_of(trainer.config)
    trainer.train_step(batches)
    trainer.phases()
    start = time.perf_counter()
    trainer.train_step(batches)
    whole = (time.perf_counter() - start) * 1e3
    found = trainer.phases()
    assert set(found) == set(PHASES)
    assert sum(found.values()) == pytest.approx(whole, rel=0.03)
    assert found["encoder_forward"] > found["loss_forward"] > 0
    assert sum(trainer.phases().values()) == 0


@pytest.mark.parametrize(("precision", "expected"), [("fp32", EXACT), ("tf32", {"tf32"})])
def test_fp32_is_fp32_unless_tf32_is_asked_for(small, precision, expected):
    """Torch's convolutions would be in TF32 on a GPU."""
    trainer, seen = Trainer(small(precision=precision), 10, "cpu"), []
    backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul

    def look(*_):
        seen.append([backend.fp32_precision for backend in backends])

    trainer.network.encoder.register_forward_hook(look)
    before = [backend.fp32_precision for backend in backends]
    trainer.train_step(batches_of(trainer.config))
    assert len(seen) == 2
    assert all(expected.issuperset(each) for each in seen)
    assert [backend.fp32_precision for backend in backends] == before


def test_a_phase_inside_another_counts_once():
    clock = PhaseClock("cpu")
    clock._now = iter([0.0, 1.0, 4.0, 6.0]).__next__
    with clock("loss_forward"), clock("communication"):
        pass
    found = clock.take()
    assert (found["communication"], found["loss_forward"]) == (3000, 3000)


def test_accumulated_batches_are_one_large_one_for_a_loss_that_is_a_mean(small):
    """Gradients of two halves add up to the mean of both."""
    config = small(optimizer="sgd", learning_rate=0.1, warmup_epochs=0.0, accumulation=2)
    trainer = Trainer(config, 10, "cpu")
    before = weights(trainer)
    batches = list(itertools.islice(batches_of(config), 2))
    value = trainer.train_step(iter(batches))

    one = small(optimizer="sgd", learning_rate=0.1, warmup_epochs=0.0)
    moved, values = torch.zeros_like(before), []
    for number, images in enumerate(batches):
        single = Trainer(one, 10, "cpu")
        single.step = number  # what is drawn depends on the place of the batch
        values.append(single.train_step(iter([images])))
        moved += (weights(single) - before) / 2 / rate_share(one, number, 10)
    assert value == pytest.approx(sum(values) / 2, rel=1e-4)
    torch.testing.assert_close(weights(trainer) - before, moved, rtol=1e-2, atol=1e-5)


def test_every_seed_draws_other_views(small):
    views = []
    for seed in (0, 1, 2**31):
        trainer = Trainer(small(seed=seed), 10, "cpu")
        views.append(trainer._augment(next(batches_of(small())), 0)[0])
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(views, 2))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_a_resumed_run_goes_on_exactly(small, optimizer):
    config = small(optimizer=optimizer, learning_rate=0.05)
    straight = Trainer(config, 10, "cpu")
    batches = batches_of(config)
    curve = [straight.train_step(batches) for _ in range(6)]

    first = Trainer(config, 10, "cpu")
    batches = batches_of(config)
    for _ in range(3):
        first.train_step(batches)
    second = Trainer(config, 10, "cpu")
    second.load(first.state())
    batches = batches_of(config, start=3)
    assert [second.train_step(batches) for _ in range(3)] == curve[3:]
    assert torch.equal(weights(second), weights(straight))


@pytest.mark.parametrize("loss", ["smi", "barlow_twins", "nt_xent", "vicreg"])
def test_implementations_follow_the_same_curve(small, loss):
    curves = []
    for way in ("reference", "gram", "chunked"):
        config = small(loss=loss, implementation=way)
        trainer, batches = Trainer(config, 10, "cpu"), batches_of(config)
        curves.append([trainer.train_step(batches) for _ in range(4)])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=2e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_a_step_in_lower_precision_is_near_that_in_fp32(small, precision):
    values = []
    for each in ("fp32", precision):
        config = small(precision=each)
        values.append(Trainer(config, 10, "cpu").train_step(batches_of(config)))
    assert values[1] == pytest.approx(values[0], rel=0.05)


LARGE = pytest.param("vit_b", marks=pytest.mark.long)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50", "vit_s", LARGE])
def test_every_encoder_takes_a_step(small, encoder):
    stem = "imagenet" if encoder.startswith("vit") else "cifar"
    config = small(encoder=encoder, stem=stem, batch=4, image_size=16)
    trainer = Trainer(config, 10, "cpu")
    before = weights(trainer)
    batches = batches_of(config)
    trainer.train_step(batches)
    trainer.train_step(batches)  # the first is at a rate of 0
    assert not torch.equal(weights(trainer), before)


def test_where_the_loss_is_not_finite_no_weight_changes(small):
    trainer = Trainer(small(), 10, "cpu")
    batches = batches_of(trainer.config)
    trainer.train_step(batches)
    before = weights(trainer)
    trainer.loss.register_forward_hook(lambda module, args, value: value * float("nan"))
    trainer.train_step(batches)
    assert torch.equal(weights(trainer), before)
    assert trainer.skipped == 1


def test_the_rate_grows_then_falls_as_a_cosine(small):
    config = small(epochs=10, warmup_epochs=2.0, final_rate=0.1)
    shares = [rate_share(config, step, 100) for step in range(101)]
    assert shares[0] == 0
    assert shares[10] == pytest.approx(0.5)
    assert shares[20] == 1
    assert shares[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert shares[100] == pytest.approx(0.1)
    assert shares[20:] == sorted(shares[20:], reverse=True)
