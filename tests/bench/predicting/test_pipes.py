"""What instructions take, counted by hand."""

import json

import pytest

from lossbench.bench.predicting import gpus, pipes
from lossbench.bench.predicting.sass import Instruction
from lossbench.kernels import configs


def takes(*instructions, capability=90, kind="16-bit", warps=8, **how):
    each = [Instruction(*((i,) if isinstance(i, str) else i)) for i in instructions]
    found = pipes.work(each, capability, kind, warps, **how)
    return found, dict(zip(pipes.PIPES, found.cycles, strict=True))


@pytest.mark.parametrize(
    ("name", "capability", "warps", "pipe", "cycles"),
    [
        # lanes of 8 warps, 256, by those that finish in a cycle
        ("FFMA", 90, 8, "fma", 256 / 128),
        ("FFMA", 80, 8, "fma", 256 / 64),
        ("FFMA2", 100, 8, "fma", 512 / 128),
        ("IMAD.WIDE", 90, 8, "fma", 256 / 128),
        ("FSETP.GT.AND", 90, 8, "alu", 256 / 64),
        ("FSEL", 90, 8, "alu", 256 / 64),
        ("IADD3.X", 90, 8, "alu", 256 / 64),
        ("IADD3", 120, 8, "alu", 256 / 128),
        ("MUFU.LG2", 90, 4, "mufu", 128 / 16),
        ("SHFL.BFLY", 90, 4, "shuffle", 128 / 32),
        # bytes of 4 warps by 128 in a cycle
        ("STS.128", 90, 4, "shared", 4 * 32 * 16 / 128),
        ("STS.U16", 90, 4, "shared", 4 * 32 * 4 / 128),
        ("LDS.128", 90, 4, "shared", 4 * 32 * 4 / 128),
        ("ATOMS.ADD", 90, 4, "shared", 4 * 32 * 4 / 128),
        ("LDSM.16.M88.4", 80, 4, "shared", 4 * 4 * 8 * 8 * 2 / 128),
        ("STSM.16.MT88.2", 90, 4, "shared", 4 * 2 * 8 * 8 * 2 / 128),
    ],
)
def test_a_pipe(name, capability, warps, pipe, cycles):
    _, found = takes((name, "R0, R1"), capability=capability, warps=warps)
    assert found.pop("issue") == warps / 4
    assert found.pop(pipe) == cycles
    assert not any(found.values())


@pytest.mark.parametrize(
    ("pipe", "lanes", "names"),
    [
        ("fma", 128, "FADD FMUL FFMA IMAD"),
        ("alu", 64, "FMNMX FSEL FSET FSETP F2FP IMNMX ISETP LOP3 PLOP3 PRMT SEL SGXT SHF VIMNMX"),
        ("alu", 64, "IABS IADD IADD3 LEA VIADD"),
        ("mufu", 16, "BREV FLO F2I I2F I2I MUFU POPC"),
        ("shuffle", 32, "SHFL"),
    ],
)
def test_instructions_that_the_programming_guide_has_in_one_row(pipe, lanes, names):
    """Lanes that finish in a cycle on compute capability 9.0."""
    found = {name: takes(name, warps=4)[1][pipe] for name in names.split()}
    assert found == dict.fromkeys(names.split(), 4 * 32 / lanes)


def test_two_lanes_of_each_thread_on_blackwell():
    for name in ("FADD2", "FFMA2", "FMUL2"):
        assert takes(name, capability=100, warps=4)[1]["fma"] == 2 * 4 * 32 / 128


def test_others_are_only_issued():
    _, found = takes("BAR.SYNC", "UIADD3", "SOMETHING.NEW", ("LDS", "RZ, [RZ]"), warps=4)
    assert found.pop("issue") == 4
    assert not any(found.values())


def test_products_of_warp_groups():
    """Two groups of four warps: each 64 x 128 x 16, of operands in shared memory."""
    work, found = takes(("HGMMA.64x128x16.F32", "R24, gdesc[UR8], R24"))
    assert work.macs == 2 * 64 * 128 * 16
    assert found["tensor"] == 2 * 64 * 128 * 16 / 2048
    assert found["shared"] == 2 * 2 * (64 * 16 + 128 * 16) / 128


def test_an_operand_in_registers_is_not_read_from_shared_memory():
    _, found = takes(("HGMMA.64x64x8.F32.TF32", "R24, R4, gdesc[UR8], R24"), kind="tf32", warps=4)
    assert found["tensor"] == 64 * 64 * 8 / 1024
    assert found["shared"] == 4 * 64 * 8 / 128


@pytest.mark.parametrize(
    ("name", "capability", "kind", "rate", "macs"),
    [
        ("HMMA.16816.F32.BF16", 80, "16-bit", 1024, 16 * 8 * 16),
        ("HMMA.16816.F32", 120, "16-bit", 256, 16 * 8 * 16),
        ("HMMA.1688.F32.TF32", 80, "tf32", 512, 16 * 8 * 8),
    ],
)
def test_products_of_warps(name, capability, kind, rate, macs):
    work, found = takes((name, "R4, R8, R12, R4"), capability=capability, kind=kind, warps=4)
    assert work.macs == 4 * macs
    assert found["tensor"] == 4 * macs / rate


