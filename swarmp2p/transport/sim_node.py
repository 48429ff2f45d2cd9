"""What the simulated network knows of each peer: its engine, its connections, and whom it could dial."""

from __future__ import annotations

import math
from typing import Any

from ..engine import Address, Engine, Message
from ..identity import PeerId


class Node:
    """One peer.

    up: its side of its connections. known: where it could dial others. dialling: messages that wait for a
    dial. refused: protocols that its engine does not serve. source: where its connections seem to come from.
    record: its signed peer record, or none.
    here: what comes from no other peer comes over this edge; it closes when the peer crashes. tick_at: when its
    Tick is due; Ticks of other times in the queue are stale.
    """

    __slots__ = (
        "addresses",
        "dialling",
        "engine",
        "here",
        "index",
        "known",
        "peer",
        "record",
        "refused",
        "source",
        "tick_at",
        "up",
    )

    def __init__(
        self,
        peer: PeerId,
        index: int,
        engine: Engine[Any, Any],
        addresses: tuple[Address, ...] = (),
        source: Address = b"",
    ) -> None:
        self.peer, self.index, self.engine, self.addresses, self.source = (
            peer,
            index,
            engine,
            addresses,
            source,
        )
        self.record = b""
        self.tick_at = math.inf
        self.here = Edge(self, self)
        self.up: dict[PeerId, Edge] = {}
        self.known: dict[PeerId, tuple[Address, ...]] = {}
        self.dialling: dict[PeerId, list[Message]] = {}
        self.refused: dict[str, None] = {}


class Edge:
    """One direction of a connection.

    open: whether the target takes what arrives. last: time of the latest arrival on it, which no later
    message overtakes. code: both ends in one number, for the trace.
    """

    __slots__ = ("code", "last", "open", "target")

    def __init__(self, source: Node, target: Node) -> None:
        self.target = target
        self.open = True
        self.last = 0.0
        self.code = source.index << 32 | target.index
