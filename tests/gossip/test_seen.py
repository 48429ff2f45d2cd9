"""The seen cache, against a plain model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.gossip.seen import SeenCache


def test_seen_for_its_ttl() -> None:
    seen = SeenCache(ttl_s=120.0, max_entries=10)
    seen.add(b"a", 0.0)
    assert seen.has(b"a", 119.9)
    assert not seen.has(b"a", 120.0)
    assert not seen.has(b"b", 0.0)


def test_seeing_again_does_not_prolong() -> None:
    seen = SeenCache(ttl_s=120.0, max_entries=10)
    seen.add(b"a", 0.0)
    seen.add(b"a", 100.0)
    assert not seen.has(b"a", 121.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 3)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_seen_like_a_dict(additions: list[tuple[int, float]]) -> None:
    seen, model = SeenCache(ttl_s=5.0, max_entries=100), dict[bytes, float]()
    now = 0.0
    for number, pause in additions:
        now += pause
        key = bytes([number])
        if model.get(key, now) <= now:
            model[key] = now + 5.0
        seen.add(key, now)
        asked = [bytes([other]) for other in range(20, -1, -1)]
        known = [key for key in asked if model.get(key, now) > now]
        assert [key for key in asked if seen.has(key, now)] == known
        assert seen.unseen(asked, now) == [key for key in asked if key not in known]


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 0.5)), max_size=60), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_at_the_bound_the_oldest_are_forgotten(additions: list[tuple[int, float]], bound: int) -> None:
    seen, now = SeenCache(ttl_s=5.0, max_entries=bound), 0.0
    for number, pause in additions:
        now += pause
        key = number.to_bytes(2, "big")
        seen.add(key, now)
        assert seen.has(key, now)
        assert len(seen) <= bound


def test_the_oldest_go_first_at_the_bound() -> None:
    seen = SeenCache(ttl_s=120.0, max_entries=3)
    for key in (b"a", b"b", b"c", b"d"):
        seen.add(key, 0.0)
    assert seen.unseen([b"a", b"b", b"c", b"d"], 1.0) == [b"a"]


def test_what_is_packed_expires() -> None:
    seen = SeenCache(ttl_s=120.0, max_entries=10_000)
    for number in range(5000):
        seen.add(number.to_bytes(8, "big"), number * 0.1)
    assert 1200 <= len(seen) <= 1400  # 120 s and a block
    assert not seen.has((3799).to_bytes(8, "big"), 500.0)
    assert seen.has((3801).to_bytes(8, "big"), 500.0)
