"""What a cluster that outlives its borrower's process is to others: its name in leases, its id, its members' places.

Beside what the head keeps (ray_bridge/head_state.py) stands a file `cluster`. By it the next process on that directory
asks for the leases of the one before, and leads the same mesh: a worker's address and ports are in Ray's tables, so
they stay as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .errors import UsageError
from .private_file import replace_private
from .ray_bridge.events import LeaseId
from .ray_bridge.head_state import HeadState
from .transport.mesh.allocation import Place
from .transport.mesh.members import MEMBER_ID_BYTES, MemberId, PortBlock

_FILE: Final = "cluster"
_NAME_BYTES: Final = 8


@dataclass(slots=True)
class ClusterMemory:
    """One cluster's. path: where it is kept; None for a cluster that ends with its process. name: in leases. cluster:
    in its mesh. head, places: of its members; `before` of those that an earlier process had."""

    path: Path | None
    name: str
    cluster: MemberId
    head: Place | None = None
    before: Mapping[LeaseId, Place] = field(default_factory=dict[LeaseId, Place])
    places: dict[LeaseId, Place] = field(default_factory=dict[LeaseId, Place])

    @classmethod
    def of(cls, state: HeadState) -> ClusterMemory:
        """What is kept there, or a new one. Raises UsageError for a file that is none of these."""
        path = state.directory / _FILE if state.kept else None
        if path is None or not path.exists() or not state.port:
            return cls(path, os.urandom(_NAME_BYTES).hex(), os.urandom(MEMBER_ID_BYTES))
        try:
            told: dict[str, Any] = json.loads(path.read_text())
            places = {bytes.fromhex(lease): _place(place) for lease, place in told["places"].items()}
            head = None if told["head"] is None else _place(told["head"])
            return cls(path, str(told["name"]), bytes.fromhex(told["cluster"]), head, places, dict(places))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
            raise UsageError(
                f"{path} does not say which cluster is kept there ({problem!r}); name another directory. Nothing was "
                "started"
            ) from None

    def lead(self, place: Place) -> None:
        """Where the head is."""
        self.head = place
        self._write()

    def keep(self, lease: LeaseId, place: Place) -> None:
        """Where a worker is."""
        self.places[lease] = place
        self._write()

    def forget(self, lease: LeaseId) -> None:
        """A worker is no more."""
        if self.places.pop(lease, None) is not None:
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        told = {
            "name": self.name,
            "cluster": self.cluster.hex(),
            "head": None if self.head is None else _said(self.head),
            "places": {lease.hex(): _said(place) for lease, place in self.places.items()},
        }
        replace_private(self.path, json.dumps(told).encode())


def _said(place: Place) -> list[int]:
    return [place.host, place.block.first, place.block.count]


def _place(told: list[int]) -> Place:
    host, first, count = map(int, told)
    return Place(host, PortBlock(first, count))
