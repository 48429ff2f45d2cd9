"""Streams of embedders' own protocols over libp2p."""

from __future__ import annotations

from typing import Final

import trio

from ..identity import PeerId
from .guards import Alone, check_size
from .muxer import MuxedStream
from .network import PeerStream

_MAX_UNSENT_BYTES: Final = 65_536
_CLOSE_TIMEOUT_S: Final = 10.0


class Libp2pStream(PeerStream):
    """A PeerStream over one of the host's streams; see PeerStream for what it does."""

    def __init__(self, stream: MuxedStream) -> None:
        self._stream = stream
        stream.connection.in_use += 1
        self._rest = b""  # read, and more than was asked for
        self._finished = self._closed = False
        self._sending, self._receiving = Alone("sending on"), Alone("receiving from")

    @property
    def peer(self) -> PeerId:
        return self._stream.peer

    @property
    def protocol(self) -> str:
        return self._stream.protocol

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        check_size(max_bytes)
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check_open()
            data = self._rest or await self._stream.read()
            self._check_open()
            self._rest = b"" if max_bytes is None else data[max_bytes:]
            return data if max_bytes is None else data[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            await self._send(view)

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self._stream.drained(_MAX_UNSENT_BYTES)
            self._check_sendable()

    async def _send(self, data: memoryview) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            for start in range(0, len(data), _MAX_UNSENT_BYTES):
                self._stream.push(data[start : start + _MAX_UNSENT_BYTES])
                await self._stream.drained(_MAX_UNSENT_BYTES)
                self._check_sendable()

    async def send_eof(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            if not self._finished:
                self._check_sendable()
                self._finished = True
                self._stream.finish()

    async def aclose(self) -> None:
        """Close after what was sent has left; the stream is reset when that takes over 10 s, or is cancelled."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._end()
        self._stream.abandon()
        try:
            await trio.lowlevel.checkpoint()
            with trio.fail_after(_CLOSE_TIMEOUT_S):
                await self._stream.drained()
        except trio.TooSlowError:
            self._stream.reset()
        except trio.Cancelled:
            self._stream.reset()
            raise

    def widen(self, window_bytes: int) -> None:
        self._stream.widen(window_bytes)

    async def superseded(self) -> None:
        await self._stream.connection.superseded.wait()

    def reset(self) -> None:
        if not self._closed:
            self._end()
            self._stream.reset()

    def _end(self) -> None:
        self._closed = True
        self._stream.connection.in_use -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._finished:
            raise trio.ClosedResourceError("the sending half was closed with send_eof()")
        if self._stream.broken:
            raise trio.BrokenResourceError("the stream was reset, or its connection broke")
