"""What a case does, followed without doing it, is what it then does."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lossbench import losses
from lossbench.bench.cases.calls import case_call, create_loss
from lossbench.bench.cases.case import DEVICES, DTYPES, Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.counting.growth import Growth
from lossbench.bench.counting.recording import CAN_RECORD
from lossbench.bench.counting.trace import trace
from lossbench.bench.counting.work import followed, smaller_batches, with_batch, work
from lossbench.bench.measuring.memory import peak_bytes
from lossbench.bench.measuring.timing import one_thread
from lossbench.kernels.language import round_up
from lossbench.kernels.plan import DEPTH_MULTIPLE, ROW_MULTIPLE

pytestmark = pytest.mark.filterwarnings("ignore")  # compilers warn of their own code
WAYS = [
    (name, way)
    for name in losses.names()
    for way in losses.spec(name).implementations
    if way not in losses.spec(name).fused
]
EAGER = [(name, way) for name, way in WAYS if way not in ("auto", "compiled")]
SHAPES = [(64, 512), (256, 1024), (300, 700), (700, 300)]
TILED = [(n, w) for n, w in WAYS if w in ("gram", "chunked")]
PEAK = 0.05
"""How far a predicted peak may be from the measured one ..."""
EXACT = {"rel": 0.005, "abs": 100}
"""... and is, where no compiler has a say: scalars of a reduction are not followed."""


@pytest.fixture(autouse=True, scope="module")
def alone():
    """On batches this small, waiting for a second thread costs far more than it brings."""
    with one_thread():
        yield


def measured_peak(case):
    call = case_call(case, create_loss(case), make_inputs(case))
    call()
    return peak_bytes(call, "cpu")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", EAGER, ids="-".join)
@pytest.mark.parametrize("pass_", losses.PASSES)
def test_peak_is_the_measured_one(way, shape, pass_):
    case = Case(*way, batch=shape[0], dim=shape[1], pass_=pass_)
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), **EXACT)


@pytest.mark.parametrize("way", EAGER, ids="-".join)
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    batch=st.integers(2, 400),
    dim=st.integers(1, 400),
    dtype=st.sampled_from(DTYPES),
    pass_=st.sampled_from(losses.PASSES),
)
@example(batch=64, dim=512, dtype="bfloat16", pass_="step")
@example(batch=300, dim=700, dtype="float64", pass_="step")
def test_peak_is_the_measured_one_whatever_the_shape_and_dtype(way, batch, dim, dtype, pass_):
    case = Case(*way, batch=batch, dim=dim, dtype=dtype, pass_=pass_)
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), **EXACT)


@pytest.mark.parametrize("products", ["tf32", "bf16"])
@pytest.mark.parametrize("name", losses.names())
def test_peak_is_the_measured_one_with_other_products(name, products):
    case = Case(name, batch=130, dim=260, products=products)
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), rel=PEAK)


@pytest.mark.parametrize("name", losses.names())
def test_auto_is_followed_as_what_it_chooses(name):
    case = Case(name, "auto", batch=300, dim=700)
    assert followed(case).implementation == case.choice.implementation != "compiled"
    assert work(followed(case)).peak_bytes == pytest.approx(measured_peak(case), **EXACT)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, (64, 512)) for name in losses.names()), ("smi", (256, 128))],
    ids=str,
)
def test_peak_of_compiled_code_is_the_measured_one(name, shape):
    case = Case(name, "compiled", batch=shape[0], dim=shape[1])
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), rel=PEAK)


def test_compiled_code_does_the_products_of_its_source_and_fewer_operations():
    compiled, source = (trace(Case("smi", way, batch=64, dim=512)) for way in WAYS_OF_SMI)
    assert compiled.executed_macs == source.executed_macs
    assert compiled.launches < source.launches / 4
    assert compiled.moved_bytes < source.moved_bytes


WAYS_OF_SMI = ("compiled", "reference")


def test_a_compiler_is_not_asked_for_a_gpu():
    with pytest.raises(NotImplementedError, match="CPU"):
        trace(Case("smi", "compiled", batch=8, dim=16, device="cuda"))


def test_bytes_and_operations_of_a_sum_of_squares():
    """Spectral contrastive's reference has products; this one is counted by hand."""
    case = Case("smi", "correlation_by_hand", batch=4, dim=8, contender="by_hand:loss")
    found = trace(case)
    # a * b: 2 x 32 read and 32 written; sum: 32 read and 1 written; fp32
    forward = [each.moved_bytes for each in found.operations[:2]]
    assert forward == [4 * 96, 4 * 33]
    assert found.executed_macs == 0


