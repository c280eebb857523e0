"""What ``auto`` chooses, and that it runs what it says."""

import pytest
import torch
from embeddings import eager, random_views, value_and_gradients
from hypothesis import given, settings, strategies

from lossbench import losses
from lossbench.losses import auto
from lossbench.losses.auto import choose

ALL = pytest.mark.parametrize("name", losses.names())


def chosen(name, batch, dim, **options):
    return losses.explain(name, batch=batch, dim=dim, **options).implementation


def test_more_features_than_samples_take_the_gram_form():
    assert chosen("barlow_twins", 256, 8192) == "gram"
    assert chosen("vicreg", 256, 8192) == "gram"
    assert chosen("barlow_twins", 8192, 512) != "gram"


def test_more_samples_than_fit_are_chunked():
    """The Gram of 65,536 rows takes 17 GB in fp32."""
    assert chosen("smi", 32768, 256, memory_bytes=3_000_000_000) == "chunked"
    # of equal work, far less memory wins, however much there is; NT-Xent's chunked has more work
    assert chosen("smi", 32768, 256, memory_bytes=30_000_000_000) == "chunked"
    assert chosen("nt_xent", 32768, 256, memory_bytes=40_000_000_000) == "gram"


@ALL
@pytest.mark.parametrize(("batch", "dim"), [(64, 2048), (2048, 64)])
def test_where_nothing_fits_the_smallest_is_taken(name, batch, dim):
    choice = losses.explain(name, batch=batch, dim=dim, memory_bytes=1)
    problem = losses.Problem(batch, dim)
    peaks = {each: losses.spec(name).cost(each, problem).peak_elements for each in eager(name)}
    assert peaks[choice.implementation] == min(peaks.values())
    assert "nothing fits" in choice.reason
    assert "least" in choice.reason


@ALL
def test_choice_says_what_was_weighed(name):
    choice = losses.explain(name, batch=64, dim=32, memory_bytes=2 * 10**9)
    assert choice.implementation in eager(name)
    assert "2 GB" in choice.reason
    named = [line.split(":")[0].strip() for line in choice.candidates]
    assert sorted(named) == sorted(["compiled", *eager(name)])
    assert all("GMACs a step" in line and "GB" in line for line in choice.candidates)
    lines = str(choice).splitlines()
    assert lines[0] == f"{choice.implementation}: {choice.reason}"
    assert tuple(lines[1:]) == choice.candidates


def test_pass_decides():
    """NT-Xent in tiles computes them twice in a step, but not where there is no gradient."""
    memory = {"memory_bytes": 10**9}
    step = losses.explain("nt_xent", batch=2048, dim=64, pass_="step", **memory)
    forward = losses.explain("nt_xent", batch=2048, dim=64, pass_="forward", **memory)
    assert step.implementation == "gram"
    assert all("GMACs a forward" in line for line in forward.candidates)
    with pytest.raises(ValueError, match="pass"):
        losses.explain("nt_xent", batch=8, dim=8, pass_="backward", memory_bytes=1)


def test_half_precision_is_weighed_in_fp32_and_fp64_in_8_bytes():
    lines = {
        dtype: losses.explain("smi", batch=512, dim=512, dtype=dtype, memory_bytes=10**9)
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    }
    assert lines[torch.bfloat16] == lines[torch.float32] != lines[torch.float64]


def test_three_views():
    assert losses.explain("smi", batch=64, dim=32, views=3, memory_bytes=10**9)
    with pytest.raises(ValueError, match="3 views"):
        losses.explain("vicreg", batch=64, dim=32, views=3, memory_bytes=10**9)


SMALL = losses.Problem(batch=8, dim=8)

costs = strategies.builds(
    losses.Cost,
    forward_macs=strategies.integers(1, 100),
    backward_macs=strategies.integers(0, 100),
    off_diagonal_entries=strategies.just(1),
    peak_elements=strategies.integers(1, 100),
    gradient_in_forward=strategies.booleans(),
)


@settings(deadline=None, derandomize=True, database=None)
@given(
    table=strategies.dictionaries(
        strategies.sampled_from(["gram", "reference", "chunked", "triton"]), costs, min_size=1
    ),
    pass_=strategies.sampled_from(losses.PASSES),
    memory=strategies.integers(0, 500),
)
def test_least_work_of_what_fits(table, pass_, memory):
    choice = choose(table, SMALL, pass_, memory).implementation
    fitting = {name for name, cost in table.items() if 4 * cost.peak_elements <= memory}
    if not fitting:
        assert table[choice].peak_elements == min(cost.peak_elements for cost in table.values())
        return
    assert choice in fitting
    least = min(table[name].macs(pass_) for name in fitting)
    assert table[choice].macs(pass_) <= auto.ABOUT_EQUAL * least


