"""The message cache, against a plain model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.gossip.caches import MessageCache

from .network import message, peer_id


def cache(max_messages: int = 100, max_bytes: int = 10_000) -> MessageCache:
    return MessageCache(history=5, gossip=3, max_messages=max_messages, max_bytes=max_bytes)


def test_kept_for_five_heartbeats_advertised_for_three() -> None:
    """gossipsub 1.0, "Message cache": mcache_len 5, mcache_gossip 3."""
    messages = cache()
    sent = message(1, 1)
    assert messages.put(sent.id, sent)
    for beats in range(6):
        assert (messages.get(sent.id) == sent) == (beats < 5)
        assert messages.recent("t") == ([sent.id] if beats < 3 else [])
        assert messages.recent("other") == []
        messages.shift()
    assert len(messages) == messages.held_bytes == 0


def test_counts_what_each_peer_got_again() -> None:
    messages = cache()
    sent = message(1, 1)
    messages.put(sent.id, sent)
    assert messages.send_again(sent.id, peer_id(7)) == (sent, 1)
    assert messages.send_again(sent.id, peer_id(7)) == (sent, 2)
    assert messages.send_again(sent.id, peer_id(8)) == (sent, 1)
    assert messages.send_again(b"other", peer_id(8)) is None


def test_oldest_window_goes_early_when_full() -> None:
    messages = cache(max_messages=2)
    first, second, third = (message(1, number) for number in range(3))
    messages.put(first.id, first)
    messages.shift()
    messages.put(second.id, second)
    messages.shift()
    assert messages.put(third.id, third)
    assert messages.get(first.id) is None
    assert messages.recent("t") == [third.id, second.id]


def test_nothing_is_kept_beyond_the_current_window() -> None:
    messages = cache(max_bytes=10)
    first, second = message(1, 1, data=b"12345678"), message(1, 2, data=b"12345678")
    assert messages.put(first.id, first)
    assert messages.put(first.id, first)
    assert not messages.put(second.id, second)
    assert messages.get(first.id) == first
    messages.shift()
    assert messages.put(second.id, second)
    assert messages.get(first.id) is None


def test_encoded_messages_weigh_as_much_as_their_bytes() -> None:
    messages = cache(max_bytes=10)
    sent = message(1, 1, data=b"1")
    heavy = type(sent)(sent.source, sent.seqno, sent.topic, sent.data, sent.signature, bytes(11))
    assert not messages.put(heavy.id, heavy)


def test_a_message_that_was_replaced_is_not_advertised_but_still_there() -> None:
    messages = cache(10)
    signals = [message(1, number) for number in range(3)]
    other = message(2, 1)
    for sent in (*signals, other):
        assert messages.put(sent.id, sent, ("t", sent.source))
        messages.shift()
    assert set(messages.recent("t")) <= {signals[2].id, other.id}
    assert messages.get(signals[1].id) == signals[1]
    for _ in range(10):
        messages.shift()
    assert len(messages) == 0
    again = message(1, 9)
    assert messages.put(again.id, again, ("t", again.source)), "nothing is left of those before"
    assert messages.recent("t") == [again.id]


@given(st.lists(st.one_of(st.integers(0, 30), st.none()), max_size=80), st.integers(1, 6), st.integers(8, 60))
@settings(max_examples=100, deadline=None)
def test_never_above_its_bounds(steps: list[int | None], bound: int, max_bytes: int) -> None:
    messages = cache(bound, max_bytes)
    for step in steps:
        if step is None:
            messages.shift()
        else:
            sent = message(step, step, topic=str(step % 3), data=bytes(step))
            messages.put(sent.id, sent, step % 5 or None)
        assert len(messages) <= bound
        assert messages.held_bytes <= max_bytes
        recent = [i for topic in "012" for i in messages.recent(topic)]
        assert len(recent) == len(set(recent)) <= len(messages)
