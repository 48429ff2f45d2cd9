"""The memory network: what all networks promise, and what its Link does to it."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.engine import PeerDown, PeerUp, Received
from swarmp2p.errors import UsageError
from swarmp2p.identity import Identity
from swarmp2p.transport.link import Link, Partition, UniformLink
from swarmp2p.transport.memory import MemoryNetwork, MemorySwitch
from tests.transport.network_conformance import NetworkConformance, StreamConformance, answering
from tests.transport.station import World
from tests.transport.toy import ASK, TOYS, Answer, Ask, Shout


class MemoryWorld(World):
    """Peers on one switch."""

    def __init__(self, nursery: trio.Nursery, switch: MemorySwitch) -> None:
        super().__init__(nursery)
        self.switch = switch

    def network(self, identity: Identity) -> MemoryNetwork:
        return self.switch.join(identity.peer_id)


def world_over(nursery: trio.Nursery, link: Link) -> MemoryWorld:
    return MemoryWorld(nursery, MemorySwitch(link, Random(5), TOYS))


@pytest.fixture(params=["messages", "bytes", "jitter"])
def world(request: pytest.FixtureRequest, nursery: trio.Nursery) -> MemoryWorld:
    # pytest-trio takes a clock from a test's own arguments only: these run in real time, in milliseconds
    link = UniformLink(0.001, jitter=0.9 if request.param == "jitter" else 0.0)
    return MemoryWorld(nursery, MemorySwitch(link, Random(5), TOYS if request.param == "bytes" else ()))


class TestNetwork(NetworkConformance):
    """Promised of every network."""


class TestStreams(StreamConformance):
    """Promised of every network."""


async def test_messages_take_as_long_as_the_link_says(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    alice, bob = await world_over(nursery, UniformLink(2.0)).pair()
    answering(bob)
    began = trio.current_time()
    alice.network.send(bob.peer, Ask(1, b"?"))
    await alice.next(PeerUp)
    assert trio.current_time() - began == pytest.approx(4.0)  # one round trip to connect
    await alice.message()
    assert trio.current_time() - began == pytest.approx(8.0)  # and one for the request


async def test_what_the_link_loses_is_lost_without_a_word(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = world_over(nursery, UniformLink(0.01, loss=0.5))
    alice, bob = await world.pair()
    for number in range(200):
        alice.network.send(bob.peer, Shout(b"%d" % number))
    await alice.next(PeerUp)
    await trio.sleep(1)
    received = [event for event in bob.events if isinstance(event, Received)]
    assert 50 < len(received) < 150


async def test_a_partition_is_noticed_by_dials_and_heals(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    link = Partition(UniformLink(0.01))
    alice, bob = await world_over(nursery, link).pair()
    link.split({alice.peer: 0, bob.peer: 1})
    alice.network.send(bob.peer, Shout(b"lost"))
    assert (await alice.next(PeerDown)).peer == bob.peer
    link.heal()
    alice.network.send(bob.peer, Shout(b"found"))
    assert await bob.message() == Shout(b"found")


async def test_bytes_that_do_not_decode_are_counted(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    switch = MemorySwitch(UniformLink(0.01), Random(5), [ASK])
    alice, bob = await MemoryWorld(nursery, switch).pair()
    alice.network.send(bob.peer, Answer(1, b"not a request"))  # no request waits for it: goes nowhere
    alice.network.send(bob.peer, Ask(1, b"fine"))
    assert isinstance(await bob.message(), Ask)
    assert isinstance(alice.network, MemoryNetwork)
    assert alice.network.dropped == {"late reply": 1}


async def test_one_peer_runs_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = world_over(nursery, UniformLink())
    await world.station("alice")
    with pytest.raises(UsageError, match="runs already"):
        await world.station("alice")
