"""The facts of the wire that other implementations hold us to, over real connections and one byte at a time.

strict.py says whose facts these are. Malformed lengths and messages that are cut off are in
tests/transport/test_host_abuse.py and test_framing.py, what a single message may hold in tests/dht/test_wire.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr.multiaddr import Multiaddr

from swarmp2p.dht.keys import service_key
from swarmp2p.peer import Peer
from swarmp2p.transport.host import Host
from tests.interop.py_peers import IPFS, until
from tests.interop.raw_dht import Asker, AskerStream, asker, frame, go_like, our_peer
from tests.interop.strict import RUST_MAX_BYTES, check_reply
from tests.transport.rawpeer import rest_of
from tests.transport.station import named

pytestmark = pytest.mark.slow

KEY = b"\x12\x20" + hashlib.sha256(b"model weights").digest()
FIND = Message(type=Message.FIND_NODE, key=KEY)
LONG_NAME = "/dns4/" + "a-rather-long-name." * 12 + "example/tcp/4001"


@pytest.fixture
async def ours() -> AsyncGenerator[tuple[Peer, Host], None]:
    async with our_peer() as peer:
        yield peer


def add(provider: Asker, key: bytes = KEY, *addresses: str, id: bytes | None = None) -> Message:
    message = Message(type=Message.ADD_PROVIDER, key=key)
    encoded = [Multiaddr(address).to_bytes() for address in addresses or ("/ip4/127.0.0.1/tcp/4001",)]
    message.providerPeers.add(id=id or provider.peer, addrs=encoded)
    return message


def get(key: bytes = KEY) -> Message:
    return Message(type=Message.GET_PROVIDERS, key=key)


async def providers(stream: AskerStream, key: bytes = KEY) -> set[bytes]:
    return {peer.id for peer in (await stream.ask(get(key))).providerPeers}


async def test_requests_on_one_stream_are_answered_in_order(ours: tuple[Peer, Host]) -> None:
    """go keeps a stream for all its requests to a peer, rust and js for one; nobody's reply names its request."""
    async with asker(ours[1]) as connection:
        stream = await connection.stream()
        for _ in range(5):
            assert (await stream.ask(FIND)).type == Message.FIND_NODE
        kinds = [Message.FIND_NODE, Message.GET_PROVIDERS, Message.GET_VALUE, Message.PING] * 2
        stream.push(*(Message(type=kind, key=KEY) for kind in kinds))
        assert [Message.FromString(await stream.reply()).type for _ in kinds] == kinds


async def test_requests_in_single_bytes_and_with_the_proposal_are_understood(
    ours: tuple[Peer, Host],
) -> None:
    """go and rust negotiate lazily: the first request follows the proposal at once."""
    async with asker(ours[1]) as connection:
        raw = connection.open()
        proposal = [b"/multistream/1.0.0\n", f"{IPFS}\n".encode()]
        written = b"".join(bytes((len(line),)) + line for line in proposal) + frame(FIND)
        for index in range(len(written)):
            raw.push(written[index : index + 1])
            await trio.lowlevel.checkpoint()
        agreed = b"".join(bytes((len(line),)) + line for line in proposal)
        received = b""
        while len(received) <= len(agreed):
            received += await raw.read()
        assert received.startswith(agreed)
        assert Message.FromString(received[len(agreed) + 1 :]).type == Message.FIND_NODE


async def test_a_request_whose_stream_is_closed_behind_it_is_answered(ours: tuple[Peer, Host]) -> None:
    """rust and js use a stream for one request; js closes its half when it has the reply, others before."""
    async with asker(ours[1]) as connection:
        stream = await connection.stream()
        stream.push(FIND, FIND)
        stream.raw.finish()
        # Nobody else is known: the type, and as field 1004, which others skip, where this peer is in the network.
        reply = b"\x08\x04\xe2\x3e\x16"
        replies = await rest_of(stream.raw)
        assert replies is not None
        assert len(replies) == 2 * (1 + len(reply) + 22)
        assert replies[:6] == replies[28:34] == b"\x1b" + reply


async def test_forty_streams_at_once(ours: tuple[Peer, Host]) -> None:
    """go opens one for each lookup in its worst moments, js one for each request, 64 at most."""
    async with asker(ours[1]) as connection:
        streams = [await connection.stream() for _ in range(40)]
        for stream in streams:
            stream.push(FIND, get())
        for stream in reversed(streams):
            assert Message.FromString(await stream.reply()).type == Message.FIND_NODE
            assert Message.FromString(await stream.reply()).type == Message.GET_PROVIDERS


async def test_add_provider_is_answered_by_nobody(ours: tuple[Peer, Host]) -> None:
    """go would take an answer for that of its next request on the stream."""
    async with asker(ours[1]) as connection:
        stream = await connection.stream()
        stream.push(add(connection), add(connection), get())
        reply = Message.FromString(await stream.reply())
        assert reply.type == Message.GET_PROVIDERS
        assert [peer.id for peer in reply.providerPeers] == [connection.peer]


