"""What a node asks of its load board, and what the board tells."""

from __future__ import annotations

from dataclasses import dataclass

from ..identity import PeerId
from .events import Delivered, Publish, Subscribe, Unsubscribe
from .load_signal import LoadSignal

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetLoad:
    """How loaded this provider is, as often as one likes: the board decides when to tell (load_sender.py). Sequence,
    expires, heartbeat_s, depth and coordinate are filled in. None: it is no provider any more."""

    signal: LoadSignal | None


@dataclass(frozen=True, slots=True)
class PublishLoad:
    """Tell everybody now, once; sequence, expires and depth are filled in."""

    signal: LoadSignal


@dataclass(frozen=True, slots=True)
class FollowLoads:
    """Keep the load table filled; undone by `UnfollowLoads`. Counted."""


@dataclass(frozen=True, slots=True)
class UnfollowLoads:
    """Undo one FollowLoads."""


LoadCommand = SetLoad | PublishLoad | FollowLoads | UnfollowLoads | Delivered

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadUpdated:
    """A provider's newer signal entered the table; it is not suspected any more."""

    provider: PeerId
    signal: LoadSignal


@dataclass(frozen=True, slots=True)
class LoadSuspected:
    """A provider has been silent for too long; once, until its next signal."""

    provider: PeerId


LoadOutput = Publish | Subscribe | Unsubscribe | LoadUpdated | LoadSuspected
