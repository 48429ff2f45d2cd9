"""The engine by single events: finding, joining, refreshing, and the contract of engines."""

from __future__ import annotations

import math
from random import Random

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Cancel,
    FindClosest,
    FindPeer,
    FindProviders,
    Join,
    QueryDone,
    Refresh,
    SetAddresses,
)
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.keys import bucket_index, key_id, peer_key
from swarmp2p.dht.messages import (
    FindNode,
    FoundNodes,
    FoundProviders,
    GetProviders,
    Ping,
    Pong,
    Provider,
)
from swarmp2p.engine import Located, PeerInfo, Reachable, Send, Serve, Tick
from swarmp2p.identity import PeerId

from .network import address, fake_sign, fake_verify, peer_id, peer_info
from .single import Single, ended, infos, introduced, only, receivers, requests

KEY = b"\x12\x20" + bytes(32)
NEAREST = sorted(range(1, 60), key=lambda number: peer_key(peer_id(number)) ^ key_id(KEY))


def ids(*numbers: int) -> list[PeerId]:
    return [peer_id(number) for number in numbers]


# Finding a peer -------------------------------------------------------------------------------------------


def test_a_peer_is_found_as_soon_as_anybody_names_it() -> None:
    single = Single()
    single.meet(1, 2)
    started = requests(single.post(FindPeer(7, peer_id(9))), FindNode)
    assert all(request.key == peer_id(9) for _, request in started)
    to, request = started[0]
    number = 1 if to == peer_id(1) else 2
    (done,) = ended(single.hear(number, FoundNodes(request.id, infos(5, 9))))
    assert done.peer == peer_info(9)


def test_a_connected_peer_a_known_one_and_oneself_are_found_without_asking() -> None:
    single = Single()
    single.up(1)
    single.meet(2)
    single.down(2)
    assert single.post(FindPeer(7, peer_id(1))) == [QueryDone(7, peer=peer_info(1))]
    assert single.post(FindPeer(8, peer_id(2))) == [QueryDone(8, peer=peer_info(2))]
    assert single.post(FindPeer(9, peer_id(0))) == [QueryDone(9, peer=peer_info(0))]


def test_a_peer_that_nobody_knows_is_not_found() -> None:
    single = Single()
    single.meet(1)
    request = only(single.post(FindPeer(7, peer_id(9))), FindNode)
    nowhere = FoundNodes(request.id, (PeerInfo(peer_id(9)),))
    assert ended(single.hear(1, nowhere)) == [QueryDone(7, closest=infos(1), asked=1)]


# Joining and refreshing -----------------------------------------------------------------------------------


def test_joining_looks_up_the_own_id_through_the_bootstrap_peers() -> None:
    single = Single()
    outputs = single.post(Join(7, infos(1, 2, 0)))
    assert introduced(outputs) == list(infos(1, 2)) or introduced(outputs) == list(infos(2, 1))
    assert sorted(receivers(outputs)) == sorted(ids(1, 2))
    assert {request.key for _, request in requests(outputs, FindNode)} == {peer_id(0)}


def test_a_join_that_reaches_nobody_says_so_and_is_tried_again_soon() -> None:
    single = Single(DhtConfig(retry_s=15.0))
    single.post(Join(7, infos(1, 2)))
    single.down(1)
    assert ended(single.down(2)) == [QueryDone(7, asked=2, failed=2)]
    assert sorted(receivers(single.wait(17.0))) == sorted(ids(1, 2))


def test_a_network_of_one_s_own_begins_at_once() -> None:
    single = Single()
    assert single.post(Join(7, ())) == [QueryDone(7)]


def test_bootstrap_peers_are_asked_again_with_each_refresh() -> None:
    """Two groups with the same bootstrap list merge (hivemind #624: they never did)."""
    single = Single()
    single.meet(3)
    for to, find in requests(single.post(Join(7, infos(1))), FindNode):
        if to == peer_id(3):
            single.hear(3, FoundNodes(find.id, ()))
    single.down(1)
    assert peer_id(1) not in single.engine.table
    assert peer_id(1) in receivers(single.wait(700.0))


