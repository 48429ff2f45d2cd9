"""How an engine's messages become frames on libp2p streams.

Each protocol package makes one `WireProtocol` for its messages (dht/wire.py, gossip/wire.py, ...); a network
(transport/host.py) is given the list and knows nothing else about them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .engine import Message
from .identity import PeerId


class Exchange(Enum):
    """Who writes on a stream, and when it ends."""

    REQUESTS = "requests"
    """The opener writes requests, the other side answers them in order, on a stream that stays open. Several
    requests may be under way on one stream."""

    MESSAGES = "messages"
    """The opener writes, the other side only reads. Each side opens one stream to each peer it writes to."""


class Framing(Enum):
    """What stands before each frame."""

    UVARINT = "uvarint"
    """Unsigned varint length, as libp2p's own protocols have it."""

    U32 = "u32"
    """Four bytes, big endian: our own protocols."""


@dataclass(frozen=True, slots=True)
class WireProtocol:
    """One libp2p protocol.

    name: `Message.protocol` of its messages.
    ids: libp2p protocol ids, the preferred one first.
    encode: message to frame body. Raises nothing for messages that an engine makes.
    decode: (sender, frame body, id) to message. For MESSAGES the id is 0. Raises BadMessage, nothing else,
        whatever the bytes.
    decode_reply: the same for the answering direction of REQUESTS; None for MESSAGES.
    max_frame_bytes: longer frames reset the stream and count against the sender.
    max_request_bytes: the same for the requests of REQUESTS, where they are much shorter than replies; 0 for the same
        limit. What has come of a frame is held until the rest comes, on every stream that somebody opens.
    """

    name: str
    ids: tuple[str, ...]
    exchange: Exchange
    framing: Framing
    max_frame_bytes: int
    encode: Callable[[Message], bytes]
    decode: Callable[[PeerId, bytes, int], Message]
    decode_reply: Callable[[PeerId, bytes, int], Message] | None = None
    max_request_bytes: int = 0
