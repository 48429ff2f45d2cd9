"""RoutingTable by hand-made cases, and against plain models."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.keys import bucket_index, key_id, peer_key
from swarmp2p.dht.routing import RoutingTable
from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId

from .network import address, peer_id, peer_info

OWN = peer_key(peer_id(0))


def numbers_in_bucket(bucket: int, count: int) -> list[int]:
    """Peers whose ids share exactly `bucket` bits with peer 0's."""
    found: list[int] = []
    number = 1
    while len(found) < count:
        if bucket_index(OWN, peer_key(peer_id(number))) == bucket:
            found.append(number)
        number += 1
    return found


def with_neighbours(k: int, per_group: int = 2) -> tuple[RoutingTable, list[int]]:
    """A table that knows k peers near the own id, so that no other is a neighbour; and those peers."""
    table = RoutingTable(OWN, k=k, per_group=per_group)
    neighbours = numbers_in_bucket(4, k)
    for number in neighbours:
        heard(table, number, 0.0)
    return table, neighbours


def banished(table: RoutingTable, number: int, now: float) -> bool:
    return table.banished([peer_info(99), peer_info(number)], now) == [peer_id(number)]


def own_distance(number: int) -> int:
    return peer_key(peer_id(number)) ^ OWN


def heard(table: RoutingTable, number: int, now: float, at: bytes | None = None) -> PeerInfo | None:
    """A peer answered."""
    if table.seen(peer_id(number), now):
        return None
    return table.add(PeerInfo(peer_id(number), (at or address(number),)), now)


def numbers(table: RoutingTable) -> list[int]:
    known = {peer_id(number): number for number in range(2000)}
    return [known[entry.peer] for entry in table.snapshot()]


def test_peers_that_answered_are_kept_with_bucket_and_times() -> None:
    table = RoutingTable(OWN)
    heard(table, 7, 1.0)
    heard(table, 7, 5.0)
    (entry,) = table.snapshot()
    assert (entry.peer, entry.addresses, entry.added, entry.seen) == (peer_id(7), (address(7),), 1.0, 5.0)
    assert entry.bucket == bucket_index(OWN, peer_key(peer_id(7)))
    assert peer_id(7) in table
    assert len(table) == 1
    assert table.get(peer_id(7)) == peer_info(7)
    assert table.get(peer_id(8)) is None


def test_neither_the_own_id_nor_a_peer_without_address_enters() -> None:
    table = RoutingTable(OWN)
    heard(table, 0, 1.0)
    table.add(PeerInfo(peer_id(3)), 1.0)
    assert len(table) == 0
    assert not table.wants(peer_info(0))
    assert not table.wants(PeerInfo(peer_id(3)))


def test_a_full_bucket_keeps_its_old_peers_and_names_the_one_to_ask() -> None:
    """Kademlia §2.2: least-recently seen eviction, except that live nodes are never removed."""
    table, near = with_neighbours(3)
    a, b, c, newcomer = numbers_in_bucket(0, 4)
    for now, number in enumerate((a, b, c, a)):
        heard(table, number, now)
    assert heard(table, newcomer, 9.0) == peer_info(b)
    assert sorted(numbers(table)) == sorted([*near, a, b, c])
    assert table.wants(peer_info(numbers_in_bucket(0, 5)[4]))


def test_the_k_nearest_of_all_are_known_even_when_their_bucket_is_full() -> None:
    table = RoutingTable(OWN, k=3)
    farthest, *others, nearest = sorted(numbers_in_bucket(0, 8), key=own_distance, reverse=True)
    for number in others:
        heard(table, number, 1.0)
    others.reverse()
    assert sorted(numbers(table)) == sorted(others[:3])
    bucket = table._buckets[0]  # pyright: ignore[reportPrivateUsage]
    assert set(bucket.spares) == {peer_key(peer_id(n)) for n in others[3:]}
    assert not table.wants(peer_info(farthest))
    assert table.wants(peer_info(nearest))
    heard(table, nearest, 2.0)
    assert sorted(numbers(table)) == sorted([nearest, *others[:2]])
    assert peer_key(peer_id(others[2])) in bucket.spares


