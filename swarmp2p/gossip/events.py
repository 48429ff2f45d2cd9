"""What an application asks of the gossip engine, and what the engine tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..identity import PeerId

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


GossipCommand = Subscribe | Unsubscribe | Publish

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """A signed pubsub message, as published.

    source: who signed it. seqno: 8 bytes, big endian, growing per source. raw: the encoded protobuf message
    as it arrived, so that fields which we do not know survive relaying; empty where it was never encoded
    (simulation). signature: over "libp2p-pubsub:" and the message without signature and key (pubsub spec).
    """

    source: PeerId
    seqno: bytes
    topic: str
    data: bytes
    signature: bytes = b""
    raw: bytes = b""
    id: bytes = field(init=False, repr=False, compare=False)
    """The default message id: source followed by sequence number (pubsub spec). Made once: every copy that
    arrives is looked up by it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", bytes(self.source) + self.seqno)

    @property
    def sequence(self) -> int:
        """The sequence number as an integer."""
        return int.from_bytes(self.seqno, "big")


@dataclass(frozen=True, slots=True)
class Delivered:
    """A verified message on a subscribed topic; each id at most once. sender: who relayed it to us."""

    message: GossipMessage
    sender: PeerId


GossipOutput = Delivered
