"""The simulator: when things arrive, whom they reach, and that a run repeats."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import (
    Disconnect,
    Engine,
    Introduce,
    Message,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerInfo,
    PeerUp,
    Received,
    Send,
    Serve,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.errors import UsageError
from swarmp2p.identity import PeerId, verify
from swarmp2p.peer_record import open_record
from swarmp2p.transport.link import Link, Partition, UniformLink
from swarmp2p.transport.sim import BrokenPromise, Simulator, SimulatorConfig, random_for
from swarmp2p.transport.sim_peers import sim_address, sim_peer, sim_sign, sim_verify

A, B, C = sim_peer(1), sim_peer(2), sim_peer(3)


@dataclass(frozen=True, slots=True)
class Note(Message):
    """A numbered message."""

    protocol: ClassVar[str] = "note"
    number: int


@dataclass(frozen=True, slots=True)
class Do:
    """Have the engine return these."""

    outputs: tuple[NetworkOutput | str, ...]


class Recorder(Engine[Do, str]):
    """Notes what comes, does what it is told, and wants Ticks at the given times."""

    def __init__(self, *due: float) -> None:
        self.seen: list[tuple[float, NetworkEvent | Do]] = []
        self.due = list(due)

    def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
        self.seen.append((now, event))
        while self.due and self.due[0] <= now:
            self.due.pop(0)
        return event.outputs if isinstance(event, Do) else ()

    def deadline(self) -> float:
        return self.due[0] if self.due else math.inf

    def notes(self) -> list[int]:
        return [
            event.message.number
            for _, event in self.seen
            if isinstance(event, Received) and isinstance(event.message, Note)
        ]

    def events(self) -> list[NetworkEvent]:
        return [event for _, event in self.seen if not isinstance(event, Do)]


def ignore(time: float, peer: PeerId, output: str) -> None:
    """An application that wants nothing."""


class World:
    """A simulator with the recorders A, B and C, who know each other's addresses."""

    def __init__(
        self, link: Link | None = None, config: SimulatorConfig | None = None, seed: int = 1
    ) -> None:
        self.outputs: list[tuple[float, PeerId, str]] = []
        self.sim: Simulator[Do, str] = Simulator(seed, link or UniformLink(0.010), self.note, config)
        self.recorders: dict[PeerId, Recorder] = {}
        for peer in (A, B, C):
            self.start(peer)

    def note(self, time: float, peer: PeerId, output: str) -> None:
        self.outputs.append((time, peer, output))

    def start(self, peer: PeerId, *due: float) -> Recorder:
        self.recorders[peer] = Recorder(*due)
        self.sim.add(peer, self.recorders[peer])
        return self.recorders[peer]

    def do(self, peer: PeerId, *outputs: NetworkOutput | str, delay: float = 0.0) -> None:
        self.sim.post(peer, Do(outputs), delay)

    def send(self, source: PeerId, target: PeerId, *numbers: int, delay: float = 0.0) -> None:
        addresses = self.sim.addresses(target) if target in self.sim.peers else (sim_address(99),)
        sends = [Send(target, Note(number)) for number in numbers]
        self.do(source, Introduce(target, addresses), *sends, delay=delay)


# Connections ------------------------------------------------------------------------------------------------


def test_the_first_send_dials_for_one_round_trip_then_both_sides_are_up_then_the_messages_come() -> None:
    world = World()
    world.send(A, B, 1, 2)
    world.sim.run(1.0)
    at_a, (b_at,) = world.recorders[A].seen, world.sim.addresses(B)
    assert at_a[1:] == [(0.020, PeerUp(B, (b_at,), outbound=True, remote=b_at))]
    (a_at,) = world.sim.addresses(A)
    at_b = world.recorders[B].seen
    assert at_b == [
        (0.020, PeerUp(A, (a_at,), remote=a_at)),
        (0.030, Received(A, Note(1))),
        (0.030, Received(A, Note(2))),
    ]
    assert world.sim.connected(A) == (B,)
    assert (world.sim.dials, world.sim.sent, world.sim.lost) == (1, 2, 0)


