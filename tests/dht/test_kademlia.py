"""The engine by single events: who is asked, who enters the table, what time does."""

from __future__ import annotations

import math
from random import Random

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Cancel, FindClosest, FindPeer, FindProviders, Join, QueryDone, Refresh
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
    ProviderEcho,
)
from swarmp2p.engine import Introduce, PeerInfo, PeerUp, Reply, Request, Send, Tick
from swarmp2p.identity import PeerId

from .network import address, fake_sign, fake_verify, peer_id, peer_info
from .single import Single, ended, infos, introduced, only, receivers, requests

KEY = b"\x12\x20" + bytes(32)
NEAREST = sorted(range(1, 60), key=lambda number: peer_key(peer_id(number)) ^ key_id(KEY))


def ids(*numbers: int) -> list[PeerId]:
    return [peer_id(number) for number in numbers]


# Who enters the table -------------------------------------------------------------------------------------


def test_a_new_connection_is_probed_and_enters_when_it_answers() -> None:
    single = Single()
    ((to, probe),) = requests(single.up(1), FindNode)
    assert (to, probe.key) == (peer_id(1), peer_id(0))
    assert len(single.engine.table) == 0
    single.hear(1, FoundNodes(probe.id, ()))
    assert [(e.peer, e.addresses) for e in single.engine.table.snapshot()] == [(peer_id(1), (address(1),))]


def test_a_client_that_only_asks_does_not_enter() -> None:
    single = Single()
    single.up(1)
    reply = only(single.hear(1, FindNode(5, KEY)), FoundNodes)
    assert reply == FoundNodes(5, ())
    single.wait(11.0)
    assert len(single.engine.table) == 0
    assert receivers(single.up(1)) == []  # nor is it probed again with each connection
    single.wait(120.0)
    assert receivers(single.up(1)) == [peer_id(1)]


def test_a_peer_without_address_is_not_probed_until_it_names_one() -> None:
    single = Single()
    assert single.post(PeerUp(peer_id(1))) == []
    assert receivers(single.up(1)) == [peer_id(1)]


def test_a_peer_of_the_table_is_not_probed_again_and_may_move() -> None:
    single = Single()
    single.meet(1)
    single.down(1)
    assert receivers(single.post(PeerUp(peer_id(1), (address(9),)))) == []
    assert single.engine.table.get(peer_id(1)) == PeerInfo(peer_id(1), (address(9),))


def test_probes_under_way_are_bounded() -> None:
    single = Single(DhtConfig(max_probes=3))
    assert len([to for number in range(1, 10) for to in receivers(single.up(number))]) == 3


def test_a_full_bucket_has_its_oldest_peer_asked_when_a_new_one_comes() -> None:
    own = peer_key(peer_id(0))
    near, nearest = sorted(range(1, 60), key=lambda n: peer_key(peer_id(n)) ^ own)[:2]
    far = [number for number in range(1, 60) if (peer_key(peer_id(number)) ^ own) >> 255]
    single = Single(DhtConfig(k=2))
    single.meet(near, nearest, far[0], far[1])
    probe = only(single.up(far[2]), FindNode)
    assert receivers(single.hear(far[2], FoundNodes(probe.id, ()))) == ids(far[0])
    assert peer_id(far[2]) not in single.engine.table
    single.down(far[0])  # the probe fails: it is a suspect
    failed = single.wait(20.0)  # and is asked again
    assert receivers(failed)[0] == peer_id(far[0])
    assert peer_id(far[0]) in single.engine.table
    single.down(far[0])
    assert peer_id(far[0]) in single.engine.table  # as long as nobody else has answered since
    ((to, witness),) = requests(failed, FindNode)[1:]
    assert to == peer_id(far[1])
    single.hear(far[1], FoundNodes(witness.id, ()))
    again = single.wait(16.0)
    assert receivers(again)[0] == peer_id(far[0])
    single.down(far[0])
    assert peer_id(far[0]) not in single.engine.table
    assert peer_id(far[2]) in single.engine.table


# Lookups --------------------------------------------------------------------------------------------------


