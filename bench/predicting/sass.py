"""Machine code as ``nvdisasm`` prints it: instructions, and the blocks between branches."""

import re
from dataclasses import dataclass, field

import networkx as nx

_LINE = re.compile(
    r"\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<predicate>@!?U?P\w+\s+)?(?P<name>[A-Z][\w.]*)"
    r"\s*(?P<operands>[^;]*);"
)
_LABEL = re.compile(r"(\.L_x?_?\w+|[\w.$]+):\s*$")
_TARGET = re.compile(r"`\((?P<label>[^)]+)\)")
_LEAVES = ("EXIT", "RET", "KILL")
_COMPUTED = ("BRX", "BRXU", "JMP", "JMX", "JMXU")
END = -1
"""A block without instructions, after the last of any way."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a warp.

    Attributes:
        name: with its modifiers, such as "LDS.128".
        operands: as printed.
        predicated: lanes or warps may be left out.
    """

    name: str
    operands: str = ""
    predicated: bool = False

    @property
    def operation(self) -> str:
        """Its name without modifiers."""
        return self.name.partition(".")[0]


@dataclass
class Block:
    """Instructions that are run from the first to the last."""

    instructions: list[Instruction] = field(default_factory=list)


def parse(text: str) -> nx.DiGraph:
    """The blocks of a kernel that can be reached, and how control passes from 0 to ``END``.

    Functions that it calls are not followed.

    Raises:
        ValueError: a branch whose target is computed.
    """
    blocks, labels = [Block()], {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            label = _LABEL.match(line.strip())
            if label is not None:
                if blocks[-1].instructions:
                    blocks.append(Block())
                labels[label[1]] = len(blocks) - 1
            continue
        named = found["name"], found["operands"].strip(), bool(found["predicate"])
        blocks[-1].instructions.append(Instruction(*named))
        last = blocks[-1].instructions[-1]
        if last.operation in (*_LEAVES, *_COMPUTED, "BRA") or _jumps_to(last):
            blocks.append(Block())
    graph = nx.DiGraph()
    graph.add_node(END, block=Block())
    graph.add_nodes_from((number, {"block": block}) for number, block in enumerate(blocks))
    for number, block in enumerate(blocks):
        graph.add_edges_from((number, to) for to in _next(number, block, labels, len(blocks)))
    return graph.subgraph(nx.descendants(graph, 0) | {0}).copy()


def _jumps_to(call: Instruction) -> str:
    """The label of the kernel's own that a call goes to, never to return; "" of what does not."""
    target = _TARGET.search(call.operands) if call.operation == "CALL" else None
    return target["label"] if target and target["label"].startswith(".L_") else ""


def _next(number: int, block: Block, labels: dict[str, int], count: int) -> list[int]:
    last = block.instructions[-1] if block.instructions else Instruction("NOP")
    after = [number + 1] if number + 1 < count else []
    if last.operation in _COMPUTED:
        raise ValueError(f"{last.name}: where it goes is computed, which is not followed")
    if last.operation == "BRA":
        target = _TARGET.search(last.operands)
        if target is None:
            raise ValueError(f"{last.name} {last.operands}: it names no label")
        # "BRA.U !UP0" and "BRA P1": the condition is an operand
        conditional = last.predicated or not last.operands.startswith("`")
        return [labels[target["label"]], *(after if conditional else [])]
    if label := _jumps_to(last):
        return [labels[label], *(after if last.predicated else [])]
    if last.operation in _LEAVES:
        return [END, *(after if last.predicated else [])]
    return after
