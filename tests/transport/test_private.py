"""Private swarms: with the key peers talk as ever, and without it nobody hears anything that makes sense."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from swarmp2p import open_peer
from swarmp2p.errors import DialError, UsageError
from swarmp2p.network_key import NetworkKey
from swarmp2p.scopes import start
from swarmp2p.transport.addresses import host_and_port, parse_transport
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.memory import MemoryNetwork
from swarmp2p.transport.private import ProtectedPipe
from swarmp2p.transport.relay_config import RelayConfig
from swarmp2p.transport.tcp import TcpPipe, dial_tcp
from tests.transport.station import PATIENCE_S, Station, eventually, named
from tests.transport.test_tcp import pipes
from tests.transport.toy import TOYS

KEY, OTHER = NetworkKey(b"k" * 32), NetworkKey(b"o" * 32)


async def test_a_private_swarm_is_like_any_other() -> None:
    with trio.fail_after(PATIENCE_S):
        async with (
            open_peer(network_key=KEY) as alice,
            open_peer(bootstrap=alice.addresses, network_key=KEY.secret) as bob,
            open_peer(bootstrap=alice.addresses, network_key=KEY.text) as carol,
            bob.announce("service", {"of": "bob"}),
        ):
            assert [record.provider async for record in carol.find("service", limit=1)] == [bob.id]
            async with bob.subscribe("topic") as topic:
                await eventually(lambda: bob.id in carol.subscribers("topic"))
                await carol.publish("topic", b"among us")
                assert (await anext(topic)).data == b"among us"


@pytest.mark.parametrize(("ours", "theirs"), [(KEY, OTHER), (KEY, None), (None, KEY)])
async def test_others_cannot_talk_to_it(ours: NetworkKey | None, theirs: NetworkKey | None) -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_peer(network_key=ours) as alice:
            with pytest.raises(DialError) as caught:
                async with open_peer(bootstrap=alice.addresses, network_key=theirs):
                    pass
            assert ("another network key, or none" in str(caught.value)) == (theirs is not None)
            assert "of the same private swarm or none" in str(caught.value)
            assert alice.connected == ()
            assert len(alice.dht.table) == 0


async def alone(nursery: trio.Nursery) -> tuple[Station, TcpPipe]:
    """A host of a private swarm, and a bare connection to it."""
    identity = named("alice")
    station = Station(identity, Host(identity, ["/ip4/127.0.0.1/tcp/0"], TOYS, network_key=KEY))
    await start(nursery, station.run)
    target = parse_transport(station.network.addresses[0])
    assert target is not None
    return station, await dial_tcp(*host_and_port(target))


async def test_who_says_nothing_hears_nothing(nursery: trio.Nursery) -> None:
    _, pipe = await alone(nursery)
    pipe.push(bytes(23))  # a nonce has 24
    with trio.move_on_after(0.1) as silence:
        await pipe.receive()
    assert silence.cancelled_caught
    pipe.shut()


@pytest.mark.parametrize(
    "said",
    [
        b"\x13/multistream/1.0.0\n\x07/noise\n" + bytes(100),
        bytes(1000),
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ],
)
async def test_who_has_no_key_gets_24_random_bytes_at_most(nursery: trio.Nursery, said: bytes) -> None:
    heard = list[bytes]()
    for _ in range(2):
        _, pipe = await alone(nursery)
        pipe.push(said)
        with trio.move_on_after(0.3):
            while data := await pipe.receive():
                heard.append(data)
        pipe.shut()
    assert [len(one) for one in heard] == [24, 24]
    assert heard[0] != heard[1]


async def test_a_recorded_connection_cannot_be_played_again(nursery: trio.Nursery) -> None:
    """The other side's nonce is its own each time, so what was recorded makes no sense under it; and Noise would not
    take it either."""
    _, pipe = await alone(nursery)
    protected = ProtectedPipe(pipe, KEY)
    sent: list[bytes] = []
    push = pipe.push

    def recorded(data: bytes) -> None:
        sent.append(data)
        push(data)

    pipe.push = recorded  # type: ignore[method-assign]
    protected.push(b"\x13/multistream/1.0.0\n\x07/noise\n")
    with trio.fail_after(PATIENCE_S):
        assert await protected.receive()
    station, again = await alone(nursery)
    again.push(b"".join(sent))
    with trio.move_on_after(0.3):
        first = await again.receive()
        assert len(first) >= 24  # an answer to the agreement, under another nonce
    assert not station.events
    pipe.shut()
    again.shut()


async def test_bytes_come_through_in_whatever_pieces() -> None:
    here, there = await pipes()
    ours, theirs = ProtectedPipe(here, KEY), ProtectedPipe(there, KEY)
    sent = b"".join(bytes([number]) * 1000 for number in range(200))
    for at in range(0, len(sent), 777):
        ours.push(sent[at : at + 777])
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.drain)
        with trio.fail_after(PATIENCE_S):
            while len(received) < len(sent):
                received += await theirs.read(100 + len(received) % 900)
    assert received == sent
    theirs.push(b"back")
    assert await ours.read(2) == b"ba"
    assert await ours.read(9) == b"ck"
    ours.unread(b"again")
    assert await ours.receive() == b"again"
    ours.shut()
    assert await theirs.receive() == b""
    theirs.shut()


async def test_a_nonce_may_come_byte_by_byte() -> None:
    here, there = await pipes()
    theirs = ProtectedPipe(there, KEY)
    from swarmp2p.transport.xsalsa20 import xsalsa20

    async def trickle() -> None:
        for one in bytes(24) + xsalsa20(KEY.secret, bytes(24))(b"hi"):
            here.push(bytes([one]))
            await trio.lowlevel.checkpoint()

    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with trio.fail_after(PATIENCE_S):
            while got != b"hi":
                got += await theirs.receive()
    here.shut()
    theirs.shut()


async def test_networks_of_ones_own_have_no_key_of_ours() -> None:
    network = MemoryNetwork.__new__(MemoryNetwork)
    with pytest.raises(UsageError, match="a network key is for libp2p connections"):
        async with open_peer(network=network, network_key=KEY):
            pass


async def test_through_a_relay_both_ends_need_the_key(nursery: trio.Nursery) -> None:
    """The connection through the relay is under the key as well, not only those to the relay."""
    relay, hidden = HostConfig(relay=RelayConfig()), HostConfig(relay=RelayConfig(punch=False), sweep_s=0.02)

    async def a_host(name: str, listen: Sequence[str], config: HostConfig) -> tuple[Station, Host]:
        identity = named(name)
        host = Host(identity, listen, TOYS, config, KEY)
        station = Station(identity, host)
        await start(nursery, station.run)
        return station, host

    with trio.fail_after(PATIENCE_S):
        middle, _ = await a_host("middle", ["/ip4/127.0.0.1/tcp/0"], relay)
        bob, bobs = await a_host("bob", (), hidden)
        await bobs.dial_peer(middle.peer, middle.network.addresses)
        await eventually(lambda: middle.peer in bobs.relays)
        carol, carols = await a_host("carol", ["/ip4/127.0.0.1/tcp/0"], hidden)
        await carols.dial_peer(bob.peer, bobs.addresses)
        (connection,) = (one for one in carols._links().all() if one.peer == bob.peer)  # pyright: ignore[reportPrivateUsage]
        pipe = connection._channel.pipe  # pyright: ignore[reportPrivateUsage]
        assert isinstance(pipe, ProtectedPipe)
        assert pipe.relay == middle.peer
        assert carol.peer in bobs.connected
