"""Settings of pretraining: presets are the papers', what does not go together is refused."""

import pytest

from lossbench import losses
from lossbench.bench.pretraining import records
from lossbench.bench.pretraining.config import (
    PRESETS,
    Config,
    differences,
    from_preset,
    typed,
)
from lossbench.bench.records import environment


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("loss", losses.names())
def test_every_preset_goes_with_every_loss(preset, loss):
    assert from_preset(preset, loss=loss).dim == PRESETS[preset]["projector"][-1]


def test_presets_are_those_of_the_papers():
    """papers/002, A.1.1 and A.1.2; papers/004, E.2, tables 4 and 6."""
    imagenet = from_preset("imagenet-300ep", loss="smi")
    assert (imagenet.encoder, imagenet.epochs, imagenet.optimizer) == ("resnet50", 300, "lars")
    assert imagenet.projector == (8192, 8192, 8192)
    small = from_preset("small-300ep", loss="smi")
    assert (small.encoder, small.batch, small.optimizer) == ("resnet50", 256, "adamw")
    assert (small.projector, small.stem) == ((4096, 4096, 4096), "cifar")
    cifar = from_preset("cifar-1000ep", loss="smi")
    assert (cifar.encoder, cifar.batch, cifar.epochs) == ("resnet18", 512, 1000)
    assert (cifar.learning_rate, cifar.weight_decay, cifar.dim) == (0.05, 5e-4, 256)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "resnet19"}, "did you mean 'resnet18'"),
        ({"loss": "smo"}, "did you mean 'smi'"),
        ({"implementation": "grem"}, "did you mean 'gram'"),
        ({"batch": 1}, "a batch of at least 2 images on each device, got 1"),
        ({"accumulation": -1}, "accumulation must be at least 1"),
        ({"projector": ()}, "projector needs widths"),
        ({"projector": (8, 0)}, "projector needs widths"),
        ({"learning_rate": float("nan")}, "learning_rate must be 0 or more"),
        ({"learning_rate": -1.0}, "learning_rate must be 0 or more"),
        ({"warmup_epochs": 30.0}, "do not fit in 20 epochs"),
        ({"encoder": "vit_s"}, "no stem to replace"),
        ({"batchsize": 3}, "did you mean 'batch'"),
        ({"distribution": "gathr"}, "did you mean 'gather'"),
        ({"loss": "nt_xent", "distribution": "allreduce"}, "distribution of nt_xent 'allreduce'"),
        ({"distribution": "gram", "implementation": "chunked"}, "leave chunked out"),
        ({"hyperparameters": {"lambda": 2}}, "did you mean 'lambda_'"),
        ({"implementation": "chunked", "options": {"side": 2}}, "unknown option of smi chunked"),
    ],
)
def test_what_cannot_be_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        from_preset("digits", **({"loss": "smi"} | changes))


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'digit'; did you mean 'digits'"):
        from_preset("digit", loss="smi")


def test_settings_are_read_as_their_types():
    texts = {
        "precision": "bf16", "projector": "64,32", "learning_rate": "1e-3", "seed": "7",
        "compiled": "true",
    }  # fmt: skip
    values = {
        "precision": "bf16", "projector": (64, 32), "learning_rate": 1e-3, "seed": 7,
        "compiled": True,
    }  # fmt: skip
    found = typed(texts)
    assert found == typed(values) == values
    assert isinstance(from_preset("digits", loss="smi", **found), Config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precison": "bf16"}, "did you mean 'precision'"),
        ({"seed": "x"}, "a value of type int"),
        ({"seed": 1.5}, "a value of type int"),
        ({"seed": True}, "a value of type int"),
        ({"projector": "8,,8"}, "numbers such as"),
        ({"projector": 8}, "numbers such as"),
        ({"projector": [8, 0.5]}, "numbers such as"),
        ({"hyperparameters": "x"}, "give those of a loss as smi.lambda_=2"),
        ({"compiled": "yes"}, "unknown compiled 'yes'"),
        ({"compiled": 1}, "a value of type bool"),
    ],
)
def test_settings_that_cannot_be_read_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        typed(settings)


def test_other_code_is_another_record(small, monkeypatch, tmp_path):
    header = {"code_hash": "a", "environment_hash": "b"}
    key = records.key(small(), 1, 6, header)
    assert key == records.key(small(), 1, 6, header)
    assert key != records.key(small(), 1, 7, header)
    assert key != records.key(small(seed=1), 1, 6, header)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert key != records.key(small(), 1, 6, header)


def test_differences_name_both_sides():
    here, there = (from_preset("digits", loss="smi", batch=n).describe() for n in (64, 128))
    assert differences(here, there) == ["batch (128 there, 64 here)"]
