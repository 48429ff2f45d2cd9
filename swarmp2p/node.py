"""The engine of a whole node: the child engines, and the facts that pass between them.

    Received, Undeliverable, Speaks, Congested ---by protocol---> dht | gossip | loads | leases | meshes
    PeerUp, PeerDown, Reachable -> all of them
    Tick ---------------------> those whose deadline is due
    commands ---by type-------> one of them
    gossip Delivered on a load topic --> loads          loads Publish, Subscribe, Unsubscribe --> gossip
    loads OfferMembership, FindMembers --> dht          dht ProviderFound of those --> loads MemberFound
    dht round trips, coordinates in answers and load signals --> places: own coordinate --> answers, load signals
    leases OpenPath, ClosePath --> meshes Permit, Forbid: nobody is a member of a cluster without a lease
    loads LoadSuspected --> leases, which ask the lender themselves
    how late a Tick is, and that anything comes at all --> loads, which accuse nobody while this node is unwell

A driver runs one of these over libp2p; the simulator runs thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from types import MappingProxyType
from typing import Any, get_args

from .dht.config import DhtConfig
from .dht.events import (
    DhtCommand,
    DhtOutput,
    FindProviders,
    Provide,
    ProviderFound,
    QueryDone,
    QueryOutput,
    StopProviding,
)
from .dht.kademlia import Kademlia
from .engine import (
    Certified,
    Congested,
    Engine,
    Located,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Speaks,
    Tick,
    Undeliverable,
)
from .errors import UsageError
from .gossip.config import GossipConfig
from .gossip.events import Delivered, GossipCommand, GossipOutput, Publish, Subscribe, Unsubscribe, Validator
from .gossip.load import (
    LOAD_TOPIC,
    AskLoads,
    FindMembers,
    FollowLoads,
    LoadBoard,
    LoadCommand,
    LoadConfig,
    LoadOutput,
    LoadSuspected,
    LoadTold,
    LoadUpdated,
    MemberFound,
    OfferMembership,
    PublishLoad,
    SetLoad,
    UnfollowLoads,
)
from .gossip.messages import MessageForm
from .gossip.places import Places
from .gossip.router import GossipRouter
from .identity import PeerId
from .ray_bridge.auth import LeaseKeys
from .ray_bridge.events import ClosePath, Doubt, LeaseCommand, LeaseOutput, OpenPath, Role
from .ray_bridge.lease import Leases
from .ray_bridge.lease_config import LeaseConfig
from .transport.mesh.config import MeshConfig
from .transport.mesh.engine import Meshes
from .transport.mesh.events import Forbid, MeshCommand, MeshOutput, Permit
from .transport.mesh.pairing import MeshKeys


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The child engines' settings."""

    dht: DhtConfig = field(default_factory=DhtConfig)
    gossip: GossipConfig = field(default_factory=GossipConfig)
    loads: LoadConfig = field(default_factory=LoadConfig)
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        """Raises UsageError for settings of another kind."""
        kinds = (
            ("dht", DhtConfig),
            ("gossip", GossipConfig),
            ("loads", LoadConfig),
            ("lease", LeaseConfig),
            ("mesh", MeshConfig),
        )
        for name, kind in kinds:
            if not isinstance(getattr(self, name), kind):
                raise UsageError(
                    f"NodeConfig.{name} is a {kind.__name__}, not {type(getattr(self, name)).__name__}"
                )


NodeLoadCommand = SetLoad | PublishLoad | FollowLoads | UnfollowLoads | AskLoads
NodeCommand = DhtCommand | GossipCommand | NodeLoadCommand | LeaseCommand | MeshCommand
NodeOutput = DhtOutput | GossipOutput | LoadUpdated | LoadSuspected | LoadTold | LeaseOutput | MeshOutput

Outputs = Sequence[NetworkOutput | NodeOutput]
Handler = Callable[[Any, float], Outputs]


def topic_key(topic: str) -> bytes:
    """The DHT key under which members of a topic are found: a multihash of its name."""
    return b"\x12\x20" + sha256(topic.encode()).digest()


def judged(config: GossipConfig, judge: Validator) -> GossipConfig:
    """The settings with a validator for load topics, where they name none."""
    names = dict.fromkeys(
        (LOAD_TOPIC, LOAD_TOPIC + "/*", *(n for n in config.topics if n.startswith(LOAD_TOPIC)))
    )
    settings = {name: config.topic(name) for name in names}
    with_judge = {
        name: setting if setting.validator is not None else replace(setting, validator=judge)
        for name, setting in settings.items()
    }
    return replace(config, topics=MappingProxyType({**config.topics, **with_judge}))


