"""The simulator's benchmark: both sides do the same work, and the figures are there."""

from __future__ import annotations

from benchmarks import simulator
from benchmarks.report import result
from swarmp2p.identity import PeerId
from swarmp2p.transport.sim import Simulator


def nothing(now: float, peer: PeerId, output: None) -> None:
    """Toys put nothing out."""


def test_both_sides_pass_the_same_number_of_tokens() -> None:
    plain = simulator.PlainHeap(simulator.toys(30))
    sim: Simulator[str, None] = Simulator(1, simulator.LINK, nothing)
    for peer, toy in simulator.toys(30):
        sim.add(peer, toy)
    for peer in sim.peers:
        sim.post(peer, "go")
    sim.run(1.0)  # connections stand
    plain.run(1.0)
    before, plain_before = sim.events, plain.events
    sim.run(3.0)
    plain.run(3.0)
    expected = 30 * (2.0 / simulator.LINK.delay_s + 2.0)  # each node's token, and its beats
    assert abs(sim.events - before - expected) < 0.05 * expected
    assert abs(plain.events - plain_before - expected) < 0.05 * expected


def test_nobody_is_its_own_friend_and_everybody_has_four() -> None:
    for place, (peer, toy) in enumerate(simulator.toys(20)):
        assert len(toy.friends) == 4
        assert peer not in dict(toy.friends)
        assert place + 1 not in dict(toy.friends).values()


def test_all_figures_are_there() -> None:
    sides = {"ours": simulator.ours(20, 5, 2000), "heapq": simulator.heap(20, 2000)}
    told = result("simulator", {}, [], sides)
    ours, peers = told["ours"], told["peers"]
    assert isinstance(ours, dict)
    assert isinstance(peers, dict)
    assert list(ours) == ["loop_events_per_s", "engine_events_per_s", "bytes_per_node"]
    assert all(value > 0 for value in (ours["loop_events_per_s"], peers["heapq"]["loop_events_per_s"]))
