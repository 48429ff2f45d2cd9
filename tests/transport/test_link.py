"""Links: the fate of one message."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.link import Partition, UniformLink
from swarmp2p.transport.sim_peers import sim_peer

A, B, C, D = (sim_peer(index) for index in range(4))


def test_without_jitter_and_loss_the_delay_is_constant_and_nothing_is_drawn() -> None:
    rng = Random(1)
    before = rng.getstate()
    assert UniformLink(0.025).delay(0.0, A, B, rng) == 0.025
    assert rng.getstate() == before


@given(st.floats(0.001, 1.0), st.floats(0.0, 1.0), st.integers())
def test_jitter_stays_within_its_share_of_the_delay(delay_s: float, jitter: float, seed: int) -> None:
    delay = UniformLink(delay_s, jitter).delay(0.0, A, B, Random(seed))
    assert delay is not None
    assert delay_s * (1 - jitter) * 0.999999 <= delay <= delay_s * (1 + jitter) * 1.000001


def test_jitter_is_centred_on_the_delay_and_loss_has_its_share() -> None:
    rng = Random(1)
    link = UniformLink(0.1, jitter=0.5, loss=0.2)
    delays = [link.delay(0.0, A, B, rng) for _ in range(10_000)]
    arrived = [delay for delay in delays if delay is not None]
    assert 0.78 < len(arrived) / len(delays) < 0.82
    assert 0.099 < sum(arrived) / len(arrived) < 0.101
    assert min(arrived) < 0.052
    assert max(arrived) > 0.148


def test_loss_of_one_loses_everything() -> None:
    rng = Random(1)
    assert {UniformLink(0.1, loss=1.0).delay(0.0, A, B, rng) for _ in range(100)} == {None}


def test_a_partition_cuts_between_groups_and_around_peers_in_none_until_it_heals() -> None:
    rng = Random(1)
    link = Partition(UniformLink(0.01))
    assert link.delay(0.0, A, B, rng) == 0.01
    link.split({A: 0, B: 1, C: 0})
    reachable = {(x, y): link.delay(0.0, x, y, rng) is not None for x in (A, B, C, D) for y in (A, B, C, D)}
    assert [pair for pair, reached in reachable.items() if reached] == [
        (A, A),
        (A, C),
        (B, B),
        (C, A),
        (C, C),
    ]
    link.heal()
    assert link.delay(0.0, A, D, rng) == 0.01


def test_a_partition_keeps_its_own_copy_of_the_groups() -> None:
    groups = {A: 0, B: 0}
    link = Partition(UniformLink(0.01))
    link.split(groups)
    groups[B] = 1
    assert link.delay(0.0, A, B, Random(1)) == 0.01


def test_the_link_under_a_partition_decides_what_the_partition_lets_through() -> None:
    link = Partition(UniformLink(0.01, loss=1.0))
    link.split({A: 0, B: 0})
    assert link.delay(0.0, A, B, Random(1)) is None
