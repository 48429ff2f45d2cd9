"""What others are told, and what they may have stored here."""

from __future__ import annotations

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, Provide, SetAddresses
from swarmp2p.dht.keys import key_id, multihash_key, peer_key, service_key
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    Provider,
    PutValue,
    ValueStored,
)
from swarmp2p.engine import PeerUp, Send

from .network import address, peer_id, peer_info
from .single import Single, infos, only

KEY = multihash_key(b"key")


def nearest(numbers: range, key: bytes) -> list[int]:
    return sorted(numbers, key=lambda number: peer_key(peer_id(number)) ^ key_id(key))


def plain(number: int) -> Provider:
    return Provider(peer_id(number), (address(number),))


def test_find_node_is_answered_with_the_k_nearest_but_not_the_asker_nor_oneself() -> None:
    single = Single(DhtConfig(k=20))
    single.meet(*range(1, 15))
    order = nearest(range(1, 15), KEY)
    reply = only(single.hear(order[2], FindNode(5, KEY)), FoundNodes)
    assert reply == FoundNodes(5, infos(*(n for n in order if n != order[2])))


def test_no_more_than_k_are_named_and_the_asker_leaves_no_gap() -> None:
    single = Single(DhtConfig(k=3))
    single.meet(*[n for n in range(1, 40) if n in _fits(single, range(1, 40), 3)])
    members = [entry.peer for entry in single.engine.table.snapshot()]
    order = [n for n in nearest(range(1, 40), KEY) if peer_id(n) in members]
    assert only(single.hear(order[0], FindNode(5, KEY)), FoundNodes).closer == infos(*order[1:4])
    assert only(single.hear(99, FindNode(5, KEY)), FoundNodes).closer == infos(*order[:3])


def _fits(single: Single, numbers: range, k: int) -> list[int]:
    """Of these peers, the first k of each bucket."""
    buckets: dict[int, list[int]] = {}
    for number in numbers:
        of_bucket = buckets.setdefault((peer_key(peer_id(number)) ^ peer_key(peer_id(0))).bit_length(), [])
        if len(of_bucket) < k:
            of_bucket.append(number)
    return [number for of_bucket in buckets.values() for number in of_bucket]


def test_a_suspect_is_handed_out_to_nobody() -> None:
    single = Single()
    single.meet(1, 2)
    single.engine.table.failed(peer_id(1), single.now)
    assert only(single.hear(3, FindNode(5, KEY)), FoundNodes).closer == infos(2)


def test_whoever_asks_for_this_peer_s_id_is_told_its_addresses() -> None:
    """As go and js answer."""
    single = Single()
    single.meet(1, 2)
    reply = only(single.hear(1, FindNode(5, bytes(peer_id(0)))), FoundNodes)
    assert reply.closer == infos(0, 2)
    single.post(SetAddresses(()))
    assert only(single.hear(1, FindNode(5, bytes(peer_id(0)))), FoundNodes).closer == infos(2)


def test_a_connected_peer_that_serves_nothing_is_named_to_who_asks_for_its_id_only() -> None:
    single = Single()
    single.meet(1)
    single.up(9)
    assert only(single.hear(1, FindNode(5, bytes(peer_id(9)))), FoundNodes).closer == infos(9)
    assert only(single.hear(1, FindNode(5, KEY)), FoundNodes).closer == ()
    assert only(single.hear(9, FindNode(5, bytes(peer_id(9)))), FoundNodes).closer == infos(1)
    single.post(PeerUp(peer_id(8)))
    assert only(single.hear(1, FindNode(5, bytes(peer_id(8)))), FoundNodes).closer == ()
    assert only(single.hear(2, FindNode(5, b"x" * 1000)), FoundNodes).closer == infos(1)


def test_provider_records_are_kept_and_told() -> None:
    single = Single()
    single.meet(1)
    assert single.hear(4, AddProvider(5, KEY, plain(4))) == []
    reply = only(single.hear(3, GetProviders(6, KEY)), FoundProviders)
    assert reply == FoundProviders(6, KEY, (plain(4),), infos(1), held=1)


def test_only_a_provider_itself_may_say_so_and_must_have_an_address() -> None:
    single = Single()
    single.hear(4, AddProvider(5, KEY, plain(3)))
    single.hear(4, AddProvider(5, KEY, None))
    single.hear(4, AddProvider(5, KEY, Provider(peer_id(4), ())))
    assert only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers == ()


def test_this_peer_s_own_provider_records_are_told_too() -> None:
    single = Single(DhtConfig(reply_providers=2))
    single.post(Provide(1, KEY))
    for number in (4, 5, 6):
        single.hear(number, AddProvider(5, KEY, plain(number)))
    providers = only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers
    assert len(providers) == 2
    assert (providers[0].peer, providers[0].addresses) == (peer_id(0), plain(0).addresses)
    single.post(SetAddresses(()))
    assert plain(0) not in only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers


def test_values_are_stored_echoed_and_told() -> None:
    single = Single()
    single.meet(1)
    assert single.hear(3, PutValue(5, b"k", b"v", 0.0)) == [Send(peer_id(3), ValueStored(5, b"k", b"v"))]
    reply = only(single.hear(4, GetValue(6, b"k")), FoundValue)
    assert reply == FoundValue(6, b"k", b"v", single.now, infos(1))
    assert only(single.hear(4, GetValue(6, b"none")), FoundValue) == FoundValue(
        6, b"none", None, 0.0, infos(1)
    )


def test_a_value_that_is_refused_is_not_echoed() -> None:
    single = Single(DhtConfig(max_value_bytes=3))
    assert only(single.hear(3, PutValue(5, b"k", b"long", 0.0)), ValueStored) == ValueStored(5, b"k", None)


def test_ping_is_answered() -> None:
    assert Single().hear(3, Ping(5)) == [Send(peer_id(3), Pong(5))]


def test_the_own_record_is_told_even_by_a_client() -> None:
    for server in (True, False):
        single = Single(DhtConfig(server=server))
        single.post(Announce(1, "svc", (("cpus", 4),)))
        reply = only(single.hear(3, GetRecord(5, "svc")), FoundRecord)
        assert reply.envelope
        assert only(single.hear(3, GetRecord(5, "other")), FoundRecord) == FoundRecord(5, b"")


def test_the_own_record_rides_in_provider_messages() -> None:
    single = Single()
    single.post(Announce(1, "svc", ()))
    envelope = only(single.hear(3, GetRecord(5, "svc")), FoundRecord).envelope
    providers = only(single.hear(3, GetProviders(6, service_key("svc"))), FoundProviders).providers
    assert providers == (Provider(peer_id(0), (address(0),), envelope),)


def test_what_was_stored_is_dropped_when_its_time_is_over() -> None:
    single = Single(DhtConfig(provider_ttl_s=100.0, value_ttl_s=100.0))
    single.hear(4, AddProvider(5, KEY, plain(4)))
    single.hear(4, PutValue(5, b"k", b"v", 0.0))
    single.wait(101.0)
    assert only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers == ()
    assert only(single.hear(4, GetValue(6, b"k")), FoundValue).value is None
    single.wait(700.0)
    assert len(single.engine._providers) == len(single.engine._values) == 0  # pyright: ignore[reportPrivateUsage]


def test_addresses_that_a_peer_names_itself_are_handed_out_rather_than_hearsay() -> None:
    single = Single()
    single.meet(1)
    single.post(PeerUp(peer_id(1), (address(77),)))
    (info,) = only(single.hear(3, FindNode(5, KEY)), FoundNodes).closer
    assert info.addresses == (address(77),)
    assert info.peer == peer_info(1).peer
