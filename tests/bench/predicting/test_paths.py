"""The least way through code, by hand: one warp group, so an instruction is one cycle of issue."""

import pytest
from listing import disassembly

from lossbench.bench.predicting import bounds, pipes
from lossbench.bench.predicting.bounds import Size, Task

HGMMA = "HGMMA.64x64x16.F32 R24, gdesc[UR8], R24"
MACS = 64 * 64 * 16


def code(short, kind="16-bit"):
    return bounds.read(disassembly(short), 90, kind, Size(4, 128, 0))


def issued(short, macs=0, kind="16-bit"):
    """Cycles of issue of the loop that makes products, and of the rest."""
    found = bounds.bound(code(short, kind), Task(1, macs, 1))
    return found.main["issue"], found.rest["issue"]


def test_straight_code():
    assert issued("FADD\nFMUL\nMUFU.EX2\nEXIT") == (0, 4)


def test_the_cheaper_way():
    ways = "@P0 BRA cheap\nMUFU.RCP\nMUFU.LG2\nBRA end\ncheap:\nFADD\nend:\nEXIT"
    assert issued(ways) == (0, 3)


def test_each_pipe_has_its_own_cheaper_way():
    ways = "@P0 BRA other\n" + "FADD\n" * 5 + "BRA end\nother:\nMUFU.RCP\nend:\nEXIT"
    found = bounds.bound(code(ways), Task(1, 0, 1)).rest
    assert (found["issue"], found["fma"], found["mufu"]) == (3, 0, 0)


def test_a_program_makes_its_tile():
    """It is not the one that has nothing to do, nor does it skip a depth of 0."""
    way = f"@P0 EXIT\n@P1 BRA after\nloop:\n{HGMMA}\n@P2 BRA loop\nafter:\nFADD\nEXIT"
    assert issued(way, 10 * MACS) == (20, 4)


@pytest.mark.parametrize("store", ["STG.E desc[UR4][R2.64], R4", "UTMASTG.2D [UR4], [UR8]"])
def test_a_program_writes_all_that_a_tile_can(store):
    """Tiles on the diagonal have no mirror image; most others have."""
    way = f"STG.E desc[UR4][R2.64], R4\n@P0 EXIT\nFADD\nFADD\n@P1 {store}\nEXIT"
    assert issued(way) == (0, 6)


@pytest.mark.parametrize(("stores", "cycles"), [(19, 19 + 2), (17, 20 + 3)])
def test_a_way_that_writes_about_as_much_writes_all(stores, cycles):
    """19 of 20 stores are above nine tenths, and the cheaper way; 17 are a tile on the diagonal."""
    full, other = ("STG.E R4\n" * count for count in (20, stores))
    assert issued(f"@P0 BRA other\n{full}BRA end\nother:\n{other}end:\nEXIT") == (0, cycles)


def test_products_outside_of_the_loop_are_not_made_again():
    """A pipeline begins before its loop: 10 products are one and three trips of three."""
    way = f"{HGMMA}\nloop:\n{HGMMA}\n{HGMMA}\n{HGMMA}\n@P0 BRA loop\nEXIT"
    assert issued(way, 10 * MACS) == (12, 2)


def test_other_loops_are_run_once():
    way = f"first:\nLDG.E R2\n@P0 BRA first\nloop:\n{HGMMA}\n@P0 BRA loop\nEXIT"
    assert issued(way, 5 * MACS) == (10, 3)


def test_waiting_takes_no_time_of_its_own():
    """A loop of waiting beside the loop that makes products is passed by."""
    way = f"""
    loop:
    {HGMMA}
    SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR15], R4
    @!P2 BRA wait
    on:
    @P0 BRA loop
    EXIT
    wait:
    SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR15], R4
    @!P2 BRA wait
    BRA on
    """
    assert issued(way, 7 * MACS) == (28, 1)


def test_a_program_that_goes_from_tile_to_tile():
    """What it does once, before its first tile, is no part of a tile."""
    way = f"""
    S2R R0, SR_TID.X
    S2R R1, SR_CTAID.X
    tile:
    IADD3 R2
    loop:
    {HGMMA}
    @P0 BRA loop
    FADD R3
    STG.E desc[UR4][R2.64], R4
    @P1 BRA tile
    EXIT
    """
    assert issued(way, 10 * MACS) == (20, 4)


@pytest.mark.parametrize(("before", "rest"), [("", 6), ("IADD3 R2", 7)])
def test_a_tile_on_the_diagonal_has_code_of_its_own(before, rest):
    """Both loops may begin at one block."""
    way = f"""
    tile:
    {before}
    loop:
    {HGMMA}
    @P0 BRA loop
    @P2 BRA diagonal
    FADD
    FADD
    STG.E R4
    BRA next
    diagonal:
    FADD
    FADD
    FSEL
    FSEL
    STG.E R4
    next:
    @P1 BRA tile
    EXIT
    """
    assert issued(way, 4 * MACS) == (8, rest)


def test_a_loop_over_steps_and_tiles_at_once():
    """Triton can flatten both loops: a tile is finished under a condition, once."""
    way = f"""
    loop:
    {HGMMA}
    @P1 BRA on
    FADD R3
    STG.E R4
    on:
    @P0 BRA loop
    EXIT
    """
    assert issued(way, 10 * MACS) == (30, 2)


def test_exact_products_are_made_in_the_loop_of_most_multiply_adds():
    """An instruction of 4 warps is 128 products."""
    way = "few:\nFFMA\n@P0 BRA few\nloop:\nFFMA\nFFMA\n@P0 BRA loop\nFFMA\nEXIT"
    assert issued(way, 10 * 2 * 128, "ieee") == (30, 4)


def test_pipes_are_those_of_a_bound():
    found = bounds.bound(code("EXIT"), Task(1, 0, 1))
    assert set(found.main) == set(found.rest) == set(pipes.PIPES)