@pytest.mark.parametrize("way", TILED, ids="-".join)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("pass_", losses.PASSES)
def test_smaller_batches_tell_what_a_large_one_does(way, pass_, device, monkeypatch):
    monkeypatch.setattr("lossbench.losses.tiles.WORKSPACE_BYTES", {"cpu": 2**16, "cuda": 2**18})
    probe = Case(*way, batch=8, dim=24, device=device, pass_=pass_)
    side = probe.cost.tile_side
    for batch in (9 * side, 9 * side + side // 3):
        case = with_batch(probe, batch)
        # but of a Gram that is kept whole on a GPU: any large batch has as many tiles
        assert smaller_batches(case) or (way[1], device) == ("gram", "cuda")
        told, found = work(case), trace(case)
        for name in ("launches", "moved_bytes", "executed_macs", "saved_bytes"):
            assert told.count(lambda each, name=name: getattr(each, name)) == getattr(found, name)
        assert told.peak_bytes == pytest.approx(found.peak_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("name", "way", "batch", "dim"),
    [
        ("smi", "gram", 9000, 8192),  # what is kept for each pair outgrows the views
        ("nt_xent", "gram", 9000, 8192),
        ("nt_xent", "chunked", 12000, 96),  # blocks of rows that end where no tile does
        ("smi", "chunked", 6000, 300),
    ],
)
def test_smaller_batches_tell_the_peak_of_one_in_which_something_else_is_largest(
    name, way, batch, dim
):
    case = Case(name, way, batch=batch, dim=dim)
    assert smaller_batches(case)
    assert work(case).peak_bytes == pytest.approx(trace(case).peak_bytes, rel=0.03)


@pytest.mark.parametrize("name", [name for name, way in TILED if way == "gram"])
def test_a_gram_on_a_gpu_is_thousands_of_calls_however_large(name):
    probe = Case(name, "gram", batch=2, dim=64, device="cuda")
    largest = with_batch(probe, 2**16)
    assert work(largest).count(lambda each: each.launches) < 5000
    growth, batch = Growth(probe), 20011
    found = trace(with_batch(probe, batch))
    assert growth.work(batch).count(lambda each: each.launches) == found.launches
    fits = growth.largest_batch(found.peak_bytes + 2 * batch * 64 * 4)
    assert fits == pytest.approx(batch, rel=0.01)


@pytest.mark.parametrize("way", EAGER, ids="-".join)
@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(batch=st.integers(2, 900), dim=st.integers(1, 600), device=st.sampled_from(DEVICES))
def test_executed_products_are_those_of_the_cost_model(way, batch, dim, device):
    case = Case(*way, batch=batch, dim=dim, device=device)
    cost = case.cost
    expected = cost.macs("step") + cost.recomputed_macs + cost.padding_macs
    assert trace(case).executed_macs == expected
    forward = replace(case, pass_="forward")
    assert trace(forward).executed_macs == cost.macs("forward")


@pytest.mark.skipif(not CAN_RECORD, reason="kernels can be launched only where triton is installed")
@pytest.mark.parametrize("strategy", ["fused", "split"])
@pytest.mark.parametrize("shape", [(200, 300), (5000, 130)], ids=str)
@pytest.mark.parametrize("name", losses.names())
def test_kernels_execute_what_their_cost_model_says(name, shape, strategy):
    options = {"strategy": strategy}
    case = Case(name, "triton", *shape, dtype="bfloat16", device="cuda", options=options)
    cost = case.cost
    expected = cost.macs("step") + cost.recomputed_macs + cost.padding_macs
    products = [each for each in trace(case).operations if each.macs]
    narrow = [each.macs for each in products if each.precision in ("float16", "bfloat16")]
    assert sum(narrow) == expected
    # rows of 16 bits go without their view's mean, which comes back by a product in fp32: two
    # views of padded rows, of each of two means
    rows, depth = round_up(shape[0], ROW_MULTIPLE), round_up(shape[1], DEPTH_MULTIPLE)
    assert [each.macs for each in products if each.precision == "float32"] in (
        [],
        [2 * 2 * rows * depth],
    )


@pytest.mark.skipif(not CAN_RECORD, reason="kernels can be launched only where triton is installed")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("batch", [16384, 16500, 26000, 28672])
@pytest.mark.parametrize("name", ["nt_xent", "smi"])
def test_launches_are_counted_wherever_one_view_ends_inside_a_super_block(name, batch, dtype):
    case = Case(name, "triton", batch=batch, dim=2048, dtype=dtype, device="cuda")
    told, found = work(case), trace(case)
    assert told.count(lambda each: each.launches) == found.launches
    assert told.count(lambda each: each.executed_macs) == found.executed_macs
    assert told.count(lambda each: each.moved_bytes) == pytest.approx(found.moved_bytes, rel=0.01)
    assert told.peak_bytes == pytest.approx(found.peak_bytes, rel=0.01)


def test_precision_is_that_of_the_products():
    base = Case("smi", batch=32, dim=48, device="cuda")
    for products, name in (("ieee", "float32"), ("tf32", "tf32"), ("bf16", "bfloat16")):
        case = Case("smi", batch=32, dim=48, device="cuda", products=products)
        assert {each.precision for each in trace(case).operations if each.macs} == {name}
    assert trace(base).executed_macs == base.cost.macs("step")


@pytest.mark.parametrize("name", losses.names())
def test_growth_is_exact_without_tiles(name):
    case = Case(name, batch=2, dim=96)
    growth = Growth(case)
    for batch in (77, 640):
        told, found = growth.work(batch), trace(with_batch(case, batch))
        assert told.traces[0].operations == found.operations
        assert told.peak_bytes == found.peak_bytes
        assert told.traces[0].saved_bytes == found.saved_bytes


@pytest.mark.parametrize("way", [w for w in WAYS if w[1] in ("reference", "gram")], ids="-".join)
def test_largest_batch_fits_and_a_larger_one_does_not(way):
    """To the last sample without tiles; with them, up to how the last ones are cut."""
    case = Case(*way, batch=2, dim=64)
    growth = Growth(case)
    for memory in (5e7, 4e8):
        largest = growth.largest_batch(memory)

        def needed(batch):
            views = 2 * batch * case.dim * 4
            return work(with_batch(case, batch)).peak_bytes + views

        assert needed(largest) <= 1.005 * memory
        assert needed(int(1.02 * largest) + 1) > memory


def test_nothing_fits_in_no_memory():
    assert Growth(Case("smi", batch=2, dim=64)).largest_batch(100) == 0


def test_gradients_that_are_added_up_are_not_held_twice():
    """The engine adds in place: x is used twice, so its gradients are two, then one."""
    case = Case("smi", "x_twice", batch=64, dim=64, contender="by_hand:twice")
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), rel=0.01)


