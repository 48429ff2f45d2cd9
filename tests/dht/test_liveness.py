"""The routing table stays true: who enters it and leaves it, by single events."""

from __future__ import annotations

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Cancel, FindClosest, Join
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import (
    FindNode,
    FoundNodes,
)
from swarmp2p.engine import PeerInfo, PeerUp, Speaks, Undeliverable
from swarmp2p.identity import PeerId

from .network import address, peer_id, peer_info
from .single import Single, infos, introduced, only, receivers, requests

KEY = b"\x12\x20" + bytes(32)
NEAREST = sorted(range(1, 60), key=lambda number: peer_key(peer_id(number)) ^ key_id(KEY))


def ids(*numbers: int) -> list[PeerId]:
    return [peer_id(number) for number in numbers]


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


def test_a_neighbour_that_closes_again_and_again_is_asked_more_and_more_rarely() -> None:
    single = Single(DhtConfig(refresh_interval_s=3000.0))
    single.meet(1)

    def closes_after(seconds: float) -> bool:
        """Whether it is asked when it closes so long after its last answer; it answers."""
        single.wait(seconds)
        probes = requests(single.down(1), FindNode)
        single.up(1)
        for _, probe in probes:
            single.hear(1, FoundNodes(probe.id, ()))
        return bool(probes)

    asked = [closes_after(20.0) for _ in range(60)]
    assert [place for place, was_asked in enumerate(asked) if was_asked] == [0, 2, 5, 11, 23, 47]
    single.wait(3000.0)
    assert closes_after(20.0)  # and anew after a quiet time


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
