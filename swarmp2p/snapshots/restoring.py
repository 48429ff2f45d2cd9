"""A borrower's side on another machine: asks all that keep snapshots, and writes the newest that is genuine.

A holder can withhold a snapshot, or give an older one; therefore all are asked. What it alters or forges is found by
signature and digest: such a holder is not asked again, and the next one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..errors import BadMessage, NoSnapshot, SwarmError
from ..identity import Identity, PeerId, verify
from .copying import write_cluster
from .form import MAX_BOX_BYTES, Header, open_snapshot, read_header
from .giving import OpenStream, Search
from .protocol import (
    ASK,
    GET,
    KEPT,
    PROTOCOL,
    Wish,
    decode_answer,
    encode_wish,
    receive_exactly,
    receive_frame,
)

_AT_ONCE: Final = 16
_MOST_ASKED: Final = 1024
_ANSWER_S: Final = 10.0
_SLOWEST: Final = 65_536.0
_AGAIN_S: Final = 0.5
_OTHERS_S: Final = 5.0  # for others to answer as well, once somebody has a snapshot


@dataclass(frozen=True, slots=True)
class Restored:
    """What a cluster was restored from. made: of which sequence, milliseconds since 1970 by the borrower's clock then.
    faults: (holder, what it did) of those that gave what was not genuine."""

    holder: PeerId
    sequence: int
    faults: tuple[tuple[PeerId, str], ...] = ()


class Restoring:
    """One attempt."""

    def __init__(
        self,
        identity: Identity,
        open_stream: OpenStream,
        search: Search,
    ) -> None:
        self._identity, self._open_stream, self._search = identity, open_stream, search
        self._asked: dict[PeerId, None] = {}
        self._found: dict[PeerId, Header] = {}
        self._faults: dict[PeerId, str] = {}
        self._limit = trio.CapacityLimiter(_AT_ONCE)
        self._asking: trio.CancelScope | None = None

    async def run(self, directory: Path, timeout_s: float) -> Restored:
        """Look for `timeout_s` seconds at most until somebody has a snapshot, and write it where no cluster is yet.
        Raises NoSnapshot, and UsageError for the directory."""
        with trio.move_on_after(timeout_s):
            while not self._found:
                async with trio.open_nursery() as nursery:
                    self._asking = nursery.cancel_scope

                    def took(peer: PeerId, nursery: trio.Nursery = nursery) -> None:
                        if peer not in self._asked and len(self._asked) < _MOST_ASKED:
                            self._asked[peer] = None
                            nursery.start_soon(self._ask, peer)

                    await self._search(took)
                if not self._found:
                    self._asked = dict.fromkeys(self._faults)  # others may have been busy
                    await trio.sleep(_AGAIN_S)
        for holder, header in sorted(self._found.items(), key=lambda each: (-each[1].sequence, each[0])):
            files = await self._get(holder, header)
            if files is not None:
                await trio.to_thread.run_sync(write_cluster, directory, files)
                return Restored(holder, header.sequence, tuple(self._faults.items()))
        raise NoSnapshot(
            str(self._identity.peer_id), tuple((str(peer), why) for peer, why in self._faults.items())
        )

    async def _ask(self, peer: PeerId) -> None:
        async with self._limit:
            try:
                header, _ = await self._exchange(peer, ASK)
            except (
                SwarmError,
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                trio.TooSlowError,
            ) as error:
                if isinstance(error, BadMessage):
                    self._faults[peer] = f"a forged header: {error}"
                return
            if header is not None:
                self._found[peer] = header
                assert self._asking is not None
                self._asking.deadline = min(self._asking.deadline, trio.current_time() + _OTHERS_S)

    async def _get(self, peer: PeerId, told: Header) -> dict[str, bytes] | None:
        try:
            header, box = await self._exchange(peer, GET)
            if header is None or header.sequence < told.sequence:
                raise BadMessage("not what it said that it has")
            return await trio.to_thread.run_sync(open_snapshot, self._identity, header, box)
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            self._faults[peer] = f"a damaged snapshot: {error or 'too slow'}"
            return None

    async def _exchange(self, peer: PeerId, op: str) -> tuple[Header | None, bytes]:
        """Its header, if it has one, and with GET the box. Raises BadMessage for a header that is not this
        identity's."""
        with trio.fail_after(_ANSWER_S):
            stream = await self._open_stream(peer, PROTOCOL)
        try:
            with trio.fail_after(_ANSWER_S):
                await stream.send_all(encode_wish(Wish(op)))
                answer = decode_answer(await receive_frame(stream))
            if answer.answer != KEPT:
                return None, b""
            header = read_header(self._identity.peer_id, answer.header, verify)
            box = b""
            if op == GET:
                assert header.size <= MAX_BOX_BYTES
                with trio.fail_after(_ANSWER_S + header.size / _SLOWEST):
                    box = await receive_exactly(stream, header.size)
            return header, box
        finally:
            stream.reset()
