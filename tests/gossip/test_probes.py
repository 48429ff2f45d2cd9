"""Probes: hot and cold, used up, too old, and bounded."""

from __future__ import annotations

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.gossip.probes import Probes, ProbesConfig

from .network import peer_id


def pool(*answers: tuple[int, float], uses: int = 1) -> Probes:
    """Providers 0, 1, ... with (in flight, latency), answered at 0."""
    probes = Probes(ProbesConfig(size=4, hot_quantile=0.5, uses=uses))
    for number, (in_flight, latency_s) in enumerate(answers):
        probes.add(peer_id(number), in_flight, latency_s, 0.0)
    return probes


def test_the_quickest_that_is_cold_is_taken() -> None:
    assert pool((0, 3.0), (1, 2.0), (9, 1.0), (8, 1.5)).take(0.0) == peer_id(3), "at the median is cold"
    assert pool((0, 3.0), (1, 2.0), (1, 2.5), (9, 1.0)).take(0.0) == peer_id(1)


def test_answers_are_used_up() -> None:
    probes = pool((0, 1.0), (0, 2.0), (0, 3.0))
    assert [probes.take(0.0) for _ in range(3)] == [peer_id(0), peer_id(1), None]


def test_ones_own_request_counts() -> None:
    probes = pool((1, 1.0), (0, 2.0), (0, 3.0), uses=9)
    assert [probes.take(0.0) for _ in range(2)] == [peer_id(1), peer_id(0)], "else the same one twice"


def test_old_answers_are_forgotten() -> None:
    probes = pool((0, 1.0), (0, 2.0))
    assert probes.take(1.5) is None
    assert len(probes) == 0


def test_the_pool_is_bounded_and_withers() -> None:
    probes = pool(*((0, 1.0) for _ in range(10)))
    assert len(probes) == 4
    probes = pool((0, 1.0), (9, 2.0), (0, 3.0))
    probes.wither()  # the oldest
    probes.wither()  # the worst
    assert len(probes) == 1
    probes.wither()
    probes.wither()
    assert len(probes) == 0


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError):
        ProbesConfig(size=0)
