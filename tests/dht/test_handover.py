"""Records that are handed over to newcomers, and what is taken from whom."""

from __future__ import annotations

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, FindProviders, Provide, ProviderFound, PutValue
from swarmp2p.dht.keys import key_id, multihash_key, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, FoundProviders, GetProviders, Provider
from swarmp2p.dht.messages import PutValue as PutRequest
from swarmp2p.dht.provider_record import make_statement, read_any_claim
from swarmp2p.dht.records import make_record
from swarmp2p.dht.wire import decode, encode
from swarmp2p.identity import PeerId
from swarmp2p.signed import sign_map

from .network import TestNetwork, address, fake_sign, grown, peer_id
from .single import Single, only

KEY = multihash_key(b"key")
CONFIG = DhtConfig(k=6, handover_interval_s=60.0)


def statement(provider: int, key: bytes = KEY, *, sequence: int = 7, expires: float = 5000.0) -> Provider:
    """A peer's own word that it provides a key."""
    envelope = make_statement(key, sequence, expires, fake_sign(peer_id(provider)))
    return Provider(peer_id(provider), (address(provider),), envelope)


def service(provider: int, name: str = "svc", expires: float = 5000.0) -> Provider:
    record = make_record(peer_id(provider), name, {}, 7, expires, fake_sign(peer_id(provider)))
    return Provider(peer_id(provider), (address(provider),), record.envelope)


def held(single: Single, key: bytes = KEY) -> list[PeerId]:
    reply = only(single.hear(90, GetProviders(1, key)), FoundProviders)
    return [provider.peer for provider in reply.providers]


# Taking -----------------------------------------------------------------------------------------------------


def test_a_record_that_its_provider_signed_is_taken_from_anybody() -> None:
    single = Single()
    single.hear(2, AddProvider(1, KEY, statement(1)))
    assert held(single) == [peer_id(1)]
    single.hear(2, AddProvider(1, service_key("svc"), service(1)))
    assert held(single, service_key("svc")) == [peer_id(1)]


FORGED = Provider(peer_id(1), (address(1),), statement(3).record)


@pytest.mark.parametrize(
    "provider",
    [
        Provider(peer_id(1), (address(1),)),
        Provider(peer_id(1), (address(1),), b"garbage"),
        FORGED,
        statement(1, multihash_key(b"other")),
        statement(1, expires=900.0),
        service(1),
        service(1, expires=0.0),
    ],
    ids=["unsigned", "garbage", "forged", "another key", "expired", "a service's", "a withdrawal"],
)
def test_nothing_else_is(provider: Provider) -> None:
    single = Single()
    single.hear(2, AddProvider(1, KEY, provider))
    assert held(single) == []


def test_a_genuine_record_of_nonsense_harms_nobody() -> None:
    fields = {"attrs": {b"no text": "x"}, "expires": 5000.0, "seq": 7, "service": "svc"}
    record = sign_map("service-record", fields, fake_sign(peer_id(1)))
    single = Single()
    for sender in (2, 1):
        single.hear(sender, AddProvider(1, KEY, Provider(peer_id(1), (address(1),), record)))
    assert held(single) == [peer_id(1)]  # its own word, without the record


def test_what_a_provider_brought_itself_is_not_replaced_by_others() -> None:
    single = Single()
    single.hear(1, AddProvider(1, KEY, statement(1, sequence=3)))
    elsewhere = Provider(peer_id(1), (address(9),), statement(1, sequence=9).record)
    single.hear(2, AddProvider(1, KEY, elsewhere))
    reply = only(single.hear(90, GetProviders(1, KEY)), FoundProviders)
    assert [provider.addresses for provider in reply.providers] == [(address(1),)]


def test_who_brings_a_forged_record_is_not_listened_to_for_ten_minutes() -> None:
    single = Single()
    single.hear(2, AddProvider(1, KEY, FORGED))
    single.hear(2, AddProvider(1, KEY, statement(4)))
    assert held(single) == []
    single.hear(3, AddProvider(1, KEY, statement(4)))
    assert held(single) == [peer_id(4)]
    single.wait(601.0)
    single.hear(2, AddProvider(1, KEY, statement(5)))
    assert peer_id(5) in held(single)


def test_each_sender_has_an_allowance_that_comes_back() -> None:
    single = Single(DhtConfig(refresh_interval_s=1e8))
    keys = [multihash_key(b"%d" % number) for number in range(520)]

    def bring(sender: int, some: list[bytes]) -> int:
        for key in some:
            single.hear(sender, AddProvider(1, key, statement(1, key)))
        return sum(held(single, key) == [peer_id(1)] for key in keys)

    assert bring(2, keys) == 512
    assert bring(3, keys[512:514]) == 514
    single.wait(2.0)
    assert bring(2, keys[514:]) == 520
    assert Single().hear(2, AddProvider(1, KEY, None)) == []


def test_what_is_handed_over_pushes_nothing_out() -> None:
    """One connection that brings as many genuine records as a key can have: each costs it a signature only."""
    single = Single(DhtConfig(max_providers_per_key=40))
    for number in range(1, 31):
        single.hear(number, AddProvider(1, KEY, statement(number)))
    for number in range(100, 140):
        single.hear(50, AddProvider(1, KEY, statement(number)))
    assert single.engine.providers_held(KEY) == [peer_id(number) for number in range(1, 31)]


