"""One DHT engine on the bench: events in, outputs out, time by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtCommand, DhtOutput, QueryDone, SetAddresses
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.engine import (
    Introduce,
    Message,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerInfo,
    PeerUp,
    Received,
    Request,
    Send,
    Tick,
    Undeliverable,
)
from swarmp2p.identity import PeerId

from .network import address, fake_sign, fake_verify, peer_id, peer_info

Kind = TypeVar("Kind", bound=Message)
Outputs = Sequence[NetworkOutput | DhtOutput]


def infos(*numbers: int) -> tuple[PeerInfo, ...]:
    """Those peers at their addresses."""
    return tuple(peer_info(number) for number in numbers)


class Single:
    """Peer 0 at address 0. now: seconds; begins at 1000."""

    def __init__(self, config: DhtConfig | None = None) -> None:
        self.now = 1000.0
        self.engine = Kademlia(peer_id(0), fake_sign(peer_id(0)), fake_verify, Random(1), config)
        self.post(SetAddresses((address(0),)))

    def post(self, event: NetworkEvent | DhtCommand) -> Outputs:
        """Hand in any event."""
        return self.engine.handle(event, self.now)

    def up(self, number: int) -> Outputs:
        """A peer connects."""
        return self.post(PeerUp(peer_id(number), (address(number),)))

    def down(self, number: int) -> Outputs:
        """A peer's connection closes, or cannot be made."""
        return self.post(PeerDown(peer_id(number)))

    def undeliverable(self, number: int, *requests: Request, unsupported: bool = False) -> Outputs:
        """Requests to a connected peer come back."""
        ids = tuple(request.id for request in requests)
        return self.post(Undeliverable(peer_id(number), FindNode.protocol, ids, unsupported))

    def hear(self, number: int, message: Message) -> Outputs:
        """A peer's message comes in."""
        return self.post(Received(peer_id(number), message))

    def wait(self, seconds: float) -> Outputs:
        """Let time pass, with a Tick whenever one is due."""
        until = self.now + seconds
        outputs: list[NetworkOutput | DhtOutput] = []
        while (due := self.engine.deadline()) <= until:
            assert due >= self.now
            self.now = due
            outputs += self.post(Tick())
            assert self.engine.deadline() > self.now
        self.now = until
        return outputs

    def wait_for_requests(self, limit_s: float) -> Outputs:
        """Let time pass until something is sent, and no further."""
        until = self.now + limit_s
        while (due := self.engine.deadline()) <= until:
            self.now = due
            outputs = self.post(Tick())
            if receivers(outputs):
                return outputs
        self.now = until
        return []

    def meet(self, *numbers: int) -> None:
        """Have peers in the table: they connect, and answer the probe."""
        for number in numbers:
            ((to, probe),) = requests(self.up(number), FindNode)
            assert to == peer_id(number)
            self.hear(number, FoundNodes(probe.id, ()))
            assert to in self.engine.table


def requests(outputs: Outputs, kind: type[Kind]) -> list[tuple[PeerId, Kind]]:
    """The messages of one kind that are sent, with their receivers."""
    return [
        (output.to, output.message)
        for output in outputs
        if isinstance(output, Send) and isinstance(output.message, kind)
    ]


def receivers(outputs: Outputs, kind: type[Message] = Request) -> list[PeerId]:
    """Whom messages of a kind are sent to."""
    return [to for to, _ in requests(outputs, kind)]


def introduced(outputs: Outputs) -> list[PeerInfo]:
    """Who is introduced to the network."""
    return [PeerInfo(output.peer, output.addresses) for output in outputs if isinstance(output, Introduce)]


def ended(outputs: Outputs) -> list[QueryDone]:
    """The queries that ended."""
    return [output for output in outputs if isinstance(output, QueryDone)]


def only(outputs: Outputs, kind: type[Kind]) -> Kind:
    """The one message of a kind that is sent."""
    ((_, message),) = requests(outputs, kind)
    return message


NEVER = math.inf
