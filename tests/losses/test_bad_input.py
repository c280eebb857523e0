"""Every refusal names the argument, what it got and what it needs."""

import re

import pytest
import torch
from embeddings import random_views, with_implementation, workspace

from lossbench import losses

GOOD = torch.zeros(4, 3)


def refused(*fragments):
    """A ValueError whose message holds the fragments in this order."""
    return pytest.raises(ValueError, match=".*".join(map(re.escape, fragments)))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((GOOD[:1], GOOD[:1]), ("z_a", "1 sample", "at least 2")),
        ((GOOD[:0], GOOD[:0]), ("z_a", "0 sample", "at least 2")),
        ((GOOD[0], GOOD[0]), ("z_a", "N x D", "(3,)")),
        ((GOOD, GOOD[0]), ("z_b", "N x D", "(3,)")),
        ((GOOD[None], GOOD[None]), ("z_a", "N x D", "(1, 4, 3)")),
        ((GOOD[:, :0], GOOD[:, :0]), ("z_a", "N x D", "(4, 0)")),
        ((GOOD, GOOD[:, :2]), ("z_b", "shape", "(4, 2)", "z_a", "(4, 3)")),
        ((GOOD, GOOD[:3]), ("z_b", "shape", "(3, 3)", "z_a", "(4, 3)")),
        ((GOOD, GOOD.half()), ("z_b", "dtype", "torch.float16", "z_a", "torch.float32")),
        ((GOOD, GOOD.to("meta")), ("z_b", "device", "meta", "z_a", "cpu")),
        ((GOOD.long(), GOOD.long()), ("z_a", "floating point", "torch.int64")),
        ((GOOD, GOOD.bool()), ("z_b", "floating point", "torch.bool")),
        ((GOOD.cfloat(), GOOD.cfloat()), ("z_a", "floating point", "torch.complex64")),
        ((GOOD.numpy(), GOOD.numpy()), ("z_a", "tensor", "N x D", "ndarray")),
        ((GOOD, GOOD.tolist()), ("z_b", "tensor", "N x D", "list")),
        ((GOOD, None), ("z_b", "tensor", "N x D", "NoneType")),
    ],
)
@pytest.mark.parametrize("method", ["forward", "terms"])
def test_views(loss, method, views, message):
    with refused(*message):
        getattr(loss, method)(*views)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_number_of_views(loss, count):
    if losses.spec(loss.name).many_views and count > 2:
        assert loss(*random_views(4, 3, count=count)).isfinite()
        return
    needs = "at least two views" if losses.spec(loss.name).many_views else "two views"
    with refused(loss.name, needs, str(count)):
        loss(*[GOOD] * count)


def test_third_view_is_named():
    with refused("z_c", "shape", "(4, 2)", "z_a", "(4, 3)"):
        losses.create("smi")(GOOD, GOOD, GOOD[:, :2])


def test_message_is_one_exact_line():
    with pytest.raises(ValueError, match=r"^z_b has shape \(4, 2\) but z_a has \(4, 3\)$"):
        losses.create("smi")(GOOD, GOOD[:, :2])


ALL_LOSSES = ", ".join(losses.names())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("barlow_twin", "barlow_twins"), ("ntxent", "nt_xent"), ("SMI", None), ("mse_of_all", None)],
)
def test_unknown_loss(name, nearest):
    suggestion = [f"did you mean {nearest!r}?"] if nearest else []
    for look_up in (losses.create, losses.spec):
        with refused("unknown loss", repr(name), *suggestion, "known:", ALL_LOSSES) as error:
            look_up(name)
        assert ("did you mean" in str(error.value)) == (nearest is not None)


def test_unknown_implementation(loss):
    spec, message = losses.spec(loss.name), ("'referenec'", "did you mean 'reference'?", "known:")
    with refused("implementation", *message, ", ".join(sorted(spec.implementations))):
        losses.create(loss.name, "referenec")
    with refused("implementation", *message, ", ".join(sorted(spec.cost_models))):
        spec.cost("referenec", losses.Problem(4, 4))


@pytest.mark.parametrize("name", with_implementation("chunked"))
@pytest.mark.parametrize("size", [0, -1, -(2**40), 1])
def test_workspace_too_small_for_one_entry(name, size):
    message = ("workspace_bytes", "at least", str(workspace(name, 1)), f"got {size}")
    loss = losses.create(name, "chunked", workspace_bytes=size)
    with refused(*message):
        loss(GOOD, GOOD)
    with refused(*message):
        losses.spec(name).cost("chunked", losses.Problem(4, 3), workspace_bytes=size)


