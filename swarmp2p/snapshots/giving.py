"""A borrower's side: has k holders keep the newest snapshot of one cluster.

A snapshot is made when what the cluster has stored has changed, at once and then at most every `every_s` seconds, and
once more when half of its time is over. A holder that refuses, or does not answer, is replaced; now and then each is
asked whether it still has its own.

A cluster that is over for good takes them back. That reaches who can be reached then; elsewhere they expire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ..errors import BadMessage, SwarmError, UsageError
from ..identity import Identity, PeerId, verify
from ..scopes import cancel_scope
from ..transport.network import PeerStream
from .copying import Fingerprint, fingerprint, read_cluster
from .form import Snapshot, make_snapshot, read_header
from .holders import Holders
from .protocol import (
    DROP,
    GIVE,
    KEPT,
    NONE,
    PROTOCOL,
    REFUSED,
    SEND,
    Answer,
    Wish,
    decode_answer,
    encode_wish,
    receive_frame,
)

OpenStream = Callable[[PeerId, str], Awaitable[PeerStream]]
"""Peer.open_stream."""

Search = Callable[[Callable[[PeerId], None]], Awaitable[None]]
"""Calls with each peer that announces to keep snapshots; bounded in time."""

_ANSWER_S = 10.0
_SLOWEST = 65_536.0  # as serving.py's
_ROUNDS = 3  # of asking others in place of those that refused, at one look
_MOST_ASKED = 32  # peers asked to delete one


@dataclass(frozen=True, slots=True)
class GivingConfig:
    """every_s: the shortest time between two snapshots. look_s: between two looks whether something has changed, which
    cost a stat of each file. search_s: between two searches for holders while some are missing. check_s: between two
    questions to a holder. lives_s: until a snapshot expires; a week, as holders have it. drop_s: for each of
    `drops` attempts to have one deleted, with drop_pause_s between. The others are guesses."""

    every_s: float = 5.0
    look_s: float = 1.0
    search_s: float = 10.0
    check_s: float = 120.0
    lives_s: float = 7 * 86_400.0
    drop_s: float = 2.0
    drops: int = 3
    drop_pause_s: float = 0.5


class Giving:
    """One cluster's. tell: takes (peer, words): who holds a snapshot now, or does not any more; or, with the borrower's
    own id, why there is none."""

    def __init__(
        self,
        identity: Identity,
        directory: Path,
        holders: Holders,
        open_stream: OpenStream,
        search: Search,
        now: Callable[[], float],
        tell: Callable[[PeerId, str], None],
        config: GivingConfig = GivingConfig(),
    ) -> None:
        self._identity, self._directory, self._holders = identity, directory, holders
        self._open_stream, self._search, self._now, self._tell = open_stream, search, now, tell
        self._config = config
        self._sequence = 0
        self._seen: Fingerprint = ()
        self._content = b""
        self._made = float("-inf")
        self._searched = self._checked = float("-inf")
        self._snapshot: Snapshot | None = None
        self._problem = ""
        self._gave: dict[PeerId, None] = {}  # whoever may have one, the last asked last
        self._scope = cancel_scope()

    async def run(self) -> None:
        """Until cancelled, or `withdraw`."""
        with self._scope:
            while True:
                await self.step()
                await trio.sleep(self._config.look_s)

    async def withdraw(self) -> tuple[PeerId, ...]:
        """Give no more, and have those delete theirs who were given one, in this life of the cluster or maybe in one
        before: the peers that are known to keep any. Takes 7 s at most. Returns who did not answer: what they have
        expires."""
        self._scope.cancel()
        if self._snapshot is None:
            return ()
        config, header = self._config, self._snapshot.header.envelope
        asked = [*reversed(self._gave), *self._holders.known]
        left = dict.fromkeys(list(dict.fromkeys(asked))[:_MOST_ASKED])

        async def drop(peer: PeerId) -> None:
            try:
                with trio.fail_after(config.drop_s):
                    answer = await exchange(partial(self._open_stream, peer, PROTOCOL), Wish(DROP, header))
            except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                return
            if answer.answer in (NONE, KEPT):  # a newer one is of a cluster that goes on elsewhere
                del left[peer]
                if self._holders.have.pop(peer, None) is not None:
                    self._tell(peer, "it holds no snapshot any more: the cluster is over")

        for attempt in range(config.drops):
            if attempt:
                await trio.sleep(config.drop_pause_s)
            async with trio.open_nursery() as nursery:
                for peer in tuple(left):
                    nursery.start_soon(drop, peer)
            if not left:
                break
        return tuple(peer for peer in left if peer in self._gave)

    async def step(self) -> None:
        """One look, and what follows from it."""
        await self._make()
        if self._snapshot is None:
            return
        now, holders = self._now(), self._holders
        if now >= self._checked + self._config.check_s:
            self._checked = now
            await self._give_all(tuple(holders.have))
        else:
            newest = self._snapshot.header.sequence
            await self._give_all(tuple(p for p, sequence in holders.have.items() if sequence < newest))
        if holders.missing() and now >= self._searched + self._config.search_s:
            self._searched = now
            await self._search(lambda peer: holders.found([peer]))
        for _ in range(_ROUNDS):
            await self._give_all(holders.next(self._now()))

    async def _make(self) -> None:
        """A new snapshot, when it is time for one."""
        now, config = self._now(), self._config
        if now < self._made + config.every_s:
            return
        stale = self._snapshot is not None and self._snapshot.header.expires < now + config.lives_s / 2
        seen = fingerprint(self._directory)
        if seen == self._seen and not stale:
            return
        self._made = now
        try:
            files = await trio.to_thread.run_sync(read_cluster, self._directory)
            content = _digest(files)
            if content != self._content or stale:
                self._sequence = max(self._sequence + 1, int(now * 1000))
                self._snapshot = await trio.to_thread.run_sync(
                    make_snapshot, self._identity, files, self._sequence, now + config.lives_s
                )
            self._seen, self._content = seen, content
            self._problem = ""
        except (OSError, UsageError) as problem:
            self._complain(f"no snapshot was made: {problem}")

    async def _give_all(self, peers: tuple[PeerId, ...]) -> None:
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._give, peer)

    async def _give(self, peer: PeerId) -> None:
        snapshot = self._snapshot
        assert snapshot is not None
        self._gave.pop(peer, None)
        self._gave[peer] = None
        if len(self._gave) > _MOST_ASKED:
            del self._gave[next(iter(self._gave))]
        try:
            answer = await give(partial(self._open_stream, peer, PROTOCOL), snapshot)
            problem = "" if answer.answer == KEPT else answer.reason or "it refused"
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            answer, problem = None, str(error) or "it did not answer in time"
        if not problem:
            if self._holders.kept(peer, snapshot.header.sequence):
                self._tell(peer, f"it holds a snapshot, {snapshot.header.size} bytes")
            return
        if answer is not None and self._overtaken(answer, snapshot):
            return
        if self._holders.failed(peer, self._now()):
            self._tell(peer, f"it holds no snapshot any more: {problem}")

    def _overtaken(self, answer: Answer, snapshot: Snapshot) -> bool:
        """Whether it has a later one of this borrower's, made by another clock: the next one will be later than that.
        It is believed for the signature."""
        try:
            header = read_header(self._identity.peer_id, answer.header, verify)
        except BadMessage:
            return False
        if header.sequence < snapshot.header.sequence:
            return False
        if header.sequence > self._sequence:
            self._sequence = header.sequence
            self._content, self._seen = b"", ()
        return True

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._tell(self._identity.peer_id, problem)


async def give(opened: Callable[[], Awaitable[PeerStream]], snapshot: Snapshot) -> Answer:
    """Have one holder keep a snapshot. Returns its last answer: KEPT, or REFUSED. Raises BadMessage, SwarmError,
    TooSlowError and BrokenResourceError."""
    with trio.fail_after(_ANSWER_S):
        stream = await opened()
    try:
        with trio.fail_after(_ANSWER_S):
            await stream.send_all(encode_wish(Wish(GIVE, snapshot.header.envelope)))
            answer = decode_answer(await receive_frame(stream))
        if answer.answer == SEND:
            with trio.fail_after(_ANSWER_S + len(snapshot.box) / _SLOWEST):
                await stream.send_all(snapshot.box)
                answer = decode_answer(await receive_frame(stream))
    except BaseException:
        stream.reset()
        raise
    await stream.aclose()
    if answer.answer not in (KEPT, REFUSED):
        raise BadMessage(f"it answered {answer.answer}")
    return answer


async def exchange(opened: Callable[[], Awaitable[PeerStream]], wish: Wish) -> Answer:
    """One question and its answer. Raises as `give` does, but for TooSlowError."""
    stream = await opened()
    try:
        await stream.send_all(encode_wish(wish))
        return decode_answer(await receive_frame(stream))
    finally:
        stream.reset()


def _digest(files: dict[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(b"%d %d " % (len(name), len(data)) + name.encode() + data)
    return digest.digest()
