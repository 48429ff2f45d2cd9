"""The public API over the in-memory network: every message as bytes, in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import multihash_key
from swarmp2p.errors import (
    AddressError,
    DialError,
    LookupFailed,
    PeerClosed,
    PeerNotFound,
    ProtocolUnsupported,
    UsageError,
    ValueNotFound,
)
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.load import LoadSignal
from swarmp2p.identity import Identity
from swarmp2p.node import NodeConfig
from swarmp2p.opening import node_protocols, open_peer
from swarmp2p.peer import Peer
from swarmp2p.ray_bridge.events import Offer
from swarmp2p.subscription import Subscription
from swarmp2p.transport.link import Partition, UniformLink
from swarmp2p.transport.memory import MemorySwitch
from swarmp2p.transport.network import PeerStream


class Swarm:
    """Peers on one switch, the first of which is everybody's bootstrap."""

    def __init__(self) -> None:
        self.partition = Partition(UniformLink(0.01))
        self.switch = MemorySwitch(self.partition, Random(7), node_protocols())
        self.peers: list[Peer] = []

    def identity(self, index: int) -> Identity:
        return Identity(hashlib.sha256(b"swarm %d" % index).digest())

    @asynccontextmanager
    async def peer(self, index: int, bootstrap: tuple[str, ...] = ()) -> AsyncGenerator[Peer, None]:
        identity = self.identity(index)
        network = self.switch.join(identity.peer_id)
        async with open_peer(identity=identity, network=network, bootstrap=bootstrap) as peer:
            yield peer

    @asynccontextmanager
    async def of(self, count: int) -> AsyncGenerator[list[Peer], None]:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(self.peer(0))
            address = str(first.addresses[0])
            others = [
                await stack.enter_async_context(self.peer(index, (address,))) for index in range(1, count)
            ]
            yield [first, *others]


async def test_addresses_end_in_the_peers_id(autojump_clock: MockClock) -> None:
    async with Swarm().of(1) as (peer,):
        assert peer.addresses
        assert all(str(address).endswith(f"/p2p/{peer.id}") for address in peer.addresses)


async def test_many_keys_are_provided_at_once_and_progress_is_told(autojump_clock: MockClock) -> None:
    async with Swarm().of(6) as peers:
        told: list[tuple[int, int, int]] = []
        keys = [b"block %d" % number for number in range(300)]

        def progress(stored: int, failed: int, left: int) -> None:
            told.append((stored, failed, left))

        stored = await peers[1].dht.provide_many(keys, progress)
        assert stored == 300
        assert told
        assert all(stored + failed + left == 300 for stored, failed, left in told)
        for key in keys[::60]:
            assert [found.id async for found in peers[5].dht.find_providers(key)] == [peers[1].id]
        assert await peers[1].dht.provide_many([]) == 0


async def test_providers_are_found_by_others(autojump_clock: MockClock) -> None:
    async with Swarm().of(6) as peers:
        stored = await peers[1].dht.provide(b"model weights")
        assert stored >= 4
        found = [provider async for provider in peers[5].dht.find_providers(b"model weights")]
        assert [provider.id for provider in found] == [peers[1].id]
        assert set(found[0].addresses) == set(peers[1].addresses)


async def test_a_multihash_key_is_used_as_it_is(autojump_clock: MockClock) -> None:
    multihash = multihash_key(b"model weights")
    async with Swarm().of(3) as peers:
        await peers[1].dht.provide(multihash)
        found = [provider.id async for provider in peers[2].dht.find_providers(b"model weights")]
        assert found == [peers[1].id]


async def test_a_find_may_be_left_early(autojump_clock: MockClock) -> None:
    async with Swarm().of(6) as peers:
        for peer in peers[1:5]:
            await peer.dht.provide(b"key")
        async for provider in peers[5].dht.find_providers(b"key"):
            assert provider.id in [peer.id for peer in peers]
            break
        found = [provider async for provider in peers[5].dht.find_providers(b"key", limit=2)]
        assert len(found) == 2