def test_a_lookup_asks_the_nearest_introduces_those_it_heard_of_and_reports() -> None:
    single = Single()
    a, b = NEAREST[0], NEAREST[1]
    single.meet(b)
    first = single.post(FindClosest(7, KEY))
    ((to, request),) = requests(first, FindNode)
    assert (to, request.key) == (peer_id(b), KEY)
    assert introduced(first) == []  # it is connected
    second = single.hear(b, FoundNodes(request.id, infos(a, b, 0)))
    assert introduced(second) == [peer_info(a)]
    assert receivers(second) == ids(a)
    assert isinstance(second[0], Introduce)
    assert isinstance(second[1], Send)
    last = single.hear(a, FoundNodes(only(second, FindNode).id, infos(b)))
    assert last == [QueryDone(7, closest=infos(a, b), asked=2)]
    assert peer_id(a) in single.engine.table


def test_an_introduction_is_not_repeated_until_the_peer_was_lost() -> None:
    single = Single()
    single.post(Join(1, infos(5)))
    assert introduced(single.post(FindClosest(2, KEY))) == []
    single.down(5)
    assert introduced(single.post(FindClosest(3, KEY))) == [peer_info(5)]


def test_alpha_requests_are_in_flight_and_each_answer_lets_the_next_go() -> None:
    single = Single(DhtConfig(alpha=3))
    single.meet(*NEAREST[:8])
    started = single.post(FindClosest(7, KEY))
    assert receivers(started) == ids(*NEAREST[:3])
    (_, request), *_ = requests(started, FindNode)
    assert receivers(single.hear(NEAREST[0], FoundNodes(request.id, ()))) == ids(NEAREST[3])


def test_a_peer_that_is_silent_for_its_time_out_is_passed_over() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(*NEAREST[:2])
    started = single.post(FindClosest(7, KEY))
    assert receivers(started) == ids(NEAREST[0])
    assert single.wait(0.2) == []
    later = single.wait(0.2)  # min_timeout_s, since probes were answered at once
    assert receivers(later) == ids(NEAREST[1])
    # and its late answer counts
    single.hear(NEAREST[0], FoundNodes(only(started, FindNode).id, ()))
    done = ended(single.hear(NEAREST[1], FoundNodes(only(later, FindNode).id, ())))
    assert done == [QueryDone(7, closest=infos(*NEAREST[:2]), asked=2)]


def test_the_first_time_out_is_longer_for_a_peer_that_must_be_dialled() -> None:
    single = Single()
    single.post(Join(1, infos(1, 2)))
    single.up(1)
    assert single.engine.deadline() == 1000.0 + 4.0


def test_a_request_that_is_never_answered_fails_in_the_end() -> None:
    single = Single()
    single.meet(1, 2)
    started = single.post(FindClosest(7, KEY))
    assert len(receivers(started)) == 2
    late = next(request for to, request in requests(started, FindNode) if to == peer_id(1))
    done = ended(single.wait(11.0))
    assert done == [QueryDone(7, asked=2, failed=2)]
    assert single.hear(1, FoundNodes(late.id, infos(3))) == []


def test_a_peer_that_goes_down_fails_its_requests_at_once() -> None:
    single = Single(DhtConfig(alpha=2))
    single.meet(*NEAREST[:3])
    single.post(FindClosest(7, KEY))
    assert receivers(single.down(NEAREST[0])) == ids(NEAREST[2])


def test_a_closed_connection_without_requests_is_no_fault() -> None:
    single = Single()
    single.meet(1)
    assert single.down(1) == []
    assert single.engine.table.snapshot()[0].failures == 0


def test_a_suspect_is_asked_again_and_leaves_when_it_fails_again() -> None:
    single = Single()
    single.meet(1, 2)
    single.post(FindClosest(7, KEY))
    single.down(1)
    assert {e.peer: e.failures for e in single.engine.table.snapshot()} == {peer_id(1): 1, peer_id(2): 0}
    single.wait(1.0)
    single.meet(3)  # somebody answers: it is not our own line that is down
    outputs = single.wait(14.5)
    assert peer_id(1) in receivers(outputs)
    assert introduced(outputs) == [peer_info(1)]
    single.down(1)
    assert peer_id(1) not in single.engine.table


