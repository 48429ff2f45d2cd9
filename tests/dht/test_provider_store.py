from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import Provider
from swarmp2p.dht.provider_store import ProviderStore
from swarmp2p.dht.records import make_record
from swarmp2p.identity import PeerId

from .network import address, fake_sign, peer_id

OWN = peer_key(peer_id(0))
TTL = 1000.0
RNG = Random(1)


def make(max_keys: int = 100, max_per_key: int = 100, max_records: int = 1000) -> ProviderStore:
    return ProviderStore(
        OWN,
        ttl_s=TTL,
        clock_error_s=30.0,
        max_keys=max_keys,
        max_per_key=max_per_key,
        max_records=max_records,
    )


def plain(number: int) -> Provider:
    return Provider(peer_id(number), (address(number),))


def announced(number: int, sequence: int, expires: float) -> Provider:
    peer = peer_id(number)
    envelope = make_record(peer, "svc", {"n": number}, sequence, expires, fake_sign(peer)).envelope
    return Provider(peer, (address(number),), envelope)


def held(store: ProviderStore, key: bytes, now: float) -> list[Provider]:
    return store.get(key, now, 100, RNG)


def keys_by_distance(count: int) -> list[bytes]:
    return sorted((b"key %d" % n for n in range(count)), key=lambda key: key_id(key) ^ OWN)


def test_a_record_lives_for_its_time_after_the_last_renewal() -> None:
    store = make()
    assert store.add(b"k", plain(1), 0.0)
    assert store.add(b"k", plain(1), 500.0)
    assert held(store, b"k", 1500.0) == [plain(1)]
    assert held(store, b"k", 1500.1) == []
    assert held(store, b"other", 0.0) == []
    assert len(store) == 1
    store.sweep(1500.1)
    assert len(store) == 0


def test_a_provider_needs_an_address() -> None:
    store = make()
    assert not store.add(b"k", Provider(peer_id(1), ()), 0.0)
    assert len(store) == 0


def test_addresses_are_kept_up_to_a_kilobyte() -> None:
    store = make()
    long = tuple(bytes([number]) * 256 for number in range(6))
    store.add(b"k", Provider(peer_id(1), long), 0.0)
    store.add(b"l", Provider(peer_id(1), (b"x" * 2000, b"y")), 0.0)
    assert held(store, b"k", 1.0) == [Provider(peer_id(1), long[:4])]
    assert held(store, b"l", 1.0) == [Provider(peer_id(1), (b"x" * 2000,))]


def test_new_addresses_replace_the_old() -> None:
    store = make()
    store.add(b"k", plain(1), 0.0)
    moved = Provider(peer_id(1), (address(77),))
    store.add(b"k", moved, 1.0)
    assert held(store, b"k", 1.0) == [moved]


def test_a_service_record_ends_sooner_and_the_newest_wins() -> None:
    store = make()
    assert store.add(b"k", announced(1, 5, 100.0), 0.0)
    assert not store.add(b"k", announced(1, 4, 900.0), 1.0)
    assert held(store, b"k", 130.0) == [announced(1, 5, 100.0)]
    assert held(store, b"k", 130.1) == []
    assert store.add(b"k", announced(1, 6, 200.0), 130.0)
    assert held(store, b"k", 230.0) == [announced(1, 6, 200.0)]


def test_a_withdrawn_record_is_hidden_and_an_older_one_does_not_bring_it_back() -> None:
    store = make()
    store.add(b"k", announced(1, 5, 100.0), 0.0)
    assert store.add(b"k", announced(1, 6, 0.0), 1.0)
    assert held(store, b"k", 1.0) == []
    assert not store.add(b"k", announced(1, 5, 100.0), 2.0)
    assert held(store, b"k", 2.0) == []
    assert store.add(b"k", announced(1, 7, 150.0), 3.0)
    assert held(store, b"k", 3.0) == [announced(1, 7, 150.0)]


def test_withdrawing_what_is_not_held_takes_no_room() -> None:
    store = make()
    assert not store.add(b"k", announced(1, 6, 0.0), 1.0)
    assert len(store) == 0