async def test_values(autojump_clock: MockClock) -> None:
    async with Swarm().of(5) as peers:
        assert await peers[1].dht.put(b"key", b"value") >= 3
        assert await peers[4].dht.get(b"key") == b"value"
        with pytest.raises(ValueNotFound, match="no value found"):
            await peers[4].dht.get(b"another key")


async def test_values_that_no_peer_would_store_are_refused(autojump_clock: MockClock) -> None:
    async with Swarm().of(3) as peers:
        with pytest.raises(UsageError, match="at most"):
            await peers[1].dht.put(b"key", bytes(10_000))
        with pytest.raises(UsageError, match="bytes"):
            await peers[1].dht.put(b"", b"value")


async def test_who_was_found_can_be_reached_though_it_serves_no_dht(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    client = NodeConfig(dht=DhtConfig(server=False))  # as behind a NAT: it is in nobody's routing table
    provider, finder = (swarm.switch.join(swarm.identity(index).peer_id) for index in (1, 2))
    async with (
        swarm.peer(0) as first,
        open_peer(
            identity=swarm.identity(1), network=provider, bootstrap=(str(first.addresses[0]),), config=client
        ) as peer,
        peer.announce("ray", {}),
        open_peer(
            identity=swarm.identity(2), network=finder, bootstrap=(str(first.addresses[0]),)
        ) as searching,
    ):
        assert [record.provider async for record in searching.find("ray")] == [peer.id]
        await finder.dial_peer(peer.id)
        assert peer.id in finder.connected


async def test_find_peer_and_closest(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    async with swarm.of(5) as peers:
        found = await peers[1].dht.find_peer(str(peers[4].id))
        assert (found.id, set(found.addresses)) == (peers[4].id, set(peers[4].addresses))
        closest = await peers[1].dht.closest(b"anything")
        assert {peer.id for peer in closest} == {peer.id for peer in peers if peer is not peers[1]}
        with pytest.raises(PeerNotFound, match="no address found"):
            await peers[1].dht.find_peer(swarm.identity(99).peer_id)
        assert {entry.peer for entry in peers[0].dht.table} == {peer.id for peer in peers[1:]}


async def test_a_refresh_asks_the_table_s_peers_again(autojump_clock: MockClock) -> None:
    async with Swarm().of(3) as (first, *others):
        await trio.sleep(20)
        asked_at = first.now()
        await first.dht.refresh()
        assert {entry.peer for entry in first.dht.table if entry.seen >= asked_at} == {
            other.id for other in others
        }


async def test_a_service_is_found_with_its_attributes_and_gone_when_withdrawn(
    autojump_clock: MockClock,
) -> None:
    async with Swarm().of(5) as peers:
        async with (
            peers[1].announce("ray-worker", {"gpu": "h100", "cpus": 8}),
            peers[2].announce("ray-worker", {"gpu": "a100", "cpus": 8}),
        ):
            records = [record async for record in peers[4].find("ray-worker")]
            assert {record.provider for record in records} == {peers[1].id, peers[2].id}
            records = [record async for record in peers[4].find("ray-worker", where={"gpu": "h100"})]
            assert [record.provider for record in records] == [peers[1].id]
            assert dict(records[0].attributes) == {"gpu": "h100", "cpus": 8}
        await trio.sleep(1)  # withdrawals are sent by now, and on their way
        assert [record async for record in peers[4].find("ray-worker")] == []


async def test_an_updated_announcement_replaces_the_older_one(autojump_clock: MockClock) -> None:
    async with Swarm().of(4) as peers, peers[1].announce("ray-worker", {"free": 1}) as announcement:
        await announcement.update({"free": 0})
        records = [record async for record in peers[3].find("ray-worker")]
        assert dict(records[-1].attributes) == {"free": 0}


async def test_a_service_is_announced_once_at_a_time(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (finder, provider):
        for number in range(2):
            async with provider.announce("ray-worker", {"number": number}):
                with pytest.raises(
                    UsageError, match="announces 'ray-worker' already; change that with its update"
                ):
                    async with provider.announce("ray-worker", {"number": 9}):
                        pass
                records = [record async for record in finder.find("ray-worker")]
                assert [dict(record.attributes) for record in records] == [{"number": number}]


class Numbers:
    """Values are numbers; the largest is best."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return value.isdigit()

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return max(range(len(values)), key=lambda place: int(values[place]))


async def test_a_value_that_the_own_validator_refuses_is_an_error(autojump_clock: MockClock) -> None:
    config, swarm = NodeConfig(dht=DhtConfig(validators={"n": Numbers()})), Swarm()
    identity = swarm.identity(0)
    network = swarm.switch.join(identity.peer_id)
    async with open_peer(identity=identity, network=network, config=config) as peer:
        assert await peer.dht.put(b"/n/key", b"5") == 0
        for value in (b"no number", b"4"):
            with pytest.raises(LookupFailed, match="stored nowhere: the validator of its key refuses it"):
                await peer.dht.put(b"/n/key", value)
        assert await peer.dht.get(b"/n/key") == b"5"


async def test_keys_that_no_request_can_carry_are_refused(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (peer, _):
        with pytest.raises(UsageError, match="1 to 256 bytes, not 257"):
            await peer.dht.get(b"k" * 257)
        with pytest.raises(UsageError, match="at most 1024 bytes, not 1025"):
            await peer.dht.closest(b"k" * 1025)
        assert len(await peer.dht.closest(b"k" * 1024)) == 1
        with pytest.raises(UsageError, match="a list"):
            await peer.dht.provide_many(3)  # type: ignore[arg-type] # pyright: ignore
        assert await peer.dht.provide_many(b"one key") == 1  # type: ignore[arg-type] # pyright: ignore


@pytest.mark.parametrize("wrong", [{"config": DhtConfig()}, {"mdns": "no"}])
async def test_settings_of_another_kind_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        async with open_peer(**wrong):
            pass


async def test_attributes_that_do_not_fit_are_refused_before_anything_is_sent(
    autojump_clock: MockClock,
) -> None:
    async with Swarm().of(1) as (peer,):
        with pytest.raises(UsageError):
            async with peer.announce("ray-worker", {"text": "x" * 600}):
                pass


async def test_messages_reach_subscribers_with_source_and_sequence(autojump_clock: MockClock) -> None:
    async with (
        Swarm().of(5) as peers,
        peers[3].subscribe("news") as third,
        peers[4].subscribe("news") as fourth,
    ):
        await trio.sleep(2)  # the mesh grows at heartbeats
        await peers[1].publish("news", b"first")
        await peers[1].publish("news", b"second")
        for subscription in (third, fourth):
            messages = [await anext(subscription) for _ in range(2)]
            assert {message.data for message in messages} == {b"first", b"second"}
            assert {message.source for message in messages} == {peers[1].id}
            assert messages[0].sequence != messages[1].sequence


async def test_a_slow_subscriber_loses_the_oldest_and_is_told(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as peers, peers[1].subscribe("news") as subscription:
        await trio.sleep(2)
        for number in range(1100):
            await peers[0].publish("news", b"%d" % number)
            await trio.sleep(0.001)
        await trio.sleep(2)
        assert subscription.dropped == 1100 - 1024
        assert int((await anext(subscription)).data) >= 1100 - 1024


def test_unread_messages_are_bounded_in_bytes_too() -> None:
    subscription = Subscription("news")
    source = Identity.generate().peer_id
    for number in range(40):
        subscription.deliver(GossipMessage(source, number.to_bytes(8, "big"), "news", bytes(2**20)))
    assert subscription.dropped == 40 - 16


async def test_too_large_a_message_is_refused(autojump_clock: MockClock) -> None:
    async with Swarm().of(1) as (peer,):
        with pytest.raises(UsageError, match="too many for one message"):
            await peer.publish("news", bytes(1 << 20))


async def test_load_signals_fill_the_table(autojump_clock: MockClock) -> None:
    signal = LoadSignal(
        cpus_free=3.0,
        memory_free_bytes=10**9,
        gpus_free=0.0,
        in_flight=1,
        leases=1,
        latency_s=0.0,
        kind="individual",
        region="",
    )
    async with Swarm().of(4) as peers, peers[3].follow_loads() as loads:
        await trio.sleep(2)
        await peers[1].publish_load(signal)
        await trio.sleep(2)
        entries = {entry.provider: entry.signal for entry in loads}
        assert entries[peers[1].id].cpus_free == 3.0


async def test_a_load_signal_that_others_would_drop_is_refused(autojump_clock: MockClock) -> None:
    signal = LoadSignal(1.0, 0, 0.0, 1.5, 0, 0.0, "individual", "")  # type: ignore[arg-type] # pyright: ignore
    async with Swarm().of(1) as (peer,):
        with pytest.raises(UsageError, match="in_flight is a whole number"):
            await peer.publish_load(signal)
        with pytest.raises(UsageError, match="a coordinate has 22 bytes"):
            await peer.set_load(LoadSignal(coordinate=b"here"))


async def test_streams_of_an_embedders_own_protocol(autojump_clock: MockClock) -> None:
    async def echo(stream: PeerStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data.upper())

    async with Swarm().of(3) as peers:
        peers[1].handle("/echo/1", echo)
        stream = await peers[2].open_stream(str(peers[1].id), "/echo/1")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"HELLO"
        await stream.aclose()
        with pytest.raises(ProtocolUnsupported):
            await peers[1].open_stream(peers[2].id, "/echo/1")


async def test_connect_joins_two_swarms(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    async with swarm.peer(1) as alice, swarm.peer(2) as bob:
        assert await alice.connect(bob.addresses[0]) == bob.id
        await alice.dht.provide(b"key")
        assert [found.id async for found in bob.dht.find_providers(b"key")] == [alice.id]


@pytest.mark.parametrize(
    "address", ["", "nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/999.0.0.1/tcp/1/p2p/12D3", "/p2p/12D3KooW"]
)
async def test_an_address_that_is_none_gives_a_clear_error(autojump_clock: MockClock, address: str) -> None:
    async with Swarm().of(1) as (peer,):
        with pytest.raises(AddressError, match="cannot use the address"):
            await peer.connect(address)
    with pytest.raises(AddressError, match="cannot use the address"):
        async with open_peer(bootstrap=[address]):
            pass


async def test_an_unreachable_bootstrap_gives_a_clear_error(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    nobody = swarm.identity(9).peer_id
    with pytest.raises(DialError, match="cannot reach"):
        async with swarm.peer(1, (f"/ip4/127.0.0.1/tcp/9/p2p/{nobody}",)):
            pass
    async with swarm.peer(1):
        pass  # and the identity can be used again: nothing was left running


async def test_one_of_several_bootstrap_peers_is_enough(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    nobody = swarm.identity(9).peer_id
    async with swarm.peer(0) as first:
        addresses = (f"/ip4/127.0.0.1/tcp/9/p2p/{nobody}", str(first.addresses[0]))
        async with swarm.peer(1, addresses) as second:
            assert [peer.id for peer in await second.dht.closest(b"key")] == [first.id]


async def test_waiting_callers_learn_that_the_peer_closed(autojump_clock: MockClock) -> None:
    closed: list[str] = []

    async def listen(peer: Peer, ready: trio.Event) -> None:
        try:
            async with peer.subscribe("news") as subscription:
                ready.set()
                await anext(subscription)
        except PeerClosed:
            closed.append("subscription")

    ready = trio.Event()
    async with trio.open_nursery() as nursery, Swarm().of(1) as (peer,):
        nursery.start_soon(listen, peer, ready)
        await ready.wait()
        await wait_all_tasks_blocked()
    assert closed == ["subscription"]
    with pytest.raises(PeerClosed):
        await peer.dht.get(b"key")


async def test_limits_and_keys_are_checked(autojump_clock: MockClock) -> None:
    async with Swarm().of(1) as (peer,):
        with pytest.raises(UsageError, match="at least one byte"):
            await peer.dht.provide(b"")
        with pytest.raises(UsageError, match="limit"):
            peer.dht.find_providers(b"key", limit=-1)
        with pytest.raises(UsageError, match="topic"):
            await peer.publish("", b"data")


async def test_values_of_wrong_types_are_refused_and_the_peer_goes_on(autojump_clock: MockClock) -> None:
    wrong: Any = 5
    async with Swarm().of(2) as (peer, other):
        dht = peer.dht
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: dht.provide(wrong),
            lambda: dht.find_peer(wrong),
            lambda: dht.closest(wrong),
            lambda: dht.put(wrong, b"value"),
            lambda: dht.put(b"key", wrong),
            lambda: dht.get(wrong),
            lambda: peer.connect(wrong),
            lambda: peer.publish(wrong, b"data"),
            lambda: peer.publish("news", wrong),
            lambda: peer.publish_load(wrong),
            lambda: peer.open_stream(wrong, "/chat/1"),
            lambda: peer.open_stream(other.id, wrong),
        ]
        for call in calls:
            with pytest.raises(UsageError):
                await call()
        for lookup in (
            lambda: dht.find_providers(wrong),
            lambda: dht.find_providers(b"key", limit=-1),
            lambda: peer.find(wrong),
            lambda: peer.find("ray-worker", where=wrong),
            lambda: peer.find("ray-worker", limit=-1),
        ):
            with pytest.raises(UsageError):
                lookup()
        contexts: list[AbstractAsyncContextManager[object]] = [
            peer.announce(wrong),
            peer.announce("ray-worker", wrong),
            peer.announce("ray-worker", index=wrong),
            peer.announce("ray-worker", index=["a", "b", "c", "d", "e", "f", "g", "h", "i"]),
            peer.subscribe(wrong),
            peer.lend(Offer(), allow=wrong),
        ]
        for context in contexts:
            with pytest.raises(UsageError):
                async with context:
                    pass
        with pytest.raises(UsageError):
            peer.handle("/chat/1", wrong)
        assert await dht.provide(b"still here") == 1


async def test_what_a_closed_peer_is_asked_for_is_refused(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (peer, other):
        pass
    for call in (
        lambda: peer.connect(other.addresses[0]),
        lambda: peer.publish("news", b"data"),
        lambda: peer.publish_load(LoadSignal()),
        lambda: peer.open_stream(other.id, "/chat/1"),
        lambda: peer.dht.provide(b"key"),
    ):
        with pytest.raises((PeerClosed, AddressError)):
            await call()
    with pytest.raises(PeerClosed):
        async with peer.subscribe("news"):
            pass
    assert len(peer.loads) == 0


async def test_whoever_looks_at_the_loads_hears_of_them(autojump_clock: MockClock) -> None:
    async with Swarm().of(4) as peers:
        table = peers[3].loads
        await trio.sleep(5)
        await peers[2].publish_load(LoadSignal(cpus_free=4))
        await trio.sleep(5)
        assert [(entry.provider, entry.signal.cpus_free) for entry in table] == [(peers[2].id, 4)]


async def test_distances_between_peers_are_known_without_asking_them(autojump_clock: MockClock) -> None:
    async with Swarm().of(4) as peers:
        for peer in peers:
            for number in range(3):
                await trio.sleep(1.1)
                await peer.dht.closest(bytes([number]) * 8)
        first, second, third, *_ = peers
        across = first.distance(second.id, str(third.id))
        assert across is not None
        assert 0 < across < 1
        assert first.distance(second.id) == pytest.approx(first.distance(first.id, second.id))
        assert first.distance(first.id) == 0.0
        assert first.coordinate.error < 1.5
        assert first.distance(Identity.generate().peer_id) is None
        with pytest.raises(UsageError):
            first.distance("nobody")


async def test_the_table_shows_addresses_that_can_be_dialled(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (first, second):
        (entry,) = first.dht.table
        assert (entry.id, entry.addresses) == (second.id, second.addresses)
        assert await first.connect(entry.addresses[0]) == second.id


async def test_one_address_to_join_at_may_stand_alone(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    async with swarm.peer(0) as first:
        for number, bootstrap in enumerate((first.addresses[0], str(first.addresses[0])), 1):
            identity = swarm.identity(number)
            network = swarm.switch.join(identity.peer_id)
            async with open_peer(identity=identity, network=network, bootstrap=bootstrap) as second:
                assert [entry.id for entry in second.dht.table] == [first.id]
