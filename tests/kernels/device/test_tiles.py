"""How tiles are found, copied, split and finished: ways that must not change what a loss is."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from embeddings import random_views, value_and_gradients
from rounding import assert_close_to, outcome, permitted_errors
from tilings import SMALL, small_tiles

from lossbench import losses
from lossbench.kernels import engine
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.language import jit, tl
from lossbench.kernels.maths import is_near
from lossbench.kernels.pair_sum import LOSSES
from lossbench.kernels.plan import Region, layout
from lossbench.kernels.smi import information_entry
from lossbench.kernels.tiles import _place

OTHERS = ["barlow_twins", "nt_xent", "spectral_contrastive", "vicreg"]
SMI = "smi_mutual_information"


@jit
def place_kernel(
    out, first, down, triangular: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    down, across = _place(first + tl.program_id(0), down, triangular, rows, columns)
    tl.store(out + 2 * tl.program_id(0), down)
    tl.store(out + 2 * tl.program_id(0) + 1, across)


def places(region, rows, columns, tiles, device):
    out = torch.empty(len(tiles), 2, dtype=torch.int32, device=device)
    place_kernel[(len(tiles),)](
        out, tiles.start, region.down, triangular=region.triangular, rows=rows, columns=columns
    )
    return [tuple(place) for place in out.tolist()]


@pytest.mark.parametrize("left", [0, 1024], ids=["triangular", "square"])
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 32), (16, 64)])
def test_each_tile_with_a_pair_is_made_once(rows, columns, left, device):
    region = Region(0, left, 192, 192)
    count = region.tiles(rows, columns)
    found = places(region, rows, columns, range(count), device)
    expected = {
        (down, across)
        for down in range(0, 192, rows)
        for across in range(0, 192, columns)
        if left or across + columns > down
    }
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("across", [63, 64, 4095, 4096, 16000])
def test_tiles_of_far_columns_are_found(across, device):
    """First and last tile of a column, where the root of their number is rounded."""
    first = across * (across + 1)
    region = Region(0, 0, 2**25, 2**25)
    found = places(region, 128, 256, range(first - 1, first + 1), device)
    assert found == [((2 * across - 1) * 128, (across - 1) * 256), (0, across * 256)]


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("strategy", ["fused", "split"])
@pytest.mark.parametrize(
    "name", ["smi", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]
)
def test_tensor_descriptors_copy_what_pointers_read(name, strategy, dtype, keeps, device):
    if device == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("the hardware copies no tiles")
    loss = losses.create(name, "triton", strategy=strategy)
    views = [view.to(device, dtype) for view in random_views(21, 70)]
    found = []
    for described in (False, True):
        with small_tiles(keeps, replace(SMALL, described=described)):
            found.append(value_and_gradients(loss, *views))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["nt_xent", "smi", "vicreg"])
def test_last_tiles_are_split_where_they_would_leave_the_gpu_idle(name, device):
    config = replace(SMALL, processors=5, fused_up_to=10**6)
    views = [view.float() for view in random_views(40, 150)]
    truth, permitted = permitted_errors(losses.create(name), views)
    split = []

    def watched(gram, config, region, tiles, *rest):
        split.append(tiles)
        return original(gram, config, region, tiles, *rest)

    original = engine._split
    with small_tiles(config=config), mock.patch.object(engine, "_split", watched):
        loss = losses.create(name, "triton")
        found = outcome(loss, [view.to(device) for view in views])
    assert_close_to(truth, permitted, {each: value.cpu() for each, value in found.items()})
    assert split
    assert all(0 < first < last <= first + 2 for first, last in split)


@jit
def wrong(x, y, weight, p0, p1):
    return x * 0.0 + 1000.0, x * 0.0


def smi_value(views, device, near):
    patched = replace(LOSSES[SMI], near=near)
    with small_tiles(), mock.patch.dict(LOSSES, {SMI: patched}):
        loss = losses.create("smi", "triton", strategy="fused")
        return loss(*(view.to(device) for view in views)).item()


def test_small_correlations_take_the_cheaper_way(device):
    near = LOSSES[SMI].near
    small = [view.float() for view in random_views(64, 400, noise=3.0)]
    large = [view[:, :8].contiguous() for view in small]
    assert smi_value(small, device, wrong) > 2 * smi_value(small, device, near)
    assert smi_value(large, device, wrong) == smi_value(large, device, near)


def test_rows_of_16_bits_take_the_cheaper_way_too(device):
    """They are made as long as the root of their features, where fp16 has the most digits."""
    near = LOSSES[SMI].near
    views = [view.bfloat16() for view in random_views(48, 400, noise=3.0)]
    assert smi_value(views, device, wrong) > 2 * smi_value(views, device, near)


def test_large_correlations_of_short_rows_are_not_taken_for_small_ones(device):
    """Rows of length 1/4: their products are correlations / 16, which are all below 0.4."""
    batch, dim, eps = 32, 16, 0.01
    views = torch.stack(random_views(batch, dim))
    unit = views / torch.linalg.vector_norm(views, dim=2, keepdim=True)
    a, b = unit
    rho = torch.stack([a @ a.T, b @ b.T, a @ b.T])[:, ~torch.eye(batch, dtype=torch.bool)]
    expected = (torch.log(1 - rho**2 + eps) ** 2 / 4).sum().item()
    z = (unit / 4).flatten(0, 1).float().to(device)
    with small_tiles():
        gram = Gram(z, torch.full((2 * batch,), 4.0, device=device), layout((batch, dim)), "fused")
        epilogue = Epilogue(entry=information_entry, near=wrong, near_holds=is_near, p0=eps)
        found, _, _ = engine.sum_pairs(gram, epilogue, needs_grad=False)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_one_large_correlation_is_not_taken_for_a_small_one(device):
    views = [view.float() for view in random_views(64, 400, noise=3.0)]
    views[0][40] = views[0][3] + 0.1 * views[0][40]
    views[1][60] = -views[0][20]
    truth, permitted = permitted_errors(losses.create("smi"), views)
    with small_tiles():
        found = outcome(losses.create("smi", "triton"), [view.to(device) for view in views])
    assert_close_to(truth, permitted, {each: value.cpu() for each, value in found.items()})
