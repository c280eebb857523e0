"""What is counted beside matrix products, and of products that go by other names."""

import pytest
import torch
from guests import alignment_and_uniformity
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax, normalize

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.counting.counting import count
from lossbench.bench.counting.operations import bytes_of
from lossbench.bench.counting.trace import _Tracer

N, D = 24, 10


def followed(call, *shapes):
    """What a function does to tensors of these shapes, forward and backward."""
    tensors = [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]
    tracer = _Tracer(tuple(tensors), skips=True)
    with tracer:
        forward = call(*tensors)
        done = tracer.found.executed_macs, tracer.found.elementwise, tracer.found.transcendentals
        if forward.ndim == 0:
            torch.autograd.grad(forward, tensors)
    return done, tracer.found


@given(st.integers(2, 9), st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_a_softmax_is_four_operations_and_one_exponential(rows, columns):
    (macs, operations, functions), _ = followed(lambda x: log_softmax(x, 1), (rows, columns))
    assert (macs, operations, functions) == (0, 4 * rows * columns, rows * columns)


def test_a_sum_of_exponentials():
    (_, operations, functions), _ = followed(lambda x: (2 * x + 1).exp().sum(), (N, D))
    assert (operations, functions) == (3 * N * D, N * D)


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [(2, (1, 0)), (3, (2, 0)), (4, (2, 0)), (-2, (2, 0)), (0.5, (0, 1)), (1.3, (1, 2))],
)
def test_powers_are_as_many_products_as_squaring_needs(exponent, expected):
    (_, operations, functions), _ = followed(lambda x: x**exponent, (N, D))
    assert (operations, functions) == tuple(each * N * D for each in expected)


def test_copies_and_masks_are_none():
    def moves(x):
        return torch.cat([x.clone(), x.tril(), x[torch.arange(3)], torch.zeros_like(x)])

    (macs, operations, functions), found = followed(moves, (N, D))
    assert (macs, operations, functions) == (0, 0, 0)
    assert not found.uncounted


def _distances(z):
    squared = z.square().sum(dim=1)
    return squared[:, None] + squared[None] - 2 * z @ z.T


FORMS = {
    "pdist": lambda z: torch.pdist(z).square().sum(),
    "cdist": lambda z: torch.cdist(z, z).square().sum(),
    "cdist without a product": lambda z: (
        torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square().sum()
    ),
    "einsum": lambda z: torch.einsum("nd,md->nm", z, z).sum(),
    "baddbmm": lambda z: torch.baddbmm(z.new_zeros(1, 1, 1), z[None], z.T[None]).sum(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(N, D), (40, 7)])  # cdist multiplies from 26 rows on
def test_products_by_other_names_are_counted_as_the_matrix_product(form, shape):
    expected, of_product = followed(lambda z: _distances(z).sum(), shape)
    found, of_form = followed(FORMS[form], shape)
    assert found[0] == expected[0] == shape[0] ** 2 * shape[1]
    assert of_form.executed_macs == of_product.executed_macs == 3 * expected[0]
    assert not of_form.uncounted


def test_attention_is_counted():
    from torch.nn.functional import scaled_dot_product_attention as attention

    def call(q, k, v):
        return attention(q, k, v)

    (macs, _, _), found = followed(call, *[(2, 3, N, D)] * 3)
    assert macs == 2 * 2 * 3 * N * N * D
    assert not found.uncounted


def _positive(x):
    return x @ x.T + torch.eye(len(x), device=x.device)


DECOMPOSITIONS = {
    "cholesky": (lambda x: torch.linalg.cholesky(_positive(x)), N**3 / 6),
    "slogdet": (lambda x: torch.linalg.slogdet(_positive(x))[1], N**3 / 3),
    "inverse": (lambda x: torch.linalg.inv(_positive(x)), N**3),
    "solve": (lambda x: torch.linalg.solve(_positive(x), x), N**3 / 3 + N * N * D),
    "eigh": (lambda x: torch.linalg.eigh(_positive(x))[1], 4.5 * N**3),
    "svdvals": (lambda x: torch.linalg.svdvals(x), 7 * N * D**2 + 4 * D**3),  # with vectors
}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_decompositions_are_counted_by_their_formulas(name):
    call, expected = DECOMPOSITIONS[name]
    product = 0 if name == "svdvals" else N * N * D
    (macs, _, _), found = followed(call, (N, D))
    # torch asks for the vectors whenever there is a gradient: it needs them
    assert macs - product == pytest.approx(expected, abs=1)
    assert not found.uncounted


def test_what_is_not_counted_is_named():
    _, found = followed(lambda x: torch.fft.rfft(x).abs().sum(), (N, D))
    assert "_fft_r2c" in found.uncounted


