"""Whose connections are to be kept."""

from __future__ import annotations

from swarmp2p.dht.events import Refresh
from swarmp2p.dht.keys import peer_key
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.dht.neighbours import Neighbours
from swarmp2p.engine import Protect

from .network import peer_id
from .single import Single, infos, requests


def test_only_changes_are_told() -> None:
    neighbours = Neighbours()
    assert neighbours.update(infos(1, 2)) == [Protect(peer_id(1), True), Protect(peer_id(2), True)]
    assert neighbours.update(infos(2, 1)) == []
    assert neighbours.update(infos(2, 3)) == [Protect(peer_id(1), False), Protect(peer_id(3), True)]
    assert len(neighbours) == 2


def test_the_nearest_are_protected_after_a_refresh() -> None:
    single = Single()
    single.meet(*range(1, 6))
    outputs = list(single.post(Refresh(1)))
    told: list[Protect] = []
    while outputs:
        told += [output for output in outputs if isinstance(output, Protect)]
        asked = requests(outputs, FindNode)
        outputs = []
        for to, request in asked:
            number = next(number for number in range(1, 6) if peer_id(number) == to)
            outputs += single.hear(number, FoundNodes(request.id, ()))
    nearest = sorted(
        (entry.peer for entry in single.engine.table.snapshot()),
        key=lambda peer: peer_key(peer) ^ peer_key(peer_id(0)),
    )
    assert told == [Protect(peer, True) for peer in nearest]
