"""Machine code is cut where control may go elsewhere."""

import pytest
from listing import disassembly

from lossbench.bench.predicting import sass


def names(graph):
    blocks = {number: graph.nodes[number]["block"].instructions for number in graph}
    return {number: [each.name for each in block] for number, block in blocks.items() if block}


def test_straight_code_is_one_block():
    graph = sass.parse(disassembly("LDS.128 R4, [R2]\nFADD R4, R4, R5\nEXIT"))
    assert names(graph) == {0: ["LDS.128", "FADD", "EXIT"]}
    assert set(graph.edges) == {(0, sass.END)}


@pytest.mark.parametrize("branch", ["@P0 BRA skip", "@!UP1 BRA skip", "BRA.U !UP0, skip"])
def test_a_branch_with_a_condition_goes_both_ways(branch):
    graph = sass.parse(disassembly(f"{branch}\nFADD R0\nskip:\nEXIT"))
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 2), (2, sass.END)}


def test_a_branch_without_goes_one_way():
    graph = sass.parse(disassembly("BRA skip\nFADD R0\nskip:\nEXIT"))
    assert names(graph) == {0: ["BRA"], 2: ["EXIT"]}


@pytest.mark.parametrize("leaves", ["EXIT", "KILL", "RET.REL.NODEC R2 0x0"])
def test_some_lanes_may_leave(leaves):
    graph = sass.parse(disassembly(f"@P0 {leaves}\nFADD R0\nEXIT"))
    assert set(graph.edges) == {(0, 1), (0, sass.END), (1, sass.END)}


def test_what_follows_the_end_is_no_code_of_the_kernel():
    """nvdisasm shows a loop that pads the section, and functions that are called."""
    graph = sass.parse(disassembly("CALL.REL.NOINC help\nEXIT\nhelp:\nRET\npad:\nBRA pad"))
    assert names(graph) == {0: ["CALL.REL.NOINC", "EXIT"]}


def test_a_call_of_a_label_of_the_kernel_is_a_jump():
    """So ptxas ends long loops for compute capability 8.0."""
    code = "loop:\nHMMA R0\n@P6 CALL.REL.NOINC `(.L_out)\nBRA loop\nout:\nEXIT"
    graph = sass.parse(disassembly(code))
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 0), (2, sass.END)}


def test_predicates_are_seen():
    graph = sass.parse(disassembly("@!P2 FADD R0, R1, R2\nEXIT"))
    first, last = graph.nodes[0]["block"].instructions
    assert (first.predicated, first.operands) == (True, "R0, R1, R2")
    assert not last.predicated


@pytest.mark.parametrize("branch", ["BRX", "BRXU", "JMP", "JMX", "JMXU"])
def test_computed_branches_are_refused(branch):
    """ptxas makes BRXU of a table of targets, by a uniform register."""
    with pytest.raises(ValueError, match=f"{branch}: where it goes"):
        sass.parse(disassembly(f"{branch} R2 -0x10\nEXIT"))
