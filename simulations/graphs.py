"""Networks to spread something over, and the soonest that it can be everywhere.

Nodes are numbers from 0. A graph is a list of its links, each a pair of them, without loops and doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

Link = tuple[int, int]


def regular_graph(nodes: int, degree: int, rng: Random) -> list[Link]:
    """A random graph in which each node has that many links; one node has one fewer where both are odd.

    Begins with a ring in which each node is linked to those next to it, and has random pairs of links exchange ends,
    ten times as often as there are links. degree: at most one below nodes; more counts as that.
    """
    degree = min(degree, nodes - 1)
    links = [(node, (node + step) % nodes) for step in range(1, degree // 2 + 1) for node in range(nodes)]
    if degree % 2:
        links += [(node, node + nodes // 2) for node in range(nodes // 2)]
    there = {_ordered(*link): None for link in links}
    for _ in range(10 * len(links)):
        one, other = rng.randrange(len(links)), rng.randrange(len(links))
        (a, b), (c, d) = links[one], links[other]
        if rng.random() < 0.5:
            c, d = d, c
        if a == d or b == c or _ordered(a, d) in there or _ordered(b, c) in there:
            continue
        del there[_ordered(a, b)], there[_ordered(c, d)]
        links[one], links[other] = (a, d), (c, b)
        there[_ordered(a, d)] = there[_ordered(b, c)] = None
    return links


def thinned(links: Sequence[Link], nodes: int, degree: int, rng: Random) -> list[Link]:
    """Some of a graph's links, chosen at random as long as neither end has `degree` of them."""
    degrees = [0] * nodes
    chosen: list[Link] = []
    for a, b in rng.sample(links, len(links)):
        if degrees[a] < degree and degrees[b] < degree:
            degrees[a] += 1
            degrees[b] += 1
            chosen.append((a, b))
    return chosen


def neighbours(links: Sequence[Link], nodes: int) -> list[list[int]]:
    """Of each node."""
    out: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in links:
        out[a].append(b)
        out[b].append(a)
    return out


def arrivals(
    source: int,
    first: Sequence[int],
    onward: Sequence[Sequence[int]],
    delay: Callable[[int, int], float | None],
) -> list[float]:
    """When something that starts at `source` at time 0 is at each node at the earliest, in seconds, if it costs
    nothing but the links' delays; math.inf where it never comes. Dijkstra's shortest paths.

    first: whom the source sends it to. onward: whom each other node passes it on to. delay: of one copy on one link,
    drawn once for each; None when it is lost.
    """
    soonest = [math.inf] * len(onward)
    soonest[source] = 0.0
    done = [False] * len(onward)
    waiting = [(0.0, source)]
    while waiting:
        at, node = heappop(waiting)
        if done[node]:
            continue
        done[node] = True
        for other in first if node == source else onward[node]:
            if done[other]:
                continue
            took = delay(node, other)
            if took is not None and at + took < soonest[other]:
                soonest[other] = at + took
                heappush(waiting, (at + took, other))
    return soonest


def _ordered(a: int, b: int) -> Link:
    return (a, b) if a < b else (b, a)
