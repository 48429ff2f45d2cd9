"""A holder's side: serves the streams of borrowers that give their snapshots, or want them back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from ..errors import BadMessage
from ..identity import PeerId, verify
from ..transport.network import PeerStream
from .files import SnapshotFiles
from .form import Snapshot, is_box_of, read_header
from .protocol import (
    ASK,
    DROP,
    GET,
    KEPT,
    NONE,
    REFUSED,
    SEND,
    Answer,
    Wish,
    decode_wish,
    encode_answer,
    receive_exactly,
    receive_frame,
)
from .shelf import Shelf, ShelfConfig

_AT_ONCE: Final = 6  # streams; further ones are refused
_OF_ONE: Final = 2  # of one peer: its next one may come before the end of the one before is known here
_WISH_S: Final = 10.0
_SLOWEST: Final = 65_536.0  # bytes a second below which a transfer is ended, after `_WISH_S` more


class Keeping:
    """What one holder keeps. lends_to: whose snapshots are taken; leases: who holds a lease here now."""

    def __init__(
        self,
        files: SnapshotFiles,
        config: ShelfConfig,
        now: Callable[[], float],
        lends_to: Callable[[PeerId], bool],
        leases: Callable[[], Collection[PeerId]],
    ) -> None:
        self._files, self._now, self._lends_to, self._leases = files, now, lends_to, leases
        self._shelf = Shelf(config)
        self._busy: list[PeerId] = []
        for header in files.headers():
            if self._shelf.take(header, now())[0]:
                files.drop(header.borrower)
            else:
                self._shelf.kept(header.borrower, now())

    @property
    def held(self) -> int:
        """Of how many borrowers there is a snapshot."""
        return len(self._shelf)

    @property
    def used_bytes(self) -> int:
        """By all of them."""
        return self._shelf.used_bytes

    async def serve(self, stream: PeerStream) -> None:
        """One stream."""
        peer = stream.peer
        if self._busy.count(peer) >= _OF_ONE or len(self._busy) >= _AT_ONCE:
            await self._answer(stream, Answer(REFUSED, reason="busy"))
            return
        self._busy.append(peer)
        try:
            with trio.fail_after(_WISH_S):
                wish = decode_wish(await receive_frame(stream))
            self._expire()
            await self._serve(stream, peer, wish)
        except (BadMessage, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            stream.reset()
        finally:
            self._busy.remove(peer)

    async def _serve(self, stream: PeerStream, peer: PeerId, wish: Wish) -> None:
        if wish.op in (ASK, GET):
            await self._return(stream, peer, wish.op == GET)
        elif wish.op == DROP:
            await self._withdraw(stream, peer, wish.header)
        else:
            await self._take(stream, peer, wish.header)

    async def _return(self, stream: PeerStream, peer: PeerId, whole: bool) -> None:
        header = self._shelf.find(peer, self._now())
        box = b""
        if header is not None and whole:
            try:
                box = await trio.to_thread.run_sync(self._files.read, header)
            except OSError:
                self._shelf.drop(peer)
                header = None
        if header is None:
            await self._answer(stream, Answer(NONE))
            return
        await self._answer(stream, Answer(KEPT, header.envelope))
        with trio.fail_after(_WISH_S + len(box) / _SLOWEST):
            await stream.send_all(box)

    async def _take(self, stream: PeerStream, peer: PeerId, envelope: bytes) -> None:
        if not self._lends_to(peer):  # before anything that costs something
            await self._answer(stream, Answer(REFUSED, reason="this peer does not lend to you"))
            return
        now = self._now()
        header = read_header(peer, envelope, verify)
        there = self._shelf.find(peer, now)
        if there is not None and there.envelope == header.envelope:
            await self._answer(stream, Answer(KEPT, there.envelope))
            return
        reason, gone = self._shelf.take(header, now, self._leases())
        for borrower in gone:
            self._files.drop(borrower)
        if reason:
            await self._answer(stream, Answer(REFUSED, b"" if there is None else there.envelope, reason))
            return
        try:
            await self._answer(stream, Answer(SEND))
            with trio.fail_after(_WISH_S + header.size / _SLOWEST):
                box = await receive_exactly(stream, header.size)
            if not is_box_of(header, box):
                raise BadMessage("it is not what its header was signed for")
            await trio.to_thread.run_sync(self._files.write, Snapshot(header, box))
        except OSError as problem:
            self._shelf.lost(peer)
            await self._answer(stream, Answer(REFUSED, reason=f"the disk: {problem.strerror}"))
        except BaseException:
            self._shelf.lost(peer)
            raise
        else:
            self._shelf.kept(peer, self._now())
            await self._answer(stream, Answer(KEPT, header.envelope))

    async def _withdraw(self, stream: PeerStream, peer: PeerId, envelope: bytes) -> None:
        """Whoever may borrow here by now: less is kept by it, not more."""
        why = self._shelf.withdraw(read_header(peer, envelope, verify))
        there = self._shelf.find(peer, self._now())
        if not why:
            self._files.drop(peer)
            await self._answer(stream, Answer(NONE))
        elif there is None:
            await self._answer(stream, Answer(REFUSED, reason=why))
        else:
            await self._answer(stream, Answer(KEPT, there.envelope, why))

    async def _answer(self, stream: PeerStream, answer: Answer) -> None:
        with trio.fail_after(_WISH_S):
            await stream.send_all(encode_answer(answer))

    def _expire(self) -> None:
        for borrower in self._shelf.expired(self._now()):
            self._files.drop(borrower)


@contextmanager
def snapshot_folder(state: Path | None) -> Generator[Path, None, None]:
    """Where a peer with this state file keeps others' snapshots; one without keeps them no longer than the context."""
    if state is not None:
        yield Path(f"{state}-snapshots")
        return
    with tempfile.TemporaryDirectory(prefix="swarm-snapshots-") as folder:
        yield Path(folder)
