"""The least work of a program on its way through the blocks of its code.

A path is what a program does that makes a tile: of all ways, one that makes the most products (a
tile that has nothing to do returns early) and writes about the most (a tile on the diagonal has no
mirror image); of these, each pipe's own cheapest. Loops are run as often as products need; others
once.
"""

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from lossbench.bench.predicting.pipes import PIPES, Work
from lossbench.bench.predicting.sass import END

ABOUT = 0.9
"""Share of the most that a way writes which is taken for one that writes all of a tile: in another
order or other pieces some bytes of sums may be more."""

Key = tuple[float, float, float]
"""Products and stores, negative since more is better, then cycles."""


@dataclass(frozen=True)
class Loop:
    """Blocks that can reach each other.

    Attributes:
        header: the block by which it is entered.
        blocks: of the loop and of those inside it.
        inner: loops inside it.
    """

    header: Hashable
    blocks: frozenset[Hashable]
    inner: tuple["Loop", ...]


@dataclass(frozen=True)
class Flow:
    """The blocks of a kernel and what each takes.

    Attributes:
        graph: of ``sass.parse``.
        works: of each block.
    """

    graph: nx.DiGraph
    works: MutableMapping[Hashable, Work]

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The outermost."""
        return _loops(self.graph, 0)

    def innermost(self) -> list[Loop]:
        """Loops without another inside."""
        waiting, found = list(self.loops), []
        while waiting:
            loop = waiting.pop()
            waiting += loop.inner
            found += [] if loop.inner else [loop]
        return found

    def makes(self, loop: Loop) -> bool:
        """It, or one inside it, makes products."""
        return any(self.works[block].macs for block in loop.blocks)

    def goes_on(self, loop: Loop) -> bool:
        """One inside it makes products: it goes from tile to tile."""
        return any(map(self.makes, loop.inner))

    def least(self, steps: float, tiles: float = 1, rest: bool = False) -> Work:
        """The least work of a program.

        Args:
            steps: how often loops are run that make products.
            tiles: how often loops are run that have those inside, and finish a tile.
            rest: cycles of the loops that make products are left out.
        """
        how = _How(self, steps, tiles, rest)
        keys = [how.leave(pipe) for pipe in range(len(PIPES))]
        return Work(-keys[0][0], -keys[0][1], tuple(key[2] for key in keys))


@dataclass(frozen=True)
class _How:
    flow: Flow
    steps: float
    tiles: float
    rest: bool

    def leave(self, pipe: int) -> Key:
        """From the first block to the end."""
        return self._reach(frozenset(self.flow.graph), 0, self.flow.loops, pipe, True, [END])

    def _reach(
        self, blocks: frozenset[Hashable], entry: Hashable, loops: tuple[Loop, ...], pipe: int,
        writes: bool, ends: list[Hashable],
    ) -> Key:  # fmt: skip
        """From an entry to the best of some ends, each of which is included.

        Args:
            blocks: that may be passed.
            entry: the first block.
            loops: among the blocks.
            pipe: whose cycles are counted.
            writes: more stores are better.
            ends: blocks at which the way may end.
        """
        of_block = {block: loop.header for loop in loops for block in loop.blocks}
        folded = nx.DiGraph()
        folded.add_nodes_from(of_block.get(block, block) for block in blocks)
        folded.add_edges_from(
            (of_block.get(a, a), of_block.get(b, b))
            for a, b in self.flow.graph.subgraph(blocks).edges
            if b != entry and of_block.get(a, a) != of_block.get(b, b)
        )
        of_header = {loop.header: loop for loop in loops}
        best: dict[Hashable, Key] = {}
        for node in nx.topological_sort(folded):
            before = [best[each] for each in folded.predecessors(node) if each in best]
            if node != of_block.get(entry, entry) and not before:
                continue
            own = self._loop(of_header[node], pipe) if node in of_header else self._own(node, pipe)
            best[node] = _add(_best(before, writes) if before else (0.0, 0.0, 0.0), own)
        reached = [best[of_block.get(end, end)] for end in ends if of_block.get(end, end) in best]
        return _best(reached, writes)

    def _own(self, block: Hashable, pipe: int) -> Key:
        work = self.flow.works[block]
        return (-work.macs, -work.stored, work.cycles[pipe])

    def _loop(self, loop: Loop, pipe: int) -> Key:
        ends = [block for block in loop.blocks if self.flow.graph.has_edge(block, loop.header)]
        full = self._reach(loop.blocks, loop.header, loop.inner, pipe, True, ends)
        if self.flow.goes_on(loop):
            return _times(full, self.tiles)
        if not self.flow.makes(loop):
            return full
        plain = self._reach(loop.blocks, loop.header, loop.inner, pipe, False, ends)
        once = _add(full, _times(plain, -1))
        products = _times(plain, self.steps)
        whole = _add((*products[:2], 0.0) if self.rest else products, once)
        # a loop over steps and tiles at once finishes a tile under a condition
        return _times(whole, self.tiles if once[1] else 1)


def _best(ways: list[Key], writes: bool) -> Key:
    """The cheapest of the ways that make the most products and write about the most, or least."""
    most = min(products for products, _, _ in ways)
    making = [way for way in ways if way[0] == most]
    stores = [stored for _, stored, _ in making]
    limit = ABOUT * min(stores) if writes else max(stores)
    return min(
        (way for way in making if (way[1] <= limit if writes else way[1] >= limit)),
        key=lambda way: way[2],
    )


def _add(a: Key, b: Key) -> Key:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _times(a: Key, times: float) -> Key:
    return (a[0] * times, a[1] * times, a[2] * times)


def _loops(graph: nx.DiGraph, entry: Hashable) -> tuple[Loop, ...]:
    found = []
    for blocks in nx.strongly_connected_components(graph):
        if len(blocks) == 1 and not any(graph.has_edge(block, block) for block in blocks):
            continue
        headers = [b for b in blocks if b == entry or set(graph.predecessors(b)) - blocks]
        header = min(headers, key=str)  # one, unless somebody jumps into a loop
        inside = graph.subgraph(blocks).copy()
        inside.remove_edges_from(list(inside.in_edges(header)))
        found.append(Loop(header, frozenset(blocks), _loops(inside, header)))
    return tuple(found)