@pytest.mark.parametrize("name", with_implementation("chunked"))
def test_smallest_workspace(name):
    """It holds one entry of each tile-sized array."""
    views = random_views(4, 8)
    size = workspace(name, 1, torch.float64)
    value = losses.create(name, "chunked", workspace_bytes=size)(*views)
    torch.testing.assert_close(value, losses.create(name)(*views), rtol=1e-12, atol=1e-15)
    with refused("workspace_bytes", "at least", str(size), f"got {size - 1}"):
        losses.create(name, "chunked", workspace_bytes=size - 1)(*views)


def options_of(name):
    spec = losses.spec(name)
    return {each: spec.options(each) for each in spec.implementations if each not in spec.fused}


@pytest.mark.parametrize("name", with_implementation("chunked"))
def test_options(name):
    assert options_of(name) == {
        "reference": (),
        "gram": (),
        "chunked": ("workspace_bytes",),
        "compiled": ("mode",),
        "auto": ("memory_bytes",),
    }
    with refused("implementation", "'chunkd'", "did you mean 'chunked'?"):
        losses.spec(name).options("chunkd")


@pytest.mark.parametrize(
    ("implementation", "option"),
    [
        ("chunked", "workspace_byte"),
        ("chunked", "memory_bytes"),
        ("gram", "workspace_bytes"),
        ("reference", "workspace_bytes"),
        ("compiled", "memory_bytes"),
        ("auto", "workspace_bytes"),
    ],
)
@pytest.mark.parametrize("name", with_implementation("chunked"))
def test_option_of_another_implementation(name, implementation, option):
    with refused(name, repr(option), "known:"):
        losses.create(name, implementation, **{option: 10**6})


@pytest.mark.parametrize(
    ("name", "wrong", "nearest", "known"),
    [
        ("smi", "lambda", "lambda_", "dependency, eps, lambda_, reduction, target"),
        ("barlow_twins", "lambd", "lambda_", "eps, lambda_"),
        ("nt_xent", "temprature", "temperature", "temperature"),
        ("vicreg", "covarience", "covariance", "covariance, eps, invariance, variance"),
    ],
)
def test_unknown_hyperparameter(name, wrong, nearest, known):
    message = ("hyperparameter", name, repr(wrong), f"did you mean {nearest!r}?", "known:", known)
    with refused(*message):
        losses.create(name, **{wrong: 1.0})
    with refused(*message):
        losses.spec(name).configure(**{wrong: 1.0})


NAN, INFINITY = float("nan"), float("inf")
POSITIVE = {("nt_xent", "temperature"), ("smi", "eps"), ("barlow_twins", "eps"), ("vicreg", "eps")}
WEIGHTS = {
    ("smi", "lambda_"),
    ("barlow_twins", "lambda_"),
    *[("vicreg", name) for name in ("invariance", "variance", "covariance")],
}


@pytest.mark.parametrize(("name", "hyperparameter"), sorted(POSITIVE | WEIGHTS))
@pytest.mark.parametrize("value", [-1.0, -1e-9, NAN, INFINITY, -INFINITY, 0.0])
def test_hyperparameter_out_of_range(name, hyperparameter, value):
    if value == 0 and (name, hyperparameter) in WEIGHTS:
        assert getattr(losses.spec(name).configure(**{hyperparameter: 0.0}), hyperparameter) == 0
        return
    needs = "above 0" if (name, hyperparameter) in POSITIVE else "0 or more"
    with refused(hyperparameter, "finite", needs, str(value)):
        losses.create(name, **{hyperparameter: value})


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_smi_target(value):
    with refused("target", "finite", str(value)):
        losses.create("smi", target=value)


@pytest.mark.parametrize(
    ("option", "wrong", "nearest", "known"),
    [
        ("reduction", "means", "mean", "mean, sum"),
        (
            "dependency",
            "correlations",
            "correlation",
            "correlation, mutual_information, squared_correlation",
        ),
    ],
)
def test_smi_options(option, wrong, nearest, known):
    with refused(option, repr(wrong), f"did you mean {nearest!r}?", "known:", known):
        losses.create("smi", **{option: wrong})
    with refused(option, "'x'", "known:", known):
        losses.create("smi", **{option: "x"})
