"""What an attacker who connects again and again gets of a routing table."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.keys import bucket_index, peer_key
from swarmp2p.dht.routing import RoutingTable
from swarmp2p.engine import PeerInfo

from .network import peer_id, peer_info
from .test_routing import OWN, heard, numbers, numbers_in_bucket, with_neighbours


def at(subnet: int, host: int) -> bytes:
    """/ip4/9.9.subnet.host"""
    return bytes([4, 9, 9, subnet, host]) + b"\x06\x0f\xa1"


def spares(table: RoutingTable, bucket: int) -> list[PeerInfo]:
    kept = table._buckets[bucket].spares  # pyright: ignore[reportPrivateUsage]
    return [entry.info for entry in kept.values()]


def test_thousands_of_fresh_ids_displace_nobody() -> None:
    table = RoutingTable(OWN)
    honest = range(1, 301)
    for number in honest:
        heard(table, number, 0.0)
    before = {entry.peer for entry in table.snapshot()}
    radius = table.radius()
    for number in range(1_000, 4_000):
        heard(table, number, 1.0 + number)
    after = {entry.peer for entry in table.snapshot()}
    gone = before - after
    assert all(bucket_index(OWN, peer_key(peer)) >= 3 for peer in gone), "only for nearer neighbours"
    assert len(gone) < 20
    assert table.radius() < radius


def test_one_subnet_gets_two_places_in_a_bucket_and_ten_in_all() -> None:
    table = RoutingTable(OWN)
    for number in range(1, 2_000):
        heard(table, number, 1.0, at(1, number % 250))
    assert len(table) == 10
    buckets = [entry.bucket for entry in table.snapshot()]
    assert max(buckets.count(bucket) for bucket in buckets) == 2
    table.remove(table.snapshot()[0].peer)
    assert table.wants(PeerInfo(peer_id(5_000), (at(1, 1),))) == (
        bucket_index(OWN, peer_key(peer_id(5_000))) == 0
    )


def test_neighbours_do_not_get_round_the_subnets() -> None:
    table, _ = with_neighbours(3)
    nearest = sorted(range(100, 1_000), key=lambda number: peer_key(peer_id(number)) ^ OWN)[:20]
    for number in reversed(nearest):
        heard(table, number, 1.0, at(1, 1))
    buckets = [entry.bucket for entry in table.snapshot() if entry.addresses == (at(1, 1),)]
    assert buckets
    assert max(buckets.count(bucket) for bucket in buckets) <= 2


def test_nor_do_spares() -> None:
    table, _ = with_neighbours(4)
    for number in numbers_in_bucket(0, 4):
        heard(table, number, 1.0)
    *_, c, d, e = numbers_in_bucket(0, 7)
    for number in (c, d, e):
        heard(table, number, 1.0, at(1, number % 250))
    assert [info.peer for info in spares(table, 0)] == [peer_id(c), peer_id(d)]


def test_who_moves_into_a_full_subnet_leaves_and_one_that_fits_comes() -> None:
    table, near = with_neighbours(3)
    a, b, c, d = numbers_in_bucket(0, 4)
    heard(table, a, 1.0, at(1, 1))
    heard(table, b, 1.0, at(1, 2))
    heard(table, c, 1.0)
    heard(table, d, 1.0)
    table.learn_addresses(PeerInfo(peer_id(c), (at(1, 3),)))
    assert sorted(numbers(table)) == sorted([*near, a, b, d])
    table.learn_addresses(PeerInfo(peer_id(b), (at(1, 200), at(3, 1))))  # its own place is free to itself
    assert sorted(numbers(table)) == sorted([*near, a, b, d])


def test_a_flood_of_spares_does_not_inherit_the_places_of_those_who_leave() -> None:
    table, near = with_neighbours(2)
    a, b, c, d, *flood = numbers_in_bucket(0, 30)
    for number in (a, b, c, d):
        heard(table, number, 1.0)
    for number in flood:
        heard(table, number, 2.0)
    table.remove(peer_id(a))
    table.remove(peer_id(b))
    assert sorted(numbers(table)) == sorted([*near, c, d])


def test_a_neighbour_pushed_out_is_kept_as_a_spare_though_those_are_many() -> None:
    table = RoutingTable(OWN, k=3)
    nearest, *others = sorted(numbers_in_bucket(0, 9), key=lambda number: peer_key(peer_id(number)) ^ OWN)
    for number in reversed(others):
        heard(table, number, 1.0)
    lost = max((entry.peer for entry in table.snapshot()), key=lambda peer: peer_key(peer) ^ OWN)
    heard(table, nearest, 2.0)
    assert lost in {info.peer for info in spares(table, 0)}
    assert len(spares(table, 0)) == 3


STEPS = st.tuples(
    st.sampled_from(["heard", "failed", "moved", "removed", "lives"]), st.integers(1, 30), st.integers(0, 4)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=150), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6))
def test_whatever_happens_no_subnet_has_more_than_its_share(
    steps: list[tuple[str, int, int]], k: int, per_group: int, per_table: int
) -> None:
    """Address 0 is private, and does not count."""
    table = RoutingTable(OWN, k=k, per_group=per_group, per_table=per_table)
    for now, (step, number, subnet) in enumerate(steps):
        addresses = (at(subnet, number),) if subnet else peer_info(number).addresses
        match step:
            case "heard":
                heard(table, number, float(now), addresses[0])
            case "failed":
                table.failed(peer_id(number), float(now))
            case "moved":
                table.learn_addresses(PeerInfo(peer_id(number), addresses))
            case "removed":
                table.remove(peer_id(number))
            case _:
                table.lives(peer_id(number), float(now))
        entries = table.snapshot()
        assert len(table) == len(entries)
        public = [(entry.bucket, entry.addresses[0][3]) for entry in entries if entry.addresses[0][1] == 9]
        for bucket, group in public:
            assert public.count((bucket, group)) <= per_group
            assert sum(other == group for _, other in public) <= per_table
    for entry in table.snapshot():
        table.remove(entry.peer)
    while len(table):  # spares came after them
        table.remove(table.snapshot()[0].peer)
    assert table._groups._counts == {}  # pyright: ignore[reportPrivateUsage]