def equal(count, peak):
    return losses.Cost(count, count, 1, peak)


def test_of_about_equal_work_the_one_with_fewest_calls_is_taken():
    table = {"chunked": equal(100, 1), "reference": equal(100, 1), "gram": equal(104, 1)}
    assert choose(table, SMALL, "step", 100).implementation == "gram"
    table["gram"] = equal(106, 1)
    assert choose(table, SMALL, "step", 100).implementation == "reference"
    table["triton"] = equal(100, 1)  # a kernel that is not in the list is there for a reason
    assert choose(table, SMALL, "step", 100).implementation == "triton"


def test_of_equal_work_far_less_memory_wins():
    table = {"gram": equal(100, auto.ROOMY), "chunked": equal(100, 1)}
    assert choose(table, SMALL, "step", 100).implementation == "gram"
    table["gram"] = equal(100, auto.ROOMY + 1)
    assert choose(table, SMALL, "step", 100).implementation == "chunked"


TRAINING = losses.Problem(batch=64, dim=512)


def test_compiled_code_is_taken_where_calls_dominate():
    table = {"gram": equal(100, 1), "compiled": equal(140, 1)}
    assert choose(table, TRAINING, "step", 100).implementation == "compiled"
    assert choose(table, SMALL, "step", 100).implementation == "gram"  # not worth compiling
    on_cuda = losses.Problem(batch=64, dim=512, device="cuda")
    assert choose(table, on_cuda, "step", 100).implementation == "gram"
    table["compiled"] = equal(160, 1)
    assert choose(table, TRAINING, "step", 100).implementation == "gram"
    much = {"gram": equal(auto.FEW_MACS, 1), "compiled": equal(auto.FEW_MACS, 1)}
    assert choose(much, TRAINING, "step", 100).implementation == "gram"  # a step is twice that


def test_compiled_code_of_equal_work_is_taken_for_a_larger_forward_pass():
    table = {"gram": equal(auto.MANY_MACS, 1), "compiled": equal(auto.MANY_MACS, 1)}
    assert choose(table, TRAINING, "forward", 100).implementation == "compiled"
    assert choose(table, SMALL, "forward", 100).implementation == "gram"
    assert choose(table, TRAINING, "step", 100).implementation == "gram"
    table["gram"] = equal(int(0.9 * auto.MANY_MACS), 1)
    assert choose(table, TRAINING, "forward", 100).implementation == "gram"
    larger = dict.fromkeys(table, equal(auto.MANY_MACS + 1, 1))
    assert choose(larger, TRAINING, "forward", 100).implementation == "gram"


@pytest.mark.parametrize("memory", [-1, 0.5, "lots"])
def test_memory_that_is_no_number_of_bytes(memory):
    with pytest.raises(ValueError, match="memory_bytes must be a whole number"):
        losses.explain("smi", batch=8, dim=8, memory_bytes=memory)


@pytest.mark.parametrize("shape", [{"batch": 0, "dim": 8}, {"batch": 8, "dim": -1}])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match="must be at least 1"):
        losses.explain("smi", **shape)


@ALL
@pytest.mark.parametrize(("batch", "dim"), [(8, 64), (64, 8), (33, 33)])
@pytest.mark.parametrize("memory", [None, 1])
def test_result_is_bitwise_that_of_the_choice(name, batch, dim, memory):
    views = [view.float() for view in random_views(batch, dim)]
    choice = chosen(name, batch, dim, memory_bytes=memory)
    options = {} if memory is None else {"memory_bytes": memory}
    value, gradients = value_and_gradients(losses.create(name, "auto", **options), *views)
    expected, true_gradients = value_and_gradients(losses.create(name, choice), *views)
    assert torch.equal(value, expected)
    assert all(map(torch.equal, gradients, true_gradients))


def test_memory_reaches_the_choice(monkeypatch):
    """The Gram of 2 x 600 rows and its tiles take 22 MB in fp64."""
    batch, dim, memory = 600, 256, 15_000_000
    fp64 = {"dtype": torch.float64}
    assert chosen("smi", batch, dim, memory_bytes=memory, **fp64) == "chunked"
    assert chosen("smi", batch, dim, memory_bytes=10**9, **fp64) == "gram"
    views = random_views(batch, dim)
    ran = set()
    for name in eager("smi"):
        compute = losses.spec("smi").implementations[name]

        def noted(*args, name=name, compute=compute):
            ran.add(name)
            return compute(*args)

        monkeypatch.setitem(losses.spec("smi").implementations, name, noted)
    value_and_gradients(losses.create("smi", "auto", memory_bytes=memory), *views)
    assert ran == {"chunked"}
