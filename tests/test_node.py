"""The whole node's engine: which child gets what, and what passes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import pytest

from simulations.swarm import Swarm
from swarmp2p.dht.events import DhtOutput, FindClosest, Join
from swarmp2p.engine import Message, NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.gossip.events import Delivered, Publish, Subscribe
from swarmp2p.gossip.load import (
    FollowLoads,
    LoadSignal,
    LoadSuspected,
    LoadUpdated,
    PublishLoad,
    UnfollowLoads,
)
from swarmp2p.gossip.load_wire import LoadsRequest
from swarmp2p.gossip.messages import Rpc
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeEngine, NodeOutput
from swarmp2p.ray_bridge.events import Doubt, LeaseCommand, LeaseOutput
from swarmp2p.transport.link import UniformLink
from tests.conformance import storm
from tests.engine_cases.node import NODE_CASE, node_engine
from tests.made_up import PEERS

A, B = PEERS[:2]


def children_deadline(node: NodeEngine) -> float:
    return min(child.deadline() for child in (node.dht, node.gossip, node.loads, node.leases, node.meshes))


def test_its_deadline_is_the_earliest_of_its_children_whatever_happens() -> None:
    checked = 0

    def check(node: NodeEngine) -> Mapping[str, tuple[int, int]]:
        nonlocal checked
        checked += 1
        assert node.deadline() == children_deadline(node)
        return {}

    storm(replace(NODE_CASE, sizes=check), 3, 1500)
    assert checked > 1000


def test_a_new_node_wants_what_its_children_want() -> None:
    node = node_engine(A, 1)
    assert node.deadline() == children_deadline(node)


def test_a_message_of_an_unknown_protocol_is_nobodys() -> None:
    @dataclass(frozen=True, slots=True)
    class Strange(Message):
        protocol: ClassVar[str] = "strange"

    assert node_engine(A, 1).handle(Received(B, Strange()), 0.0) == ()


def test_a_peer_that_comes_up_is_greeted_by_gossip_and_asked_for_loads() -> None:
    node = node_engine(A, 1)
    node.handle(Subscribe("topic"), 0.0)
    sent = [output.message for output in node.handle(PeerUp(B, ()), 1.0) if isinstance(output, Send)]
    assert {Rpc, LoadsRequest} <= {type(message) for message in sent}


def test_a_tick_goes_to_those_that_are_due() -> None:
    node = node_engine(A, 1)
    node.handle(Subscribe("topic"), 0.0)
    node.handle(PeerUp(B, ()), 0.0)
    node.handle(Publish("topic", b"data"), 0.0)
    beat, upkeep = node.gossip.deadline(), node.dht.deadline()
    assert beat < upkeep
    node.handle(Tick(), beat)
    assert node.gossip.deadline() > beat
    assert node.dht.deadline() == upkeep


@pytest.fixture
def five() -> Swarm:
    """Five nodes that know each other and follow loads."""
    swarm = Swarm(5, 1, UniformLink(0.01))
    swarm.join_all(0.1)
    for peer in swarm.peers:
        swarm.sim.post(peer, FollowLoads())
    swarm.sim.run(10.0)
    return swarm


def listen(swarm: Swarm, kind: type) -> list[tuple[PeerId, NodeOutput]]:
    heard: list[tuple[PeerId, NodeOutput]] = []
    swarm.listen(kind, lambda now, peer, output: heard.append((peer, output)))
    return heard


def test_a_load_signal_is_published_delivered_and_stands_in_every_table(five: Swarm) -> None:
    updated, delivered = listen(five, LoadUpdated), listen(five, Delivered)
    five.sim.post(five.peers[0], PublishLoad(LoadSignal(cpus_free=3.0)))
    five.sim.run(11.0)
    others = five.peers[1:]
    assert sorted(peer for peer, _ in updated) == sorted(peer for peer, _ in delivered) == sorted(others)
    for peer in others:
        (entry,) = five.node(peer).loads.table
        assert (entry.provider, entry.signal.cpus_free) == (five.peers[0], 3.0)


def test_other_topics_do_not_reach_the_load_table(five: Swarm) -> None:
    delivered = listen(five, Delivered)
    for peer in five.peers:
        five.sim.post(peer, Subscribe("topic"))
    five.sim.post(five.peers[0], Publish("topic", b"data"), 5.0)
    five.sim.run(20.0)
    assert len(delivered) == 4
    assert all(len(five.node(peer).loads.table) == 0 for peer in five.peers)


def test_a_provider_that_falls_silent_is_suspected(five: Swarm) -> None:
    suspected = listen(five, LoadSuspected)
    for beat in range(5):
        five.sim.post(five.peers[0], PublishLoad(LoadSignal()), float(beat))
    five.sim.run(15.0)
    assert suspected == []
    five.sim.crash(five.peers[0])
    five.sim.run(30.0)
    assert sorted(peer for peer, _ in suspected) == sorted(five.peers[1:])


def test_a_suspected_lender_is_asked_by_the_leases_before_anything_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The suspicion goes to the lease engine, whose renewal leaves with it."""
    engine = node_engine(A, 1)
    told: list[object] = []
    leases = engine.leases.handle

    def handle(event: NetworkEvent | LeaseCommand, now: float) -> Sequence[NetworkOutput | LeaseOutput]:
        told.append(event)
        return leases(event, now)

    monkeypatch.setattr(engine.leases, "handle", handle)
    engine.loads.table.offer(B, LoadSignal(sequence=1, expires=50.0, heartbeat_s=1.0), 0.0)
    outputs: list[object] = []
    engine.handle(FollowLoads(), 0.0)
    while engine.deadline() < 10.0:
        outputs += engine.handle(Tick(), engine.deadline())
    assert [output for output in outputs if isinstance(output, LoadSuspected)] == [LoadSuspected(B)]
    assert Doubt(B) in told


