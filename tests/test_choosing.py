"""Choosing and probing providers through a peer, over the in-memory network in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.errors import PeerClosed, UsageError
from swarmp2p.gossip.balancer import Affinity, Placement, Strength, least_loaded
from swarmp2p.gossip.load import LoadSignal
from swarmp2p.peer import Peer
from swarmp2p.ray_bridge.events import Need
from tests.test_peer import Swarm


def load(in_flight: int, cpus_free: float = 4) -> LoadSignal:
    return LoadSignal(cpus_free=cpus_free, in_flight=in_flight, kind="workstation")


async def provided(chooser: Peer, *providers: Peer) -> None:
    """Providers with as many requests as their places say; the chooser has heard of them."""
    assert len(chooser.loads) == 0
    await trio.sleep(3)
    for place, provider in enumerate(providers):
        await provider.set_load(load(place))
    await trio.sleep(3)
    assert len(chooser.loads) == len(providers)


async def test_a_probe_brings_what_is_true_now(autojump_clock: MockClock) -> None:
    async with Swarm().of(4) as (chooser, *providers):
        await provided(chooser, *providers)
        await providers[0].set_load(load(7))
        await trio.sleep(0.1)
        await providers[0].set_load(load(8))
        before = trio.current_time()
        told = await chooser.probe([str(providers[0].id), providers[1].id])
        assert trio.current_time() - before < 0.1, "a round trip, and a dial"
        assert {peer: signal.in_flight for peer, signal in told.items()} == {
            providers[0].id: 8,
            providers[1].id: 1,
        }


async def test_who_is_no_provider_or_away_is_missing(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    async with swarm.of(3) as (chooser, provider, other):
        await provided(chooser, provider)
        stranger = swarm.identity(99).peer_id
        assert set(await chooser.probe([provider.id, other.id, stranger])) == {provider.id}
        swarm.partition.split({chooser.id: 0})
        before = trio.current_time()
        assert await chooser.probe([provider.id], timeout_s=0.3) == {}
        assert trio.current_time() - before <= 0.31
        assert await chooser.probe([]) == {}


async def test_one_busier_than_its_signal_steps_back(autojump_clock: MockClock) -> None:
    async with Swarm().of(4) as (chooser, *providers):
        await provided(chooser, *providers)
        first = (await chooser.choose())[0].provider  # by lot
        (busy,) = [provider for provider in providers if provider.id == first]
        await busy.set_load(load(9))
        ranked = await chooser.choose(probes=3)
        assert ranked[0].provider != first
        (probed,) = [choice for choice in ranked if choice.provider == first]
        assert "9 in flight 0.0 s ago" in probed.reason
        assert "probed" in probed.reason


async def test_who_has_no_room_any_more_is_left_out_and_who_is_silent_comes_last(
    autojump_clock: MockClock,
) -> None:
    swarm = Swarm()
    async with swarm.of(4) as (chooser, *providers):
        await provided(chooser, *providers)
        await providers[0].set_load(load(0, cpus_free=1))
        swarm.partition.split(dict.fromkeys((chooser.id, providers[0].id, providers[2].id), 0))
        ranked = await chooser.choose(Need(cpus=2), probes=3, rule=least_loaded)
        assert [choice.provider for choice in ranked] == [providers[2].id, providers[1].id]
        assert "did not answer" in ranked[1].reason


async def test_need_outstanding_and_placement_count(autojump_clock: MockClock) -> None:
    async with Swarm().of(3) as (chooser, first, second):
        await provided(chooser, first, second)
        assert await chooser.choose(Need(cpus=64)) == []
        ranked = await chooser.choose(outstanding={first.id: 5}, rule=least_loaded)
        assert [choice.provider for choice in ranked] == [second.id, first.id]
        only = Placement([Affinity(Strength.REQUIRE, peers=frozenset({second.id}))])
        assert [choice.provider for choice in await chooser.choose(placement=only, probes=2)] == [second.id]


async def test_arguments_are_checked(autojump_clock: MockClock) -> None:
    async with Swarm().of(1) as (peer,):
        wrong: list[Callable[[], Awaitable[Any]]] = [
            lambda: peer.choose(probes=17),
            lambda: peer.choose(probes=-1),
            lambda: peer.choose(timeout_s=0),
            lambda: peer.probe(["somebody"]),
            lambda: peer.probe([peer.id], timeout_s=float("inf")),
            lambda: peer.probe([Swarm().identity(number).peer_id for number in range(65)]),
        ]
        for call in wrong:
            with pytest.raises(UsageError):
                await call()


async def test_a_peer_that_closes_wakes_who_waits(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    async with swarm.peer(0) as provider:
        closed: list[str] = []

        async def wait(peer: Peer) -> None:
            try:
                await peer.probe([provider.id], timeout_s=1e6)
            except PeerClosed as problem:
                closed.append(str(problem))

        async with trio.open_nursery() as nursery:
            async with swarm.peer(1, (str(provider.addresses[0]),)) as peer:
                swarm.partition.split({provider.id: 1})
                nursery.start_soon(wait, peer)
                await trio.sleep(0.01)
        assert len(closed) == 1
        with pytest.raises(PeerClosed):
            await peer.choose()
        with pytest.raises(PeerClosed):
            await peer.probe([provider.id])
