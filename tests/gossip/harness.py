"""One router among scripted neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarmp2p.engine import PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Delivered, GossipMessage, Publish, Subscribe, Unsubscribe
from swarmp2p.gossip.messages import Rpc
from swarmp2p.identity import PeerId

from .network import peer_id, router

ME = 1000
MESH_ONLY = GossipConfig(flood_publish=False)


def rpcs(outputs: Sequence[Any]) -> dict[PeerId, Rpc]:
    """The RPC that each peer gets; fails when one gets two."""
    found: dict[PeerId, Rpc] = {}
    for output in outputs:
        if isinstance(output, Send):
            assert isinstance(output.message, Rpc)
            assert output.to not in found, "two RPCs to one peer at once"
            found[output.to] = output.message
    return found


class Scripted:
    """A router numbered ME. Each call returns the RPCs that it caused, by peer; `delivered` collects messages,
    `outputs` is all that the last event caused."""

    def __init__(self, config: GossipConfig | None = None, seed: int = 0) -> None:
        self.config = config or GossipConfig()
        self.router = router(ME, self.config, seed)
        self.now = 0.0
        self.delivered: list[GossipMessage] = []
        self.outputs: Sequence[Any] = ()

    def handle(self, event: Any) -> dict[PeerId, Rpc]:
        outputs = self.outputs = self.router.handle(event, self.now)
        self.delivered.extend(output.message for output in outputs if isinstance(output, Delivered))
        return rpcs(outputs)

    def up(self, *numbers: int, topics: Sequence[str] = ("t",), outbound: bool = False) -> dict[PeerId, Rpc]:
        """Neighbours appear and announce their topics; returns what the last one got. outbound: we dialled them."""
        answer: dict[PeerId, Rpc] = {}
        for number in numbers:
            answer = self.handle(PeerUp(peer_id(number), outbound=outbound))
            if topics:
                self.receive(number, Rpc(subscriptions=tuple((topic, True) for topic in topics)))
        return answer

    def down(self, number: int) -> dict[PeerId, Rpc]:
        return self.handle(PeerDown(peer_id(number)))

    def receive(self, number: int, rpc: Rpc) -> dict[PeerId, Rpc]:
        return self.handle(Received(peer_id(number), rpc))

    def subscribe(self, topic: str = "t") -> dict[PeerId, Rpc]:
        return self.handle(Subscribe(topic))

    def unsubscribe(self, topic: str = "t") -> dict[PeerId, Rpc]:
        return self.handle(Unsubscribe(topic))

    def publish(self, topic: str = "t", data: bytes = b"data") -> dict[PeerId, Rpc]:
        return self.handle(Publish(topic, data))

    def heartbeat(self) -> dict[PeerId, Rpc]:
        """Go on to the next deadline, which must be a heartbeat."""
        due = self.router.deadline()
        assert self.now < due <= self.now + self.config.heartbeat_s
        self.now = due
        return self.handle(Tick())

    def mesh(self, topic: str = "t") -> set[int]:
        return {int.from_bytes(peer.public_key or b"", "big") for peer in self.router.mesh(topic)}

    def score(self, number: int) -> float:
        return self.router.score(peer_id(number), self.now)