def test_a_plain_renewal_keeps_the_service_record() -> None:
    store = make()
    store.add(b"k", announced(1, 5, 100.0), 0.0)
    store.add(b"k", Provider(peer_id(1), (address(9),)), 50.0)
    assert held(store, b"k", 60.0) == [Provider(peer_id(1), (address(9),), announced(1, 5, 100.0).record)]


def test_a_lapsed_or_broken_service_record_is_left_out_but_its_provider_counts() -> None:
    store = make()
    assert store.add(b"k", announced(1, 5, 100.0), 500.0)
    assert store.add(b"k", Provider(peer_id(2), (address(2),), b"junk"), 500.0)
    assert held(store, b"k", 500.0) == [plain(1), plain(2)]


def test_a_full_key_gives_up_the_provider_renewed_longest_ago() -> None:
    store = make(max_per_key=3)
    for number in (1, 2, 3):
        store.add(b"k", plain(number), float(number))
    store.add(b"k", plain(1), 4.0)
    assert store.add(b"k", plain(4), 5.0)
    assert [provider.peer for provider in held(store, b"k", 5.0)] == [peer_id(n) for n in (3, 1, 4)]


def test_a_full_store_gives_up_the_farthest_key_and_refuses_a_farther_one() -> None:
    near, middle, far, farthest = keys_by_distance(4)
    store = make(max_keys=2)
    store.add(near, plain(1), 0.0)
    store.add(far, plain(1), 0.0)
    assert not store.add(farthest, plain(2), 0.0)
    assert store.add(middle, plain(2), 0.0)
    assert held(store, far, 0.0) == []
    assert held(store, near, 0.0) == [plain(1)]


def test_too_many_records_go_from_the_farthest_key_first() -> None:
    near, far, farthest = keys_by_distance(3)
    store = make(max_records=3)
    for number in (1, 2, 3):
        store.add(far, plain(number), 0.0)
    assert not store.add(farthest, plain(4), 0.0)
    assert store.add(near, plain(4), 0.0)
    assert store.add(far, plain(5), 0.0)
    assert [provider.peer for provider in held(store, far, 0.0)] == [peer_id(n) for n in (3, 5)]
    assert len(store) == 3


def test_renewals_are_never_refused() -> None:
    """Others' users complain of full tables that refuse them."""
    store = make(max_keys=2, max_per_key=2, max_records=3)
    near, far = keys_by_distance(2)
    for key, number in ((near, 1), (far, 1), (far, 2)):
        assert store.add(key, plain(number), 0.0)
    for key, number in ((near, 1), (far, 1), (far, 2)):
        assert store.add(key, plain(number), 500.0)
        assert plain(number) in held(store, key, 1400.0)


def test_more_providers_than_fit_are_sampled_evenly() -> None:
    store = make(max_per_key=50)
    for number in range(1, 41):
        store.add(b"k", plain(number), 0.0)
    counts: dict[PeerId, int] = {}
    rng = Random(7)
    for _ in range(1000):
        sample = store.get(b"k", 0.0, 10, rng)
        assert len({provider.peer for provider in sample}) == 10
        for provider in sample:
            counts[provider.peer] = counts.get(provider.peer, 0) + 1
    assert all(180 < counts[peer_id(number)] < 320 for number in range(1, 41))  # 250 expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.floats(0, 400), st.booleans()), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 8),
)
def test_bounds_hold_and_counts_agree(
    steps: list[tuple[int, int, float, bool]], max_keys: int, max_per_key: int, max_records: int
) -> None:
    store = make(max_keys, max_per_key, max_records)
    now = 0.0
    for key, number, later, sweep in steps:
        now += later
        if sweep:
            store.sweep(now)
        known = plain(number) in held(store, b"%d" % key, now)
        assert store.add(b"%d" % key, plain(number), now) or not known
        providers = store._providers  # pyright: ignore[reportPrivateUsage]
        assert len(providers) <= max_keys
        assert all(0 < len(of_key) <= max_per_key for of_key in providers.values())
        assert sum(map(len, providers.values())) == len(store) <= max_records
        assert len(store._nearest) == len(providers)  # pyright: ignore[reportPrivateUsage]
