"""AutoNAT v1 (autonat-v1 in libp2p's specs): asking others whether they can dial us, and doing so for others.

Who is asked dials only the IP address that it sees the asker at, so that nobody can be made to dial a third party;
the connection is made as far as to prove who answers, and closed. Our own implementation: py-libp2p's asks each
connected server in turn, keeps the connection that it made, and has no limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.host.autonat.pb.autonat_pb2 import Message
from multiaddr.multiaddr import Multiaddr

from ..engine import Address
from ..errors import BadMessage, SwarmError
from ..identity import PeerId
from ..wire import Framing
from .addresses import host_and_port, parse_direct, parse_transport
from .framing import FrameBuffer, encode_frame
from .multistream import propose
from .muxer import MuxedConnection, MuxedStream
from .reachability import Reachability, Scope, scope_of
from .sources import subnet_of

PROTOCOL_ID: Final = "/libp2p/autonat/1.0.0"
_MAX_BYTES: Final = 8_192
_MAX_ADDRESSES: Final = 16  # looked at; go-libp2p: 16
_MAX_DIALS: Final = 4  # for one request
_AT_ONCE: Final = 4
_PERIOD_S: Final = 60.0
_MAX_A_PERIOD: Final = 30  # go-libp2p
_MAX_A_PEER: Final = 3  # go-libp2p
_ANSWER_S: Final = 30.0  # until somebody who tries has an answer
_ASKED: Final = 4  # answers that are enough
_TRIED: Final = 16  # peers for that many answers

Try = Callable[[PeerId, Multiaddr], Awaitable[bool]]
"""Dials a peer at an address; whether it answered."""


class Server:
    """Dials back those who ask. attempt: dials."""

    def __init__(self, attempt: Try) -> None:
        self._attempt = attempt
        self._since = 0.0
        self._asked = Counter[PeerId]()
        self._running = 0

    @property
    def serving(self) -> bool:
        """Always."""
        return True

    async def serve(self, stream: MuxedStream) -> None:
        """Answer one request. Raises BadMessage, trio.BrokenResourceError, trio.TooSlowError."""
        with trio.fail_after(_ANSWER_S):
            answer = Message(type=Message.DIAL_RESPONSE)
            await self._answer(stream, answer)
            stream.push(encode_frame(answer.SerializeToString(), Framing.UVARINT))
            stream.finish()

    async def _answer(self, stream: MuxedStream, answer: Message) -> None:
        request, remote = await _read(stream), stream.connection.remote
        response = answer.dialResponse
        if request.type != Message.DIAL or request.dial.peer.id != bytes(stream.peer):
            response.status, response.statusText = Message.E_BAD_REQUEST, "not a request of yours to dial you"
            return
        if stream.connection.relay is not None:
            response.status, response.statusText = Message.E_DIAL_REFUSED, "you came through a relay"
            return
        found = (parse_direct(bytes(raw)) for raw in list(request.dial.peer.addrs)[:_MAX_ADDRESSES])
        own = [one for one in found if one is not None and host_and_port(one)[0] == remote[0]]
        if not own:
            response.status, response.statusText = Message.E_DIAL_REFUSED, "no address is where you are"
            return
        if not self._admit(stream.peer):
            response.status, response.statusText = Message.E_DIAL_REFUSED, "too many ask"
            return
        self._running += 1
        try:
            for address in list(dict.fromkeys(own))[:_MAX_DIALS]:
                if await self._attempt(stream.peer, address):
                    response.status, response.addr = Message.OK, address.to_bytes()
                    return
        finally:
            self._running -= 1
        response.status, response.statusText = Message.E_DIAL_ERROR, "nobody answers there"

    def _admit(self, peer: PeerId) -> bool:
        now = trio.current_time()
        if now - self._since > _PERIOD_S:
            self._since = now
            self._asked.clear()
        if (
            self._running >= _AT_ONCE
            or self._asked[peer] >= _MAX_A_PEER
            or self._asked.total() >= _MAX_A_PERIOD
        ):
            return False
        self._asked[peer] += 1
        return True


async def ask(connection: MuxedConnection, me: PeerId, addresses: Sequence[Address]) -> Address | None:
    """Have the other side dial us: where it did, as it says, empty where it could not; None when it does not try."""
    stream = connection.open()
    try:
        with trio.fail_after(_ANSWER_S):
            await propose(stream, [PROTOCOL_ID])
            request = Message(type=Message.DIAL)
            request.dial.peer.id = bytes(me)
            request.dial.peer.addrs.extend(addresses[:_MAX_ADDRESSES])
            stream.push(encode_frame(request.SerializeToString(), Framing.UVARINT))
            stream.finish()
            answer = await _read(stream)
    except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
        return None
    finally:
        stream.reset()
    response = answer.dialResponse
    if answer.type != Message.DIAL_RESPONSE or response.status not in (Message.OK, Message.E_DIAL_ERROR):
        return None
    if response.status == Message.E_DIAL_ERROR:
        return b""
    said = parse_transport(response.addr)
    return said.to_bytes() if said is not None else b"?"  # it could, wherever


async def ask_around(
    connections: Sequence[MuxedConnection],
    reach: Reachability,
    me: PeerId,
    addresses: Sequence[Address],
    reached: Callable[[MuxedConnection, Address], None] = lambda connection, address: None,
) -> None:
    """Ask as many of those worth asking as are needed for a verdict, one after the other: peers that we dialled, since
    anybody can dial us in order to be asked, and one of each subnet, since one party has many ids. reached: hears of
    those who could, and where."""
    answers = 0
    places: dict[str, MuxedConnection] = {}
    for one in connections:
        if one.dialled is not None and one.relay is None and scope_of(one.remote[0]) is reach.farthest:
            place = subnet_of(one.remote[0]) if reach.farthest is Scope.GLOBAL else str(one.peer)
            places.setdefault(place, one)
    worth = list(places.values())
    for connection in worth[:_TRIED]:
        where = await ask(connection, me, addresses)
        if where is not None:
            reach.verdict(connection.peer, connection.remote[0], bool(where), trio.current_time())
            if where:
                reached(connection, where)
            answers += 1
            if answers >= _ASKED:
                break


async def _read(stream: MuxedStream) -> Message:
    """The one message of a direction. Raises BadMessage, trio.BrokenResourceError."""
    buffer = FrameBuffer(Framing.UVARINT, _MAX_BYTES)
    while chunk := await stream.read():
        bodies = buffer.feed(chunk)
        if bodies:
            message = Message()
            try:
                message.ParseFromString(bodies[0])
            except DecodeError:
                raise BadMessage("autonat: no such message") from None
            return message
    raise BadMessage("autonat: the stream ended before a message")
