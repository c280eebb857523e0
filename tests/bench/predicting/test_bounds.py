"""Bounds of small kernels, counted by hand."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from listing import disassembly
from small_kernels import (
    chain,
    described_products,
    exponentials,
    persistent_products,
    products,
)

from lossbench.bench.predicting import audit, bounds
from lossbench.bench.predicting.bounds import Size, Task
from lossbench.bench.predicting.pipes import rates

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)

TILE = """
loop:
HGMMA.64x64x16.F32 R24, gdesc[UR8], R24
@P0 BRA loop
MUFU.EX2 R1, R2
MUFU.EX2 R1, R2
EXIT
"""
"""A step is 32 cycles of the tensor cores, the rest 2 instructions of 8: 16 cycles of MUFU."""
STEP, REST = 64 * 64 * 16 // 2048, 2 * 4 * 32 // 16


def tile_bound(tiles, registers=128, shared_bytes=0, programs=None):
    code = bounds.read(disassembly(TILE), 90, "16-bit", Size(4, registers, shared_bytes))
    return bounds.bound(code, Task(tiles, 10 * 64 * 64 * 16, programs or tiles))


@pytest.mark.parametrize(
    ("capability", "size", "programs"),
    [
        # registers: a scheduler has 16384, a warp takes a multiple of 256
        (90, Size(8, 144, 0), 1),  # 4608 a warp: 3 warps a scheduler, 12 in all
        (90, Size(8, 128, 0), 2),  # 4096: 4 and 16
        (90, Size(8, 110, 0), 2),  # 3520, rounded up to 3584: 4 and 16
        (90, Size(4, 168, 0), 3),  # 5376: 3 and 12
        (90, Size(4, 255, 0), 2),  # 8160, rounded up to 8192: 2 and 8
        # shared memory: 1 KiB of each program is the system's
        (90, Size(4, 32, 98304), 2),
        (90, Size(4, 32, 113 * 1024), 2),  # two times 114 are all 228 KiB
        (90, Size(4, 32, 113 * 1024 + 1), 1),
        (80, Size(4, 32, 163 * 1024), 1),
        (120, Size(4, 32, 65536), 1),
        # warps, and programs
        (90, Size(8, 32, 0), 8),
        (120, Size(8, 32, 0), 6),
        (90, Size(1, 32, 0), 32),
        (120, Size(1, 32, 0), 24),
        # tensor memory has 512 columns
        (100, Size(4, 32, 0, tensor_columns=256), 2),
    ],
)
def test_programs_on_a_multiprocessor(capability, size, programs):
    assert bounds.resident(size, rates(capability)) == programs


def test_what_fits_once_waits_for_itself():
    found = tile_bound(132, registers=255, shared_bytes=200 * 1024)
    assert found.resident == 1
    assert found.cycles == 10 * STEP + REST
    assert found.limit == "tensor + mufu"
    assert found.share == pytest.approx(10 * STEP / (10 * STEP + REST))


def test_what_fits_more_often_hides_behind_each_other():
    found = tile_bound(4 * 132, registers=255, shared_bytes=100 * 1024)
    assert found.resident == 2
    assert found.cycles == 4 * 10 * STEP
    assert found.limit == "tensor"
    assert found.share == 1


def test_the_busiest_multiprocessor_counts():
    assert tile_bound(133).cycles == 2 * tile_bound(1).main["tensor"]
    assert tile_bound(133).share == pytest.approx(133 / (2 * 132))


def test_a_tile_alone_waits_for_itself():
    """Another program could hide behind it, but there is none."""
    assert tile_bound(1).cycles == 10 * STEP + REST


def test_few_programs_make_their_tiles_in_turn():
    found = tile_bound(4 * 132, programs=132)
    assert found.resident > 1
    assert found.cycles == 4 * (10 * STEP + REST)


def compiled(kernel, capability, operands="16-bit", warps=4, **arguments):
    launch = audit.describe(kernel, {**arguments, "num_warps": warps}, operands)
    return bounds.compiled(launch, capability)


@needs_triton
def test_a_special_function_for_each_entry():
    x = torch.empty(1024)
    found = bounds.bound(compiled(exponentials, 90, x=x, out=x, SIZE=1024), Task(132, 0, 132))
    assert found.rest["mufu"] == 1024 / 16


@needs_triton
@pytest.mark.parametrize(("capability", "lanes"), [(80, 64), (90, 128)])
def test_a_chain_of_multiply_adds(capability, lanes):
    """16 of each entry; at most an address or two besides."""
    x = torch.empty(2048)
    arguments = {"x": x, "out": x, "a": 0.5, "b": 0.25, "SIZE": 2048, "LENGTH": 16}
    found = bounds.bound(compiled(chain, capability, **arguments), Task(1, 0, 1)).rest
    entries = 16 * 2048 / lanes
    assert entries <= found["fma"] <= entries + 4 * 128 / lanes


@needs_triton
@pytest.mark.parametrize(("capability", "rate"), [(80, 1024), (90, 2048), (100, 4096), (120, 256)])
def test_products_take_what_the_tensor_cores_need(capability, rate):
    z, out = torch.empty(128, 1024, dtype=torch.float16), torch.empty(128, 128)
    arguments = {"z": z, "out": out, "depth": 1024, "BLOCK": 128, "STEP": 64}
    macs = 128 * 128 * 1024
    found = bounds.bound(compiled(products, capability, warps=8, **arguments), Task(1, macs, 1))
    assert found.main["tensor"] + found.rest["tensor"] == macs / rate
    assert found.main["tensor"] > 0.9 * macs / rate
    assert found.share < 1


@needs_triton
def test_exact_products_take_what_fp32_needs():
    z, out = torch.empty(64, 1024), torch.empty(64, 64)
    arguments = {"z": z, "out": out, "depth": 1024, "BLOCK": 64, "STEP": 32}
    macs = 64 * 64 * 1024
    found = bounds.bound(compiled(products, 90, "ieee", **arguments), Task(1, macs, 1))
    assert found.main["tensor"] == 0
    assert macs / 128 <= found.main["fma"] < 1.05 * macs / 128


@needs_triton
@pytest.mark.parametrize("capability", [90, 100])
def test_tensor_descriptors(capability):
    """Operands come by the copy engine; they are described as Triton would."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    z = TensorDescriptor.from_tensor(torch.empty(128, 1024, dtype=torch.float16), [128, 64])
    arguments = {"z": z, "out": torch.empty(128, 128), "depth": 1024, "BLOCK": 128, "STEP": 64}
    launch = audit.describe(described_products, {**arguments, "num_warps": 4}, "16-bit")
    assert dict(launch.signature)["z"] == "tensordesc<fp16[128, 64]>"
    code = audit.tool("nvdisasm", audit.compiled(launch, capability).asm["cubin"], "-c")
    assert "UTMALDG.2D" in code
    macs = 128 * 128 * 1024
    found = bounds.bound(bounds.compiled(launch, capability), Task(1, macs, 1))
    assert found.main["tensor"] + found.rest["tensor"] == macs / rates(capability).tensor["16-bit"]


