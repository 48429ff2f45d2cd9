"""What an application asks of the gossip engine, and what the engine tells it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, cast

from ..errors import UsageError
from ..identity import PeerId

# Messages ---------------------------------------------------------------------------------------------------

ANONYMOUS: Final = PeerId(b"")
"""The source of messages on anonymous topics: nobody."""

_MESSAGE_OVERHEAD_BYTES: Final = 256
"""Source, sequence number, signature, framing and a topic of ordinary length."""


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """A pubsub message, as published.

    source: who signed it; ANONYMOUS, which is empty, on anonymous topics. seqno: 8 bytes, big endian, growing per
    source; empty on anonymous topics. raw: the encoded protobuf message as it arrived, so that fields which we do
    not know survive relaying; empty where it was never encoded (simulation). signature: over "libp2p-pubsub:" and
    the message without signature and key (pubsub spec).
    """

    source: PeerId
    seqno: bytes
    topic: str
    data: bytes
    signature: bytes = field(default=b"", repr=False)
    raw: bytes = field(default=b"", repr=False)
    id: bytes = field(init=False, repr=False, compare=False)
    """The message id: source followed by sequence number (pubsub spec), unless the topic has ids of its own. Made
    once: every copy that arrives is looked up by it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", bytes(self.source) + self.seqno)

    def named(self, message_id: bytes) -> GossipMessage:
        """The same message under another id."""
        named = GossipMessage(self.source, self.seqno, self.topic, self.data, self.signature, self.raw)
        object.__setattr__(named, "id", message_id)
        return named

    @property
    def held_bytes(self) -> int:
        """What keeping it takes: encoded where it is, since unknown fields may outweigh the data."""
        return len(self.raw) or len(self.data)

    @property
    def sent_bytes(self) -> int:
        """What sending it takes; an estimate where it was never encoded."""
        return len(self.raw) or len(self.data) + _MESSAGE_OVERHEAD_BYTES

    @property
    def sequence(self) -> int:
        """The sequence number as an integer."""
        return int.from_bytes(self.seqno, "big")


MessageId = Callable[[GossipMessage], bytes]
"""Makes a message's id, of 1 to 128 bytes, out of what the message says; all peers of a topic need the same one. Must
not raise, whatever the message."""


class Acceptance(Enum):
    """What a validator says of a message (gossipsub 1.1, "Extended validators")."""

    ACCEPT = "accept"
    """Deliver it, and pass it on."""
    REJECT = "reject"
    """Neither, and whoever sent it should have known: it counts against them."""
    IGNORE = "ignore"
    """Neither, and nobody's fault."""


Validator = Callable[[GossipMessage, float], Acceptance]
"""Judges a message, given the engine's time in seconds. Part of the engine: pure, quick, and must not raise."""

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Join a topic's mesh; its messages come as Delivered. Counted: as many Unsubscribes undo it."""

    topic: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Leave a topic's mesh after as many of these as there were Subscribes."""

    topic: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Sign and send data on a topic; not delivered to the publisher itself."""

    topic: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SetAppScore:
    """What the application thinks of a peer, connected or not: its P5 (gossipsub 1.1, "Peer Scoring").

    value: good above 0, bad below; 0, as for all others, to say nothing. Added to the peer's score as it is, unless
    ScoreConfig.app_weight says otherwise. Raises UsageError for what is no number.
    """

    peer: PeerId
    value: float

    def __post_init__(self) -> None:
        value = cast(object, self.value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise UsageError(f"an application's score of a peer is a finite number, not {self.value}")


@dataclass(frozen=True, slots=True)
class StartValidating:
    """Ask about each message of a topic, by Validate, before it is delivered and passed on.

    timeout_s: seconds after which a message that got no answer is ignored.
    """

    topic: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StopValidating:
    """Undo StartValidating; messages that wait for an answer are ignored."""

    topic: str


@dataclass(frozen=True, slots=True)
class Validated:
    """The answer to Validate. Too late, or for a message that nobody asked about, it means nothing."""

    message_id: bytes
    acceptance: Acceptance


GossipCommand = Subscribe | Unsubscribe | Publish | StartValidating | StopValidating | Validated | SetAppScore

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivered:
    """A verified message on a subscribed topic; each id at most once. sender: who relayed it to us."""

    message: GossipMessage
    sender: PeerId


@dataclass(frozen=True, slots=True)
class Validate:
    """A genuine message waits for the application's Validated. sender: who relayed it to us first."""

    message: GossipMessage
    sender: PeerId


GossipOutput = Delivered | Validate
