"""Random regular graphs."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.graph import regular_graph


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 20), st.integers(2, 8), st.integers(0, 1000))
def test_every_node_has_as_many_neighbours_and_reaches_all(half: int, degree: int, seed: int) -> None:
    nodes = 2 * half
    degree = min(degree, nodes - 1)
    edges = regular_graph(nodes, degree, Random(seed))
    assert len(set(edges)) == len(edges)
    neighbours: dict[int, set[int]] = {node: set() for node in range(nodes)}
    for one, other in edges:
        assert one < other
        neighbours[one].add(other)
        neighbours[other].add(one)
    assert {len(near) for near in neighbours.values()} == {degree}
    reached, frontier = {0}, [0]
    while frontier:
        for near in neighbours[frontier.pop()] - reached:
            reached.add(near)
            frontier.append(near)
    assert reached == set(range(nodes))


def test_one_seed_gives_one_graph() -> None:
    assert regular_graph(20, 8, Random(1)) == regular_graph(20, 8, Random(1))
    assert regular_graph(20, 8, Random(1)) != regular_graph(20, 8, Random(2))


@pytest.mark.parametrize(("nodes", "degree"), [(5, 3), (4, 4)])
def test_some_graphs_do_not_exist(nodes: int, degree: int) -> None:
    with pytest.raises(ValueError, match="cannot all have"):
        regular_graph(nodes, degree, Random(1))
