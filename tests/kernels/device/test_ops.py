"""The custom ops under what training code does to them: compile, AMP, checkpointing, DDP."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from embeddings import (
    random_views,
    relative_error,
    value_and_gradients,
    value_and_gradients_checkpointed,
)
from tilings import small_tiles
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from lossbench import losses
from lossbench.kernels.feature_norm import feature_norm, feature_norm_backward
from lossbench.kernels.nt_xent import nt_xent, nt_xent_backward
from lossbench.kernels.pair_sum import pair_sum, pair_sum_backward

FUSED = ["barlow_twins", "nt_xent", "smi", "spectral_contrastive", "vicreg"]
DTYPES = [torch.float32, torch.bfloat16]
keeps = pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not_kept"])
every_loss = pytest.mark.parametrize("name", FUSED)


@pytest.fixture
def views(device):
    return batch(device)


def batch(device, dtype=torch.float32, shape=(13, 19)):
    return [view.to(device, dtype) for view in random_views(*shape)]


def pair_sum_samples(views, needs_grad):
    for name, radius in (("smi_mutual_information", 0.0), ("spectral_contrastive", 1.0)):
        settings = name, 1e-6, 1.0, radius, needs_grad, "", "ieee"
        yield pair_sum, (*views, *settings)
        if needs_grad:
            plain = [view.detach() for view in views]
            _, *saved = pair_sum(*plain, *settings)
            above = torch.tensor([0.7, -1.3], device=views[0].device)
            yield pair_sum_backward, (*plain, *saved, above, name, "ieee")


def nt_xent_samples(views, needs_grad):
    settings = 2.0, "", "ieee"
    yield nt_xent, (*views, *settings)
    plain = [view.detach() for view in views]
    _, *saved = nt_xent(*plain, *settings)
    above = torch.tensor([0.7, -1.3], device=views[0].device)
    yield nt_xent_backward, (*plain, *saved, above, *settings)


def feature_norm_samples(views, needs_grad):
    narrow = str(views[0].dtype).removeprefix("torch.")
    wide = [view.detach().float().requires_grad_(view.requires_grad) for view in views]
    tall = [view.detach().T.contiguous().requires_grad_(view.requires_grad) for view in wide]
    for operands in (wide[:1], wide, tall):
        yield feature_norm, (operands, narrow, needs_grad, "")
        if needs_grad:
            plain = [operand.detach() for operand in operands]
            _, diagonal, *saved = feature_norm(plain, narrow, True, "")
            above = torch.tensor(0.7, device=diagonal.device), torch.cos(diagonal)
            shape = list(plain[0].shape)
            yield feature_norm_backward, (*saved, *above, shape, len(operands))


SAMPLES = [pair_sum_samples, nt_xent_samples, feature_norm_samples]
every_op = pytest.mark.parametrize("samples", SAMPLES, ids=lambda f: f.__name__[:-8])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.mark.long
@keeps
@every_dtype
@every_op
def test_opcheck(samples, dtype, keeps, device):
    views = [view.requires_grad_() for view in batch(device, dtype, (3, 5))]
    with small_tiles(keeps):
        for op, inputs in samples(views, True):
            torch.library.opcheck(op, inputs)


@keeps
@every_dtype
@every_op
@pytest.mark.parametrize("needs_grad", [True, False], ids=["gradient", "no_gradient"])
def test_fakes_are_like_the_real_ones(samples, needs_grad, dtype, keeps, device):
    with small_tiles(keeps):
        for op, inputs in samples(batch(device, dtype, (9, 21)), needs_grad):
            with FakeTensorMode() as mode:
                fake = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, inputs)
                fakes = op(*fake)
            assert [shown(each) for each in fakes] == [shown(each) for each in op(*inputs)]


def shown(tensor):
    return tensor.shape, tensor.dtype, tensor.stride(), tensor.device.type


@pytest.fixture
def fresh_compiler():
    """Other tests' graphs count towards the limit of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_equal(found, expected):
    """Value and gradients are equal to the bit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.long
@keeps
@every_loss
def test_compiled_equals_eager(name, keeps, views, fresh_compiler):
    loss = losses.create(name, "triton")
    with small_tiles(keeps):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        found = value_and_gradients(compiled, *views)
        torch.testing.assert_close(found, value_and_gradients(loss, *views))


@pytest.mark.long
@every_loss
def test_compiled_takes_batches_of_any_size(name, device, fresh_compiler):
    loss = losses.create(name, "triton")
    with small_tiles():
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        for shape in ((13, 19), (18, 19)):
            views = batch(device, shape=shape)
            found = value_and_gradients(compiled, *views)
            torch.testing.assert_close(found, value_and_gradients(loss, *views))


@every_loss
@every_dtype
def test_autocast_changes_nothing(name, dtype, device):
    loss, views = losses.create(name, "triton"), batch(device, dtype)
    with small_tiles():
        expected = value_and_gradients(loss, *views)
        with torch.autocast(device, torch.bfloat16):
            assert_equal(value_and_gradients(loss, *views), expected)


@keeps
@every_loss
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not_reentrant"])
def test_checkpointing_changes_nothing(name, reentrant, keeps, views):
    loss = losses.create(name, "triton")
    with small_tiles(keeps):
        found = value_and_gradients_checkpointed(loss, reentrant, *views)
        assert_equal(found, value_and_gradients(loss, *views))


class Model(torch.nn.Module):
    """A projection of both views, and their loss."""

    def __init__(self, name, dim):
        super().__init__()
        torch.manual_seed(0)
        self.projection = torch.nn.Linear(dim, dim)
        self.loss = losses.create(name, "triton")

    def forward(self, *views):
        return self.loss(*map(self.projection, views))


@pytest.fixture
def job(tmp_path):
    """A data-parallel job of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@every_loss