@needs_triton
@pytest.mark.parametrize("capability", [90, 100])
@pytest.mark.parametrize("flatten", [False, True])
def test_a_program_of_many_tiles(flatten, capability):
    """A tile is made once, and finished once, by one of two branches."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    z = TensorDescriptor.from_tensor(torch.empty(1024, 1024, dtype=torch.float16), [128, 64])
    arguments = {"z": z, "out": torch.empty(1024, 128), "rows": 1000, "depth": 1024, "tiles": 8}
    sizes = {"BLOCK": 128, "STEP": 64, "FLATTEN": flatten}
    code = compiled(persistent_products, capability, warps=8, **arguments, **sizes)
    rate, macs = rates(capability), 128 * 128 * 1024
    found = bounds.bound(code, Task(264, macs, 132))
    assert found.main["tensor"] + found.rest["tensor"] == macs / rate.tensor["16-bit"]
    assert found.rest["mufu"] == pytest.approx(128 * 128 / 16, rel=0.05)
    assert found.main["mufu"] == 0


@needs_triton
def test_warps_of_different_tasks_are_refused(monkeypatch):
    """Triton then starts more warps than it is asked for."""
    x = torch.empty(1024)
    launch = audit.describe(exponentials, {"x": x, "out": x, "SIZE": 1024, "num_warps": 4}, "ieee")
    specialised = SimpleNamespace(asm={"ptx": ".reqntid 384", "cubin": b""}, metadata=None)
    monkeypatch.setattr(audit, "compiled", lambda *_: specialised)
    with pytest.raises(ValueError, match="exponentials: warps of different tasks"):
        bounds.compiled(launch, 90)
