"""Many keys of one peer: where they end up, what that costs, and when they are stored again."""

from __future__ import annotations

from functools import lru_cache, partial

from simulations import checks
from simulations.swarm import DhtSwarm
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    Cancel,
    DhtOutput,
    Provide,
    ProvideMany,
    ProvideProgress,
    QueryDone,
    SetAddresses,
    StopProviding,
)
from swarmp2p.dht.keys import ID_BITS, key_id, multihash_key, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, FindNode, FoundNodes
from swarmp2p.dht.renewals import turn
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink

from .network import address, grown, peer_id
from .single import Outputs, Single, ended, receivers, requests

NUMBERS = {peer_id(number): number for number in range(100)}


@lru_cache
def keys(count: int) -> tuple[bytes, ...]:
    return tuple(multihash_key(b"key %d" % number) for number in range(count))


def served(single: Single, outputs: Outputs) -> list[tuple[PeerId, AddProvider]]:
    """Answer the FIND_NODEs among the outputs, and those that follow; the records that were sent."""
    sent = requests(outputs, AddProvider)
    waiting = requests(outputs, FindNode)
    while waiting:
        to, request = waiting.pop(0)
        outputs = single.hear(NUMBERS[to], FoundNodes(request.id, ()))
        sent += requests(outputs, AddProvider)
        waiting += requests(outputs, FindNode)
    return sent


def run_for(single: Single, seconds: float) -> list[tuple[PeerId, AddProvider]]:
    """Let time pass and have everybody answer at once; the records that were sent."""
    until, sent = single.now + seconds, list[tuple[PeerId, AddProvider]]()
    while single.engine.deadline() <= until:
        sent += served(single, single.wait_for_requests(until - single.now))
    single.wait(until - single.now)
    return sent


def connected(peers: int, config: DhtConfig | None = None) -> Single:
    single = Single(config or DhtConfig(refresh_interval_s=1e8))
    single.meet(*range(1, peers + 1))
    return single


def crowd(config: DhtConfig) -> Single:
    """It has met more peers than fit into its table."""
    single = Single(config)
    for number in range(1, 60):
        served(single, single.up(number))
    return single


def test_every_key_of_a_swarm_s_node_goes_to_its_nearest_peers_with_few_lookups() -> None:
    swarm = DhtSwarm(400, 1, UniformLink())
    swarm.fill_tables()
    done: list[DhtOutput] = []
    owner = swarm.peers[7]
    swarm.ask(owner, lambda query: ProvideMany(query, keys(2_000)), lambda now, peer, out: done.append(out))
    swarm.sim.run(60.0)
    assert isinstance(done[-1], QueryDone)
    assert (done[-1].stored, done[-1].failed) == (2_000, 0)
    assert swarm.sim.counts["AddProvider"] == 2_000 * 20
    assert swarm.dht(owner).publishing.sweeper.lookups <= 60
    placed = checks.placement(swarm, [(key, owner) for key in keys(2_000)[::20]])
    assert placed.held == 1.0


def test_a_burst_of_single_provides_is_stored_wholly() -> None:
    network, nodes = grown(30)
    numbers = [network.start(nodes[3], partial(providing, key)) for key in keys(100)]
    network.run(10.0)
    ends = [network.done(nodes[3], number) for number in numbers]
    assert all(done is not None and done.stored >= 15 for done in ends)
    placed = [
        sum(key == message.key for _, _, _, message in network.sent if isinstance(message, AddProvider))
        for key in keys(100)
    ]
    assert min(placed) >= 20


def providing(key: bytes, query: int) -> Provide:
    return Provide(query, key)


def test_progress_is_told_and_each_key_counts_once() -> None:
    single = connected(30)
    wanted = (*keys(200), *keys(10))
    outputs = list(single.post(ProvideMany(7, wanted)))
    sent = served(single, outputs) + run_for(single, 20.0)
    assert len(sent) == 200 * 20
    assert {message.key for _, message in sent} == set(keys(200))


def test_the_end_is_told_once() -> None:
    single = connected(3)
    outputs = list(single.post(ProvideMany(7, keys(150))))
    waiting = requests(outputs, FindNode)
    while waiting:
        to, request = waiting.pop(0)
        outputs += single.hear(NUMBERS[to], FoundNodes(request.id, ()))
    outputs += single.wait(10.0)
    assert [(done.stored, done.failed) for done in ended(outputs)] == [(150, 0)]
    told = [output for output in outputs if isinstance(output, ProvideProgress)]
    assert [(each.stored, each.left) for each in told] == [(22, 128), (86, 64)]