@pytest.mark.parametrize("way", ["reference", "gram", "chunked", "auto", "compiled"])
@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_all_of_our_losses_are_counted(name, way, pass_):
    if way not in losses.spec(name).implementations:
        pytest.skip("it has no such implementation")
    found = count(Case(name, way, batch=64, dim=96, pass_=pass_))
    assert found["uncounted"] == ""
    assert found["elementwise"] > 64 * 96
    # the others have roots of features alone, if any, within a batch norm
    assert (found["transcendentals"] > 0) == (name in ("smi", "nt_xent", "vicreg"))


@pytest.mark.parametrize("shape", [(16, 24), (64, 8)])
def test_the_elementwise_work_of_smi_is_that_of_its_formula(shape):
    """Of every entry of its Grams a square, a difference, a logarithm and a sum, at least.

    A row's entry with itself is known: the diagonals of AA and BB have no logarithm.
    """
    n, d = shape
    found = count(Case("smi", "reference", batch=n, dim=d, pass_="forward"))
    entries = 3 * n * n - 2 * n
    assert entries <= found["transcendentals"] <= entries + 4 * n
    assert 4 * entries <= found["elementwise"] <= 20 * (entries + 4 * n * d)


def test_fused_kernels_say_that_their_elementwise_work_is_not_counted():
    found = count(Case("smi", "triton", batch=64, dim=96))
    assert found["elementwise"] is None
    assert found["uncounted"] == "fused kernels"
    assert found["macs"] > 0


def test_a_guest_whose_work_is_not_counted_has_no_count(monkeypatch):
    import guests

    monkeypatch.setattr(
        guests, "spectrum", lambda a, b: torch.fft.rfft(a - b).abs().sum(), raising=False
    )
    found = count(Case("mine=guests:spectrum", batch=N, dim=D))
    assert found["macs"] is None
    assert found["gmacs"] is None
    assert "_fft_r2c" in found["uncounted"]
    assert "_fft_r2c" in found["counts_note"]


def test_alignment_and_uniformity_is_counted_alike_in_all_forms(monkeypatch):
    import guests

    def by_pdist(a, b):
        a, b = normalize(a, dim=1), normalize(b, dim=1)
        parts = [torch.pdist(z).square().mul(-2).exp().mean().log() for z in (a, b)]
        return (a - b).square().sum(dim=1).mean() + sum(parts) / 2

    views = torch.randn(2, N, D, dtype=torch.float64).unbind()
    assert by_pdist(*views).item() == pytest.approx(alignment_and_uniformity(*views).item())
    monkeypatch.setattr(guests, "by_pdist", by_pdist, raising=False)
    ours, theirs = (
        count(Case(f"mine=guests:{name}", batch=N, dim=D))
        for name in ("alignment_and_uniformity", "by_pdist")
    )
    assert ours["macs"] == theirs["macs"] == 3 * 2 * N * N * D


def test_bytes_of_an_expanded_tensor_are_its_own_whatever_was_followed_before():
    """Two of one shape and stride, the second a part of six numbers rather than all of one."""
    for numbers in (1, 6):
        base = torch.empty(numbers, device="meta")
        tracer = _Tracer((base,), skips=True)
        with tracer:
            base[:1].expand(31, 29).mul(base.new_empty(31, 29))
        assert tracer.found.moved_bytes == 4 * (1 + 2 * 31 * 29)


@pytest.mark.parametrize(
    ("tensor", "elements"),
    [
        (torch.empty(5, 1).expand(5, 7), 5),
        (torch.empty(3, 4).T, 12),
        (torch.empty(10).unfold(0, 4, 1), 10),  # seven windows of four of ten numbers
        (torch.empty(10)[::3], 4),
        (torch.empty(0, 4), 0),
        (torch.empty(1).expand(0), 0),
        (torch.empty(()), 1),
    ],
)
def test_bytes_are_of_the_elements_that_are_there(tensor, elements):
    assert bytes_of(tensor) == 4 * elements


def test_dropping_a_dimension_in_place_is_no_work():
    _, found = followed(lambda x: (x[:1] * 2).squeeze_(0).sum(), (3, 4))
    assert not found.uncounted


def test_a_product_with_a_vector_is_counted():
    (macs, _, _), found = followed(lambda x: (x @ x[0]).sum(), (N, D))
    assert macs == N * D
    assert not found.uncounted


def test_attention_has_the_exponentials_of_its_softmax():
    def attention(q, k):
        return torch.nn.functional.scaled_dot_product_attention(q, k, k)

    (macs, operations, functions), _ = followed(attention, (2, 3, N, D), (2, 3, 5, D))
    assert macs == 2 * 2 * 3 * N * 5 * D
    assert functions == 2 * 3 * N * 5
    assert operations >= 4 * functions


@pytest.mark.parametrize("distances", [torch.pdist, lambda z: torch.cdist(z, z)])
def test_a_distance_has_a_root(distances):
    (_, _, functions), _ = followed(lambda z: distances(z).sum(), (N, D))
    assert functions in (N * N, N * (N - 1) // 2)
