"""Whole-network checks: right about a sound swarm, and not blind to a broken one."""

from __future__ import annotations

import pytest

from simulations import checks
from simulations.swarm import Swarm, sim_keys
from swarmp2p.dht.events import Announce, Join, QueryDone
from swarmp2p.dht.keys import key_id, peer_key, service_key
from swarmp2p.errors import SealedBoxError
from swarmp2p.gossip.events import Subscribe
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeOutput
from swarmp2p.transport.link import Partition, UniformLink
from swarmp2p.transport.sim import random_for
from swarmp2p.transport.sim_peers import sim_peer


@pytest.fixture(scope="module")
def sound() -> Swarm:
    """Sixty nodes that have joined, subscribed, and one announcement."""
    swarm = Swarm(60, 1, UniformLink(0.01))
    swarm.join_all(0.02)
    for peer in swarm.peers:
        swarm.sim.post(peer, Subscribe("topic"))
    swarm.sim.run(10.0)
    done: list[NodeOutput] = []
    swarm.ask(
        swarm.peers[7], lambda query: Announce(query, "s"), lambda now, peer, output: done.append(output)
    )
    swarm.sim.run(12.0)
    assert [type(output) for output in done] == [QueryDone]
    return swarm


def test_the_true_closest_are_those_of_a_full_sort(sound: Swarm) -> None:
    target = key_id(b"anything")
    by_distance = sorted(sound.peers, key=lambda peer: peer_key(peer) ^ target)
    assert checks.true_closest(sound, target, 7) == by_distance[:7]
    assert checks.true_closest(sound, target, 100) == by_distance


def test_a_sound_swarm_is_sound(sound: Swarm) -> None:
    tables = checks.tables(sound, sound.peers)
    assert (tables.neighbours, tables.complete, tables.live) == (1.0, 1.0, 1.0)
    assert 30 <= tables.entries <= 59
    assert 0.7 < tables.mutual < 1.0  # k is 20, so not everybody has a place everywhere
    mesh = checks.mesh(sound, "topic")
    assert (mesh.subscribers, mesh.mutual, mesh.reached) == (60, 1.0, 1.0)
    assert 4 <= mesh.lowest <= mesh.mean <= mesh.highest <= 12
    placement = checks.placement(sound, [(service_key("s"), sound.peers[7])])
    assert placement.held > 0.9
    assert placement.orphans == 0


def test_what_is_not_there_is_missed(sound: Swarm) -> None:
    assert checks.mesh(sound, "other") == checks.Mesh(0, 0, 0.0, 0, 0.0, 0.0)
    nowhere = checks.placement(sound, [(service_key("nowhere"), sound.peers[7])])
    assert nowhere == checks.Placement(0.0, 1)
    both = [(service_key("s"), sound.peers[7]), (service_key("s"), sound.peers[8])]
    assert checks.placement(sound, both).orphans == 1


def test_dead_peers_in_tables_and_meshes_show() -> None:
    swarm = Swarm(20, 1, UniformLink(0.01))
    swarm.join_all(0.02)
    for peer in swarm.peers:
        swarm.sim.post(peer, Subscribe("topic"))
    swarm.sim.run(5.0)
    for peer in swarm.peers[10:]:
        swarm.sim.crash(peer, notice_s=1000.0)
    tables = checks.tables(swarm, swarm.peers[:10])
    assert 0.4 < tables.live < 0.6
    assert checks.mesh(swarm, "topic").mutual < 0.9


def test_swarms_that_never_met_do_not_know_their_neighbours() -> None:
    link = Partition(UniformLink(0.01))
    swarm = Swarm(20, 1, link)
    link.split({peer: place % 2 for place, peer in enumerate(swarm.peers)})
    swarm.join_all(0.02)
    for peer in swarm.peers:
        swarm.sim.post(peer, Subscribe("topic"))
    swarm.sim.run(10.0)
    tables = checks.tables(swarm, swarm.peers)
    assert tables.neighbours < 0.6
    assert tables.complete == 0.0
    assert checks.mesh(swarm, "topic").reached == 0.5


def test_a_node_that_crashed_starts_again_and_joins() -> None:
    swarm = Swarm(10, 1, UniformLink(0.01))
    swarm.join_all(0.02)
    swarm.sim.run(5.0)
    swarm.sim.crash(swarm.peers[3])
    swarm.start(swarm.peers[3])
    assert len(swarm.node(swarm.peers[3]).dht.table) == 0
    ended: list[PeerId] = []
    through = (swarm.info(swarm.peers[0]),)
    swarm.ask(
        swarm.peers[3], lambda query: Join(query, through), lambda now, peer, output: ended.append(peer)
    )
    swarm.sim.run(10.0)
    assert ended == [swarm.peers[3]]
    assert checks.tables(swarm, [swarm.peers[3]], k=5).complete == 1.0


def test_stand_in_keys_tell_peers_apart() -> None:
    rng = random_for(1, "keys")
    one, other = sim_keys(sim_peer(1), rng), sim_keys(sim_peer(2), rng)
    assert one.open_sealed(other.seal_to(sim_peer(1), b"secret")) == b"secret"
    with pytest.raises(SealedBoxError):
        other.open_sealed(one.seal_to(sim_peer(1), b"secret"))
    assert one.verify(sim_peer(2), b"data", other.sign(b"data"))
    assert not one.verify(sim_peer(1), b"data", other.sign(b"data"))
    assert one.random_bytes(32) != other.random_bytes(32)
