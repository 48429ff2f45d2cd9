"""Telling that a key is crowded, by numbers; going round the crowd, in small swarms with Sybils."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, factorial
from random import Random

import pytest

from simulations.adversary import AttackedSwarm, SybilPool
from simulations.checks import true_closest
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.crowding import Crowding
from swarmp2p.dht.errands import Ride
from swarmp2p.dht.events import (
    Announce,
    DhtCommand,
    DhtOutput,
    FindProviders,
    FindService,
    GetValue,
    Provide,
    ProviderFound,
    PutValue,
    QueryDone,
    Refresh,
    ServiceFound,
    Withdraw,
)
from swarmp2p.dht.keys import (
    ID_BITS,
    bucket_index,
    fresh_key_in_bucket,
    key_id,
    multihash_key,
    peer_key,
    service_key,
)
from swarmp2p.dht.lookup import Lookup, LookupConfig
from swarmp2p.dht.messages import FoundProviders, Provider
from swarmp2p.dht.network_size import NetworkSize
from swarmp2p.dht.queries import ClosestQuery, ProvideQuery, ProvidersQuery, Query
from swarmp2p.engine import PeerInfo
from swarmp2p.transport.link import UniformLink

from .network import peer_id, peer_info

K = 20
NODES = 200
KEY = multihash_key(b"gpu")
POOL = SybilPool(200 * NODES)


def honest_infos(count: int, target: int) -> list[PeerInfo]:
    return sorted(map(peer_info, range(count)), key=lambda info: peer_key(info.peer) ^ target)


def sized(count: int) -> NetworkSize:
    """An estimate made of a hundred lookups."""
    size, rng = NetworkSize(K), Random(1)
    for _ in range(100):
        target = rng.getrandbits(ID_BITS)
        size.learn(target, honest_infos(count, target)[:K], 0.0)
    return size


class Bench:
    """A Crowding, and what it runs."""

    def __init__(self, size: NetworkSize) -> None:
        self.run: list[Query] = []
        self.crowding = Crowding(
            size,
            K,
            Random(1),
            lambda target: Lookup(peer_id(0), target, (), LookupConfig()),
            lambda query, now, parent: self.run.append(query),
        )

    def check(self, query: Query, closest: list[PeerInfo]) -> list[int]:
        """How many bits the children's targets share with the key."""
        query.lookup = Ride(Lookup(peer_id(0), key_id(KEY), closest, LookupConfig()))
        while asked := query.lookup.lookup.next():
            for info in asked:
                query.lookup.lookup.answered(info.peer, ())
        self.run.clear()
        self.crowding.check(query, 0.0)
        return [bucket_index(key_id(KEY), child.lookup.target) for child in self.run]


def some_lookup() -> Lookup:
    return Lookup(peer_id(0), key_id(KEY), (), LookupConfig())


def test_how_seldom_honest_peers_are_so_near_is_as_stated() -> None:
    def reaches_k(expected: float) -> float:
        return 1 - sum(exp(-expected) * expected**count / factorial(count) for count in range(K))

    assert 1 / reaches_k(K / 3) == pytest.approx(44_000, rel=0.01)
    assert 1 / reaches_k(K / 3 / 0.75) == pytest.approx(1_100, rel=0.01)
    assert exp(K / 3) == pytest.approx(786, rel=0.01)


def test_honest_neighbourhoods_are_not_crowded() -> None:
    bench, rng = Bench(sized(1_000)), Random(3)
    for _ in range(300):
        target = rng.getrandbits(ID_BITS)
        assert not bench.crowding.is_crowded(target, honest_infos(1_000, target)[:K], 0.0)


def test_a_neighbourhood_that_belongs_to_sybils_is() -> None:
    bench, rng, pool = Bench(sized(1_000)), Random(4), SybilPool(50_000)
    for _ in range(100):
        target = rng.getrandbits(ID_BITS)
        sybils = [PeerInfo(peer) for peer in pool.nearest(target, K)]
        nearest_honest = peer_key(honest_infos(1_000, target)[0].peer) ^ target
        if peer_key(sybils[-1].peer) ^ target < nearest_honest:
            assert bench.crowding.is_crowded(target, sybils, 0.0)
        assert not bench.crowding.is_crowded(target, sybils[:-1], 0.0), "k are needed to tell"


def test_without_an_estimate_nothing_is_crowded() -> None:
    sybils = [PeerInfo(peer) for peer in POOL.nearest(key_id(KEY), K)]
    assert not Bench(NetworkSize(K)).crowding.is_crowded(key_id(KEY), sybils, 0.0)


