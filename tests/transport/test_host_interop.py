"""A plain py-libp2p host, with its own TCP, Noise, Yamux and identify, and ours understand each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.autonat.autonat import AutoNATService
from libp2p.host.autonat.pb import autonat_pb2
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import PingService
from libp2p.network.config import ConnectionConfig
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr.multiaddr import Multiaddr

from swarmp2p.engine import PeerDown, PeerUp
from swarmp2p.errors import PeerMismatch
from swarmp2p.identity import PeerId
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.autonat import ask
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.host import Host
from swarmp2p.transport.swarm import quiet
from swarmp2p.wire import Framing
from tests.transport.network_conformance import answering, echo, read_all
from tests.transport.station import PATIENCE_S, Station, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import ASK, SHOUT, Answer, Ask, Shout

ASK_ID, SHOUT_ID = TProtocol(ASK.ids[0]), TProtocol(SHOUT.ids[0])


@pytest.fixture
async def alice(nursery: trio.Nursery) -> Station:
    quiet()
    station = await HostWorld(nursery).station("alice")
    answering(station)
    return station


@asynccontextmanager
async def plain_host(name: str = "plain") -> AsyncGenerator[IHost, None]:
    """py-libp2p as it comes, but for its wish to dial everybody."""
    host = new_host(
        key_pair=create_new_key_pair(named(name).seed),
        connection_config=ConnectionConfig(min_connections=0, low_watermark=0, auto_connect_interval=1e9),
    )
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host
        await host.close()  # run() alone leaves its sockets open


def id_of(host: IHost) -> PeerId:
    return PeerId(host.get_id().to_bytes())


def addresses_of(host: IHost) -> list[bytes]:
    return [address.to_bytes() for address in host.get_transport_addrs()]


async def connect(host: IHost, station: Station) -> ID:
    peer = ID(bytes(station.peer))
    await host.connect(PeerInfo(peer, [Multiaddr(address) for address in station.network.addresses]))
    return peer


async def read_frames(stream: INetStream, count: int, framing: Framing) -> list[bytes]:
    """Whole frames, in whatever pieces they come."""
    buffer, bodies = FrameBuffer(framing, 100_000), list[bytes]()
    with trio.fail_after(PATIENCE_S):
        while len(bodies) < count:
            bodies += buffer.feed(await stream.read(4096))
    return bodies


async def test_plain_asks_ours(alice: Station) -> None:
    async with plain_host() as host:
        peer = await connect(host, alice)
        stream = await host.new_stream(peer, [ASK_ID])
        await stream.write(encode_frame(b"?one", Framing.UVARINT))
        assert await read_frames(stream, 1, Framing.UVARINT) == [b"!one"]
        await stream.write(b"".join(encode_frame(b"?%d" % number, Framing.UVARINT) for number in range(8)))
        assert await read_frames(stream, 8, Framing.UVARINT) == [b"!%d" % number for number in range(8)]
        await stream.write(encode_frame(b"?" + bytes(50_000), Framing.UVARINT))
        assert await read_frames(stream, 1, Framing.UVARINT) == [b"!" + bytes(50_000)]
        await stream.close()
        with pytest.raises(StreamEOF):
            await stream.read(1)
        up = await alice.next(PeerUp)
        assert (up.peer, up.addresses) == (id_of(host), tuple(addresses_of(host)))  # its identify told us
    assert (await alice.next(PeerDown)).peer == up.peer


async def test_ours_asks_plain(alice: Station) -> None:
    async with plain_host() as host:

        async def serve(stream: INetStream) -> None:
            buffer = FrameBuffer(Framing.UVARINT, 100_000)
            try:
                while True:
                    for body in buffer.feed(await stream.read(4096)):
                        await stream.write(encode_frame(b"!" + body[1:], Framing.UVARINT))
            except StreamError:  # the connection is over; py-libp2p would end all the others with it
                pass

        host.set_stream_handler(ASK_ID, serve)
        alice.network.introduce(id_of(host), addresses_of(host))
        for number in range(20):
            alice.network.send(id_of(host), Ask(number, b"%d" % number))
        got = [await alice.message() for _ in range(20)]
        assert {one.id: one.text for one in got if isinstance(one, Answer)} == {
            n: b"%d" % n for n in range(20)
        }
        alice.network.send(id_of(host), Ask(99, bytes(90_000)))
        assert await alice.message() == Answer(99, bytes(90_000))


async def test_messages_both_ways(alice: Station) -> None:
    received: list[bytes] = []
    async with plain_host() as host:

        async def serve(stream: INetStream) -> None:
            received.extend(await read_frames(stream, 3, Framing.U32))

        host.set_stream_handler(SHOUT_ID, serve)
        peer = await connect(host, alice)
        for number in range(3):
            alice.network.send(id_of(host), Shout(b"%d" % number))
        stream = await host.new_stream(peer, [SHOUT_ID])
        await stream.write(encode_frame(b"#hello", Framing.U32))
        assert await alice.message() == Shout(b"hello")
        await eventually(lambda: received == [b"#0", b"#1", b"#2"])


async def test_embedders_streams(alice: Station) -> None:
    async with plain_host() as host:
        alice.network.set_handler("/mine/1.0.0", echo)
        peer = await connect(host, alice)
        stream = await host.new_stream(peer, [TProtocol("/mine/1.0.0")])
        await stream.write(b"hello")
        with trio.fail_after(PATIENCE_S):
            assert await stream.read(5) == b"hello"

        async def back(theirs: INetStream) -> None:
            await theirs.write(await theirs.read(100))
            await theirs.close()

        host.set_stream_handler(TProtocol("/theirs/1.0.0"), back)
        ours = await alice.network.open_stream(id_of(host), "/theirs/1.0.0")
        await ours.send_all(b"and back")
        assert await read_all(ours) == b"and back"


async def test_identify_and_ping(alice: Station) -> None:
    async with plain_host() as host:
        alice.network.set_handler("/mine/1.0.0", echo)
        peer = await connect(host, alice)
        store = host.get_peerstore()
        await eventually(lambda: peer in store.peers_with_addrs() and bool(_protocols(host, peer)))
        assert {ASK_ID, *SHOUT.ids, "/mine/1.0.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"} <= _protocols(
            host, peer
        )
        assert [a.to_bytes() for a in store.addrs(peer)] == list(alice.network.addresses)
        with trio.fail_after(PATIENCE_S):
            assert len(await PingService(host).ping(peer, 3)) == 3


def _protocols(host: IHost, peer: ID) -> set[str]:
    return set(host.get_peerstore().get_protocols(peer))


async def test_a_plain_host_that_is_not_who_we_dialled(alice: Station) -> None:
    async with plain_host() as host:
        assert isinstance(alice.network, Host)
        with pytest.raises(PeerMismatch):
            await alice.network.dial(f"{host.get_transport_addrs()[0]}/p2p/{named('other').peer_id}")


async def test_each_side_dials_the_other_back(alice: Station) -> None:
    async with plain_host() as host:
        assert isinstance(host, BasicHost)
        service = AutoNATService(host)
        status, _ = await service.query_server(await connect(host, alice))
        assert status == autonat_pb2.Message.OK
        assert isinstance(alice.network, Host)
        (connection,) = alice.network._links().all()  # pyright: ignore[reportPrivateUsage]
        assert await ask(connection, alice.peer, alice.network.addresses) == alice.network.addresses[0]
        assert await ask(connection, alice.peer, [to_multiaddr("127.0.0.2", 4001)]) is None
