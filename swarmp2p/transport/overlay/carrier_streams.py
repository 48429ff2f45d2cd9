"""libp2p streams as carrier connections, where TCP between two planes cannot be dialled."""

from __future__ import annotations

from typing import Final

import trio

from ..network import PeerStream

_CHUNK_BYTES: Final = 65_536


async def pump(stream: PeerStream, plane: trio.SocketStream) -> None:
    """Move bytes both ways until either side ends; then both are closed."""
    async with trio.open_nursery() as nursery:

        async def move(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            try:
                while data := await source.receive_some(_CHUNK_BYTES):
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        try:
            nursery.start_soon(move, stream, plane)
            nursery.start_soon(move, plane, stream)
            await trio.sleep_forever()
        finally:
            stream.reset()
            plane.socket.close()
