"""What a node asks of its load board, and what the board tells."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine import PeerInfo
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


@dataclass(frozen=True, slots=True)
class MemberFound:
    """A peer in a load topic, as FindMembers asked for."""

    topic: str
    member: PeerInfo


@dataclass(frozen=True, slots=True)
class AskLoads:
    """Ask providers how loaded they are now (load_probing.py); each is told of once, as LoadTold, after `within_s`
    seconds at the latest. query: the caller's number. Those that are not connected are dialled."""

    query: int
    providers: tuple[PeerId, ...]
    within_s: float


LoadCommand = SetLoad | PublishLoad | FollowLoads | UnfollowLoads | AskLoads | MemberFound | Delivered

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


@dataclass(frozen=True, slots=True)
class LoadTold:
    """What a provider said to AskLoads. signal: None when it said nothing of its load. lives: whether it answered."""

    query: int
    provider: PeerId
    signal: LoadSignal | None = None
    lives: bool = False


@dataclass(frozen=True, slots=True)
class OfferMembership:
    """Let those who look for a load topic's members find this peer, until it is offered no more. The node does it
    through the DHT."""

    topic: str
    offered: bool


@dataclass(frozen=True, slots=True)
class FindMembers:
    """Look for peers in a load topic, at most so many; they come as MemberFound."""

    topic: str
    limit: int


LoadOutput = (
    Publish | Subscribe | Unsubscribe | LoadUpdated | LoadSuspected | LoadTold | OfferMembership | FindMembers
)
