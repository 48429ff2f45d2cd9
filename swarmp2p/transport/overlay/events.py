"""What a session tells whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .carrier import Carrier


@dataclass(slots=True)
class Established:
    """This carrier connection carries the session from now on."""

    carrier: Carrier


@dataclass(slots=True)
class Dropped:
    """The session is through with this carrier connection: close it. The session itself goes on."""

    carrier: Carrier
    reason: str


@dataclass(slots=True)
class Ended:
    """The session is over: reset every local connection; going on takes a new session with a new secret."""

    reason: str


@dataclass(slots=True)
class Opened:
    """The partner opened a channel to our port: connect there, or `reset` it."""

    channel: int
    port: int


@dataclass(slots=True)
class Data:
    """Bytes for the local connection. Say `consumed` when it has taken them."""

    channel: int
    data: bytes


@dataclass(slots=True)
class Finished:
    """No more data will come on this channel: shut the local connection down for writing after what came."""

    channel: int


@dataclass(slots=True)
class Reset:
    """The channel is gone: reset the local connection."""

    channel: int


Event = Established | Dropped | Ended | Opened | Data | Finished | Reset
