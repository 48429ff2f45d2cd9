"""How a peer's state file does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What `peer.dht.storage` says.

    state: "off" without a state file; "ok"; "failing" while it cannot be written: the peer goes on from memory, and
        writes what it has as soon as it can. path: the file.
    problem, remedy, since: why it fails, what to do, and since when, in seconds since the epoch.
    restored, damaged: entries that were read when the file was opened, and those that were dropped because their
        checksum did not fit. set_aside: where a file too damaged to use was moved to, or "".
    waiting: entries that are not on the disk yet. written: entries that are, since the peer was opened.
    """

    state: Literal["off", "ok", "failing"] = "off"
    path: str = ""
    problem: str = ""
    remedy: str = ""
    since: float = 0.0
    restored: int = 0
    damaged: int = 0
    set_aside: str = ""
    waiting: int = 0
    written: int = 0

    def __str__(self) -> str:
        if self.state != "failing":
            return self.state
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"failing: {self.problem}, since {since}; {self.remedy}"
