from __future__ import annotations

from random import Random
from statistics import mean

import pytest

from simulations.swarm import DhtSwarm
from swarmp2p.dht.events import Refresh
from swarmp2p.dht.keys import ID_BITS, key_id, peer_key
from swarmp2p.dht.network_size import NetworkSize, radius_of
from swarmp2p.engine import PeerInfo
from swarmp2p.transport.link import UniformLink

from .network import peer_id, peer_info

K = 20


class Servers:
    """So many peers, without engines."""

    def __init__(self, count: int) -> None:
        self._infos = [peer_info(number) for number in range(count)]

    def nearest(self, target: int, count: int = K) -> list[PeerInfo]:
        return sorted(self._infos, key=lambda info: peer_key(info.peer) ^ target)[:count]


@pytest.mark.parametrize("count", [32, 1_000, 10_000])
def test_a_refresh_of_lookups_tells_the_size_within_a_quarter(count: int) -> None:
    servers, estimates = Servers(count), list[float]()
    for seed in range(8):
        size, rng = NetworkSize(K), Random(seed)
        for _ in range(12):
            target = rng.getrandbits(ID_BITS)
            size.learn(target, servers.nearest(target), 0.0)
        estimate = size.estimate(0.0)
        assert estimate is not None
        assert 0.75 * count < estimate < 1.25 * count
        estimates.append(estimate)
    assert mean(estimates) == pytest.approx(count, rel=0.08)


def test_in_a_swarm_each_node_learns_the_size_from_its_refresh() -> None:
    swarm = DhtSwarm(600, 1, UniformLink())
    swarm.fill_tables()
    asked = swarm.peers[::60]
    for peer in asked:
        for turn in range(3):
            swarm.ask(peer, Refresh, lambda now, peer, output: None, delay=60.0 * turn)
    swarm.sim.run(180.0)
    for peer in asked:
        estimate = swarm.dht(peer).network_size.estimate(swarm.sim.now)
        assert estimate == pytest.approx(599, rel=0.25)


def test_nothing_is_said_before_five_regions_were_looked_up() -> None:
    servers, size = Servers(100), NetworkSize(K)
    for region in range(4):
        for _ in range(10):  # the same region over and over
            target = region << (ID_BITS - 8)
            size.learn(target, servers.nearest(target), 0.0)
        assert size.estimate(0.0) is None
        assert size.radius(0.0) is None
    size.learn(1 << (ID_BITS - 1), [], 0.0)
    assert size.estimate(0.0) is None
    size.learn(1 << (ID_BITS - 1), servers.nearest(1 << (ID_BITS - 1)), 0.0)
    assert size.estimate(0.0) is not None


def test_sybils_around_some_targets_do_not_move_it() -> None:
    servers, size, rng = Servers(1_000), NetworkSize(K), Random(1)
    for number in range(12):
        target = rng.getrandbits(ID_BITS)
        near = servers.nearest(target)
        if number % 3 == 0:
            target = peer_key(near[0].peer)  # as if all k were at one place
            near = [near[0]] * K
        size.learn(target, near, 0.0)
    estimate = size.estimate(0.0)
    assert estimate is not None
    assert 750 < estimate < 1_400


def test_fewer_than_k_are_the_whole_network() -> None:
    servers, size = Servers(7), NetworkSize(K)
    for number in range(6):
        size.learn(key_id(b"%d" % number), servers.nearest(key_id(b"%d" % number)), 0.0)
    assert size.estimate(0.0) == 7.0


def test_recent_samples_weigh_more_and_old_ones_leave() -> None:
    few, many, size = Servers(100), Servers(1_000), NetworkSize(K)
    targets = [key_id(b"%d" % number) for number in range(24)]
    for target in targets[:12]:
        size.learn(target, few.nearest(target), 0.0)
    for target in targets[12:21]:
        size.learn(target, many.nearest(target), 3600.0)
    estimate = size.estimate(3600.0)
    assert estimate is not None
    assert estimate > 700
    assert size.estimate(3600.0 + 7200.0) is not None
    assert size.estimate(3600.0 + 7201.0) is None


def test_samples_are_bounded() -> None:
    servers, size = Servers(50), NetworkSize(K)
    for region in range(256):
        target = region << (ID_BITS - 8)
        size.learn(target, servers.nearest(target), 0.0)
    assert len(size._samples) == 64  # pyright: ignore[reportPrivateUsage]


def test_the_radius_holds_as_many_as_are_expected_within() -> None:
    servers, size, rng = Servers(1_000), NetworkSize(K), Random(2)
    for _ in range(40):
        target = rng.getrandbits(ID_BITS)
        size.learn(target, servers.nearest(target), 0.0)
    radius = size.radius(0.0)
    assert radius is not None
    targets = [rng.getrandbits(ID_BITS) for _ in range(50)]
    within = mean(
        sum(peer_key(info.peer) ^ target < radius for info in servers.nearest(target, 60))
        for target in targets
    )
    assert within == pytest.approx(K, rel=0.15)
    assert size.radius(0.0, 5) == pytest.approx(radius / 4, rel=1e-6)
    assert radius_of(10.0, K) == (1 << ID_BITS) - 1
    assert radius_of(0.0, 1) == (1 << ID_BITS) - 1


def test_peers_may_repeat_the_own_target() -> None:
    """A target that is a peer's own id has distance 0."""
    size = NetworkSize(1)
    for number in range(6):
        size.learn(peer_key(peer_id(number)), [peer_info(number)], 0.0)
    assert size.estimate(0.0) is not None


def test_a_result_of_colluding_peers_only_is_too_sparse() -> None:
    servers, size, rng = Servers(2_000), NetworkSize(K), Random(3)
    for _ in range(40):
        target = rng.getrandbits(ID_BITS)
        size.learn(target, servers.nearest(target), 0.0)
    honest = misled = 0
    for _ in range(300):
        target = rng.getrandbits(ID_BITS)
        honest += size.is_sparse(target, servers.nearest(target), 0.0)
        colluding = [info for info in servers.nearest(target, 120) if peer_key(info.peer) % 10 < 3][:K]
        misled += size.is_sparse(target, colluding, 0.0)
    assert honest <= 9
    assert misled >= 285


def test_fewer_than_k_say_nothing_and_neither_does_anything_before_an_estimate() -> None:
    servers, size = Servers(2_000), NetworkSize(K)
    far = servers.nearest(0, 200)[-K:]
    assert not size.is_sparse(0, far, 0.0)
    for number in range(20):
        size.learn(key_id(b"%d" % number), servers.nearest(key_id(b"%d" % number)), 0.0)
    assert size.is_sparse(0, far, 0.0)
    assert not size.is_sparse(0, far[1:], 0.0)


def test_the_larger_estimate_exceeds_three_of_four_samples() -> None:
    size = NetworkSize(K)
    for region in range(8):
        size.learn(region << (ID_BITS - 8), [peer_info(number) for number in range(region + 1)], 0.0)
    assert (size.estimate(0.0), size.estimate(0.0, 0.75)) == (4.5, 6.5)
