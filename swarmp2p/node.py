"""The engine of a whole node: the child engines, and the facts that pass between them.

    Received ---by protocol---> dht | gossip | loads | leases
    PeerUp, PeerDown ---------> all of them
    Tick ---------------------> those whose deadline is due
    commands ---by type-------> one of them
    gossip Delivered on the load topic --> loads        loads Publish --> gossip

A driver runs one of these over libp2p; the simulator runs thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, get_args

from .dht.config import DhtConfig
from .dht.events import DhtCommand, DhtOutput
from .dht.kademlia import Kademlia
from .engine import Engine, NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Tick
from .gossip.config import GossipConfig
from .gossip.events import Delivered, GossipCommand, Publish, Subscribe, Unsubscribe
from .gossip.load import (
    LOAD_TOPIC,
    LoadBoard,
    LoadCommand,
    LoadConfig,
    LoadSuspected,
    LoadUpdated,
    PublishLoad,
)
from .gossip.messages import MessageForm
from .gossip.router import GossipRouter
from .identity import PeerId
from .ray_bridge.auth import LeaseKeys
from .ray_bridge.events import LeaseCommand, LeaseOutput
from .ray_bridge.lease import Leases
from .ray_bridge.lease_config import LeaseConfig


@dataclass(frozen=True, slots=True)
class FollowLoads:
    """Follow the load topic, so that the load table fills; undone by `UnfollowLoads`. Counted."""


@dataclass(frozen=True, slots=True)
class UnfollowLoads:
    """Undo one FollowLoads."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The child engines' settings."""

    dht: DhtConfig = field(default_factory=DhtConfig)
    gossip: GossipConfig = field(default_factory=GossipConfig)
    loads: LoadConfig = field(default_factory=LoadConfig)
    lease: LeaseConfig = field(default_factory=LeaseConfig)


NodeCommand = DhtCommand | GossipCommand | PublishLoad | FollowLoads | UnfollowLoads | LeaseCommand
NodeOutput = DhtOutput | Delivered | LoadUpdated | LoadSuspected | LeaseOutput

Outputs = Sequence[NetworkOutput | NodeOutput]
Handler = Callable[[Any, float], Outputs]


class NodeEngine(Engine[NodeCommand, NodeOutput]):
    """DHT, gossip, load board and leases of one peer as one engine."""

    def __init__(
        self,
        peer: PeerId,
        keys: LeaseKeys,
        rng: Random,
        config: NodeConfig | None = None,
        form: MessageForm | None = None,
    ) -> None:
        """keys: the identity's, or cheap stand-ins in simulations. rng: every child draws from it. form: how
        gossip messages are made; simulations pass gossip.messages.BareMessages()."""
        config = config or NodeConfig()
        sign, verify = keys.sign, keys.verify
        self.peer = peer
        self.dht = Kademlia(peer, sign, verify, rng, config.dht)
        self.gossip = GossipRouter(peer, sign, verify, rng, config.gossip, form)
        self.loads = LoadBoard(peer, sign, verify, rng, config.loads, form)
        self.leases = Leases(peer, keys, rng, config.lease)
        self._children: tuple[tuple[Engine[Any, Any], Handler], ...] = (
            (self.dht, self.dht.handle),
            (self.gossip, self._gossip),
            (self.loads, self._loads),
            (self.leases, self.leases.handle),
        )
        self._by_protocol: dict[str, Handler] = {
            "dht": self.dht.handle,
            "record": self.dht.handle,
            "pubsub": self._gossip,
            "loads": self._loads,
            "lease": self.leases.handle,
        }
        self._by_command: dict[type[object], Handler] = {
            **dict.fromkeys(get_args(DhtCommand), self.dht.handle),
            **dict.fromkeys(get_args(GossipCommand), self._gossip),
            **dict.fromkeys(get_args(LeaseCommand), self.leases.handle),
            PublishLoad: self._loads,
        }

    def deadline(self) -> float:
        # Written out: it is asked for after every event, and a loop over the children took 10 % of a
        # simulation.
        return min(self.dht.deadline(), self.gossip.deadline(), self.loads.deadline(), self.leases.deadline())

    def handle(self, event: NetworkEvent | NodeCommand, now: float) -> Outputs:
        match event:
            case Received(message=message):
                handler = self._by_protocol.get(message.protocol)
                return handler(event, now) if handler is not None else ()
            case Tick():
                due = [handler for engine, handler in self._children if engine.deadline() <= now]
                return [output for handler in due for output in handler(event, now)]
            case PeerUp() | PeerDown():
                return [output for _, handler in self._children for output in handler(event, now)]
            case FollowLoads():
                return self._gossip(Subscribe(LOAD_TOPIC), now)
            case UnfollowLoads():
                return self._gossip(Unsubscribe(LOAD_TOPIC), now)
            case _:
                return self._by_command[type(event)](event, now)

    def _gossip(self, event: NetworkEvent | GossipCommand, now: float) -> Outputs:
        outputs = self.gossip.handle(event, now)
        signals = [
            output
            for output in outputs
            if isinstance(output, Delivered) and output.message.topic == LOAD_TOPIC
        ]
        if not signals:
            return outputs
        return [*outputs, *(fact for signal in signals for fact in self._loads(signal, now))]

    def _loads(self, event: NetworkEvent | LoadCommand, now: float) -> Outputs:
        passed: list[NetworkOutput | NodeOutput] = []
        for output in self.loads.handle(event, now):
            if isinstance(output, Publish):
                passed += self._gossip(output, now)
            else:
                passed.append(output)
        return passed
