"""The load table: newest signal wins, whatever the order; silence is noticed; nothing outgrows its bound."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadTable, TableConfig
from swarmp2p.gossip.suspicion import SuspicionConfig
from swarmp2p.identity import PeerId

from .network import peer_id

A, B = peer_id(1), peer_id(2)


def signal(sequence: int, expires: float = 100.0, in_flight: int = 0) -> LoadSignal:
    return LoadSignal(sequence=sequence, expires=expires, in_flight=in_flight)


offers = st.lists(
    st.tuples(
        st.integers(1, 4).map(peer_id), st.builds(signal, st.integers(0, 5), in_flight=st.integers(0, 3))
    ),
    max_size=25,
)


def contents(table: LoadTable) -> dict[PeerId, LoadSignal]:
    return {entry.provider: entry.signal for entry in table}


@given(offers, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_a_last_writer_wins_set(history: list[tuple[PeerId, LoadSignal]], shuffler: Random) -> None:
    """Commutative and idempotent: order and repeats do not matter; the highest sequence stands."""
    table, other = LoadTable(), LoadTable()
    for provider, sent in history:
        table.offer(provider, sent, 1.0)
    again = history + history[::2]
    shuffler.shuffle(again)
    for provider, sent in again:
        other.offer(provider, sent, 2.0)
    assert contents(table) == contents(other)
    for provider, standing in contents(table).items():
        assert standing.sequence == max(sent.sequence for by, sent in history if by == provider)


def test_an_older_or_equal_signal_changes_nothing() -> None:
    table = LoadTable()
    assert table.offer(A, signal(2), 0.0)
    assert not table.offer(A, signal(2), 1.0)
    assert not table.offer(A, signal(1), 1.0)
    entry = table.get(A)
    assert entry is not None
    assert (entry.signal.sequence, entry.arrived, entry.age(3.0)) == (2, 0.0, 3.0)


def test_expired_signals_are_refused_and_removed() -> None:
    """Thirty seconds of clock error are forgiven; more life than ten minutes is not believed."""
    table = LoadTable()
    assert not table.offer(A, signal(1, expires=10.0), 40.0)
    assert not table.offer(A, signal(1, expires=40.0 + 600 + 31), 40.0)
    assert table.offer(A, signal(1, expires=10.0), 39.9)
    assert table.deadline() == 40.0
    assert table.advance(39.95) == []
    assert table.advance(40.0) == [A]
    assert len(table) == 0
    assert A not in table
    assert table.deadline() == math.inf


def beat(sequence: int, heartbeat_s: float, expires: float = 100.0) -> LoadSignal:
    return LoadSignal(sequence=sequence, expires=expires, heartbeat_s=heartbeat_s)


def test_silence_is_doubted_once() -> None:
    """A promise of 1 s, a second of pause, and 5.6 deviations of at least 0.1 s."""
    table = LoadTable()
    for second in range(5):
        table.offer(A, beat(second, 1.0), float(second))
    assert table.advance(4.0 + 2.56) == []
    assert table.phi(A, 4.0 + 2.56) < 8.0
    assert table.advance(4.0 + 2.57) == [A]
    assert table.phi(A, 4.0 + 2.57) > 8.0
    assert table.advance(50.0) == []
    entry = table.get(A)
    assert entry is not None
    assert not entry.suspected, "doubt is no suspicion yet"
    assert table.suspect(A)
    assert not table.suspect(A)
    entry = table.get(A)
    assert entry is not None
    assert entry.suspected
    table.offer(A, beat(9, 1.0), 51.0)
    entry = table.get(A)
    assert entry is not None
    assert not entry.suspected


def test_who_is_heard_of_after_the_doubt_is_not_suspected() -> None:
    table = LoadTable()
    for provider in (A, B):
        table.offer(provider, beat(1, 1.0), 0.0)
    assert table.advance(3.0) == [A, B]
    table.offer(A, beat(2, 1.0), 3.1)
    table.alive(B, 3.1)
    assert not table.suspect(A)
    assert not table.suspect(B)
    assert not table.suspect(peer_id(3))
    assert table.advance(5.6) == []
    assert table.advance(7.0) == [B, A], "from then on, silence counts again"


def test_patience_makes_limits_longer() -> None:
    table = LoadTable()
    table.offer(A, beat(1, 1.0), 0.0)
    assert table.advance(5.0, patience=2.0) == []
    assert table.deadline() == pytest.approx(5.12, abs=0.01)
    assert table.advance(5.2, patience=2.0) == [A]


def test_suspicion_follows_the_promise_else_the_observed_interval() -> None:
    table = LoadTable()
    for number in range(4):
        table.offer(A, beat(number, 0.2), number * 0.1)
        table.offer(B, signal(number), number * 3.0)
    assert table.advance(0.3 + 1.9) == []
    assert table.advance(0.3 + 2.1) == [A], "never before two seconds"
    assert table.advance(9.0 + 12.3) == []
    assert table.advance(9.0 + 12.5) == [B], "1 s, the interval, and 5.6 halves of it"


def test_a_burst_does_not_make_the_pause_after_it_suspicious() -> None:
    table = LoadTable()
    now = 0.0
    for number, pause in enumerate([5.0, 5.0, 0.1, 0.1, 0.1]):
        now += pause
        table.offer(A, signal(number), now)
    assert table.advance(now + 10.0) == []


def test_the_first_signal_alone_is_not_suspected_before_it_expires() -> None:
    table = LoadTable()
    table.offer(A, signal(1, expires=60.0), 0.0)
    assert table.advance(89.0) == []
    assert table.advance(90.0) == [A]


def test_a_full_table_still_updates_those_it_knows() -> None:
    table = LoadTable(TableConfig(max_providers=2))
    for number in (1, 2, 3):
        table.offer(peer_id(number), signal(1), 0.0)
    assert table.refused == 1
    assert len(table) == 2
    for entry in table:
        assert table.offer(entry.provider, signal(2), 0.0)


@given(st.permutations(range(12)), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_who_has_a_place_in_a_full_table_does_not_depend_on_who_came_first(
    order: list[int], seed: int
) -> None:
    table, other = [LoadTable(TableConfig(max_providers=5), Random(seed)) for _ in range(2)]
    for number in order:
        table.offer(peer_id(number), signal(1), 0.0)
        assert len(table) <= 5
        if number % 3 == 0:
            table.forget(peer_id(number))
            table.offer(peer_id(number), signal(1), 0.0)
    for number in range(12):
        other.offer(peer_id(number), signal(1), 0.0)
    assert {entry.provider for entry in other} == {entry.provider for entry in table}


def test_a_crowd_of_made_up_providers_thins_the_sample_and_no_more() -> None:
    """They come first and fill the table; of the others as large a share has a place as of them."""
    table = LoadTable(TableConfig(max_providers=200), Random(5))
    for number in range(1200):
        table.offer(peer_id(number), signal(1), 0.0)
        if number == 800:
            assert len(table) == 200
    honest = sum(int.from_bytes(entry.provider.public_key or b"", "big") >= 800 for entry in table)
    assert 45 <= honest <= 90  # of 400 among 1,200: 67 expected
    table.advance(1000.0)
    assert len(table) == 0
    assert table.pending_alarms == 0


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20), st.floats(0, 60), st.floats(0, 2)), max_size=80)
)
@settings(max_examples=100, deadline=None)
def test_alarms_against_a_plain_model(history: list[tuple[int, int, float, float]]) -> None:
    """Whatever arrives when: what `advance` finds is what looking at every entry would find."""
    config = TableConfig(max_providers=3, clock_error_s=1.0, suspicion=SuspicionConfig(min_s=0.0))
    table, limit = LoadTable(config), config.suspicion.threshold
    now = 0.0
    for number, sequence, ttl_s, pause in history:
        now += pause
        before = list(table)
        due = {
            entry.provider
            for entry in before
            if not entry.suspected
            and (entry.signal.expires + 1.0 <= now or table.phi(entry.provider, now) > limit)
        }
        found = table.advance(now)
        assert set(found) == due
        for provider in found:
            table.suspect(provider)
        assert {entry.provider for entry in table} == {
            entry.provider for entry in before if entry.signal.expires + 1.0 > now
        }
        assert table.deadline() > now
        table.offer(peer_id(number), signal(sequence, expires=now + ttl_s), now)
        assert len(table) <= 3


def test_alarms_do_not_pile_up() -> None:
    """A provider whose signals expire ever earlier sets an alarm with each; the void ones are swept."""
    table = LoadTable()
    for sequence in range(5000):
        assert table.offer(A, signal(sequence, expires=500.0 - sequence / 20), 1.0)
    assert table.pending_alarms < 100


def test_who_is_forgotten_is_not_suspected() -> None:
    table = LoadTable()
    for now in range(3):
        table.offer(peer_id(1), LoadSignal(sequence=now, expires=100.0), float(now))
    table.forget(peer_id(1))
    table.forget(peer_id(2))
    assert len(table) == 0
    assert table.advance(1000.0) == []
    assert table.offer(peer_id(1), LoadSignal(sequence=1, expires=1100.0), 1000.0)
