"""Which peers of a mesh are kept, and when it needs better ones (gossipsub 1.1, "Maintaining the mesh"). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple


class Member(NamedTuple):
    """A peer of a mesh as far as the choice goes. number: its place in the mesh."""

    number: int
    score: float
    outbound: bool


def surplus(members: Sequence[Member], degree: int, best: int, outbound: int, rng: Random) -> list[int]:
    """The numbers of those to be pruned so that `degree` stay: the `best` ones by score, at random among equals, and
    otherwise random ones, but at least `outbound` outbound ones if there are so many (D, Dscore and Dout).

    The outbound ones needed take the places of random ones first, then of the worst among the best.
    """
    if len(members) <= degree:
        return []
    ranked = list(members)
    rng.shuffle(ranked)
    ranked.sort(key=lambda member: -member.score)
    rest = ranked[best:]
    rng.shuffle(rest)
    ranked[best:] = rest
    kept, others = ranked[:degree], ranked[degree:]
    missing = outbound - sum(member.outbound for member in kept)
    for place, other in enumerate(others):
        if missing <= 0:
            break
        if other.outbound:
            worst = max(number for number, member in enumerate(kept) if not member.outbound)
            kept[worst], others[place] = other, kept[worst]
            missing -= 1
    return [member.number for member in others]


def median(scores: Sequence[float]) -> float:
    """The middle of at least one score; of two, the higher, as go-libp2p-pubsub has it."""
    return sorted(scores)[len(scores) // 2]