def test_the_other_side_answers_over_the_same_connection_without_an_introduction() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(B, Send(A, Note(2)), delay=0.5)
    world.sim.run(1.0)
    assert world.recorders[A].seen[-1] == (0.510, Received(B, Note(2)))
    assert world.sim.dials == 1


def test_peers_are_connected_at_once_and_without_a_dial_when_the_scenario_says_so() -> None:
    world = World()
    for target in (B, B, A):
        world.sim.connect(A, target)
    world.sim.run(0.0)
    world.sim.connect(B, A)
    world.sim.run(0.1)
    at_a, at_b = world.sim.addresses(A), world.sim.addresses(B)
    assert world.recorders[A].seen == [(0.0, PeerUp(B, at_b, True, at_b[0]))]
    assert world.recorders[B].seen == [(0.0, PeerUp(A, at_a, False, at_a[0]))]
    assert world.sim.dials == 0
    with pytest.raises(UsageError, match="no peer"):
        world.sim.connect(A, sim_peer(9))


def test_dial_rtts_sets_the_price_of_a_connection() -> None:
    world = World(config=SimulatorConfig(dial_rtts=4.0))
    world.send(A, B, 1)
    world.sim.run(1.0)
    assert [time for time, _ in world.recorders[B].seen] == [0.080, 0.090]


def test_a_send_to_a_peer_without_address_comes_back() -> None:
    world = World()
    world.do(A, Send(B, Note(1)))
    world.sim.run(1.0)
    assert world.recorders[A].events() == [PeerDown(B)]
    assert world.recorders[B].seen == []


def test_a_send_to_oneself_comes_back_even_when_introduced() -> None:
    world = World()
    world.send(A, A, 1)
    world.sim.run(1.0)
    assert world.recorders[A].events() == [PeerDown(A)]


@pytest.mark.parametrize("target", [B, sim_peer(77)], ids=["wrong address", "nobody"])
def test_a_dial_that_nobody_answers_comes_back_after_the_timeout(target: PeerId) -> None:
    world = World()
    world.do(A, Introduce(target, (sim_address(99),)), Send(target, Note(1)), Send(target, Note(2)))
    world.sim.run(10.0)
    assert world.recorders[A].seen[1:] == [(5.0, PeerDown(target))]


def test_a_peer_without_addresses_cannot_be_dialled_but_dials() -> None:
    world = World()
    hidden = sim_peer(9)
    world.recorders[hidden] = Recorder()
    world.sim.add(hidden, world.recorders[hidden], addresses=())
    world.do(A, Introduce(hidden, (sim_address(4),)), Send(hidden, Note(1)))
    world.sim.run(6.0)
    assert world.recorders[A].events() == [PeerDown(hidden)]
    world.do(hidden, Introduce(A, world.sim.addresses(A)), Send(A, Note(2)))
    world.sim.run(7.0)
    assert world.recorders[A].notes() == [2]
    assert PeerUp(hidden, (), remote=sim_address(4)) in world.recorders[A].events()


def test_connections_of_peers_on_one_host_come_from_one_address() -> None:
    world = World()
    world.recorders = {C: Recorder(), **{sim_peer(number): Recorder() for number in (8, 9)}}
    world.sim.crash(C)
    world.sim.add(C, world.recorders[C], addresses=(sim_address(70), sim_address(71)))
    for peer in (sim_peer(8), sim_peer(9)):
        world.sim.add(peer, world.recorders[peer], source=sim_address(50))
        world.do(peer, Introduce(C, (sim_address(71),)), Send(C, Note(1)))
    world.sim.run(1.0)
    ups = [event for event in world.recorders[C].events() if isinstance(event, PeerUp)]
    assert [(up.remote, up.outbound) for up in ups] == [(sim_address(50), False)] * 2
    assert len({up.addresses for up in ups}) == 2, "each listens at its own"
    (up,) = [event for event in world.recorders[sim_peer(8)].events() if isinstance(event, PeerUp)]
    assert (up.remote, up.outbound) == (sim_address(71), True), "the address that was dialled"


