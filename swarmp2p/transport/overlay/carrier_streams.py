"""libp2p streams as carrier connections, where TCP between two planes cannot be dialled: `/swarm/carrier/1.0.0`.

    initiator -> responder   cluster 16 | source member 16 | target member 16, then the carrier's bytes

A stream to the other member's peer is tried first, over whatever connection libp2p finds: a punched one, or a relay's
until a hole is punched, when a new stream takes over. Where there is none, the stream goes to the head's peer, which
opens one to the target's peer with the same first bytes and passes everything on. The head, and any relay, sees only
what the two planes have sealed.

A stream is taken from the source member's own peer, or from the head's; the head passes on for members of its
cluster alone. Everything else is reset, and counted in `refused`. What the first bytes say is not believed
beyond that: whoever is at the other end must still prove to the plane that it has the pair's secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import trio
import trio.abc

from ...errors import SwarmError
from ...identity import PeerId
from ...scopes import cancel_scope
from ..mesh.members import MEMBER_ID_BYTES, MemberId, Roster
from ..network import PeerStream

PROTOCOL: Final = "/swarm/carrier/1.0.0"
HEADER_BYTES: Final = 3 * MEMBER_ID_BYTES

MAX_SPLICED: Final = 256
"""Streams that a head passes on at a time; further ones are refused. Each costs two tasks and up to 2 MiB. Two members
have one, in the direction from the one that dials: a newer one ends it, so that nobody takes the others' share."""

WINDOW_BYTES: Final = 8 << 20
"""Bytes that may be under way to a plane over a stream: 160 MB/s at a round trip of 50 ms."""
SPLICED_WINDOW_BYTES: Final = 1 << 20
"""The same for each way of a stream that a head passes on: what it may have to keep."""

_CHUNK_BYTES: Final = 65_536
_HEADER_S: Final = 10.0

OpenStream = Callable[[PeerId, str], Awaitable[PeerStream]]