def test_when_a_peer_leaves_the_spare_seen_last_takes_its_place() -> None:
    """Kademlia §4.1: the replacement cache."""
    table, near = with_neighbours(2)
    a, b, c, d = numbers_in_bucket(0, 4)
    for number in (a, b, c, d):
        heard(table, number, 1.0)
    assert table.failed(peer_id(a), 2.0)
    heard(table, b, 3.0)
    assert not table.failed(peer_id(a), 4.0)
    assert sorted(numbers(table)) == sorted([*near, b, d])


def test_spares_are_bounded_and_more_are_not_wanted() -> None:
    table, _ = with_neighbours(2)
    in_bucket = numbers_in_bucket(0, 6)
    for number in in_bucket[:4]:
        heard(table, number, 1.0)
    assert not table.wants(peer_info(in_bucket[4]))
    heard(table, in_bucket[4], 1.0)  # known by an answer all the same
    bucket = table._buckets[0]  # pyright: ignore[reportPrivateUsage]
    assert [entry.info for entry in bucket.spares.values()] == [peer_info(n) for n in in_bucket[2:4]]
    heard(table, in_bucket[2], 2.0)
    heard(table, in_bucket[4], 3601.0)  # the first has not been seen for an hour
    assert [entry.info for entry in bucket.spares.values()] == [
        peer_info(in_bucket[2]),
        peer_info(in_bucket[4]),
    ]


def test_a_failed_peer_is_a_suspect_until_it_answers_or_fails_again() -> None:
    table = RoutingTable(OWN)
    heard(table, 1, 0.0)
    heard(table, 2, 0.0)
    assert table.failed(peer_id(1), 1.0)
    assert not table.failed(peer_id(1000), 1.0)  # unknown, in a bucket that is
    assert not table.failed(peer_id(0), 1.0)
    assert peer_id(1) in table
    assert [info.peer for info in table.closest(OWN, 20)] == [peer_id(2)]
    assert len(table.closest(OWN, 20, suspects=True)) == 2
    heard(table, 1, 2.0)
    assert len(table.closest(OWN, 20)) == 2
    assert table.failed(peer_id(1), 3.0)
    heard(table, 2, 4.0)
    assert not table.failed(peer_id(1), 5.0)
    assert peer_id(1) not in table


def test_failures_do_not_count_while_nobody_at_all_answers() -> None:
    table = RoutingTable(OWN)
    for number in range(1, 9):
        heard(table, number, 0.0)
    for round in range(5):
        for number in range(1, 9):
            table.failed(peer_id(number), 10.0 + round)
    assert len(table) == 8
    assert table.closest(OWN, 20) == []
    assert len(table.closest(OWN, 20, suspects=True)) == 8


def test_a_peer_that_left_is_not_asked_for_a_while_doubling_each_time() -> None:
    table = RoutingTable(OWN, banish_s=60.0)
    table.banish(peer_info(1), 100.0)
    assert banished(table, 1, 159.0)
    assert not banished(table, 1, 160.0)
    table.banish(peer_info(1), 200.0)
    assert banished(table, 1, 319.0)
    assert not banished(table, 1, 320.0)
    for _ in range(20):
        table.banish(peer_info(1), 400.0)
    assert not banished(table, 1, 400.0 + 3600.0)
    heard(table, 1, 501.0)  # it answers: all is well
    assert not banished(table, 1, 501.0)
    table.banish(peer_info(2), 600.0)
    table.pardon(peer_id(2))
    assert not banished(table, 2, 600.0)


def test_who_was_not_where_somebody_named_it_is_worth_asking_elsewhere() -> None:
    table = RoutingTable(OWN)
    table.banish(PeerInfo(peer_id(1), (address(9),)), 100.0)
    assert table.banished([PeerInfo(peer_id(1), (address(9),))], 101.0) == [peer_id(1)]
    assert table.banished([PeerInfo(peer_id(1), (address(9), address(1)))], 101.0) == []
    table.banish(PeerInfo(peer_id(1), (address(1),)), 102.0)
    assert table.banished([PeerInfo(peer_id(1), (address(9), address(1)))], 103.0) == [peer_id(1)]