def test_messages_wait_for_a_dial_up_to_the_bound_and_are_counted_beyond() -> None:
    world = World(config=SimulatorConfig(dial_queue=3))
    world.send(A, B, 1, 2, 3, 4, 5)
    world.sim.run(1.0)
    assert world.recorders[B].notes() == [1, 2, 3]
    assert (world.sim.sent, world.sim.lost) == (5, 2)


def test_what_a_peer_does_not_serve_comes_back_and_those_connected_are_told() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(B, Serve("note", serving=False), delay=0.5)
    world.send(A, B, 2, delay=1.0)
    world.do(B, Send(A, Note(3)), delay=1.0)  # its own sending goes on
    world.send(B, C, 4, delay=1.5)  # whom it dials learns it too
    world.do(B, Serve("note", serving=True), delay=2.0)
    world.send(A, B, 5, delay=3.0)
    world.sim.run(4.0)
    events = [event for event in world.recorders[A].events() if not isinstance(event, PeerUp)]
    assert events == [
        Speaks(B, "note", serving=False),
        Received(B, Note(3)),
        Undeliverable(B, "note", (), unsupported=True),
        Speaks(B, "note", serving=True),
    ]
    assert [e for e in world.recorders[B].events() if isinstance(e, Received)] == [
        Received(A, Note(1)),
        Received(A, Note(5)),
    ]
    assert Speaks(B, "note", serving=False) in world.recorders[C].events()


def test_two_peers_that_dial_each_other_have_one_connection_and_one_peer_up_each() -> None:
    world = World(UniformLink(0.010, jitter=0.5))
    world.send(A, B, 1)
    world.send(B, A, 2)
    world.sim.run(1.0)
    assert [type(event) for event in world.recorders[A].events()] == [PeerUp, Received]
    assert [type(event) for event in world.recorders[B].events()] == [PeerUp, Received]


def test_messages_that_wait_for_a_dial_take_a_connection_that_the_other_side_makes_meanwhile() -> None:
    world = World()
    world.do(A, Introduce(B, (sim_address(99),)), Send(B, Note(1)))
    world.send(B, A, 2, delay=1.0)
    world.sim.run(10.0)
    assert world.recorders[B].seen[-1] == (1.030, Received(A, Note(1)))
    assert PeerDown(B) not in world.recorders[A].events()


def test_known_addresses_are_bounded_and_the_oldest_is_forgotten() -> None:
    world = World(config=SimulatorConfig(max_known=1))
    world.do(A, Introduce(B, world.sim.addresses(B)), Introduce(C, world.sim.addresses(C)))
    world.do(A, Send(B, Note(1)), Send(C, Note(2)), delay=0.1)
    world.sim.run(1.0)
    (there,) = world.sim.addresses(C)
    assert world.recorders[A].events() == [PeerDown(B), PeerUp(C, (there,), outbound=True, remote=there)]


def test_disconnect_tells_both_sides_and_what_was_under_way_to_the_closer_is_lost() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(B, Send(A, Note(2)), delay=0.995)
    world.do(A, Send(B, Note(3)), Disconnect(B), delay=1.0)
    world.sim.run(2.0)
    assert world.recorders[A].seen[-1] == (1.0, PeerDown(B))
    assert world.recorders[A].notes() == []
    assert world.recorders[B].seen[-2:] == [(1.010, Received(A, Note(3))), (1.010, PeerDown(A))]
    assert world.sim.connected(A) == world.sim.connected(B) == ()


