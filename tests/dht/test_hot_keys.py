"""Services that many ask for are answered by peers that hold nothing of them."""

from __future__ import annotations

from collections.abc import Mapping

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import service_key
from swarmp2p.dht.messages import FoundProviders, GetProviders, Provider
from swarmp2p.dht.records import make_record

from .network import address, fake_sign, peer_id
from .single import Single, receivers, requests

SERVICE = "hot"
KEY = service_key(SERVICE)
ASKER = 40


def provider(
    number: int, now: float, service: str = SERVICE, depths: Mapping[str, int] | None = None, signer: int = 0
) -> Provider:
    """A provider with a record of its own, or that another one signed."""
    peer = peer_id(number)
    record = make_record(
        peer, service, {}, 1, now + 1000.0, fake_sign(peer_id(signer or number)), depths or {}
    )
    return Provider(peer, (address(number),), record.envelope)


def asked(single: Single, times: int = 1, key: bytes = KEY) -> tuple[list[Provider], list[GetProviders]]:
    """Others ask for the key: the last answer, and what the peer asks of peer 1 meanwhile."""
    answer: list[Provider] = []
    own: list[GetProviders] = []
    for number in range(times):
        outputs = single.hear(ASKER, GetProviders(number, key))
        ((to, reply),) = requests(outputs, FoundProviders)
        assert to == peer_id(ASKER)
        assert reply.held == 0  # so that nobody caches it from here
        answer = list(reply.providers)
        own += [request for to, request in requests(outputs, GetProviders) if to == peer_id(1)]
    return answer, own


def bench(config: DhtConfig | None = None) -> Single:
    """A peer that knows peer 1, and to which others are connected."""
    single = Single(config)
    single.meet(1)
    single.up(ASKER)
    return single


def heat(single: Single, *found: Provider, held: int = 1) -> None:
    """Eight requests, and what peer 1 says when it is asked then."""
    _, own = asked(single, 8)
    (request,) = own
    single.hear(1, FoundProviders(request.id, KEY, found, (), held))


def test_what_is_asked_for_again_and_again_is_looked_for_and_answered_for_half_a_minute() -> None:
    single = bench()
    assert asked(single, 7) == ([], [])
    _, (request,) = asked(single)
    assert asked(single, 5) == ([], [])  # it is under way
    known = provider(5, single.now)
    single.hear(1, FoundProviders(request.id, KEY, (known,), (), 1))
    assert asked(single, 20) == ([known], [])
    single.wait(29.0)
    assert asked(single, 8) == ([known], [])
    single.wait(2.0)
    answer, own = asked(single, 8)
    assert answer == []
    assert len(own) == 1


def test_requests_far_apart_make_nothing_hot() -> None:
    single = bench()
    for _ in range(4):
        assert asked(single, 7) == ([], [])
        single.wait(11.0)


def test_only_genuine_records_of_the_service_are_passed_on() -> None:
    single = bench()
    now = single.now
    bare = Provider(peer_id(9), (address(9),))
    heat(single, provider(6, now, signer=7), provider(7, now, "other"), bare, provider(5, now))
    assert asked(single) == ([provider(5, now)], [])


def test_the_answers_of_other_caches_are_not_cached() -> None:
    single = bench()
    heat(single, provider(5, single.now), held=0)
    assert asked(single, 9) == ([], [])


def test_services_that_are_split_are_left_to_their_shards() -> None:
    single = bench()
    heat(single, provider(5, single.now), provider(6, single.now, depths={"": 3}), held=2)
    assert asked(single) == ([], [])


def test_others_cannot_have_a_peer_look_more_than_once_a_second() -> None:
    single = bench()
    keys = [service_key(f"service-{number}") for number in range(5)]
    assert sum(len(asked(single, 8, key)[1]) for key in keys) == 1
    single.wait(1.0)
    assert sum(len(asked(single, 8, key)[1]) for key in keys[1:]) == 1


def test_keys_are_forgotten_beyond_256() -> None:
    single = bench()
    asked(single, 7)
    for number in range(256):
        asked(single, 1, service_key(f"service-{number}"))
    assert asked(single) == ([], [])


def test_it_can_be_switched_off() -> None:
    single = bench(DhtConfig(hot_after=0))
    assert asked(single, 50) == ([], [])
    assert receivers(single.wait(1.0), GetProviders) == []