def test_a_peer_that_leaves_the_table_is_banished() -> None:
    table = RoutingTable(OWN)
    heard(table, 1, 1.0)
    table.failed(peer_id(1), 2.0)
    heard(table, 2, 3.0)
    assert not banished(table, 1, 3.0)
    table.failed(peer_id(1), 4.0)
    assert banished(table, 1, 4.0)


def test_a_peer_that_is_removed_makes_room_and_may_return() -> None:
    table, _ = with_neighbours(2)
    first, second, third = numbers_in_bucket(0, 3)
    for number in (first, second, third):
        heard(table, number, 1.0)
    table.remove(peer_id(first))
    assert {second, third} <= set(numbers(table))
    assert len(table) == 4
    table.remove(peer_id(first))
    assert not banished(table, first, 1.0)
    table.failed(peer_id(second), 2.0)  # a suspect
    table.remove(peer_id(second))
    assert len(table) == 3
    heard(table, first, 3.0)
    assert {first, third} <= set(numbers(table))


def test_peers_not_seen_lately_are_named_for_checking() -> None:
    table = RoutingTable(OWN)
    for number in range(1, 10):
        heard(table, number, float(number))
    assert {info.peer for info in table.not_seen_since(4.0, 100)} == {peer_id(n) for n in (1, 2, 3)}
    assert len(table.not_seen_since(9.5, 5)) == 5
    table.failed(peer_id(1), 20.0)
    assert peer_id(1) not in {info.peer for info in table.not_seen_since(9.5, 100)}


def test_the_banished_are_bounded() -> None:
    table = RoutingTable(OWN)
    for number in range(3000):
        table.banish(peer_info(number), 0.0)
    assert len(table._banished) == 1024  # pyright: ignore[reportPrivateUsage]


def test_at_most_two_public_peers_of_a_subnet_enter_a_bucket() -> None:
    table = RoutingTable(OWN)
    a, b, c, d = numbers_in_bucket(0, 4)
    (other,) = numbers_in_bucket(1, 1)
    for host, number in enumerate((a, b, c)):
        heard(table, number, 1.0, b"\x04\x08\x08\x08" + bytes([host]) + b"\x06\x0f\xa1")
    heard(table, d, 1.0, b"\x04\x08\x08\x09\x01\x06\x0f\xa1")
    heard(table, other, 1.0, b"\x04\x08\x08\x08\x09\x06\x0f\xa1")
    assert sorted(numbers(table)) == sorted([a, b, d, other])
    assert not table.wants(PeerInfo(peer_id(c), (b"\x04\x08\x08\x08\x07",)))


def test_a_subnet_does_not_come_in_through_the_spares() -> None:
    table, near = with_neighbours(2, per_group=1)
    a, b, c, d = numbers_in_bucket(0, 4)
    heard(table, a, 1.0, b"\x04\x08\x08\x08\x01")
    heard(table, b, 1.0)
    heard(table, d, 1.0)
    bucket = table._buckets[0]  # pyright: ignore[reportPrivateUsage]
    heard(table, c, 1.0, b"\x04\x08\x08\x09\x01")
    table.learn_addresses(PeerInfo(peer_id(a), (b"\x04\x08\x08\x09\x02",)))
    assert list(bucket.spares) == [peer_key(peer_id(d)), peer_key(peer_id(c))]
    table.failed(peer_id(b), 2.0)
    heard(table, a, 3.0)
    table.failed(peer_id(b), 4.0)
    assert sorted(numbers(table)) == sorted([*near, a, d])


def test_addresses_are_replaced_by_what_the_peer_says_itself() -> None:
    table = RoutingTable(OWN)
    heard(table, 1, 1.0)
    table.learn_addresses(PeerInfo(peer_id(1), (address(99),)))
    assert table.get(peer_id(1)) == PeerInfo(peer_id(1), (address(99),))
    table.learn_addresses(PeerInfo(peer_id(1)))
    table.learn_addresses(peer_info(2))
    assert table.get(peer_id(1)) == PeerInfo(peer_id(1), (address(99),))
    assert len(table) == 1


def test_the_radius_is_the_distance_of_the_kth_nearest() -> None:
    table = RoutingTable(OWN, k=4)
    for number in range(1, 4):
        heard(table, number, 1.0)
    assert table.radius() == 1 << 256
    for number in range(4, 60):
        heard(table, number, 1.0)
    known = sorted(peer_key(PeerId(entry.peer)) ^ OWN for entry in table.snapshot())
    assert table.radius() == known[3]
    assert table.radius() == known[3]


