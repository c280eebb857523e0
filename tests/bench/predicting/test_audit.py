"""The audit records what is launched, and refuses what must not be shipped."""

import importlib.util
from dataclasses import replace

import pytest
import torch
from small_kernels import products

from lossbench.bench.predicting import audit

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)


@pytest.fixture(scope="module")
def launches():
    return audit.launches(90)


def find(launches, name, operands="16-bit", what=""):
    return next(
        each
        for each in launches
        if each.name == name and each.operands == operands and what in each.what
    )


def test_every_kernel_is_recorded(launches):
    names = {each.name for each in launches}
    assert names == {
        *("rows_kernel", "mean_kernel", "gradient_kernel", "merge_kernel"),
        *("fused_kernel", "split_kernel", "finish_kernel"),
    }
    kinds = {word for each in launches for word in each.what.split()}
    assert {"sum", "cross", "logsumexp", "softmax", "information_entry"} <= kinds


def test_nothing_is_compiled_for_a_batch_size(launches):
    """Two batches of one kind are one launch."""
    sizes = {"batch", "tiles_down", "tiles_across", "top", "left"}
    assert all(not sizes & set(dict(each.constants)) for each in launches)
    assert len(launches) == len(set(launches))


@pytest.mark.parametrize(("capability", "instruction"), sorted(audit.INSTRUCTIONS.items()))
def test_tensor_cores_are_used(launches, capability, instruction):
    launch = find(audit.launches(capability), "fused_kernel", what="information_entry")
    found = audit.examine(launch, capability)
    assert found.instruction == instruction
    assert found.problem == ""
    assert 0 < found.registers <= 255


def test_exact_products_use_no_tensor_cores(launches):
    found = audit.examine(find(launches, "fused_kernel", "ieee"), 90)
    assert found.instruction == ""
    assert found.problem == ""


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"spilled_bytes": 8}, "spills 8 bytes"),
        ({"shared_bytes": 10**6}, "shared memory"),
        ({"instruction": ""}, "does not use wgmma"),
    ],
)
def test_what_must_not_be_shipped(launches, changed, problem):
    found = audit.examine(find(launches, "fused_kernel"), 90)
    assert problem in replace(found, **changed).problem


def test_spills_are_seen():
    """A tile of 128 x 128 in the registers of one warp."""
    z, out = torch.empty(128, 64, dtype=torch.float16), torch.empty(128, 128)
    sizes = {"BLOCK": 128, "STEP": 64, "num_warps": 1}
    crowded = audit.describe(products, {"z": z, "out": out, "depth": 64, **sizes}, "16-bit")
    assert "spills" in audit.examine(crowded, 80).problem


def test_unknown_capability():
    with pytest.raises(ValueError, match=r"unknown compute capability '70'.*: 100, 120, 80, 90"):
        audit.launches(70)


def test_table_has_a_row_for_each_kernel(launches):
    found = [audit.examine(find(launches, "rows_kernel"), 90)] * 2
    lines = audit.table(found).splitlines()
    assert len(lines) == 3
    assert "rows_kernel" in lines[2]