def test_disconnect_from_a_peer_that_is_not_connected_does_nothing() -> None:
    world = World()
    world.do(A, Disconnect(B))
    world.sim.run(1.0)
    assert world.recorders[A].events() == world.recorders[B].events() == []


def test_after_a_disconnect_the_next_send_dials_again_with_the_addresses_that_are_known() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(A, Disconnect(B), delay=1.0)
    world.do(B, Send(A, Note(2)), delay=2.0)
    world.sim.run(3.0)
    assert world.recorders[A].notes() == [2]
    assert world.sim.dials == 2


def test_both_sides_disconnecting_at_once_get_one_peer_down_each() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(A, Disconnect(B), delay=1.0)
    world.do(B, Disconnect(A), delay=1.0)
    world.sim.run(2.0)
    assert world.recorders[A].events().count(PeerDown(B)) == 1
    assert world.recorders[B].events().count(PeerDown(A)) == 1


def test_a_connection_made_anew_before_the_end_of_the_old_was_noticed_stands() -> None:
    world = World(config=SimulatorConfig(dial_rtts=0.0))
    world.send(A, B, 1)
    world.do(A, Disconnect(B), Send(B, Note(2)), delay=1.0)
    world.do(B, Send(A, Note(3)), delay=1.5)
    world.sim.run(2.0)
    assert world.recorders[B].notes() == [1, 2]
    assert world.recorders[A].notes() == [3]
    assert [event.peer for event in world.recorders[B].events() if isinstance(event, PeerUp)] == [A]
    assert PeerDown(A) not in world.recorders[B].events()


# Crashes ----------------------------------------------------------------------------------------------------


def test_a_crash_is_noticed_by_those_connected_and_dials_to_it_time_out() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.run(1.0)
    world.sim.crash(B)
    world.send(A, B, 2)
    world.do(C, Introduce(B, (sim_address(2),)), Send(B, Note(3)))
    world.sim.run(10.0)
    assert world.recorders[A].seen[-1] == (1.010, PeerDown(B))
    assert world.recorders[C].seen[-1] == (6.0, PeerDown(B))
    assert world.recorders[B].notes() == [1]
    assert world.sim.peers == (A, C)


def test_a_silent_crash_is_noticed_late() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.run(1.0)
    world.sim.crash(B, notice_s=30.0)
    world.sim.run(30.9)
    assert PeerDown(B) not in world.recorders[A].events()
    world.sim.run(31.0)
    assert world.recorders[A].seen[-1] == (31.0, PeerDown(B))


def test_nothing_reaches_a_crashed_peer_whoever_closed_what_before() -> None:
    world = World()
    world.send(A, B, 1)
    world.do(A, Send(B, Note(2)), Disconnect(B), delay=1.0)
    world.sim.call(lambda: world.sim.crash(B), delay=1.001)
    world.sim.post(B, Tick(), delay=1.002)
    world.sim.run(2.0)
    assert world.recorders[B].notes() == [1]
    assert Tick() not in world.recorders[B].events()


def test_a_dial_under_way_to_a_peer_that_crashes_comes_back() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.call(lambda: world.sim.crash(B), delay=0.015)
    world.sim.run(1.0)
    assert world.recorders[A].events() == [PeerDown(B)]


def test_a_peer_that_crashes_while_it_dials_is_forgotten() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.call(lambda: world.sim.crash(A), delay=0.015)
    world.sim.run(1.0)
    assert world.recorders[B].events() == []


def test_a_crashed_peer_starts_again_with_a_new_engine_and_no_connections() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.run(1.0)
    old = world.recorders[B]
    world.sim.crash(B)
    new = world.start(B)
    world.sim.run(2.0)
    assert world.sim.connected(B) == world.sim.connected(A) == ()
    world.send(A, B, 2)
    world.sim.run(3.0)
    assert (old.notes(), new.notes()) == ([1], [2])


