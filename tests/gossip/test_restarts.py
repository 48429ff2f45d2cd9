"""Peers that crash and come back with their id, in the simulator: meshed within two heartbeats, noticed or not.

Others' users complain of two ends that disagree on subscriptions after one of them restarted.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Delivered, Publish, Subscribe
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import Simulator

from .network import peer_id, stub_sign, stub_verify

COUNT = 10
MESH_ONLY = GossipConfig(flood_publish=False)


class Restarts:
    """Ten routers, all connected; any of them may crash and start again."""

    def __init__(self) -> None:
        self.heard: list[tuple[PeerId, bytes]] = []
        self.sim: Simulator[Any, Any] = Simulator(1, UniformLink(0.025), self._output)
        for number in range(COUNT):
            self.start(number)
        for number in range(COUNT):
            self.connect(number, range(number))
        self.sim.run(5.0)

    def _output(self, now: float, peer: PeerId, output: Any) -> None:
        if isinstance(output, Delivered):
            self.heard.append((peer, output.message.data))

    def start(self, number: int) -> None:
        engine = GossipRouter(
            peer_id(number), stub_sign, stub_verify, Random(number), MESH_ONLY, BareMessages()
        )
        self.sim.add(peer_id(number), engine)
        self.sim.post(peer_id(number), Subscribe("t"))

    def connect(self, number: int, others: range) -> None:
        for other in others:
            self.sim.connect(peer_id(number), peer_id(other))

    def mesh(self, number: int) -> tuple[PeerId, ...]:
        engine = self.sim.engine(peer_id(number))
        assert isinstance(engine, GossipRouter)
        return engine.mesh("t")


@pytest.mark.parametrize("notice_s", [None, 0.5, 60.0])
@pytest.mark.parametrize("away_s", [0.0, 0.3, 20.0])
def test_a_crashed_peer_comes_back(notice_s: float | None, away_s: float) -> None:
    """Whether its neighbours have noticed its end before, while or long after it comes back."""
    world = Restarts()
    world.sim.crash(peer_id(9), notice_s)
    world.sim.run(world.sim.now + away_s)
    world.start(9)
    world.connect(9, range(9))
    world.sim.run(world.sim.now + 2.0)
    members = world.mesh(9)
    assert len(members) >= MESH_ONLY.mesh_low
    one_sided = [
        number for number in range(9) if (peer_id(9) in world.mesh(number)) != (peer_id(number) in members)
    ]
    assert one_sided == [], "both ends agree"
    world.heard.clear()
    world.sim.post(peer_id(9), Publish("t", b"from it"))
    world.sim.post(peer_id(0), Publish("t", b"to it"))
    world.sim.run(world.sim.now + 1.0)
    assert sum(data == b"from it" for _, data in world.heard) == COUNT - 1
    assert (peer_id(9), b"to it") in world.heard
