"""What pubsub engines say to each other.

All of it is one message, `Rpc`. The specs' control messages (IHAVE, IWANT, GRAFT, PRUNE, IDONTWANT), the
subscriptions and the published messages are its fields, because that is what goes over the wire: whatever
an engine has to say to a peer within one flush interval leaves as one RPC, and costs one write.

A published message is a `GossipMessage` (events.py). How it is made and checked is a `MessageForm`: the real
one signs protobuf (wire.StrictSign); `BareMessages` below spares simulations the encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, Protocol

from ..engine import Message
from ..errors import UsageError
from ..identity import PeerId
from ..signed import Sign, Verify
from .events import GossipMessage

PUBSUB: Final = "pubsub"
"""Name of the WireProtocol that carries Rpc."""

MAX_RPC_BYTES: Final = 1 << 20
"""Longest RPC on the wire, go-libp2p-pubsub's default and what its peers accept."""

MAX_TOPIC_BYTES: Final = 1024
"""Longest topic name. The specs give no limit; one is needed, since each peer's topics are remembered."""

MAX_DATA_BYTES: Final = MAX_RPC_BYTES - 4096
"""Most data in one published message: it has to fit into an RPC together with topic, source and signature."""


MAX_EXCHANGED: Final = 16
"""Peers that are read of one PRUNE. go-libp2p-pubsub: GossipSubPrunePeers."""


@dataclass(frozen=True, slots=True)
class IHave:
    """Ids of recent messages of a topic that the sender can provide (gossipsub 1.0, "Control messages")."""

    topic: str
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A peer that is named in a PRUNE, for peer exchange. record: its signed peer record, unverified; empty where who
    names it has none."""

    peer: PeerId
    record: bytes = b""


@dataclass(frozen=True, slots=True)
class Prune:
    """The sender takes the receiver out of its mesh of a topic.

    backoff_s: whole seconds before the receiver may graft again; 0 when the sender speaks 1.0 and does not
    say. peers: others in the topic, for peer exchange (gossipsub 1.1); at most MAX_EXCHANGED are read.
    """

    topic: str
    backoff_s: int = 0
    peers: tuple[Exchanged, ...] = ()


@dataclass(frozen=True, slots=True)
class Rpc(Message):
    """Everything one peer tells another at once.

    subscriptions: (topic, True to join or False to leave), in the order they happened. publish: messages,
    oldest first. iwant: ids asked for. graft: topics. idontwant: ids not to be sent (gossipsub 1.2).
    """

    protocol: ClassVar[str] = PUBSUB

    subscriptions: tuple[tuple[str, bool], ...] = ()
    publish: tuple[GossipMessage, ...] = ()
    ihave: tuple[IHave, ...] = ()
    iwant: tuple[bytes, ...] = ()
    graft: tuple[str, ...] = ()
    prune: tuple[Prune, ...] = ()
    idontwant: tuple[bytes, ...] = ()


class Verdict(Enum):
    """What a check of a message's signature found."""

    GENUINE = "genuine"
    FORGED = "forged"
    """Not signed by its source, or malformed: whoever sent it should have noticed."""
    UNUSABLE = "unusable"
    """Its source has a key that we cannot use (RSA, say), or signed a sequence number that is not 8 bytes long, which
    others relay. Not delivered, but nobody's fault."""


class MessageForm(Protocol):
    """How messages are made and how their signatures are checked."""

    def make(self, source: PeerId, topic: str, data: bytes, seqno: bytes, sign: Sign) -> GossipMessage:
        """A signed message."""
        ...

    def check(self, message: GossipMessage, verify: Verify) -> Verdict:
        """Whether its source signed it. Never raises, whatever a peer sent."""
        ...


class BareMessages:
    """Messages for simulations: never encoded, and signed over their concatenated fields.

    With stand-ins for `sign` and `verify` a message costs next to nothing. The order of fields is ambiguous
    in principle (a topic could continue in the data), so this is not for real use.
    """

    def make(self, source: PeerId, topic: str, data: bytes, seqno: bytes, sign: Sign) -> GossipMessage:
        signature = sign(b"".join((source, seqno, topic.encode(), data)))
        return GossipMessage(source, seqno, topic, data, signature)

    def check(self, message: GossipMessage, verify: Verify) -> Verdict:
        signed = b"".join((message.source, message.seqno, message.topic.encode(), message.data))
        return Verdict.GENUINE if verify(message.source, signed, message.signature) else Verdict.FORGED


def check_topic(topic: str) -> None:
    """Raise UsageError when a topic's name cannot be used; call it before posting Subscribe or Publish."""
    try:
        size = len(topic.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the topic {topic!r} is no valid Unicode text; choose another name") from None
    if not 1 <= size <= MAX_TOPIC_BYTES:
        raise UsageError(f"a topic's name has 1 to {MAX_TOPIC_BYTES} bytes in UTF-8, this one {size}")


def check_publish(topic: str, data: bytes) -> None:
    """Raise UsageError when a message cannot be published; nothing was sent. The engine itself drops it."""
    check_topic(topic)
    if len(data) > MAX_DATA_BYTES:
        raise UsageError(
            f"{len(data)} bytes are too many for one message on {topic!r}: at most {MAX_DATA_BYTES}; "
            "send a reference to the data, or split it"
        )