class Scripted:
    """A link with a list of delays, then 10 ms for ever."""

    def __init__(self, *delays: float | None) -> None:
        self.delays = list(delays)

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        return self.delays.pop(0) if self.delays else 0.010


# Links ------------------------------------------------------------------------------------------------------


def test_messages_of_one_direction_keep_their_order_whatever_the_jitter() -> None:
    world = World(UniformLink(0.010, jitter=0.9))
    world.send(A, B, 0)
    for number in range(1, 200):
        world.do(A, Send(B, Note(number)), delay=1.0 + number * 0.0005)
    world.sim.run(5.0)
    assert world.recorders[B].notes() == list(range(200))
    times = [time for time, _ in world.recorders[B].seen]
    assert times == sorted(times)


def test_messages_that_waited_for_the_dial_keep_their_order_too() -> None:
    world = World(Scripted(0.01, 0.01, 0.05, 0.02))
    world.send(A, B, 1, 2)
    world.sim.run(1.0)
    assert [(time, event) for time, event in world.recorders[B].seen[1:]] == [
        (0.07, Received(A, Note(1))),
        (0.07, Received(A, Note(2))),
    ]


def test_the_end_of_a_connection_does_not_overtake_its_messages() -> None:
    world = World(Scripted(0.01, 0.01, 0.5))
    world.send(A, B, 1)
    world.do(A, Disconnect(B), delay=0.1)
    world.sim.run(1.0)
    assert world.recorders[B].events()[1:] == [Received(A, Note(1)), PeerDown(A)]


@pytest.mark.parametrize(("losses", "up_at"), [(1, 1.020), (2, 2.020), (3, None)])
def test_a_lost_handshake_is_repeated_each_second_up_to_three_times(losses: int, up_at: float | None) -> None:
    world = World(Scripted(*[None, 0.01] * losses))
    world.send(A, B, 1)
    world.sim.run(10.0)
    (there,) = world.sim.addresses(B)
    up = PeerUp(B, (there,), outbound=True, remote=there)
    expected = (5.0, PeerDown(B)) if up_at is None else (up_at, up)
    assert world.recorders[A].seen[1] == expected


def test_delays_below_a_millisecond_keep_the_order_of_time() -> None:
    world = World(UniformLink(0.0001))
    world.send(A, B, 0)
    for number in range(1, 10):
        world.do(A, Send(B, Note(number)), delay=0.5 + number * 0.00003)
        world.do(B, delay=0.5 + number * 0.00003)
    world.sim.run(1.0)
    times = [time for time, _ in world.recorders[B].seen]
    assert times == sorted(times)
    assert world.recorders[B].notes() == list(range(10))


def test_one_message_to_many_is_one_event_object() -> None:
    world = World()
    world.send(A, B, 0)
    world.send(A, C, 0)
    note = Note(1)
    world.do(A, Send(B, note), Send(C, note), Send(B, Note(2)), delay=0.5)
    world.sim.run(1.0)
    assert world.recorders[B].seen[-2][1] is world.recorders[C].seen[-1][1]
    assert world.recorders[B].notes() == [0, 1, 2]


def test_lost_messages_are_counted_and_close_nothing() -> None:
    world = World(UniformLink(0.010, loss=0.5))
    world.send(A, B, *range(50))
    world.sim.run(20.0)
    assert 0 < len(world.recorders[B].notes()) < 50
    assert len(world.recorders[B].notes()) + world.sim.lost == 50
    assert PeerDown(B) not in world.recorders[A].events()


def test_a_partition_loses_messages_and_refuses_dials_until_it_heals() -> None:
    link = Partition(UniformLink(0.010))
    world = World(link)
    world.send(A, B, 1)
    world.sim.call(lambda: link.split({A: 0, B: 1, C: 1}), delay=1.0)
    world.send(A, B, 2, delay=2.0)
    world.send(A, C, 3, delay=2.0)
    world.sim.call(link.heal, delay=20.0)
    world.send(A, B, 4, delay=21.0)
    world.sim.run(22.0)
    assert world.recorders[B].notes() == [1, 4]
    assert world.recorders[A].seen[-2] == (7.0, PeerDown(C))


