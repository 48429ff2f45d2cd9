"""Requests and queries by single events: who enters the table, who is asked, what silence and failures do."""

from __future__ import annotations

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Cancel, FindClosest, Join, QueryDone
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import (
    FindNode,
    FoundNodes,
    Pong,
    ProviderEcho,
)
from swarmp2p.engine import Introduce, PeerInfo, PeerUp, Reply, Request, Send, Speaks, Undeliverable
from swarmp2p.identity import PeerId

from .network import address, peer_id, peer_info
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


def test_where_there_is_no_room_newcomers_are_probed_now_and_then_and_breed_no_probes() -> None:
    own = peer_key(peer_id(0))
    near, nearest = sorted(range(1, 60), key=lambda n: peer_key(peer_id(n)) ^ own)[:2]
    far = [number for number in range(1, 60) if (peer_key(peer_id(number)) ^ own) >> 255]
    single = Single(DhtConfig(k=2))
    single.meet(near, nearest, far[0], far[1])
    probe = only(single.up(far[2]), FindNode)
    assert receivers(single.hear(far[2], FoundNodes(probe.id, ()))) == []  # nor is the oldest asked, so soon
    assert receivers(single.up(far[3])) == []
    single.wait(10.0)
    assert receivers(single.up(far[4])) == ids(far[4])
    assert receivers(single.up(far[5])) == []


def test_a_peer_that_is_being_asked_is_not_probed_when_it_connects() -> None:
    single = Single()
    single.post(Join(1, infos(5)))
    assert receivers(single.up(5)) == []


def test_a_full_bucket_has_its_oldest_peer_asked_when_a_new_one_comes() -> None:
    own = peer_key(peer_id(0))
    near, nearest = sorted(range(1, 60), key=lambda n: peer_key(peer_id(n)) ^ own)[:2]
    far = [number for number in range(1, 60) if (peer_key(peer_id(number)) ^ own) >> 255]
    single = Single(DhtConfig(k=2))
    single.meet(near, nearest, far[0], far[1])
    single.wait(301.0)  # half a refresh: until then each of the table counts as alive
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


def test_for_a_peer_that_is_late_the_next_is_asked_and_its_answer_counts() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(*NEAREST[:3])
    started = single.post(FindClosest(7, KEY))
    assert receivers(started) == ids(NEAREST[0])
    assert single.wait(0.02) == []
    later = single.wait(0.01)  # a quarter of min_timeout_s, since probes were answered at once
    assert receivers(later) == ids(NEAREST[1])
    last = single.hear(NEAREST[1], FoundNodes(only(later, FindNode).id, ()))
    assert (
        ended(single.hear(NEAREST[2], FoundNodes(only(last, FindNode).id, ()))) == []
    )  # it waits for the first
    done = ended(single.hear(NEAREST[0], FoundNodes(only(started, FindNode).id, ())))
    assert done == [QueryDone(7, closest=infos(*NEAREST[:3]), asked=3)]


def test_a_peer_that_is_silent_for_its_time_out_is_passed_over() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(*NEAREST[:2])
    started = single.post(FindClosest(7, KEY))
    assert receivers(started) == ids(NEAREST[0])
    later = single.wait(0.03)
    assert ended(single.hear(NEAREST[1], FoundNodes(only(later, FindNode).id, ()))) == []
    assert single.wait(0.06) == []
    assert ended(single.wait(0.02)) == [QueryDone(7, closest=infos(NEAREST[1]), asked=2, failed=1)]


def test_the_first_answers_tell_how_long_those_asked_with_them_may_take() -> None:
    """Else the first lookup of a new peer would wait a second for each dead one."""
    single = Single()
    asked = dict(requests(single.post(Join(1, infos(1, 2))), FindNode))
    assert single.engine.deadline() == 1000.0 + 2.0  # they must be dialled
    single.wait(0.2)
    single.up(1)
    single.hear(1, FoundNodes(asked[peer_id(1)].id, ()))
    assert single.engine.deadline() == pytest.approx(1000.0 + 0.25)


def test_the_first_time_out_is_longer_for_a_peer_that_must_be_dialled() -> None:
    single = Single()
    single.post(Join(1, infos(1, 2)))
    single.up(1)
    assert single.engine.deadline() == 1000.0 + 2.0


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
    assert ids(NEAREST[2])[0] in receivers(single.down(NEAREST[0]))


def test_requests_that_come_back_fail_at_once_and_the_query_goes_on() -> None:
    single = Single(DhtConfig(alpha=1))
    single.meet(*range(1, 4))
    ((first, request),) = requests(single.post(FindClosest(1, KEY)), FindNode)
    number = next(number for number in range(1, 4) if peer_id(number) == first)
    outputs = single.undeliverable(number, request)
    second, _ = next((to, find) for to, find in requests(outputs, FindNode) if find.key == KEY)
    assert second != first
    assert single.engine.table.is_suspect(first)
    assert single.undeliverable(number, request) == []  # once is enough


def test_who_does_not_speak_the_protocol_leaves_the_table_and_is_a_client() -> None:
    single = Single()
    single.meet(1)
    assert single.undeliverable(1, unsupported=True) == []
    assert len(single.engine.table) == 0
    single.down(1)
    assert receivers(single.up(1)) == []
    single.down(1)
    single.wait(130.0)
    assert receivers(single.up(1)) == [peer_id(1)]


