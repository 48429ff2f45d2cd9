"""Streams between two peers of one MemorySwitch."""

from __future__ import annotations

import logging
from typing import Final

import trio

from ..identity import PeerId
from .guards import Alone, check_size
from .network import PeerStream, StreamHandler

_log = logging.getLogger(__name__)

_MAX_BUFFERED_BYTES: Final = 1 << 18  # one Yamux window: what the other side may leave unread
_DEFAULT_RECEIVE_BYTES: Final = 1 << 16


class _Pipe:
    """One direction. A writer waits while the reader has left too much unread."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = False  # no more bytes follow those in the buffer
        self.broken = False
        self._changed = trio.Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        await self._changed.wait()


class MemoryStream(PeerStream):
    """One end of a pair; made by `stream_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer: PeerId, protocol: str) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._peer, self._protocol = peer, protocol
        self._closed = False
        self._sending, self._receiving = Alone("sending on"), Alone("receiving from")

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def protocol(self) -> str:
        return self._protocol

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        check_size(max_bytes)
        pipe = self._incoming
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check(pipe)
            while not pipe.buffer and not pipe.ended:
                await pipe.wait()
                self._check(pipe)
            size = _DEFAULT_RECEIVE_BYTES if max_bytes is None else max_bytes
            data = bytes(pipe.buffer[:size])
            del pipe.buffer[:size]
            pipe.change()
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        pipe, rest = self._outgoing, memoryview(data)
        with self._sending:
            await self._check_sendable()
            while rest:
                while len(pipe.buffer) >= _MAX_BUFFERED_BYTES:
                    await pipe.wait()
                    self._check(pipe)
                piece = rest[: _MAX_BUFFERED_BYTES - len(pipe.buffer)]
                pipe.buffer += piece
                rest = rest[len(piece) :]
                pipe.change()

    async def wait_send_all_might_not_block(self) -> None:
        pipe = self._outgoing
        with self._sending:
            await self._check_sendable()
            while len(pipe.buffer) >= _MAX_BUFFERED_BYTES:
                await pipe.wait()
                self._check(pipe)

    async def send_eof(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check(self._outgoing)
            self._outgoing.ended = True
            self._outgoing.change()

    async def _check_sendable(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check(self._outgoing)
        if self._outgoing.ended:
            raise trio.ClosedResourceError("the sending half was closed with send_eof()")

    async def aclose(self) -> None:
        self._closed = True
        self._outgoing.ended = True
        self._outgoing.change()
        self._break(self._incoming)  # the other side can send no more, and still read what was sent to it
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        if not self._closed:
            self._closed = True
            self._break(self._incoming)
            self._break(self._outgoing)

    @staticmethod
    def _break(pipe: _Pipe) -> None:
        pipe.broken = True
        pipe.buffer.clear()
        pipe.change()

    def _check(self, pipe: _Pipe) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if pipe.broken:
            raise trio.BrokenResourceError(
                "the other side closed or reset the stream, or its connection broke"
            )


def stream_pair(opener: PeerId, server: PeerId, protocol: str) -> tuple[MemoryStream, MemoryStream]:
    """(opener's end, server's end) of a new stream."""
    there, back = _Pipe(), _Pipe()
    return MemoryStream(back, there, server, protocol), MemoryStream(there, back, opener, protocol)


async def serve(handler: StreamHandler, stream: PeerStream) -> None:
    """Run an embedder's handler; what it raises ends its own stream and nothing else."""
    try:
        await handler(stream)
        await stream.aclose()
    except trio.BrokenResourceError:
        _log.debug("the other side reset a stream of %s", stream.protocol)
    except Exception:  # noqa: BLE001 - an embedder's bug, whatever it is
        _log.exception("the handler of %s raised; its stream to %s was reset", stream.protocol, stream.peer)
    finally:
        stream.reset()  # nothing happens when it was closed