def test_products_of_one_thread():
    """tcgen05: M = 128 in bits 24 to 28 by 16, N = 256 in bits 17 to 22 by 8; one warp issues."""
    shape = hex((128 // 16) << 24 | (256 // 8) << 17 | 0x10)
    issued = ("UTCHMMA", "gdesc[UR4], gdesc[UR6], tmem[UR8], tmem[UR34], idesc[UR35], UPT")
    work, found = takes(("UMOV", f"UR35, {shape}"), issued, capability=100)
    assert work.macs == 128 * 256 * 16
    assert found["tensor"] == 128 * 256 * 16 / 4096
    assert found["shared"] == 2 * (128 * 16 + 256 * 16) / 128
    assert found["issue"] == 2 / 4


def test_an_operand_in_tensor_memory_is_not_read_from_shared_memory():
    """Of tf32, 8 features are one instruction."""
    shape = hex((128 // 16) << 24 | (256 // 8) << 17 | 0x10)
    issued = ("UTCHMMA", "tmem[UR4], gdesc[UR6], tmem[UR8], tmem[UR34], idesc[UR35], UPT")
    work, found = takes(("UMOV", f"UR35, {shape}"), issued, capability=100, kind="tf32")
    assert work.macs == 128 * 256 * 8
    assert found["tensor"] == 128 * 256 * 8 / 2048
    assert found["shared"] == 4 * 256 * 8 / 128


def test_a_shape_is_what_its_register_held_last():
    """Registers are used again, before the product and after it."""
    wide, narrow = (hex((128 // 16) << 24 | (n // 8) << 17 | 0x10) for n in (256, 64))
    issued = ("UTCHMMA", "gdesc[UR4], gdesc[UR6], tmem[UR8], tmem[UR34], idesc[UR35], UPT")
    moves = [("UMOV", f"UR35, {shape}") for shape in (wide, narrow)]
    assert takes(*moves, issued, moves[0], capability=100)[0].macs == 128 * 64 * 16


def test_a_shape_that_is_not_known_is_refused():
    issued = ("UTCHMMA", "gdesc[UR4], gdesc[UR6], tmem[UR8], tmem[UR34], idesc[UR35], UPT")
    with pytest.raises(ValueError, match="UTCHMMA"):
        takes(issued, capability=100)


def test_what_is_left_out_by_a_predicate_is_issued_by_all_warps():
    elected = ("UTMALDG.2D", "[UR8], [UR4]", True)
    assert takes(elected, "FADD")[1]["issue"] == 2 * 8 / 4
    for name in ("UTMALDG.2D", "UTMASTG.2D", "UTMAREDG.2D.ADD", "UBLKCP.S.G"):
        assert takes((name, "[UR8], [UR4]"), "FADD")[1]["issue"] == 2 * 1 / 4


def test_exact_products_are_multiply_adds():
    work, found = takes("FFMA", "FFMA", "FADD", kind="ieee", warps=4, by_fma=True)
    assert work.macs == 2 * 4 * 32
    assert found["tensor"] == 0
    assert found["fma"] == 3 * 4 * 32 / 128


def test_stores():
    assert takes(("STG.E.128", "desc[UR4][R2.64], R4"), warps=4)[0].stored == 4 * 32 * 16
    assert takes(("STG.E.U16", "desc[UR4][R2.64], R4"), warps=4)[0].stored == 4 * 32 * 2
    assert takes(("ST.E.64", "desc[UR4][R2.64], R4"), warps=4)[0].stored == 4 * 32 * 8


@pytest.mark.parametrize("bulk", [("UTMASTG.2D", "[UR4], [UR8]"), ("UBLKCP.G.S", "[UR4], [UR8]")])
def test_a_bulk_store_is_more_than_any_other(bulk):
    many = takes(*["STG.E.128"] * 1000)[0].stored
    assert takes(bulk)[0].stored > many


@pytest.mark.parametrize("bulk", ["UTMALDG.2D", "UBLKCP.S.G"])
def test_a_bulk_load_stores_nothing(bulk):
    assert takes((bulk, "[UR4], [UR8]"))[0].stored == 0


@pytest.mark.parametrize("capability", sorted(configs.table()))
def test_every_architecture_has_rates_with_sources(capability):
    table = json.loads(pipes.TABLE.read_text())
    sheet = dict(table["capabilities"][capability])
    gpus.gpu(sheet.pop("gpu"))
    figures = [*sheet.pop("tensor").values(), *sheet.values()]
    assert all(value > 0 and source in table["documents"] for value, source in figures)
    rate = pipes.rates(int(capability))
    # a clock that the datasheet's FLOP/s need: of every kind of operands the same, and one that is
    flops = gpus.gpu(rate.gpu).tflops
    clocks = [
        flops[precision] * 1e12 / (2 * rate.tensor[kind] * rate.processors)
        for precision, kind in (("float16", "16-bit"), ("tf32", "tf32"))
    ]
    assert clocks[0] == pytest.approx(clocks[1], rel=0.03)
    assert 1.3e9 < clocks[0] < 2.6e9