def test_publishers_go_to_three_regions_and_finders_to_one_after_the_other() -> None:
    bench = Bench(sized(1_000))
    sybils = [PeerInfo(peer, (b"at",)) for peer in POOL.nearest(key_id(KEY), K)]
    assert bench.check(ProvideQuery(1, some_lookup(), KEY, lambda: None), sybils) == [5, 4, 6]
    assert bench.check(ClosestQuery(1, some_lookup(), KEY), sybils) == []
    find = ProvidersQuery(1, some_lookup(), KEY, 1, 10, ())
    assert bench.check(find, sybils) == [5]
    for shared in (4, 6):
        (child,) = bench.run
        bench.run.clear()
        assert child.then is not None
        child.then(child, 0.0)
        assert [bucket_index(key_id(KEY), child.lookup.target) for child in bench.run] == [shared]
    bench.check(find, sybils)
    (child,) = bench.run
    info = peer_info(1)
    child.confirmed(info.peer, FoundProviders(1, KEY, (Provider(info.peer, info.addresses),), ()), 0.0)
    assert child.then is not None
    child.then(child, 0.0)
    assert bench.run == [child], "it brought something"


def test_keys_of_regions_are_new_each_time() -> None:
    own, rng = key_id(KEY), Random(5)
    keys = [fresh_key_in_bucket(own, bucket, rng) for bucket in (0, 1, 5, 10) for _ in range(50)]
    found = [key for key in keys if key is not None]
    assert len(dict.fromkeys(found)) == len(keys)
    assert [bucket_index(own, key_id(key)) for key in found] == [0] * 50 + [1] * 50 + [5] * 50 + [10] * 50


class Attack:
    """A swarm in which a provider and a finder know its size, and 20 Sybils can be put around a key."""

    def __init__(self, key: bytes, *, defended: bool = True) -> None:
        config = DhtConfig(around_crowds=defended, optimistic=defended)
        self.swarm = AttackedSwarm(NODES, 1, UniformLink(), [config])
        self.swarm.fill_tables()
        self.key = key
        self.provider, self.finder = self.swarm.rng.sample(self.swarm.honest[0], 2)
        for peer in (self.provider, self.finder):
            self.ask(peer, Refresh, 1.0)

    def sybils_come(self, count: int = K) -> None:
        self.swarm.add_sybils(POOL.nearest(key_id(self.key), count))
        nearest = true_closest(self.swarm, key_id(self.key), K)
        assert all(peer in self.swarm.gang for peer in nearest)

    def ask(
        self, peer: bytes, make: Callable[[int], DhtCommand], delay: float = 0.0
    ) -> tuple[QueryDone, list[DhtOutput]]:
        """How a query ended, and its other outputs."""
        outputs: list[DhtOutput] = []
        asked = next(each for each in self.swarm.honest[0] if each == peer)
        self.swarm.ask(asked, make, lambda now, peer, output: outputs.append(output), delay)
        self.swarm.sim.run(self.swarm.sim.now + 60.0)
        done = outputs.pop()
        assert isinstance(done, QueryDone)
        return done, outputs


def found_providers(outputs: list[DhtOutput]) -> list[PeerInfo]:
    return [output.provider for output in outputs if isinstance(output, ProviderFound)]


@pytest.mark.parametrize("before", [True, False])
def test_a_provider_is_found_though_sybils_own_its_key(before: bool) -> None:
    attack = Attack(KEY)
    if before:
        attack.sybils_come()
    done, _ = attack.ask(attack.provider, lambda query: Provide(query, KEY))
    assert done.stored > K if before else 0.75 * K <= done.stored <= K
    if not before:
        attack.sybils_come()
    _, outputs = attack.ask(attack.finder, lambda query: FindProviders(query, KEY, 1))
    assert [info.peer for info in found_providers(outputs)] == [attack.provider]


def test_without_the_defence_it_is_not() -> None:
    attack = Attack(KEY, defended=False)
    attack.sybils_come()
    done, _ = attack.ask(attack.provider, lambda query: Provide(query, KEY))
    assert done.stored == K
    _, outputs = attack.ask(attack.finder, lambda query: FindProviders(query, KEY, 1))
    assert found_providers(outputs) == []


def test_a_value_is_found_and_its_confirmations_counted() -> None:
    attack = Attack(b"/x/crowded")
    attack.sybils_come()
    done, _ = attack.ask(attack.provider, lambda query: PutValue(query, attack.key, b"value"))
    assert done.stored > 2 * K
    done, _ = attack.ask(attack.finder, lambda query: GetValue(query, attack.key))
    assert done.value == b"value"


def test_a_service_is_found_and_withdrawn_everywhere() -> None:
    attack = Attack(service_key("gpu"))
    attack.sybils_come()
    attack.ask(attack.provider, lambda query: Announce(query, "gpu"))

    def found() -> list[DhtOutput]:
        _, outputs = attack.ask(attack.finder, lambda query: FindService(query, "gpu", (), 1))
        return [output for output in outputs if isinstance(output, ServiceFound)]

    assert len(found()) == 1
    done, _ = attack.ask(attack.provider, lambda query: Withdraw(query, "gpu"))
    assert done.stored > K
    assert found() == []