def test_buckets_not_looked_up_lately_are_stale() -> None:
    table = RoutingTable(OWN)
    for number in range(1, 40):
        heard(table, number, 1.0)
    assert table.stale_buckets(3, 100.0) == [0, 1, 2, 3]
    table.looked_up(peer_key(peer_id(numbers_in_bucket(1, 1)[0])), 150.0)
    assert table.stale_buckets(3, 100.0) == [0, 2, 3]
    assert table.stale_buckets(3, 200.0) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [0, 1, 5, 19, 20, 21, 200, 1000])
def test_closest_finds_the_nearest_of_all_that_are_in_the_table(size: int) -> None:
    table = RoutingTable(OWN)
    for number in range(1, size + 1):
        heard(table, number, 1.0)
    members = [entry.peer for entry in table.snapshot()]
    for target in [OWN, peer_key(peer_id(3)), *(key_id(b"target %d" % number) for number in range(30))]:
        expected = sorted(members, key=lambda peer: peer_key(peer) ^ target)
        for count in (1, 20, 25):
            assert [info.peer for info in table.closest(target, count)] == expected[:count]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["seen", "failed"]), st.integers(1, 40)), max_size=120),
    st.integers(1, 4),
    st.integers(0, 1 << 30),
)
def test_the_table_equals_a_plain_model(steps: list[tuple[str, int]], k: int, seed: int) -> None:
    """The model: a list of [peer, failures] for each bucket, and the spares in a second one."""
    table = RoutingTable(OWN, k=k)
    live: dict[int, list[list[int]]] = {}
    spares: dict[int, list[int]] = {}
    now = answered = 0.0
    failed_at: dict[int, float] = {}
    for step, number in steps:
        now += 1.0
        bucket = bucket_index(OWN, peer_key(peer_id(number)))
        members, waiting = live.setdefault(bucket, []), spares.setdefault(bucket, [])
        entry = next((entry for entry in members if entry[0] == number), None)
        if step == "seen":
            answered = now
            heard(table, number, now)
            if entry is not None:
                members.remove(entry)
                members.append([number, 0])
            elif len(members) < k:
                members.append([number, 0])
                if number in waiting:
                    waiting.remove(number)
            else:
                if number in waiting:
                    waiting.remove(number)
                healthy = sorted(
                    own_distance(n)
                    for of_bucket in live.values()
                    for n, failures in of_bucket
                    if not failures
                )
                radius = healthy[k - 1] if len(healthy) >= k else 1 << 256
                farthest = max((n for n, failures in members if not failures), key=own_distance, default=0)
                if own_distance(farthest) > own_distance(number) and own_distance(number) < radius:
                    members.remove([farthest, 0])
                    members.append([number, 0])
                    number = farthest
                    del waiting[: len(waiting) - k + 1]
                if len(waiting) < k:
                    waiting.append(number)
        else:
            table.failed(peer_id(number), now)
            if number in waiting:
                waiting.remove(number)
            if entry is None or (entry[1] and answered <= failed_at[number]):
                continue
            entry[1] += 1
            failed_at[number] = now
            if entry[1] == 2:
                members.remove(entry)
                if waiting:
                    members.append([waiting.pop(), 0])
    expected = {number: entry_failures for members in live.values() for number, entry_failures in members}
    known = {peer_id(number): number for number in range(1, 41)}
    assert {known[entry.peer]: entry.failures for entry in table.snapshot()} == expected
    assert len(table) == len(expected)
    assert all(len(members) <= k for members in live.values())
    target = Random(seed).getrandbits(256)
    nearest = sorted(
        (n for n, failures in expected.items() if not failures), key=lambda n: peer_key(peer_id(n)) ^ target
    )
    assert [known[info.peer] for info in table.closest(target, 20)] == nearest[:20]
    suspects = sorted(
        (n for n, failures in expected.items() if failures), key=lambda n: peer_key(peer_id(n)) ^ target
    )
    assert [known[i.peer] for i in table.closest(target, 20, suspects=True)] == (nearest + suspects)[:20]