def test_data_parallel_changes_nothing(name, job, views, device):
    bare = Model(name, views[0].shape[1]).to(device)
    parallel = DistributedDataParallel(copy.deepcopy(bare))
    with small_tiles():
        for model in (bare, parallel):
            model(*views).backward()
    for found, expected in zip(parallel.parameters(), bare.parameters(), strict=True):
        assert expected.grad.any()
        assert torch.equal(found.grad, expected.grad)


@keeps
@every_loss
def test_second_derivative_is_refused(name, keeps, views):
    leaves = [view.requires_grad_() for view in views]
    with small_tiles(keeps):
        value = losses.create(name, "triton")(*leaves)
        with pytest.raises(NotImplementedError, match="implementation='reference'"):
            torch.autograd.grad(value, leaves, create_graph=True)


@keeps
@every_dtype
@every_loss
def test_backward_can_be_repeated(name, dtype, keeps, device):
    leaves = [view.requires_grad_() for view in batch(device, dtype)]
    with small_tiles(keeps):
        value = losses.create(name, "triton")(*leaves)
        first, second = (torch.autograd.grad(value, leaves, retain_graph=True) for _ in range(2))
    assert_equal(first, second)


@keeps
@every_loss
def test_gradient_is_linear_in_what_comes_from_above(name, keeps, views):
    leaves = [view.requires_grad_() for view in views]
    with small_tiles(keeps):
        terms = list(losses.create(name, "triton").terms(*leaves).values())
        of_terms = [gradient(term, leaves) for term in terms]
        weights = [0.7, -2.3, 5.0][: len(terms)]
        weighted = sum(weight * term for weight, term in zip(weights, terms, strict=True))
        expected = sum(weight * one for weight, one in zip(weights, of_terms, strict=True))
        assert relative_error(gradient(weighted, leaves), expected) < 1e-5
        whole = gradient(losses.create(name, "triton")(*leaves), leaves)
        assert relative_error(sum(of_terms), whole) < 1e-5


def gradient(value, leaves):
    found = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
    return torch.stack(found)


@every_loss
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_are_the_same_loss(name, copied, views):
    loss = losses.create(name, "triton", strategy="split")
    with small_tiles():
        expected = value_and_gradients(loss, *views)
        assert_equal(value_and_gradients(copied(loss), *views), expected)
    assert repr(copied(loss)) == repr(loss)
