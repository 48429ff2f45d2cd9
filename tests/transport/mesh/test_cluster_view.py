"""What a member makes of where the others' peers are, as the roster has it."""

from __future__ import annotations

from dataclasses import replace

from swarmp2p.engine import Introduce
from swarmp2p.transport.mesh.cluster_view import ClusterView
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.members import Member

from .made import cluster, facts_of, sim_keys, worker

HERE, THERE = b"\x04\x7f\x09\x00\x02\x06\x0f\xa1", b"\x04\x7f\x09\x00\x02\x06\x0f\xa2"


def at(number: int, address: bytes) -> Member:
    return worker(number, replace(facts_of(number), addresses=(address,)))


def introduced(view: ClusterView, *workers: Member) -> list[Introduce]:
    out, _ = view.take(cluster(*workers), 0.0)
    return [each for each in out if isinstance(each, Introduce)]


def test_the_peers_that_this_side_will_dial_are_introduced_and_again_when_they_move() -> None:
    lower, higher = at(1, HERE), at(2, HERE)
    first, second = (ClusterView(each.member, sim_keys(each.peer), MeshConfig()) for each in (lower, higher))
    assert introduced(first, lower, higher) == [Introduce(higher.peer, (HERE,))]
    assert introduced(first, lower, higher) == []
    assert introduced(first, lower, at(2, THERE)) == [Introduce(higher.peer, (THERE,))]
    assert introduced(second, lower, higher) == []  # it is dialled