def test_a_disconnect_whose_notice_is_lost_is_noticed_by_silence() -> None:
    link = Partition(UniformLink(0.010))
    world = World(link)
    world.send(A, B, 1)
    world.sim.call(lambda: link.split({A: 0, B: 1}), delay=1.0)
    world.do(A, Disconnect(B), delay=2.0)
    world.sim.run(20.0)
    assert world.recorders[B].seen[-1] == (12.0, PeerDown(A))


# Time -------------------------------------------------------------------------------------------------------


def test_ticks_come_at_the_deadline_exactly_and_once() -> None:
    world = World()
    recorder = world.start(sim_peer(9), 0.5, 0.5000001, 3.0)
    world.sim.run(10.0)
    assert recorder.seen == [(0.5, Tick()), (0.5000001, Tick()), (3.0, Tick())]


def test_a_deadline_that_moved_away_costs_no_tick_and_one_that_came_closer_is_kept() -> None:
    world = World()
    recorder = world.start(sim_peer(9), 1.0)
    world.sim.call(lambda: recorder.due.__setitem__(0, 2.0), delay=0.5)
    world.sim.run(1.5)
    assert recorder.seen == []
    recorder.due[0] = 1.75  # noticed at the next event
    world.do(sim_peer(9), delay=0.1)
    world.sim.run(5.0)
    assert [time for time, event in recorder.seen if event == Tick()] == [1.75]


def test_a_deadline_that_keeps_coming_closer_leaves_no_ticks_that_multiply() -> None:
    world = World()
    recorder = world.start(sim_peer(9), 10.0)
    for step in range(5):
        world.sim.call(partial(recorder.due.insert, 0, 9.0 - step), delay=0.1 * step)
        world.do(sim_peer(9), delay=0.1 * step)
    world.sim.run(20.0)
    assert [time for time, event in recorder.seen if event == Tick()] == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert world.sim.counts["Tick"] <= 11  # 6 scheduled first, 5 anew


def test_a_deadline_in_the_past_is_a_tick_now() -> None:
    world = World()
    world.sim.run(5.0)
    recorder = world.start(sim_peer(9), 1.0)
    world.sim.run(6.0)
    assert recorder.seen == [(5.0, Tick())]


def test_an_engine_whose_deadline_does_not_move_is_stopped_with_the_way_to_repeat_it() -> None:
    class Stuck(Recorder):
        def deadline(self) -> float:
            return 1.0

    world = World(seed=42)
    world.sim.add(sim_peer(9), Stuck())
    with pytest.raises(BrokenPromise) as caught:
        world.sim.run(2.0)
    assert any("seed 42" in note and str(sim_peer(9)) in note for note in caught.value.__notes__)


def test_events_of_one_instant_keep_the_order_in_which_they_were_posted() -> None:
    world = World()
    for number in range(20):
        world.do(A, str(number), delay=0.5)
    world.sim.run(1.0)
    assert world.outputs == [(0.5, A, str(number)) for number in range(20)]


def test_what_is_posted_while_events_are_worked_off_finds_its_place_among_them() -> None:
    world = World()

    def follow(time: float, peer: PeerId, output: str) -> None:
        if output == "first":
            world.do(B, delay=0.0002)

    world.sim.on_output = follow
    world.do(A, "first", delay=0.0001)
    world.do(B, "later", delay=0.0004)
    world.sim.run(1.0)
    assert [round(time, 7) for time, _ in world.recorders[B].seen] == [0.0003, 0.0004]