async def test_only_the_sender_may_say_that_it_provides_and_with_an_address(ours: tuple[Peer, Host]) -> None:
    peer, host = ours
    async with asker(host, "one") as one, asker(host, "other") as other:
        stream, second = await one.stream(), await other.stream()
        without = Message(type=Message.ADD_PROVIDER, key=KEY)
        without.providerPeers.add(id=one.peer)
        foreign = add(one, KEY, id=other.peer)
        foreign.providerPeers.add(id=b"no peer id", addrs=[b"\x04"])
        stream.push(without, foreign, Message(type=Message.ADD_PROVIDER, key=KEY))
        assert await providers(stream) == set()
        mixed = add(one, KEY, id=other.peer)
        mixed.providerPeers.add(id=one.peer, addrs=[Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes()])
        stream.push(mixed)
        assert await providers(stream) == {one.peer}
        assert await providers(second) == {one.peer}
        assert [found.id async for found in peer.dht.find_providers(KEY)] == [one.peer]


async def test_who_does_not_serve_the_dht_is_never_handed_out(ours: tuple[Peer, Host]) -> None:
    """kad-dht spec: clients stay out of tables. go asks a newcomer for itself first; so do we."""
    _, host = ours
    async with go_like("server") as (server,), asker(host, "client") as client, asker(host) as connection:
        await ours[0].connect(server.address)
        stream = await connection.stream()
        assert [peer.id for peer in (await stream.ask(FIND)).closerPeers] == [server.peer]
        own = await (await client.stream()).ask(Message(type=Message.FIND_NODE, key=connection.peer))
        assert client.peer not in {peer.id for peer in own.closerPeers}


async def test_go_s_check_of_a_newcomer_is_passed(ours: tuple[Peer, Host]) -> None:
    """go: lookupCheck asks a peer for itself, and drops it when nothing comes back."""
    peer, host = ours
    async with asker(host) as connection:
        reply = await (await connection.stream()).ask(Message(type=Message.FIND_NODE, key=peer.id))
        (found,) = reply.closerPeers
        assert found.id == peer.id
        assert list(found.addrs) == list(host.addresses)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(frame(Message(type=Message.FIND_NODE, key=bytes(70_000))), id="oversize"),
        pytest.param(b"\xf0\xa2\x04", id="an oversize length alone"),
        pytest.param(b"\x00", id="an empty message is a PUT_VALUE without a key"),
        pytest.param(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", id="a length of 2**63"),
        pytest.param(b"\x83\x00\x08\x04\x12", id="a length with more bytes than it needs"),
        pytest.param(b"\x02\x08\x06", id="an unknown type"),
        pytest.param(b"\x04\x08\xff\xff\x03", id="a far unknown type"),
        pytest.param(b"\x02\x08\x04", id="FIND_NODE without a key"),
        pytest.param(b"\x02\xff\xff", id="no protobuf"),
    ],
)
async def test_what_makes_no_sense_resets_its_stream_only(ours: tuple[Peer, Host], written: bytes) -> None:
    """As go and rust do; earlier replies are not lost, other streams live on."""
    async with asker(ours[1]) as connection:
        bad, good = await connection.stream(), await connection.stream()
        assert (await bad.ask(FIND)).type == Message.FIND_NODE
        bad.raw.push(written)
        assert await rest_of(bad.raw) is None
        assert (await good.ask(FIND)).type == Message.FIND_NODE
        assert (await (await connection.stream()).ask(FIND)).type == Message.FIND_NODE


async def test_unknown_fields_are_skipped(ours: tuple[Peer, Host]) -> None:
    """Others have fields of their own: rust's publisher and ttl of a record, go's cluster level."""
    async with asker(ours[1]) as connection:
        stream = await connection.stream()
        unknown = (
            b"\xa2\x7d\x03new" + b"\x50\x0a"
        )  # field 2004, bytes; field 10, cluster level 10 as rust has it
        body = FIND.SerializeToString() + unknown
        stream.raw.push(bytes((len(body),)) + body)
        assert Message.FromString(await stream.reply()).type == Message.FIND_NODE
        record = b"\x0a\x03/ab\x12\x01v" + b"\xd2\x29\x00" + b"\x88\x30\x3c"  # publisher: none, ttl: 60
        body = b"\x08\x00\x12\x03/ab\x1a" + bytes((len(record),)) + record
        stream.raw.push(bytes((len(body),)) + body)
        stored = Message.FromString(await stream.reply())
        assert (stored.record.key, stored.record.value) == (b"/ab", b"v")


