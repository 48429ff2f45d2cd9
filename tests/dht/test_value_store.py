from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.state import HeldValue
from swarmp2p.dht.validators import Validators
from swarmp2p.dht.value_store import ValueStore

from .network import peer_id
from .test_validators import Largest

OWN = peer_key(peer_id(0))


def make(max_values: int = 100) -> ValueStore:
    return ValueStore(OWN, Validators({"ns": Largest()}, 100), ttl_s=1000.0, max_values=max_values)


def test_a_value_lives_for_its_time_after_it_was_last_stored() -> None:
    store = make()
    assert store.put(b"k", b"v", 0.0)
    assert store.put(b"k", b"v", 500.0)
    assert store.get(b"k", 1500.0) == HeldValue(b"k", b"v", 500.0)
    assert store.get(b"k", 1500.1) is None
    assert store.get(b"other", 0.0) is None
    store.sweep(1500.1)
    assert len(store) == 0


def test_the_validator_decides_what_is_kept() -> None:
    store = make()
    assert not store.put(b"/ns/k", b"1", 0.0)
    assert store.put(b"/ns/k", b"v2", 0.0)
    assert not store.put(b"/ns/k", b"v1", 1.0)
    assert store.put(b"/ns/k", b"v3", 2.0)
    assert store.get(b"/ns/k", 2.0) == HeldValue(b"/ns/k", b"v3", 2.0)
    assert store.put(b"/ns/k", b"v1", 2000.0)  # the better one has expired


def test_without_a_validator_the_newest_value_is_kept() -> None:
    store = make()
    store.put(b"k", b"b", 0.0)
    assert store.put(b"k", b"a", 1.0)
    assert store.get(b"k", 1.0) == HeldValue(b"k", b"a", 1.0)


def test_a_full_store_gives_up_the_farthest_key_and_refuses_a_farther_one() -> None:
    near, middle, far, farthest = sorted((b"key %d" % n for n in range(4)), key=lambda key: key_id(key) ^ OWN)
    store = make(max_values=2)
    store.put(near, b"1", 0.0)
    store.put(far, b"1", 0.0)
    assert not store.put(farthest, b"2", 0.0)
    assert store.put(far, b"2", 0.0)  # a renewal is never refused
    assert store.put(middle, b"3", 0.0)
    assert store.get(far, 0.0) is None
    assert store.get(near, 0.0) is not None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 400), st.booleans()), max_size=60), st.integers(1, 5)
)
def test_the_bound_holds(steps: list[tuple[int, float, bool]], max_values: int) -> None:
    store, now = make(max_values), 0.0
    for key, later, sweep in steps:
        now += later
        if sweep:
            store.sweep(now)
        known = store.get(b"%d" % key, now) is not None
        assert store.put(b"%d" % key, b"%f" % now, now) or not known
        assert len(store) == len(store._nearest) <= max_values  # pyright: ignore[reportPrivateUsage]
