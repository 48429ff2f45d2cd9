from __future__ import annotations

import math
from random import Random

import pytest

from simulations.graphs import arrivals, neighbours, regular_graph, thinned


@pytest.mark.parametrize(("nodes", "degree"), [(30, 4), (31, 5), (100, 20), (30, 20), (6, 5), (4, 9)])
def test_a_regular_graph_has_no_loops_no_doubles_and_one_degree(nodes: int, degree: int) -> None:
    graph = regular_graph(nodes, degree, Random(1))
    assert all(a != b for a, b in graph)
    assert len({frozenset(pair) for pair in graph}) == len(graph)
    degrees = sorted(map(len, neighbours(graph, nodes)))
    assert degrees[1:] == [min(degree, nodes - 1)] * (nodes - 1)
    assert sum(degrees) == nodes * min(degree, nodes - 1) // 2 * 2


def test_a_regular_graph_is_random_and_near_nobody_in_particular() -> None:
    first, again, other = (regular_graph(200, 6, Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    near = sum(min((a - b) % 200, (b - a) % 200) <= 3 for a, b in first)
    assert near < len(first) / 10


def test_a_thinned_graph_has_links_of_the_graph_and_at_most_that_degree() -> None:
    graph = regular_graph(100, 20, Random(1))
    thin = thinned(graph, 100, 8, Random(2))
    assert set(thin) <= set(graph)
    degrees = [len(each) for each in neighbours(thin, 100)]
    assert max(degrees) == 8
    assert sum(degrees) / 100 > 7.5


def test_arrivals_are_shortest_paths_and_the_source_has_links_of_its_own() -> None:
    # 0 - 1 - 2 - 3 with one second each, and from the source alone a slow way to 3; 4 is on its own.
    def delay(a: int, b: int) -> float:
        return 2.5 if abs(a - b) > 1 else 1.0

    onward = [[1], [0, 2], [1, 3], [2], []]
    assert arrivals(0, [1, 3], onward, delay) == [0.0, 1.0, 2.0, 2.5, math.inf]
    assert arrivals(3, [2], onward, delay) == [3.0, 2.0, 1.0, 0.0, math.inf]


def test_what_is_lost_on_a_link_does_not_arrive_over_it() -> None:
    onward = [[1, 2], [0, 2], [0, 1]]
    assert arrivals(0, [1, 2], onward, lambda a, b: None if (a, b) == (0, 2) else 1.0) == [0.0, 1.0, 2.0]
