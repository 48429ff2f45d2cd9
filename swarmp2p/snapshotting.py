"""What joins snapshots to a peer: which streams are served, who is asked, and for which cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .errors import UsageError
from .identity import PeerId
from .lending import KEEPS_ATTRIBUTE, RAY_SERVICE, Lending
from .snapshots.copying import holds_cluster
from .snapshots.files import SnapshotFiles
from .snapshots.giving import Giving, GivingConfig
from .snapshots.holders import MOST_HOLDERS, Holders
from .snapshots.protocol import PROTOCOL
from .snapshots.restoring import Restoring
from .snapshots.serving import Keeping, snapshot_folder
from .snapshots.shelf import ShelfConfig

if TYPE_CHECKING:
    from .peer import Peer

_FIND_S: Final = 5.0  # how long one search for holders takes at most
_LEAST_ROOM: Final = 2**20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a cluster was restored from."""

    holder: PeerId
    text: str


class Snapshots:
    """Of one peer, in both roles. state: its state file."""

    def __init__(self, peer: Peer, state: Path | None) -> None:
        self._peer, self._state = peer, state
        self._giving = False
        self.config = GivingConfig()

    @asynccontextmanager
    async def keeping(self, room_bytes: int, lending: Lending) -> AsyncGenerator[None, None]:
        """Keep borrowers' snapshots while the context is open; none with 0 bytes. Raises UsageError."""
        if not room_bytes:
            yield
            return
        if room_bytes < _LEAST_ROOM:
            raise UsageError(f"snapshots need {_LEAST_ROOM} bytes at least, or 0 for none; not {room_bytes}")
        peer = self._peer
        with snapshot_folder(self._state) as folder:
            try:
                keeping = await trio.to_thread.run_sync(
                    lambda: Keeping(
                        SnapshotFiles(folder),
                        ShelfConfig(room_bytes),
                        peer.now,
                        lending.lends_to,
                        lambda: lending.borrowers,
                    )
                )
            except OSError as problem:
                raise UsageError(
                    f"snapshots cannot be kept in {folder}: {problem.strerror}; mend that, or lend without. "
                    "Nothing was lent"
                ) from None
            peer.handle(PROTOCOL, keeping.serve)
            try:
                yield
            finally:
                peer.unhandle(PROTOCOL)

    @asynccontextmanager
    async def one_cluster(self, snapshots: int) -> AsyncGenerator[None, None]:
        """Refuse a second cluster with snapshots: of one key holders have one. Raises UsageError."""
        if snapshots and self._giving:
            raise UsageError(
                "this peer has snapshots made of another cluster; use a peer with a key of its own for each. Nothing "
                "was started"
            )
        if not snapshots:
            yield
            return
        self._giving = True
        try:
            yield
        finally:
            self._giving = False

    def giving(self, holders: Holders, directory: Path, tell: Callable[[PeerId, str], None]) -> Giving:
        """What has holders keep what is in a cluster's directory, while it runs."""
        peer = self._peer
        return Giving(
            peer.identity, directory, holders, peer.open_stream, self._search, peer.now, tell, self.config
        )

    async def restore(self, directory: Path | None, timeout_s: float) -> Origin | None:
        """Write the newest snapshot of this peer's cluster where there is none; None when there is one already. Raises
        NoSnapshot and UsageError."""
        assert directory is not None
        if holds_cluster(directory):
            return None
        peer = self._peer
        restored = await Restoring(peer.identity, peer.open_stream, self._search).run(directory, timeout_s)
        age_s = max(0.0, peer.now() - restored.sequence / 1000)
        faults = "".join(f"; {holder.short} gave {fault}" for holder, fault in restored.faults)
        return Origin(restored.holder, f"from a snapshot that is {age_s:.0f} s old{faults}")

    async def _search(self, took: Callable[[PeerId], None]) -> None:
        with trio.move_on_after(_FIND_S):
            async with self._peer.find(RAY_SERVICE, where={KEEPS_ATTRIBUTE: True}) as found:
                async for record in found:
                    if record.provider != self._peer.id:
                        took(record.provider)


def check_snapshots(state: Path | None, snapshots: int, restore: bool) -> None:
    """Raises UsageError for arguments of `borrow` that do not go together."""
    if (snapshots or restore) and state is None:
        raise UsageError(
            "snapshots are made of, and restored to, a cluster_state: name a directory for that. Nothing was started"
        )
    if snapshots > MOST_HOLDERS:
        raise UsageError(f"at most {MOST_HOLDERS} peers hold snapshots, not {snapshots}. Nothing was started")
