"""Requests and queries by single events: who is asked, what silence and failures do."""

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
from swarmp2p.engine import Introduce, Reply, Request, Send
from swarmp2p.identity import PeerId

from .network import peer_id, peer_info
from .single import Single, ended, infos, introduced, only, receivers, requests

KEY = b"\x12\x20" + bytes(32)
NEAREST = sorted(range(1, 60), key=lambda number: peer_key(peer_id(number)) ^ key_id(KEY))


def ids(*numbers: int) -> list[PeerId]:
    return [peer_id(number) for number in numbers]


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