def test_run_stops_at_its_time_even_between_two_events_of_one_millisecond() -> None:
    world = World()
    world.do(A, "early", delay=0.0001)
    world.do(A, "late", delay=0.0005)
    world.sim.run(0.0003)
    assert [output for _, _, output in world.outputs] == ["early"]
    assert world.sim.now == 0.0003
    world.do(A, "between", delay=0.0001)
    world.sim.run(0.0005)
    assert [output for _, _, output in world.outputs] == ["early", "between", "late"]


def test_run_to_infinity_ends_with_the_last_event() -> None:
    world = World()
    world.send(A, B, 1)
    world.sim.run(math.inf)
    assert world.sim.now == 0.030
    assert world.recorders[B].notes() == [1]


def test_time_does_not_go_back_and_run_is_not_entered_twice() -> None:
    world = World()
    world.sim.run(1.0)
    with pytest.raises(UsageError):
        world.sim.run(0.5)
    world.sim.call(lambda: world.sim.run(2.0))
    with pytest.raises(UsageError):
        world.sim.run(3.0)
    for delay in (-0.1, math.inf, math.nan):
        with pytest.raises(UsageError):
            world.do(A, delay=delay)
        with pytest.raises(UsageError):
            world.sim.call(lambda: None, delay=delay)


def test_unknown_peers_are_named_and_a_peer_is_not_added_twice() -> None:
    world = World()
    for use in (world.sim.crash, world.sim.engine, world.sim.connected, world.sim.addresses):
        with pytest.raises(UsageError, match=str(sim_peer(9))):
            use(sim_peer(9))
    with pytest.raises(UsageError):
        world.sim.add(A, Recorder())
    assert world.sim.engine(A) is world.recorders[A]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.01), st.floats(0, 0.005)), min_size=1, max_size=60),
    st.lists(st.floats(0, 0.02), max_size=4),
)
def test_entries_come_in_order_of_time_as_from_a_sorted_list(
    posts: list[tuple[float, float]], stops: list[float]
) -> None:
    """Each post is followed by another one, `later` seconds after it happened; runs stop anywhere."""
    seen: list[tuple[float, int]] = []
    sim: Simulator[Do, str] = Simulator(1, UniformLink(), ignore)

    def note(number: int, later: float) -> None:
        seen.append((sim.now, number))
        if later >= 0:
            sim.call(partial(note, number, -1.0), later)

    for number, (at, later) in enumerate(posts):
        sim.call(partial(note, number, later), at)
    for stop in sorted(stops):
        sim.run(stop)
        assert sim.now == stop
        assert len([time for time, _ in seen if time > stop]) == 0
    sim.run(1.0)
    expected = sorted([at for at, _ in posts] + [at + later for at, later in posts])
    assert [time for time, _ in seen] == expected


# The same again ---------------------------------------------------------------------------------------------


class Gossiper(Engine[Do, str]):
    """Passes notes on to random friends: enough traffic for a trace to differ in."""

    def __init__(self, friends: list[PeerId], rng: Random) -> None:
        self.friends, self.rng, self.next = friends, rng, rng.random()

    def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
        if isinstance(event, Tick) and now >= self.next:
            self.next = now + self.rng.expovariate(2.0)
            friend = self.rng.choice(self.friends)
            heard = self.friends.index(friend) + 1 if self.rng.random() < 0.8 else 99
            return (Introduce(friend, (sim_address(heard),)), Send(friend, Note(3)))
        if isinstance(event, Received) and isinstance(event.message, Note) and event.message.number > 0:
            return [
                Send(friend, Note(event.message.number - 1)) for friend in self.rng.sample(self.friends, 2)
            ]
        return ()

    def deadline(self) -> float:
        return self.next


def gossip(seed: int) -> Simulator[Do, str]:
    sim: Simulator[Do, str] = Simulator(seed, UniformLink(0.02, 0.2, 0.05), ignore)
    rng = random_for(seed, "engines")
    peers = [sim_peer(index) for index in range(20)]
    for peer in peers:
        sim.add(peer, Gossiper(peers, rng))
    sim.run(5.0)
    sim.crash(peers[3])
    sim.run(10.0)
    return sim