@pytest.mark.parametrize("bound", ["max_provider_keys", "max_providers"])
def test_nor_does_it_fill_the_store(bound: str) -> None:
    keys = [multihash_key(b"%d" % number) for number in range(30)]
    config = DhtConfig(max_provider_keys=40) if bound == "max_provider_keys" else DhtConfig(max_providers=40)
    single = Single(config)
    for key in keys:
        single.hear(2, AddProvider(1, key, statement(1, key)))
    assert single.engine.records == 20
    for key in keys:
        single.hear(3, AddProvider(1, key, statement(3, key)))
    assert single.engine.records >= 30


def test_over_the_wire_others_than_the_sender_pass_with_a_record_only() -> None:
    def received(provider: Provider) -> Provider | None:
        request = decode(peer_id(2), encode(AddProvider(1, KEY, provider)), 5)
        assert isinstance(request, AddProvider)
        return request.provider

    assert received(statement(1)) == statement(1)
    assert received(Provider(peer_id(1), (address(1),))) is None
    own = Provider(peer_id(2), (address(2),))
    assert received(own) == own


def test_values_keep_the_time_at_which_they_were_stored_first() -> None:
    request = decode(peer_id(2), encode(PutRequest(1, b"key", b"value", 1234.5)), 5)
    assert isinstance(request, PutRequest)
    assert request.received == 1234.5
    single = Single(DhtConfig(value_ttl_s=100.0))
    single.hear(2, PutRequest(1, b"key", b"value", single.now - 90.0))
    single.wait(5.0)
    assert single.engine._values.get(b"key", single.now) is not None  # pyright: ignore[reportPrivateUsage]
    single.wait(6.0)
    assert single.engine._values.get(b"key", single.now) is None  # pyright: ignore[reportPrivateUsage]


# Handing over -----------------------------------------------------------------------------------------------


def nearest_newcomer(network: TestNetwork, key: bytes, first: int) -> int:
    """The number of a peer that will be nearest of all to a key."""
    best = min(peer_key(node.id) ^ key_id(key) for node in network.nodes.values())
    number = first
    while peer_key(peer_id(number)) ^ key_id(key) >= best:
        number += 1
    return number


def test_a_newcomer_next_to_a_key_is_given_its_records_and_values() -> None:
    network, nodes = grown(20, config=CONFIG)
    key, value_key = service_key("svc"), b"value key"
    network.ask(nodes[3], lambda query: Announce(query, "svc"))
    network.ask(nodes[4], lambda query: Provide(query, KEY))
    network.ask(nodes[5], lambda query: PutValue(query, value_key, b"value"))
    network.run(1.0)
    for wanted, kind in ((key, AddProvider), (KEY, AddProvider), (value_key, PutRequest)):
        newcomer = network.add(nearest_newcomer(network, wanted, 1000), CONFIG)
        network.join(newcomer, nodes[0])
        before = len(network.sent)
        network.run(200.0)
        given = [
            message.key
            for _, _, target, message in network.sent[before:]
            if target == newcomer.id and isinstance(message, kind)
        ]
        assert 1 <= given.count(wanted) <= 3, "some of the nearest, not all twenty"
    newcomer = network.nodes[peer_id(nearest_newcomer_done(network, KEY))]
    network.ask(newcomer, lambda query: FindProviders(query, KEY, 1))
    assert any(isinstance(output, ProviderFound) for output in newcomer.outputs)


def nearest_newcomer_done(network: TestNetwork, key: bytes) -> int:
    return min(network.nodes.values(), key=lambda node: peer_key(node.id) ^ key_id(key)).number


def test_records_of_foreign_providers_are_not_handed_over_and_nothing_is_without_newcomers() -> None:
    network, nodes = grown(20, config=CONFIG)
    foreign = Provider(nodes[1].id, (address(1),))
    for node in nodes[2:]:
        network._send(nodes[1], node.id, AddProvider(1, KEY, foreign))  # pyright: ignore[reportPrivateUsage]
    network.ask(nodes[4], lambda query: Provide(query, KEY))
    network.run(1.0)
    before = len(network.sent)
    network.run(400.0)
    assert not any(isinstance(message, AddProvider) for *_, message in network.sent[before:])
    newcomer = network.add(nearest_newcomer(network, KEY, 1000), CONFIG)
    network.join(newcomer, nodes[0])
    network.run(400.0)
    given = [
        m.provider
        for _, _, to, m in network.sent[before:]
        if to == newcomer.id and isinstance(m, AddProvider)
    ]
    assert {provider.peer for provider in given if provider is not None} == {nodes[4].id}


def test_claims_of_either_kind_are_read_and_garbage_is_none() -> None:
    assert read_any_claim(statement(1).record) is not None
    assert read_any_claim(service(1).record) is not None
    for garbage in (b"", b"x", b"\x92\xc4\x01x\xc4\x00", b"\x92\xc4\x01\x80\xc4\x00"):
        assert read_any_claim(garbage) is None