class Carries(Protocol):
    """What a stream is given to: a plane."""

    async def carry(self, target: MemberId, stream: PeerStream) -> trio.Event:
        """Use a stream as carrier connection; the event is set when it is over."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """How a stream begins. source: the member that dials; target: the one that it wants."""

    cluster: MemberId
    source: MemberId
    target: MemberId

    def encode(self) -> bytes:
        """48 bytes."""
        return self.cluster + self.source + self.target

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """From 48 bytes."""
        size = MEMBER_ID_BYTES
        return cls(data[:size], data[size : 2 * size], data[2 * size : 3 * size])


@dataclass(frozen=True, slots=True)
class Here:
    """The stream is for the plane of one of our members. own: which."""

    own: MemberId


@dataclass(frozen=True, slots=True)
class Onward:
    """We are the head and pass it on to this peer."""

    peer: PeerId


def route(header: Header, sender: PeerId, me: PeerId, roster: Roster | None) -> Here | Onward | None:
    """What to do with a stream that begins like this. None: refuse it."""
    if roster is None or header.source == header.target:
        return None
    source, target = roster.get(header.source), roster.get(header.target)
    if source is None or target is None:
        return None
    if target.peer == me:
        return Here(target.member) if sender in (source.peer, roster.head) else None
    if roster.head == me and sender == source.peer:
        return Onward(target.peer)
    return None


class CarrierStreams:
    """See the module.

    me: this peer. open_stream: the network's. rosters: the rosters of the clusters that this peer has members in, by
    cluster; planes: the planes of its own members, by member. Both may change while this is used.
    """

    def __init__(
        self,
        me: PeerId,
        open_stream: OpenStream,
        rosters: Mapping[MemberId, Roster],
        planes: Mapping[MemberId, Carries],
    ) -> None:
        self._me, self._open_stream = me, open_stream
        self._rosters, self._planes = rosters, planes
        self._spliced: dict[Header, trio.CancelScope] = {}
        self.refused = 0

    async def open(self, cluster: MemberId, own: MemberId, target: MemberId) -> PeerStream:
        """A stream from one of our members to another peer's, for `Plane.carry`: directly, else through the head.

        Raises what `open_stream` raises when neither can be reached; KeyError when the target is no member.
        """
        roster = self._rosters[cluster]
        member = roster.get(target)
        if member is None:
            raise KeyError(target)
        header = Header(cluster, own, target)
        try:
            return await self._begin(member.peer, header)
        except (SwarmError, OSError):
            if roster.head in (self._me, member.peer):
                raise
        return await self._begin(roster.head, header)

    async def carry(self, cluster: MemberId, own: MemberId, target: MemberId) -> None:
        """Have the plane of one of our members use a stream to another one, and, when a better way to that peer has
        come about, another stream over that: the session goes on there without loss. Returns when a stream is over.

        Raises what `open` and `Plane.carry` raise.
        """
        plane, over = self._planes[own], False
        while not over:
            stream = await self.open(cluster, own, target)
            ended = await plane.carry(target, stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_first, stream.superseded, nursery.cancel_scope)
                nursery.start_soon(_first, ended.wait, nursery.cancel_scope)
            over = ended.is_set()

    async def handle(self, stream: PeerStream) -> None:
        """Serve one stream that another peer opened: the handler of `PROTOCOL`."""
        header = await _read_header(stream)
        decision = (
            None
            if header is None
            else route(header, stream.peer, self._me, self._rosters.get(header.cluster))
        )
        match decision, header:
            case Here(own), Header(source=source) if own in self._planes:
                with suppress(SwarmError):  # the plane has just ended
                    over = await self._planes[own].carry(source, stream)
                    await over.wait()
            case Onward(peer), Header() if header in self._spliced or len(self._spliced) < MAX_SPLICED:
                await self._pass_on(stream, header, peer)
            case _:
                self.refused += 1
                stream.reset()

    def prune(self, cluster: MemberId) -> None:
        """The roster of a cluster has changed, or is gone: pass nothing on for those who are not in it any more."""
        roster = self._rosters.get(cluster)
        for header, scope in self._spliced.items():
            if header.cluster == cluster and (
                roster is None or None in (roster.get(header.source), roster.get(header.target))
            ):
                scope.cancel()

    async def _pass_on(self, stream: PeerStream, header: Header, peer: PeerId) -> None:
        before = self._spliced.pop(header, None)
        if before is not None:
            before.cancel()
        scope = self._spliced[header] = cancel_scope()
        try:
            with scope:
                onward = await self._begin(peer, header)
                for way in (stream, onward):
                    way.widen(SPLICED_WINDOW_BYTES)
                await splice(stream, onward, onward.reset)
        except (SwarmError, OSError):
            pass  # it cannot be reached: the other side sees its stream reset, and tries again later
        finally:
            if self._spliced.get(header) is scope:
                del self._spliced[header]
            stream.reset()

    async def _begin(self, peer: PeerId, header: Header) -> PeerStream:
        stream = await self._open_stream(peer, PROTOCOL)
        try:
            await stream.send_all(header.encode())
        except BaseException as problem:
            stream.reset()
            if isinstance(problem, trio.BrokenResourceError):
                raise ConnectionResetError("the stream broke before it began") from problem
            raise
        return stream


async def _first(wait: Callable[[], Awaitable[object]], others: trio.CancelScope) -> None:
    await wait()
    others.cancel()


async def pump(stream: PeerStream, plane: trio.SocketStream) -> None:
    """Move bytes between a stream and a plane's socket until either ends; then both are closed."""
    stream.widen(WINDOW_BYTES)
    try:
        await splice(stream, plane, plane.socket.close)
    finally:
        stream.reset()


async def splice(
    one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream, close: Callable[[], None]
) -> None:
    """Move bytes both ways until either side ends. close: how to close `other` at once, which is done at the end."""
    try:
        async with trio.open_nursery() as nursery:

            async def move(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                try:
                    while data := await source.receive_some(_CHUNK_BYTES):
                        await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(move, one, other)
            nursery.start_soon(move, other, one)
    finally:
        close()


async def _read_header(stream: PeerStream) -> Header | None:
    """The first bytes of a stream; None when they do not come."""
    data = b""
    with trio.move_on_after(_HEADER_S):
        try:
            while len(data) < HEADER_BYTES:
                more = await stream.receive_some(HEADER_BYTES - len(data))
                if not more:
                    break
                data += more
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    return Header.decode(data) if len(data) == HEADER_BYTES else None