async def test_replies_stay_below_what_rust_takes(ours: tuple[Peer, Host]) -> None:
    """22 servers and 22 providers of one key, each with as many long addresses as are kept (a provider: 1 KiB), and a
    large value."""
    peer, host = ours
    addresses = [f"/dns4/{number}{LONG_NAME[6:]}" for number in range(16)]
    async with AsyncExitStack() as stack:
        for server in await stack.enter_async_context(go_like(*(f"server {number}" for number in range(22)))):
            await peer.connect(server.address)
        for number in range(22):
            one = await stack.enter_async_context(asker(host, f"provider {number}"))
            stream = await one.stream()
            stream.push(add(one, KEY, *addresses))
            await stream.ask(FIND)
        assert await peer.dht.put(KEY, bytes(8192)) == 20
        connection = await stack.enter_async_context(asker(host))
        stream = await connection.stream()
        for kind in (Message.FIND_NODE, Message.GET_PROVIDERS, Message.GET_VALUE):
            request = Message(type=kind, key=KEY)
            stream.push(request)
            body = await stream.reply()
            reply = check_reply(body, request, peer.id, connection.peer)
            assert len(body) <= RUST_MAX_BYTES - 10
            assert len(reply.closerPeers) == 20
            assert len(reply.providerPeers) == (12 if kind == Message.GET_PROVIDERS else 0)


@pytest.mark.parametrize("echo", [False, True], ids=["as go", "as py"])
async def test_everything_we_ask_is_taken_by_all(echo: bool) -> None:
    """go_like() checks each request as strict.py says. Nothing waits for an answer to ADD_PROVIDER, and py's echo of
    it is not taken for one to something else."""
    async with go_like("one", "two", echo=echo) as (one, two):
        async with our_peer(one.address, two.address) as (peer, _):
            assert await peer.dht.provide(KEY) == 2
            assert await peer.dht.put(b"/swarm/version", b"1:one") == 2
            assert await peer.dht.get(b"/swarm/version") == b"1:one"
            async with peer.announce("ray-worker", {"gpu": "h100"}):
                await until(lambda: peer.id in one.providers.get(service_key("ray-worker"), {}))
                assert [record.provider async for record in peer.find("ray-worker")] == [peer.id]
            await until(
                lambda: peer.id in one.providers.get(KEY, {}) and peer.id in two.providers.get(KEY, {})
            )
            await peer.dht.refresh()
        for server in (one, two):
            kinds = {request.type for request in server.requests}
            assert kinds >= {0, 1, 2, 3, 4}
            assert all(len(request.providerPeers) == 1 for request in server.seen(Message.ADD_PROVIDER))


async def test_replies_as_long_as_go_s_are_taken() -> None:
    """go fills a reply with providers up to 4 MiB, 8 KiB each at most; these are 225 KiB."""
    async with go_like("popular") as (server,):
        known = server.providers[KEY] = {}
        for number in range(400):
            id = named(f"provider {number}").peer_id
            provider = known[id] = Message.Peer(id=id)
            texts = [f"/ip4/10.{number // 250}.{number % 250}.{last}/udp/4001/quic-v1" for last in range(40)]
            provider.addrs.extend(Multiaddr(text).to_bytes() for text in texts)
        async with our_peer(server.address) as (peer, host):
            found = [one.id async for one in peer.dht.find_providers(KEY, limit=None)]
            assert len(found) == 128  # as many of one reply as are taken (dht/wire.py)
            assert not host.stats.bad


async def test_everything_we_answer_is_taken_by_all(ours: tuple[Peer, Host]) -> None:
    peer, host = ours
    async with go_like("one", "two") as (one, two), asker(host) as connection:
        for server in (one, two):
            await peer.connect(server.address)
        put = Message(type=Message.PUT_VALUE, key=b"/swarm/version")
        put.record.key, put.record.value = put.key, b"1:one"
        refused = Message(type=Message.PUT_VALUE, key=b"/swarm/version")
        refused.record.key, refused.record.value = put.key, bytes(8193)
        requests = [
            *(FIND, get(), put, refused, Message(type=Message.GET_VALUE, key=put.key)),
            Message(type=Message.FIND_NODE, key=peer.id),
            Message(type=Message.FIND_NODE, key=one.peer),
            Message(type=Message.GET_VALUE, key=b"/swarm/nothing"),
            Message(type=Message.PING),
        ]
        stream = await connection.stream()
        async with peer.announce("ray-worker", {"gpu": "h100"}):
            for request in (*requests, get(service_key("ray-worker"))):
                stream.push(request)
                check_reply(await stream.reply(), request, peer.id, connection.peer)
        from_one = await Asker(one.server.connections[0], one.peer).stream()
        from_one.push(FIND)
        reply = check_reply(await from_one.reply(), FIND, peer.id, one.peer)
        assert [found.id for found in reply.closerPeers] == [two.peer]
        answered = await stream.ask(refused)
        assert answered.record.value != refused.record.value  # go and js: "value not put correctly"