def test_following_leaves_nothing_behind():
    before = torch.backends.cuda.matmul.fp32_precision
    trace(Case("smi", batch=8, dim=16, products="tf32"))
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert torch.ones(2).sum() == 2


def test_tensors_that_only_a_lost_part_of_the_graph_kept_are_freed():
    """A norm that nothing is differentiated through keeps its operand no longer than itself."""
    case = Case("smi", "lost", batch=64, dim=64, dtype="bfloat16", contender="by_hand:lost")
    assert work(case).peak_bytes == pytest.approx(measured_peak(case), rel=0.01)


@pytest.mark.parametrize("function", ["MSELoss", "SmoothL1Loss", "HuberLoss", "L1Loss"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("pass_", losses.PASSES)
def test_what_a_reduction_holds_while_it_runs(function, reduction, pass_):
    """It makes tensors of the shape of the views that are never dispatched."""
    contender = f"torch.nn:{function}?reduction={reduction}"
    case = Case("smi", "own", batch=64, dim=64, pass_=pass_, contender=contender)
    assert trace(case).peak_bytes == pytest.approx(measured_peak(case), rel=0.01)


def test_saved_bytes_are_the_same_each_time():
    """Storages come and go at the same places in memory."""
    case = Case("smi", batch=77, dim=96)
    assert len({trace(case).saved_bytes for _ in range(5)}) == 1


@pytest.fixture(scope="module")
def grown():
    return [Growth(Case("smi", way, batch=2, dim=64)) for way in ("reference", "gram", "chunked")]


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(st.integers(10**6, 10**11), min_size=2, max_size=5))
def test_more_memory_never_fits_less(grown, sizes):
    for growth in grown:
        largest = [growth.largest_batch(size) for size in sorted(sizes)]
        assert largest == sorted(largest)
