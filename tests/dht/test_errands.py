"""Queries that share a lookup: one question to each peer, and to each query what it would have got alone."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht import errands
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Cancel,
    DhtCommand,
    DhtOutput,
    FindClosest,
    FindPeer,
    FindProviders,
    GetValue,
    Join,
    Provide,
    ProviderFound,
    QueryDone,
)
from swarmp2p.dht.keys import key_id, multihash_key, peer_key
from swarmp2p.dht.messages import FindNode, FoundNodes, FoundProviders, GetProviders, Provider
from swarmp2p.dht.messages import GetValue as AskValue
from swarmp2p.dht.queries import ProvideQuery
from swarmp2p.engine import PeerInfo, Request

from .network import Node, TestNetwork, address, grown, peer_id
from .single import Outputs, Single, ended, infos, receivers, requests

KEY = multihash_key(b"shared")
NEAREST = sorted(range(1, 60), key=lambda number: peer_key(peer_id(number)) ^ key_id(KEY))


def provider(number: int) -> Provider:
    return Provider(peer_id(number), (address(number),), b"")


def found(outputs: Outputs) -> list[tuple[int, int]]:
    """Which query was told of which provider."""
    numbers = {peer_id(number): number for number in range(100)}
    return [(out.query, numbers[out.provider.peer]) for out in outputs if isinstance(out, ProviderFound)]


class Finders(Single):
    """A peer that knows eight others, with three requests in flight."""

    def __init__(self) -> None:
        super().__init__(DhtConfig(alpha=3, find_window=3, k=8))
        self.meet(*NEAREST[:8])
        self.asked: dict[int, GetProviders] = {}

    def find(self, query: int, limit: int = 0) -> Outputs:
        return self._note(self.post(FindProviders(query, KEY, limit)))

    def say(self, number: int, *providers: int) -> Outputs:
        """A peer that was asked answers."""
        reply = FoundProviders(self.asked[number].id, KEY, tuple(provider(each) for each in providers), ())
        return self._note(self.hear(number, reply))

    def _note(self, outputs: Outputs) -> Outputs:
        numbers = {peer_id(number): number for number in NEAREST}
        self.asked |= {numbers[to]: request for to, request in requests(outputs, GetProviders)}
        return outputs


def test_a_second_find_asks_nobody_again_and_gets_what_is_found_later() -> None:
    peer = Finders()
    assert len(receivers(peer.find(1))) == 3
    assert receivers(peer.find(2)) == []
    assert found(peer.say(NEAREST[0], 90)) == [(1, 90), (2, 90)]


def test_a_find_that_comes_later_is_told_first_what_was_found() -> None:
    peer = Finders()
    peer.find(1)
    peer.say(NEAREST[0], 90, 91)
    late = peer.find(2)
    assert found(late) == [(2, 90), (2, 91)]
    assert receivers(late) == []
    assert found(peer.say(NEAREST[1], 91, 92)) == [(1, 92), (2, 92)]


def test_each_has_its_own_limit_and_end() -> None:
    peer = Finders()
    peer.find(1)
    peer.find(2, limit=1)
    first = peer.say(NEAREST[0], 90)
    assert [done.query for done in ended(first)] == [2]
    assert len(receivers(first)) > 0  # it goes on for the other
    last = [done for number in NEAREST[1:8] for done in ended(peer.say(number, 91))]
    assert [(done.query, done.asked) for done in last] == [(1, 8)]


def test_one_that_is_satisfied_by_what_was_found_asks_nobody() -> None:
    peer = Finders()
    peer.find(1)
    peer.say(NEAREST[0], 90)
    outputs = peer.find(2, limit=1)
    assert found(outputs) == [(2, 90)]
    assert [done.query for done in ended(outputs)] == [2]
    assert receivers(peer.say(NEAREST[1])) != []


def test_the_traffic_stops_when_the_last_is_cancelled() -> None:
    peer = Finders()
    peer.find(1)
    peer.find(2)
    peer.post(Cancel(1))
    assert receivers(peer.say(NEAREST[0], 90)) != []
    peer.post(Cancel(2))
    assert receivers(peer.say(NEAREST[1], 91)) == []
    assert receivers(peer.wait(20.0), GetProviders) == []
    assert len(receivers(peer.find(3))) == 3  # and a later one begins anew


def test_one_that_began_it_may_go_first() -> None:
    peer = Finders()
    peer.find(1)
    peer.find(2)
    peer.post(Cancel(1))
    outputs = peer.say(NEAREST[0], 90)
    assert found(outputs) == [(2, 90)]
    assert receivers(outputs) != []


def test_after_the_end_a_find_asks_again() -> None:
    peer = Finders()
    peer.find(1)
    for number in NEAREST[:8]:
        peer.say(number)
    assert len(receivers(peer.find(2))) == 3


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (FindClosest(1, b"k"), FindClosest(2, b"k"), FindNode),
        (GetValue(1, b"k"), GetValue(2, b"k"), AskValue),
        (FindPeer(1, peer_id(70)), FindPeer(2, peer_id(70)), FindNode),
        (FindPeer(1, peer_id(70)), FindClosest(2, bytes(peer_id(70))), FindNode),
        (Provide(1, KEY), FindClosest(2, KEY), FindNode),
    ],
)
def test_what_asks_the_same_is_shared(first: DhtCommand, second: DhtCommand, kind: type[Request]) -> None:
    single = Single()
    single.meet(1, 2, 3)
    assert len(receivers(single.post(first), kind)) == 3
    assert receivers(single.post(second), kind) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FindClosest(1, b"k"), FindClosest(2, b"other")),
        (FindClosest(1, b"k"), GetValue(2, b"k")),
        (FindClosest(1, b"k"), FindClosest(2, b"k", paths=2)),
        (FindClosest(1, bytes(peer_id(0))), Join(2, infos(9))),
    ],
)
def test_what_asks_something_else_is_not(first: DhtCommand, second: DhtCommand) -> None:
    single = Single()
    single.meet(1, 2, 3)
    single.post(first)
    assert len(receivers(single.post(second))) >= 3


def test_a_peer_that_was_named_before_is_known_to_a_later_query() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(1, 2, 3)
    ((to, request),) = requests(single.post(FindClosest(1, bytes(peer_id(70)))), FindNode)
    single.post(Cancel(99))
    number = next(n for n in (1, 2, 3) if peer_id(n) == to)
    single.hear(number, FoundNodes(request.id, infos(70)))
    (done,) = ended(single.post(FindPeer(2, peer_id(70))))
    assert done.peer == PeerInfo(peer_id(70), (address(70),))


def test_how_many_providers_a_holder_has_is_told_to_a_later_query() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(1, 2, 3)
    ((to, request),) = requests(single.post(FindClosest(1, KEY)), FindNode)
    single.hear(next(n for n in (1, 2, 3) if peer_id(n) == to), FoundNodes(request.id, (), held=40))
    single.post(Provide(2, KEY))
    query = single.engine._traffic._queries[2]  # pyright: ignore[reportPrivateUsage]
    assert isinstance(query, ProvideQuery)
    assert query.held == {to: (40, None)}


def test_what_is_kept_for_latecomers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "_MAX_TOLD", 2)
    peer = Finders()
    peer.find(1)
    for number in NEAREST[:3]:
        peer.say(number, 90)
    again = peer.find(2)  # too much was found: this one looks for itself
    assert len(receivers(again)) == 3
    kept = peer.engine._traffic._errands  # pyright: ignore[reportPrivateUsage]
    assert kept._told == 0  # pyright: ignore[reportPrivateUsage]


def test_cancelling_a_find_stops_its_messages() -> None:
    network, nodes = grown(40, seed=3, config=DhtConfig(k=4, alpha=3))
    before = len(network.sent)
    number = network.start(nodes[7], lambda query: FindProviders(query, KEY))
    assert len(network.sent) - before == 3
    network.post(nodes[7], Cancel(number))
    network.run(5.0)
    mine = [message for _, sender, _, message in network.sent[before:] if sender == nodes[7].id]
    assert len([message for message in mine if isinstance(message, GetProviders)]) == 3


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 4), st.integers(0, 6))
def test_together_they_find_what_each_finds_alone(seed: int, count: int, limit: int) -> None:
    """Over a random network, with finds of one key that begin at different times."""

    def results(shared: bool) -> list[set[bytes]]:
        network, nodes = published(seed % 5)
        rng = Random(seed)
        finder = nodes[rng.randrange(len(nodes))]
        queries: list[int] = []
        for _ in range(count):
            queries.append(network.start(finder, lambda query: FindProviders(query, KEY, limit)))
            network.run(rng.choice([0.0, 0.02, 0.05]) if shared else 20.0)
        network.run(20.0)
        assert all(network.done(finder, number) for number in queries)
        return [providers(finder.outputs, number) for number in queries]

    def providers(outputs: list[DhtOutput], number: int) -> set[bytes]:
        seen = [
            out.provider.peer for out in outputs if isinstance(out, ProviderFound) and out.query == number
        ]
        assert len(seen) == len(set(seen))
        assert not limit or len(seen) <= limit
        return set(seen)

    alone, together = results(shared=False), results(shared=True)
    assert [len(each) for each in together] == [len(each) for each in alone]
    if not limit:
        assert together == alone


def published(seed: int) -> tuple[TestNetwork, list[Node]]:
    """A small network in which five peers provide the key."""
    network, nodes = grown(14, seed=seed, config=DhtConfig(k=4, alpha=3))
    for node in nodes[2:7]:
        done = network.ask(node, lambda query: Provide(query, KEY))
        assert isinstance(done, QueryDone)
    return network, nodes