def test_equal_seeds_give_equal_traces_and_others_do_not() -> None:
    first, second, other = gossip(7), gossip(7), gossip(8)
    assert first.events > 1000
    assert first.trace_hash == second.trace_hash != other.trace_hash
    assert first.counts == second.counts
    assert first.counts["Note"] > 100


def test_the_trace_does_not_depend_on_where_it_was_looked_at() -> None:
    sim: Simulator[Do, str] = Simulator(7, UniformLink(0.02, 0.2, 0.05), ignore)
    rng = random_for(7, "engines")
    peers = [sim_peer(index) for index in range(20)]
    for peer in peers:
        sim.add(peer, Gossiper(peers, rng))
    for step in range(1, 51):
        sim.run(step / 10)
        assert len(sim.trace_hash) == 32
    sim.crash(peers[3])
    sim.run(10.0)
    whole = gossip(7)
    assert (sim.events, sim.counts, sim.trace_hash) == (whole.events, whole.counts, whole.trace_hash)


def test_the_trace_tells_times_peers_senders_and_kinds_apart() -> None:
    def trace(*posts: tuple[PeerId, Do | Tick, float]) -> str:
        world = World()
        world.send(A, B, 0)
        world.send(C, B, 0)
        for peer, event, delay in posts:
            world.sim.post(peer, event, delay)
        world.sim.run(10.0)
        return world.sim.trace_hash

    traces = [
        trace((A, Do(()), 1.0)),
        trace((A, Do(()), 1.5)),
        trace((B, Do(()), 1.0)),
        trace((A, Tick(), 1.0)),
        trace((A, Do((Send(B, Note(1)),)), 1.0), (C, Do(()), 1.0)),
        trace((A, Do(()), 1.0), (C, Do((Send(B, Note(1)),)), 1.0)),
    ]
    assert len(set(traces)) == len(traces)
    assert traces[0] == trace((A, Do(()), 1.0))


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_trace_is_the_same_in_a_process_with_another_hash_seed(hash_seed: str) -> None:
    code = "from tests.transport.test_sim import gossip; print(gossip(7).trace_hash)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == gossip(7).trace_hash


def test_random_sources_for_different_purposes_and_seeds_are_independent() -> None:
    draws = {
        random_for(seed, purpose).random() for seed in range(3) for purpose in ("link", "engines", "peers")
    }
    assert len(draws) == 9
    assert random_for(1, "link").random() == random_for(1, "link").random()


# Stand-ins --------------------------------------------------------------------------------------------------


def test_simulated_peers_look_like_real_ones_and_are_all_different() -> None:
    peers = [sim_peer(index) for index in range(1000)]
    assert len(set(peers)) == 1000
    assert all(PeerId.from_text(str(peer)) == peer and peer.public_key is not None for peer in peers[:20])
    assert len({sim_address(index) for index in range(1000)}) == 1000


def test_stand_in_signatures_tell_peers_and_data_apart_but_are_none() -> None:
    signature = sim_sign(A)(b"data")
    assert len(signature) == 64
    assert sim_verify(A, b"data", signature)
    assert not sim_verify(B, b"data", signature)
    assert not sim_verify(A, b"date", signature)
    assert not sim_verify(A, b"data", signature[:-1])
    assert not verify(A, b"data", signature)


def test_peers_give_each_other_their_signed_records_where_the_network_has_such() -> None:
    world = World(config=SimulatorConfig(signed_records=True))
    world.send(A, B, 1)
    world.sim.run(1.0)
    for at, other in ((A, B), (B, A)):
        (up,) = [event for event in world.recorders[at].events() if isinstance(event, PeerUp)]
        assert open_record(up.record, sim_verify, other).info == PeerInfo(other, world.sim.addresses(other))