class NodeEngine(Engine[NodeCommand, NodeOutput]):
    """DHT, gossip, load board, leases and meshes of one peer as one engine."""

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
        self.loads: LoadBoard = LoadBoard(
            peer,
            sign,
            verify,
            rng,
            config.loads,
            form,
            coordinate=lambda: self.places.encoded(),
            neighbours=lambda topic: self.gossip.subscribers(topic),
        )
        self.places: Places = Places(peer, rng, self.loads.table)
        self.dht.locate(self.places.encoded, self.places.round_trip)
        gossip = judged(config.gossip, self.loads.judge)
        self.gossip: GossipRouter = GossipRouter(peer, sign, verify, rng, gossip, form)
        self.leases = Leases(peer, keys, rng, config.lease)
        self.meshes = Meshes(peer, MeshKeys(sign, verify, keys.random_bytes), config.mesh)
        self._health = self.loads.doubts.health
        self._looking: dict[int, str] = {}  # by query: for members of which load topic
        self._queries = 0
        # In this order, here and in _deadlines.
        self._children: tuple[Handler, ...] = (
            self._dht,
            self._gossip,
            self._loads,
            self._leases,
            self._meshes,
        )
        self._by_protocol: dict[str, Handler] = {
            "dht": self._dht,
            "record": self._dht,
            "pubsub": self._gossip,
            "loads": self._loads,
            "lease": self._leases,
            "mesh": self._meshes,
        }
        self._by_command: dict[type[object], Handler] = {
            **dict.fromkeys(get_args(DhtCommand), self._dht),
            **dict.fromkeys(get_args(GossipCommand), self._gossip),
            **dict.fromkeys(get_args(LeaseCommand), self._leases),
            **dict.fromkeys(get_args(MeshCommand), self._meshes),
            **dict.fromkeys(get_args(NodeLoadCommand), self._loads),
        }
        # A runner asks for the deadline after every event, and an event moves one child's: asking all of them
        # each time took 10 % of a simulation.
        engines = (self.dht, self.gossip, self.loads, self.leases, self.meshes)
        self._deadlines = [engine.deadline() for engine in engines]

    def deadline(self) -> float:
        return min(self._deadlines)

    def handle(self, event: NetworkEvent | NodeCommand, now: float) -> Outputs:
        match event:
            case Received(message=message):
                self._health.heard(now)
                handler = self._by_protocol.get(message.protocol)
                return handler(event, now) if handler is not None else ()
            case Tick():
                self._health.called(self.deadline(), now)
                due = [
                    handler
                    for handler, deadline in zip(self._children, self._deadlines, strict=True)
                    if deadline <= now
                ]
                return [output for handler in due for output in handler(event, now)]
            case Undeliverable(protocol=protocol) | Speaks(protocol=protocol) | Congested(protocol=protocol):
                handler = self._by_protocol.get(protocol)
                return handler(event, now) if handler is not None else ()
            case Certified():
                return self._gossip(event, now)
            case Located():
                return self._dht(event, now)
            case PeerUp() | PeerDown() | Reachable():
                return [output for handler in self._children for output in handler(event, now)]
            case _:
                return self._by_command[type(event)](event, now)

    # The children's events go through these, and only these.

    def _dht(self, event: NetworkEvent | DhtCommand, now: float) -> Outputs:
        outputs = self.dht.handle(event, now)
        self._deadlines[0] = self.dht.deadline()
        if not (outputs and self._queries):
            return outputs
        passed: list[NetworkOutput | NodeOutput] = []
        for output in outputs:
            if not isinstance(output, QueryOutput) or output.query >= 0:
                passed.append(output)
            elif isinstance(output, ProviderFound) and output.query in self._looking:
                passed += self._loads(MemberFound(self._looking[output.query], output.provider), now)
            elif isinstance(output, QueryDone):
                self._looking.pop(output.query, None)
        return passed

    def _members(self, event: OfferMembership | FindMembers, now: float) -> Outputs:
        """Members of a load topic are providers of its name in the DHT. Queries of the node's own have numbers below
        0; the application's are not."""
        self._queries -= 1
        key = topic_key(event.topic)
        if isinstance(event, FindMembers):
            self._looking[self._queries] = event.topic
            return self._dht(FindProviders(self._queries, key, event.limit), now)
        return self._dht(Provide(self._queries, key) if event.offered else StopProviding(key), now)

    def _leases(self, event: NetworkEvent | LeaseCommand, now: float) -> Outputs:
        outputs = self.leases.handle(event, now)
        self._deadlines[3] = self.leases.deadline()
        facts: list[MeshCommand] = []
        for output in outputs:
            if isinstance(output, OpenPath):
                facts.append(Permit(output.lease, output.peer, output.role is Role.LENDER))
            elif isinstance(output, ClosePath):
                facts.append(Forbid(output.lease))
        if not facts:
            return outputs
        return [*outputs, *(told for fact in facts for told in self._meshes(fact, now))]

    def _meshes(self, event: NetworkEvent | MeshCommand, now: float) -> Outputs:
        outputs = self.meshes.handle(event, now)
        self._deadlines[4] = self.meshes.deadline()
        return outputs

    def _gossip(self, event: NetworkEvent | GossipCommand, now: float) -> Outputs:
        outputs = self.gossip.handle(event, now)
        self._deadlines[1] = self.gossip.deadline()
        if not outputs:
            return outputs
        signals = [
            output
            for output in outputs
            if isinstance(output, Delivered) and output.message.topic.startswith(LOAD_TOPIC)
        ]
        if not signals:
            return outputs
        facts = [fact for signal in signals for fact in self.loads.handle(signal, now)]
        return [*outputs, *self._of_loads(facts, now)]

    def _loads(self, event: NetworkEvent | LoadCommand, now: float) -> Outputs:
        return self._of_loads(self.loads.handle(event, now), now)

    def _of_loads(self, outputs: Sequence[NetworkOutput | LoadOutput], now: float) -> Outputs:
        self._deadlines[2] = self.loads.deadline()
        passed: list[NetworkOutput | NodeOutput] = []
        for output in outputs:
            if isinstance(output, Publish | Subscribe | Unsubscribe):
                passed += self._gossip(output, now)
            elif isinstance(output, OfferMembership | FindMembers):
                passed += self._members(output, now)
            else:
                passed.append(output)
                if isinstance(output, LoadSuspected):
                    passed += self._leases(Doubt(output.provider), now)
        return passed
