"""Whom an over-full mesh keeps."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.gossip.mesh_choice import Member, median, surplus

scores = st.sampled_from([0.0, 1.0, 5.0, 9.0])
meshes = st.lists(st.tuples(scores, st.booleans()), max_size=20).map(
    lambda pairs: [Member(number, score, outbound) for number, (score, outbound) in enumerate(pairs)]
)


def plain(count: int, outbound: tuple[int, ...] = ()) -> list[Member]:
    return [Member(number, float(number), number in outbound) for number in range(count)]


def test_the_best_are_kept_and_of_the_others_random_ones() -> None:
    """gossipsub 1.1, "Maintaining the mesh": the D_score best, the rest at random."""
    kept_others: set[int] = set()
    for seed in range(50):
        pruned = surplus(plain(12), 6, 4, 0, Random(seed))
        assert len(pruned) == 6
        assert not set(pruned) & {8, 9, 10, 11}
        kept_others |= set(range(8)) - set(pruned)
    assert kept_others == set(range(8)), "each of the others had its chance"


def test_equal_scores_are_drawn() -> None:
    alike = [Member(number, 0.0, False) for number in range(12)]
    assert {number for seed in range(50) for number in surplus(alike, 6, 4, 0, Random(seed))} == set(
        range(12)
    )


def test_outbound_peers_take_the_places_of_random_ones() -> None:
    """gossipsub 1.1, "Outbound Mesh Quotas"."""
    for seed in range(50):
        pruned = surplus(plain(12, outbound=(0, 1)), 6, 4, 2, Random(seed))
        assert set(range(12)) - set(pruned) == {0, 1, 8, 9, 10, 11}


def test_and_then_of_the_worst_among_the_best() -> None:
    pruned = surplus(plain(12, outbound=(0, 1)), 6, 6, 2, Random(1))
    assert set(range(12)) - set(pruned) == {0, 1, 8, 9, 10, 11}


@given(meshes, st.integers(1, 10), st.integers(0, 10), st.integers(0, 10), st.integers())
def test_choice(members: list[Member], degree: int, best: int, outbound: int, seed: int) -> None:
    outbound = min(outbound, degree // 2)
    pruned = surplus(members, degree, best, outbound, Random(seed))
    kept = [member for member in members if member.number not in pruned]
    assert len(set(pruned)) == len(pruned)
    assert len(kept) == min(degree, len(members))
    available = sum(member.outbound for member in members)
    assert sum(member.outbound for member in kept) >= min(outbound, available)
    # Of the best, only as many had to go as outbound ones were needed.
    ranked = sorted((member.score for member in members), reverse=True)[: min(best, degree)]
    for bar in set(ranked):
        wanted = sum(score >= bar for score in ranked)
        assert sum(member.score >= bar for member in kept) >= min(wanted, wanted + degree - best) - outbound


def test_median() -> None:
    assert median([3.0]) == 3
    assert median([1.0, 3.0]) == 3
    assert median([9.0, 1.0, 3.0]) == 3
