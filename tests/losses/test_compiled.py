"""``torch.compile``: of the reference as implementation ``compiled``, and around the others.

Each compilation takes seconds, so there is one shape a loss.
"""

import copy
import pickle

import pytest
import torch
from embeddings import (
    eager,
    random_views,
    relative_error,
    value_and_gradients,
    with_implementation,
)

from lossbench import losses

# The compiler warns of its own deprecated calls.
pytestmark = pytest.mark.filterwarnings("ignore")

ALL = pytest.mark.parametrize("name", losses.names())


@pytest.fixture
def views():
    return [view.float() for view in random_views(8, 12, noise=1.0)]


@ALL
def test_compiled_reference(name, views):
    value, gradients = value_and_gradients(losses.create(name, "compiled"), *views)
    expected, true_gradients = value_and_gradients(losses.create(name), *views)
    assert relative_error(value, expected) < 1e-5
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert relative_error(gradient, true) < 1e-5


def test_second_shape_and_other_hyperparameters_are_compiled_for_themselves(views):
    """Without the code of its own that each gets, all would share one cache."""
    for temperature, batch in [(0.1, views), (0.5, views), (0.1, [view[:5] for view in views])]:
        value = losses.create("nt_xent", "compiled", temperature=temperature)(*batch)
        expected = losses.create("nt_xent", temperature=temperature)(*batch)
        assert relative_error(value, expected) < 1e-5


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))]
)
def test_copies_of_compiled(views, duplicate):
    """Compiled code is not pickled: the copy compiles again when it is called."""
    loss = losses.create("vicreg", "compiled")
    value = loss(*views)
    assert torch.equal(duplicate(loss)(*views), value)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [
        (name, each)
        for name in losses.names()
        for each in eager(name)
        # the others set the precision of their products, which no graph can hold
        if each == "reference" or name in ("nt_xent", "smi")
    ],
)
def test_compiled_as_one_graph(name, implementation, views):
    loss = losses.create(name, implementation)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (value_and_gradients(each, *views) for each in (compiled, loss))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [(name, each) for each in ("gram", "chunked") for name in with_implementation(each)],
)
def test_inside_a_compiled_model(name, implementation, views):
    """A training step that is compiled as a whole may break its graph here, but not its result."""
    loss = losses.create(name, implementation)
    torch._dynamo.reset()
    value, gradients = value_and_gradients(torch.compile(loss), *views)
    expected, true_gradients = value_and_gradients(loss, *views)
    assert relative_error(value, expected) < 1e-5
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert relative_error(gradient, true) < 1e-5
