import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from embeddings import random_views
from oracles import ORACLES

from lossbench import losses
from lossbench.losses import registry

ROOT = Path(losses.__file__).parents[1]


def test_names_are_sorted():
    assert list(losses.names()) == sorted(losses.names())
    assert {"barlow_twins", "nt_xent", "smi", "vicreg"} <= set(losses.names())


def test_every_loss_is_held_against_its_official_formula():
    assert set(losses.names()) == set(ORACLES)


@pytest.mark.parametrize(
    ("name", "gather_layer", "global_batch_norm", "many_views"),
    [
        ("barlow_twins", False, True, False),
        ("nt_xent", True, False, False),
        ("smi", False, False, True),
        ("vicreg", True, False, False),
    ],
)
def test_facts(name, gather_layer, global_batch_norm, many_views):
    spec = losses.spec(name)
    assert spec.name == name
    assert spec.gather_layer is gather_layer
    assert spec.global_batch_norm is global_batch_norm
    assert spec.many_views is many_views


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("barlow_twins", {"lambda_": 0.0051, "eps": 1e-5}),
        ("nt_xent", {"temperature": 0.1}),
        (
            "smi",
            {
                "target": 1.0,
                "lambda_": 10.0,
                "eps": 1e-6,
                "reduction": "mean",
                "dependency": "mutual_information",
            },
        ),
        ("vicreg", {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "eps": 1e-4}),
    ],
)
def test_defaults_as_published(name, published):
    assert dataclasses.asdict(losses.spec(name).configure()) == published


@pytest.mark.parametrize("name", losses.names())
def test_spec_is_complete(name):
    spec = losses.spec(name)
    assert all([spec.title, spec.source, spec.family])
    assert "reference" in spec.implementations
    assert spec.hyperparameters.__dataclass_params__.frozen


def test_create_returns_a_module_without_state(loss):
    assert isinstance(loss, torch.nn.Module)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    assert loss.name in repr(loss)
    assert repr(loss.hyperparameters) in repr(loss)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))]
)
def test_copies_compute_the_same(loss, duplicate):
    views = random_views(4, 5)
    assert torch.equal(duplicate(loss)(*views), loss(*views))


def test_hyperparameters_reach_the_loss():
    loss = losses.create("nt_xent", temperature=0.7)
    assert loss.hyperparameters == losses.spec("nt_xent").configure(temperature=0.7)


@pytest.fixture
def throw_away():
    """A loss registered by the three decorators: weight x mean of (z_a - z_b)."""
    before = dict(registry._SPECS)

    @losses.register(
        "throw_away",
        title="Throw-away",
        source="none",
        family="none",
        communicated_bytes=losses.all_gather_bytes,
        gather_layer=False,
        global_batch_norm=False,
    )
    @dataclasses.dataclass(frozen=True)
    class ThrowAway:
        weight: float = 2.0

    @losses.implementation("throw_away", "reference")
    def reference(hp, z_a, z_b):
        return {"first": hp.weight * z_a.mean(), "second": -hp.weight * z_b.mean()}

    @losses.cost_model("throw_away", "reference")
    def cost(problem):
        return losses.Cost(problem.batch, problem.dim, problem.views, peak_elements=1)

    yield before
    del registry._SPECS["throw_away"]
    assert before == registry._SPECS


def test_register(throw_away):
    assert losses.names() == tuple(sorted([*throw_away, "throw_away"]))
    assert all(losses.spec(name) is spec for name, spec in throw_away.items())
    a = torch.full((2, 3), 5.0)
    loss = losses.create("throw_away")
    assert loss(a, a - 4).item() == 8
    assert losses.create("throw_away", weight=0.5)(a, a - 4).item() == 2
    assert losses.spec("throw_away").cost("reference", losses.Problem(2, 3)) == losses.Cost(
        2, 3, 2, 1
    )
    with pytest.raises(ValueError, match="two views"):
        loss(a)


def test_second_implementation(throw_away):
    @losses.implementation("throw_away", "mirrored")
    def mirrored(hp, z_a, z_b):
        return {"all": -hp.weight * (z_a - z_b).mean()}

    a = torch.full((2, 3), 5.0)
    assert losses.create("throw_away", "mirrored")(a, a - 4).item() == -8
    assert losses.create("throw_away")(a, a - 4).item() == 8
    assert "mirrored" not in losses.spec("smi").implementations


def test_losses_need_torch_alone():
    """Whatever ``import losses`` loads beyond torch is the standard library's or its own."""
    code = (
        "import sys, torch; before = set(sys.modules); import lossbench.losses;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert output.split() == ["lossbench"]


def test_losses_load_no_heavy_package():
    heavy = {"fvcore", "matplotlib", "pandas", "rich", "scipy", "sklearn", "triton", "typer"}
    heavy |= {"pytorch_metric_learning", "tabulate"}
    heavy |= {f"lossbench.{name}" for name in ("bench", "kernels", "reports", "python")}
    code = "import sys, lossbench.losses; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "torch" in output.split()
    assert not heavy & set(output.split())