def test_who_follows_no_loads_any_more_gets_none(five: Swarm) -> None:
    five.sim.post(five.peers[1], UnfollowLoads())
    five.sim.run(12.0)
    updated = listen(five, LoadUpdated)
    five.sim.post(five.peers[0], PublishLoad(LoadSignal()))
    five.sim.run(13.0)
    assert sorted(peer for peer, _ in updated) == sorted(five.peers[2:])


def test_a_newcomer_asks_for_the_loads_that_it_missed(five: Swarm) -> None:
    five.sim.post(five.peers[0], PublishLoad(LoadSignal()))
    five.sim.run(12.0)
    newcomer = five.peers[3]
    five.sim.crash(newcomer)
    five.start(newcomer)
    through = (five.info(five.peers[1]),)
    five.ask(newcomer, lambda query: Join(query, through), lambda now, peer, output: None)
    five.sim.run(13.0)
    assert [entry.provider for entry in five.node(newcomer).loads.table] == [five.peers[0]]


def test_queries_end_on_the_node_that_asked(five: Swarm) -> None:
    ended: list[tuple[PeerId, NodeOutput]] = []
    five.ask(
        five.peers[2],
        lambda query: FindClosest(query, b"key"),
        lambda now, peer, output: ended.append((peer, output)),
    )
    five.sim.run(12.0)
    assert [peer for peer, _ in ended] == [five.peers[2]]
    assert all(isinstance(output, get_args(DhtOutput)) for _, output in ended)


def test_a_peer_down_reaches_all_children() -> None:
    node = node_engine(A, 1)
    node.handle(Subscribe("topic"), 0.0)
    node.handle(PeerUp(B, ()), 0.0)
    node.handle(Received(B, Rpc(subscriptions=(("topic", True),))), 0.0)
    assert node.gossip.subscribers("topic") == (B,)
    node.handle(PeerDown(B), 1.0)
    assert node.gossip.subscribers("topic") == ()
