"""Random graphs of connections."""

from __future__ import annotations

from random import Random

Edge = tuple[int, int]
"""Two nodes, the smaller number first."""


def regular_graph(count: int, degree: int, rng: Random) -> list[Edge]:
    """A random connected graph in which every node has `degree` neighbours, each edge once.

    count * degree must be even and degree below count. By the configuration model: stubs are paired at random,
    and loops, double edges and graphs in pieces are made better by trying again.
    """
    if degree >= count or count * degree % 2:
        raise ValueError(f"{count} nodes cannot all have {degree} neighbours")
    while True:
        edges: dict[Edge, None] = {}
        stubs = [node for node in range(count) for _ in range(degree)]
        while stubs:
            rng.shuffle(stubs)
            left: list[int] = []
            for one, other in zip(stubs[::2], stubs[1::2], strict=True):
                edge = (min(one, other), max(one, other))
                if one == other or edge in edges:
                    left += (one, other)
                else:
                    edges[edge] = None
            if len(left) == len(stubs):
                break  # only pairs that are no good are left, perhaps: all over again
            stubs = left
        if not stubs and _connected(count, edges):
            return list(edges)


def _connected(count: int, edges: dict[Edge, None]) -> bool:
    reached, before = {0}, 0
    while before < len(reached):
        before = len(reached)
        for one, other in edges:
            if one in reached or other in reached:
                reached |= {one, other}
    return len(reached) == count