def test_a_refresh_looks_up_the_own_id_then_random_keys_that_fall_into_their_buckets() -> None:
    single = Single(DhtConfig(k=2))
    own = peer_key(peer_id(0))
    everybody = list(range(1, 40))
    single.meet(*sorted(everybody, key=lambda n: peer_key(peer_id(n)) ^ own)[:2])
    waiting = requests(single.post(Refresh(7)), FindNode)
    keys: dict[bytes, None] = {}
    done: list[QueryDone] = []
    while waiting:
        to, request = waiting.pop(0)
        keys[bytes(request.key)] = None
        number = next(n for n in everybody if peer_id(n) == to)
        nearest = sorted(everybody, key=lambda n: peer_key(peer_id(n)) ^ key_id(request.key))[:2]
        outputs = single.hear(number, FoundNodes(request.id, infos(*nearest)))
        waiting += requests(outputs, FindNode)
        done += ended(outputs)
    order = list(keys)
    assert order[0] == peer_id(0)
    buckets = [256 - (key_id(key) ^ own).bit_length() for key in order[1:]]
    assert len(buckets) >= 2
    assert sorted(buckets) == list(range(len(buckets)))
    assert [output.query for output in done] == [7]
    assert done[0].closest
    assert done[0].asked >= len(keys)


def test_a_lookup_that_was_stopped_early_leaves_its_bucket_stale() -> None:
    single = Single()
    single.meet(6)
    assert bucket_index(peer_key(peer_id(0)), peer_key(peer_id(6))) == 0
    assert bucket_index(peer_key(peer_id(0)), peer_key(peer_id(9))) == 0
    single.now += 1.0
    request = only(single.post(FindPeer(7, peer_id(9))), FindNode)
    single.hear(6, FoundNodes(request.id, infos(9)))
    assert single.engine.table.stale_buckets(0, single.now) == [0]
    request = only(single.post(FindClosest(8, bytes(peer_id(9)))), FindNode)
    single.hear(6, FoundNodes(request.id, ()))
    assert single.engine.table.stale_buckets(0, single.now) == []


def test_when_only_suspects_are_left_they_are_asked() -> None:
    """The own line was down: the table is the way back."""
    single = Single()
    single.meet(1, 2)
    single.post(FindClosest(7, KEY))
    single.down(1)
    single.down(2)
    assert sorted(receivers(single.post(FindClosest(8, KEY)))) == sorted(ids(1, 2))


def test_when_fewer_than_k_peers_are_found_there_is_nothing_else_to_refresh() -> None:
    single = Single()
    single.meet(1, 2)
    outputs = single.post(Refresh(7))
    for to, request in requests(outputs, FindNode):
        outputs = single.hear(1 if to == peer_id(1) else 2, FoundNodes(request.id, infos(1, 2)))
    assert receivers(outputs) == []
    assert [output.query for output in ended(outputs)] == [7]


def test_the_table_is_refreshed_every_ten_minutes() -> None:
    single = Single()
    single.meet(1)
    assert receivers(single.wait(530.0)) == []
    assert peer_id(1) in receivers(single.wait(140.0))


def test_peers_that_were_not_heard_of_for_long_are_asked_at_the_refresh() -> None:
    single = Single(DhtConfig(k=20, stale_s=100.0))
    single.meet(*range(1, 31))
    before = len(single.engine.table)
    outputs = single.wait_for_requests(700.0)
    assert len(set(receivers(outputs))) == before == 30


def test_of_those_that_are_connected_the_network_tells_when_they_are_gone() -> None:
    single = Single(DhtConfig(k=20, stale_s=300.0))
    single.meet(*range(1, 31))
    assert len(receivers(single.wait_for_requests(700.0))) == 3  # the lookup of the own id


def test_a_refresh_does_not_ask_those_again_that_were_heard_of_lately() -> None:
    single = Single()
    nearest = sorted(range(1, 31), key=lambda n: peer_key(peer_id(n)) ^ peer_key(peer_id(0)))
    single.meet(*nearest)
    outputs = single.wait_for_requests(700.0)
    asked = receivers(outputs)
    for to, request in requests(outputs, FindNode):
        number = next(n for n in nearest if peer_id(n) == to)
        single.hear(number, FoundNodes(request.id, infos(*nearest[:20])))
    assert asked == [peer_id(number) for number in nearest[:3]]
    single.wait(1.0)
    assert single.engine.table.looked_up_at(0) <= single.now


# Time and contract ----------------------------------------------------------------------------------------