def test_a_reply_of_the_wrong_kind_is_a_failure() -> None:
    single = Single()
    single.meet(1)
    request = only(single.post(FindClosest(7, KEY)), FindNode)
    assert ended(single.hear(1, Pong(request.id))) == [QueryDone(7, asked=1, failed=1)]


def test_replies_that_nobody_waits_for_change_nothing() -> None:
    single = Single()
    single.meet(1, 2)
    started = requests(single.post(FindClosest(7, KEY)), FindNode)
    (to, request), _ = started
    other = 1 if to == peer_id(2) else 2
    assert single.hear(other, FoundNodes(request.id, infos(9))) == []  # another's request
    assert single.hear(1, FoundNodes(99_999, infos(9))) == []
    assert single.hear(1, ProviderEcho()) == []
    assert single.hear(1, Reply(request.id + 50)) == []
    assert single.hear(1, Request(5)) == []
    assert peer_id(9) not in single.engine.table


def test_a_query_ends_after_its_time_with_what_it_has() -> None:
    single = Single(DhtConfig(query_timeout_s=5.0, request_timeout_s=100.0))
    single.meet(*NEAREST[:2])
    single.post(FindClosest(7, KEY))
    assert single.wait(4.9) == []
    assert single.wait(0.2) == [QueryDone(7, asked=2, failed=2)]


def test_a_cancelled_query_sends_and_says_nothing_more_but_its_answers_teach() -> None:
    single = Single()
    single.meet(NEAREST[1])
    request = only(single.post(FindClosest(7, KEY)), FindNode)
    heard = only(single.hear(NEAREST[1], FoundNodes(request.id, infos(NEAREST[0]))), FindNode)
    assert single.post(Cancel(7)) == []
    assert single.hear(NEAREST[0], FoundNodes(heard.id, infos(NEAREST[5]))) == []
    assert peer_id(NEAREST[0]) in single.engine.table
    assert ended(single.wait(100.0)) == []
    assert single.post(Cancel(7)) == []


def test_queries_are_bounded_and_one_too_many_ends_at_once() -> None:
    single = Single(DhtConfig(max_queries=2))
    single.meet(1)
    assert ended(single.post(FindClosest(1, KEY))) == ended(single.post(FindClosest(2, KEY))) == []
    assert single.post(FindClosest(3, KEY)) == [QueryDone(3)]


def test_with_nobody_known_a_query_ends_at_once() -> None:
    assert Single().post(FindClosest(7, KEY)) == [QueryDone(7)]


def test_a_connected_peer_that_is_not_in_the_table_yet_is_a_beginning() -> None:
    single = Single()
    single.up(1)
    assert receivers(single.post(FindClosest(7, KEY))) == [peer_id(1)]


def test_a_peer_that_could_not_be_reached_is_not_asked_on_hearsay_for_a_while() -> None:
    single = Single(DhtConfig(banish_s=60.0))
    single.meet(1)

    def named() -> list[PeerId]:
        """Who is asked when peer 1 names peer 9."""
        request = only(single.post(FindClosest(7, KEY)), FindNode)
        single.wait(0.01)
        outputs = single.hear(1, FoundNodes(request.id, infos(9)))
        single.post(Cancel(7))
        return receivers(outputs)

    assert named() == ids(9)
    single.wait(0.01)
    request = only(single.post(FindClosest(8, KEY)), FindNode)
    single.wait(0.01)
    single.hear(1, FoundNodes(request.id, ()))  # somebody answers: it is not our own line
    single.down(9)
    assert named() == []
    assert receivers(single.post(Join(9, infos(9))))[-1] == peer_id(9)  # the application knows better
    single.up(9)
    assert named() == ids(9)
    single.down(9)
    single.wait(61.0)
    assert named() == ids(9)


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


def test_peers_that_no_lookup_came_across_are_asked_at_the_refresh() -> None:
    single = Single(DhtConfig(k=20))
    single.meet(*range(1, 31))
    before = len(single.engine.table)
    outputs = single.wait_for_requests(700.0)
    assert len(set(receivers(outputs))) == before == 30


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