def test_no_peer_gets_more_than_a_batch_at_once_and_its_records_come_together() -> None:
    single = connected(30, DhtConfig(sweep_batch=10, sweep_pause_s=1.0, refresh_interval_s=1e8))
    outputs = list(single.post(ProvideMany(7, keys(40))))
    served(single, outputs)
    batch = receivers(single.wait(1.0), AddProvider)
    assert len(batch) == 10 * 20
    order = list(dict.fromkeys(batch))
    assert batch == [peer for peer in order for _ in range(batch.count(peer))]


def test_nobody_to_store_them_at_is_told_and_it_is_tried_again_soon() -> None:
    single = Single(DhtConfig(retry_s=15.0))
    (done,) = ended(single.post(ProvideMany(7, keys(5_000))))
    assert (done.stored, done.failed) == (0, 5_000)
    single.meet(1, 2, 3)
    assert len(run_for(single, 120.0)) >= 5_000 * 3


def test_cancelled_it_says_nothing_more_but_stores_all() -> None:
    single = connected(3)
    outputs = list(single.post(ProvideMany(7, keys(100))))
    single.post(Cancel(7))
    assert len(served(single, outputs) + run_for(single, 5.0)) == 300


def test_without_addresses_no_key_counts_as_stored() -> None:
    single = connected(3)
    single.post(SetAddresses(()))
    outputs = list(single.post(ProvideMany(7, keys(20))))
    assert served(single, outputs) == []
    single.post(SetAddresses((address(0),)))
    assert len(run_for(single, 30.0)) == 60


def test_renewals_of_many_keys_are_spread_over_the_interval_and_each_comes_in_time() -> None:
    single = crowd(DhtConfig(k=2, refresh_interval_s=1e8, provide_interval_s=1000.0, around_crowds=False))
    outputs = list(single.post(ProvideMany(7, keys(200))))
    assert len(served(single, outputs) + run_for(single, 5.0)) == 400
    per_step = [run_for(single, 50.0) for _ in range(40)]
    for key in keys(200):
        steps = [step for step, sent in enumerate(per_step) if any(message.key == key for _, message in sent)]
        gaps = [after - before for before, after in zip([-1, *steps], [*steps, 40], strict=True)]
        assert max(gaps) <= 20 + 2
    busiest = max(len(sent) for sent in per_step)
    assert busiest <= 400 * 0.25  # of 400 in 18 steps
    single.post(StopProviding(keys(200)[0]))
    later = [message.key for _ in range(24) for _, message in run_for(single, 50.0)]
    assert keys(200)[0] not in later
    assert set(later) == set(keys(200)[1:])


def test_a_key_around_which_there_may_be_sybils_is_stored_by_itself_and_farther_off() -> None:
    """With k = 2, some are by chance (crowding.py)."""
    single = crowd(DhtConfig(k=2, refresh_interval_s=1e8))
    outputs = list(single.post(ProvideMany(7, keys(200))))
    sent = served(single, outputs) + run_for(single, 5.0)
    copies = [sum(message.key == key for _, message in sent) for key in keys(200)]
    assert min(copies) == 2
    assert 2 < max(copies) <= 8


def test_in_a_small_network_many_keys_are_not_stored_with_each_refresh() -> None:
    single = connected(3, DhtConfig(refresh_interval_s=600.0))
    served(single, single.post(ProvideMany(7, keys(20))))
    run_for(single, 5.0)
    assert run_for(single, 3600.0) == []
    single.meet(4)
    sent = run_for(single, 1400.0)
    assert {NUMBERS[to] for to, _ in sent} == {1, 2, 3, 4}
    assert len(sent) == 80


def test_services_are_swept_with_records_signed_anew() -> None:
    single = connected(30, DhtConfig(refresh_interval_s=1e8, sweep_keys=4))
    names = [f"service {number}" for number in range(6)]
    first: dict[bytes, bytes] = {}
    for number, name in enumerate(names):
        for _, message in served(single, single.post(Announce(number, name))):
            assert message.provider is not None
            first[message.key] = message.provider.record
    again = run_for(single, 1200.0 + 600.0)
    for name in names:
        records = {
            message.provider.record
            for _, message in again
            if message.key == service_key(name) and message.provider is not None
        }
        assert records
        assert first[service_key(name)] not in records


def test_a_turn_comes_within_an_interval_whatever_the_time() -> None:
    for number in range(200):
        id, now = key_id(b"%d" % number), 17.0 * number**2
        when = turn(id, 9, 1000.0, 0.3, now)
        assert 90.0 <= when - now <= 1000.0
        assert turn(id, 9, 1000.0, 0.3, when) == when + 900.0
    neighbours = [
        turn(id >> ID_BITS - 9 << ID_BITS - 9, 9, 1000.0, 0.3, 5.0) for id in (peer_key(peer_id(1)),)
    ]
    assert neighbours == [turn(peer_key(peer_id(1)), 9, 1000.0, 0.3, 5.0)]