def test_an_early_tick_changes_nothing_even_as_the_first_event() -> None:
    fresh = Kademlia(peer_id(0), fake_sign(peer_id(0)), fake_verify, Random(1))
    assert fresh.deadline() == math.inf
    assert fresh.handle(Tick(), 5.0) == []
    assert fresh.deadline() == math.inf
    single = Single()
    single.meet(1)
    single.post(FindClosest(7, KEY))
    due = single.engine.deadline()
    for _ in range(3):
        assert single.post(Tick()) == []
        assert single.engine.deadline() == due


def test_a_connected_peer_is_named_where_it_says_that_it_is_now() -> None:
    single = Single()
    single.meet(1)
    single.up(2)
    single.hear(2, FoundNodes(1, ()))
    for number in (1, 2):
        single.post(Located(peer_id(number), (address(50 + number),)))
        (found,) = ended(single.post(FindPeer(7, peer_id(number))))
        assert found.peer == PeerInfo(peer_id(number), (address(50 + number),))
    single.post(Located(peer_id(3), (address(53),)))  # a stranger's word counts for nothing
    assert single.engine.table.get(peer_id(3)) is None
    (found,) = ended(single.post(FindPeer(8, peer_id(1))))
    assert found.peer is not None
    assert found.peer.peer == peer_id(1)


def test_a_peer_serves_as_long_as_others_can_reach_it() -> None:
    single = Single()
    assert single.post(Reachable(reachable=True)) == []
    assert single.post(Reachable(reachable=False)) == [Serve("dht", serving=False)]
    assert single.hear(1, Ping(2)) == []
    assert single.post(Reachable(reachable=False)) == []
    assert single.post(Reachable(reachable=True)) == [Serve("dht", serving=True)]
    assert single.hear(1, Ping(3)) == [Send(peer_id(1), Pong(3))]


@pytest.mark.parametrize("server", [True, False])
def test_a_mode_that_was_asked_for_stays(server: bool) -> None:
    engine = Kademlia(peer_id(0), fake_sign(peer_id(0)), fake_verify, Random(1), DhtConfig(server=server))
    assert engine.handle(SetAddresses(()), 0.0) == ([] if server else [Serve("dht", serving=False)])
    assert engine.handle(Reachable(not server), 0.0) == []
    assert engine.serving == server


def test_a_client_answers_nothing() -> None:
    single = Single(DhtConfig(server=False))
    single.meet(1)
    assert single.hear(1, FindNode(1, KEY)) == single.hear(1, Ping(2)) == []
    assert receivers(single.post(FindClosest(7, KEY))) == [peer_id(1)]


def test_found_providers_come_as_they_are_known_each_once() -> None:
    single = Single()
    single.meet(*NEAREST[:3])
    started = requests(single.post(FindProviders(7, KEY, 2)), GetProviders)
    assert len(started) == 3
    provider = Provider(peer_id(50), (address(50),))
    first = single.hear(NEAREST[0], FoundProviders(started[0][1].id, KEY, (provider, provider), ()))
    assert [type(output).__name__ for output in first] == ["ProviderFound"]
    again = single.hear(NEAREST[1], FoundProviders(started[1][1].id, KEY, (provider,), ()))
    assert again == []
    other = Provider(peer_id(51), (address(51),))
    third = Provider(peer_id(52), (address(52),))
    last = single.hear(NEAREST[2], FoundProviders(started[2][1].id, KEY, (other, third), infos(40)))
    assert [type(output).__name__ for output in last] == ["ProviderFound", "QueryDone"]
    assert receivers(last) == []  # the limit is reached: nobody else is asked


def test_a_cancelled_refresh_looks_up_nothing_more_and_says_nothing() -> None:
    single = Single(DhtConfig(k=2))
    nearest = sorted(range(1, 40), key=lambda n: peer_key(peer_id(n)) ^ peer_key(peer_id(0)))
    single.meet(*nearest[:2])
    waiting = requests(single.post(Refresh(7)), FindNode)
    assert waiting
    single.post(Cancel(7))
    for to, request in waiting:
        number = next(n for n in nearest if peer_id(n) == to)
        outputs = single.hear(number, FoundNodes(request.id, infos(*nearest[:2])))
        assert requests(outputs, FindNode) == []
        assert ended(outputs) == []