def test_a_probe_that_comes_back_makes_room_for_another() -> None:
    single = Single(DhtConfig(max_probes=1))
    probe = only(single.up(1), FindNode)
    assert receivers(single.up(2)) == []
    single.undeliverable(1, probe, unsupported=True)
    assert receivers(single.up(3)) == [peer_id(3)]


def test_a_request_for_a_record_that_comes_back_says_nothing_about_the_dht() -> None:
    single = Single()
    single.meet(1)
    single.post(Undeliverable(peer_id(1), "record", (99,), unsupported=True))
    assert peer_id(1) in single.engine.table


def test_a_peer_that_says_it_is_a_client_leaves_and_a_server_is_probed_at_once() -> None:
    single = Single()
    single.meet(1)
    assert single.post(Speaks(peer_id(1), "dht", serving=False)) == []
    assert len(single.engine.table) == 0
    probe = only(single.post(Speaks(peer_id(1), "dht", serving=True)), FindNode)
    single.hear(1, FoundNodes(probe.id, ()))
    assert peer_id(1) in single.engine.table


def test_a_closed_connection_without_requests_is_no_fault() -> None:
    single = Single()
    single.meet(1)
    single.down(1)
    assert single.engine.table.snapshot()[0].failures == 0


def test_a_neighbour_whose_connection_closes_is_asked_at_once_whether_it_is_there() -> None:
    single = Single()
    single.meet(1)
    single.wait(20.0)
    probe = only(single.down(1), FindNode)
    assert peer_id(1) in single.engine.table
    single.up(1)
    single.hear(1, FoundNodes(probe.id, ()))
    assert single.engine.table.snapshot()[0].failures == 0
    assert single.down(1) == []  # it does not want the connection, but it is there


def test_others_whose_connection_closes_are_asked_at_the_next_refresh() -> None:
    single = Single(DhtConfig(k=2))
    far, *near = sorted(range(1, 30), key=lambda n: -(peer_key(peer_id(n)) ^ peer_key(peer_id(0))))
    single.meet(far, *near[-2:])
    assert single.down(far) == []
    asked: list[PeerId] = []
    while not asked:
        asked = receivers(single.wait_for_requests(700.0))
    assert peer_id(far) in asked
    assert single.engine.table.snapshot()[0].failures == 0


def test_a_suspect_that_connects_is_asked_at_once_and_is_in_again() -> None:
    single = Single()
    single.meet(1, 2)
    single.post(FindClosest(7, KEY))
    single.down(1)
    assert single.engine.table.is_suspect(peer_id(1))
    probe = only(single.up(1), FindNode)
    single.hear(1, FoundNodes(probe.id, ()))
    assert not single.engine.table.is_suspect(peer_id(1))


def test_neighbours_named_in_the_answer_to_a_probe_are_asked_too() -> None:
    single = Single()
    probe = only(single.up(1), FindNode)
    named = FoundNodes(probe.id, (*infos(2, 3, 0), PeerInfo(peer_id(4))))
    assert receivers(single.hear(1, named)) == ids(2, 3)


def test_when_a_neighbour_fails_others_are_asked_who_is_near_now() -> None:
    single = Single(DhtConfig(k=4))
    single.meet(1, 2, 3, 4, 5, 6)
    single.wait(20.0)
    nearest = [info.peer for info in single.engine.table.closest(peer_key(peer_id(0)), 4)]
    (gone,) = [n for n in range(1, 7) if peer_id(n) == nearest[0]]
    single.down(gone)  # asked at once whether it is there
    outputs = single.down(gone)  # it is not
    assert receivers(outputs) == nearest[1:]
    assert {request.key for _, request in requests(outputs, FindNode)} == {peer_id(0)}


def test_a_lost_neighbour_that_asks_us_over_a_standing_connection_is_taken_in_again() -> None:
    single = Single(DhtConfig(max_failures=1, client_s=30.0, refresh_interval_s=1e6))
    single.meet(1, 2)
    single.post(FindClosest(7, KEY))
    single.wait(11.0)  # neither answers
    assert len(single.engine.table) == 0
    probe = only(single.hear(1, FindNode(9, bytes(peer_id(1)))), FindNode)
    single.hear(1, FoundNodes(probe.id, ()))
    assert peer_id(1) in single.engine.table


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


def test_a_lookup_that_finds_its_peers_too_far_apart_asks_others_too() -> None:
    single = Single(DhtConfig(k=2))
    single.meet(NEAREST[0])
    size = single.engine.network_size
    for region in range(8):  # a network of very many
        target = peer_key(peer_id(region)) ^ 1
        size.learn(target, [peer_info(region)] * 2, single.now)
    assert (size.estimate(single.now) or 0.0) > 1e6
    outputs, asked = single.post(FindClosest(1, KEY)), list[PeerId]()
    while not (done := ended(outputs)):
        sent = requests(outputs, FindNode)
        asked += [to for to, _ in sent]
        outputs = [
            output
            for to, request in sent
            for output in single.hear(
                next(number for number in NEAREST if peer_id(number) == to),
                FoundNodes(request.id, infos(*NEAREST[1:10])),
            )
        ]
    assert done[0].closest == infos(*NEAREST[:2])
    assert asked == ids(*NEAREST[:6]), "three times k, instead of k"
