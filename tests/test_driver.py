"""The driver: order, time, backpressure, errors. Engines here are scripts; the clock is trio's MockClock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from swarmp2p.driver import Driver, Overloaded
from swarmp2p.engine import (
    Certified,
    Congested,
    Disconnect,
    Engine,
    Introduce,
    Located,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Reply,
    Request,
    Send,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.errors import ListenError
from swarmp2p.identity import Identity, PeerId
from swarmp2p.scopes import TaskStatus, background_nursery, start
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.memory import MemorySwitch
from swarmp2p.transport.network import Deliver
from tests.transport.toy import Answer, Ask

UNIX = 1_700_000_000.0


@dataclass(frozen=True)
class Do:
    """A command: carry these outputs out, and want a Tick then."""

    outputs: tuple[NetworkOutput | str, ...] = ()
    tick_in: float = math.inf


class Script(Engine[Do, str]):
    """Does what it is told, answers what it is asked, and writes down what happened when."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, NetworkEvent | Do]] = []
        self.next_tick = math.inf

    def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
        self.seen.append((now, event))
        match event:
            case Do(outputs, tick_in):
                if tick_in != math.inf:
                    self.next_tick = now + tick_in
                return outputs
            case Tick():
                self.next_tick = math.inf
                return ["ticked"]
            case Received(sender, Ask(number, text)):
                return [Send(sender, Answer(number, text))]
            case Received(_, Answer(_, text)):
                return [text.decode()]
            case (
                PeerUp()
                | Certified()
                | PeerDown()
                | Received()
                | Undeliverable()
                | Speaks()
                | Congested()
                | Reachable()
                | Located()
            ):
                return [type(event).__name__]

    def deadline(self) -> float:
        return self.next_tick


class Recorder:
    """A network that writes down what it is asked for, and delivers what a test gives it."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.deliver: Deliver | None = None
        self.failure: BaseException | None = None

    @property
    def peer_id(self) -> PeerId:
        return PeerId(b"me")

    def send(self, to: PeerId, message: object) -> None:
        self.asked.append(("send", to, message))

    def introduce(self, peer: PeerId, addresses: Sequence[bytes]) -> None:
        self.asked.append(("introduce", peer, tuple(addresses)))

    def disconnect(self, peer: PeerId) -> None:
        self.asked.append(("disconnect", peer))

    def protect(self, peer: PeerId, protected: bool) -> None:
        self.asked.append(("protect", peer, protected))

    def serve(self, protocol: str, serving: bool) -> None:
        self.asked.append(("serve", protocol, serving))

    async def run(
        self, deliver: Deliver, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.deliver = deliver
        task_status.started()
        await trio.sleep_forever()


class Echo(Recorder):
    """Says that a peer is gone as soon as anything is sent to it, within `send`."""

    def send(self, to: PeerId, message: object) -> None:
        super().send(to, message)
        assert self.deliver is not None
        self.deliver(PeerDown(to))


def make(engine: Script, network: Recorder, outputs: list[str] | None = None) -> Driver[Do, str]:
    on_output: Callable[[str], None] = ([] if outputs is None else outputs).append
    return Driver(engine, network, on_output, clock=lambda: UNIX)


async def test_outputs_go_where_they_belong(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    engine, network, outputs = Script(), Recorder(), list[str]()
    driver = make(engine, network, outputs)
    await start(nursery, driver.run)
    you = PeerId(b"you")
    driver.post(Do((Introduce(you, (b"where",)), Send(you, Ask(1, b"?")), "hello", Disconnect(you))))
    await trio.sleep(1)
    assert network.asked == [
        ("introduce", you, (b"where",)),
        ("send", you, Ask(1, b"?")),
        ("disconnect", you),
    ]
    assert outputs == ["hello"]


async def test_now_is_unix_time_at_the_start_and_follows_the_monotonic_clock(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    engine = Script()
    driver = make(engine, Recorder())
    await start(nursery, driver.run)
    assert driver.now() == UNIX
    await trio.sleep(10)
    driver.post(Do())
    await trio.testing.wait_all_tasks_blocked()
    assert driver.now() == pytest.approx(UNIX + 10)
    times = [now for now, _ in engine.seen]
    assert times == sorted(times)


async def test_engine_time_catches_up_when_the_machine_has_slept(autojump_clock: MockClock) -> None:
    slept = 0.0
    driver = Driver(Script(), Recorder(), clock=lambda: UNIX + trio.current_time() - began + slept)
    began = trio.current_time()
    assert driver.now() == pytest.approx(UNIX)
    slept = 5.0  # a clock being corrected
    assert driver.now() == pytest.approx(UNIX)
    slept = 3600.0
    assert driver.now() == pytest.approx(UNIX + 3600)
    slept = 0.0  # set back: time does not go back
    assert driver.now() == pytest.approx(UNIX + 3600)


async def test_a_tick_comes_at_the_deadline(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    engine, outputs = Script(), list[str]()
    driver = make(engine, Recorder(), outputs)
    await start(nursery, driver.run)
    wanted = 12.345678901
    driver.post(Do(tick_in=wanted))
    await trio.sleep(12)
    assert outputs == []
    await trio.sleep(1)
    assert outputs == ["ticked"]
    (posted, _), (ticked, event) = engine.seen
    assert event == Tick()
    assert posted + wanted <= ticked < posted + wanted + 0.001


async def test_a_deadline_that_rounding_puts_out_of_reach_is_due_all_the_same(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    await trio.sleep(123.456)
    outputs: list[str] = []
    driver = Driver(Script(), Recorder(), outputs.append, clock=lambda: 0.0)
    await start(nursery, driver.run)
    driver.post(Do(tick_in=0.948))  # 0.948 + 123.456 - 123.456 is less than 0.948
    await trio.sleep(1)
    assert outputs == ["ticked"]


async def test_a_command_that_arrives_moves_the_deadline(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    engine, outputs = Script(), list[str]()
    driver = make(engine, Recorder(), outputs)
    await start(nursery, driver.run)
    driver.post(Do(tick_in=1000))
    await trio.sleep(1)
    driver.post(Do(tick_in=1))
    await trio.sleep(2)
    assert outputs == ["ticked"]


async def test_what_is_delivered_is_handled_at_once_after_a_tick_that_is_due(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    engine, network, outputs = Script(), Recorder(), list[str]()
    driver = make(engine, network, outputs)
    await start(nursery, driver.run)
    assert network.deliver is not None
    driver.post(Do(tick_in=1))
    await trio.sleep(0.5)
    network.deliver(PeerUp(PeerId(b"a")))
    assert outputs == ["PeerUp"]
    autojump_clock.jump(1)
    network.deliver(PeerUp(PeerId(b"b")))
    assert outputs == ["PeerUp", "ticked", "PeerUp"]


async def test_an_event_may_move_the_deadline(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    class Hasty(Script):
        def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
            outputs = super().handle(event, now)
            if isinstance(event, PeerUp):
                self.next_tick = now + 1
            return outputs

    network, outputs = Recorder(), list[str]()
    driver = make(Hasty(), network, outputs)
    await start(nursery, driver.run)
    driver.post(Do(tick_in=1000))
    await trio.sleep(1)
    assert network.deliver is not None
    network.deliver(PeerUp(PeerId(b"a")))
    await trio.sleep(0.9)
    assert outputs == ["PeerUp"]
    await trio.sleep(0.2)
    assert outputs == ["PeerUp", "ticked"]


async def test_what_is_delivered_while_outputs_are_carried_out_comes_after_them(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    network, outputs = Echo(), list[str]()
    driver = make(Script(), network, outputs)
    await start(nursery, driver.run)
    driver.post(Do((Send(PeerId(b"you"), Ask(1, b"?")), "after it")))
    await trio.sleep(1)
    assert outputs == ["after it", "PeerDown"]


async def test_no_event_overtakes_one_that_waits(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A peer that went down while something was sent to it, and came back before the loop ran, is up."""

    network, outputs, you = Echo(), list[str](), PeerId(b"you")
    driver = make(Script(), network, outputs)
    await start(nursery, driver.run)
    assert network.deliver is not None
    for number in range(100):
        driver.post(Do((f"command {number}",)))
    network.deliver(Received(you, Ask(1, b"?")))
    network.deliver(PeerUp(you))
    assert outputs == ["PeerDown", "PeerUp"]
    await trio.sleep(1)
    assert len(outputs) == 102


async def test_what_is_delivered_by_the_way_comes_before_commands(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    network, outputs = Echo(), list[str]()
    driver = make(Script(), network, outputs)
    await start(nursery, driver.run)
    driver.post(Do((Send(PeerId(b"you"), Ask(1, b"?")),)))
    driver.post(Do(("next",)))
    await trio.sleep(1)
    assert outputs == ["PeerDown", "next"]


async def test_too_many_commands_are_refused(autojump_clock: MockClock) -> None:
    driver = make(Script(), Recorder())
    with pytest.raises(Overloaded, match="not taken"):
        for _ in range(100_000):
            driver.post(Do())


async def test_what_the_network_raises_at_its_start_leaves_run_as_itself(autojump_clock: MockClock) -> None:
    network = Recorder()
    network.failure = ListenError("/ip4/127.0.0.1/tcp/1", "the port is in use")
    with pytest.raises(ListenError, match="in use"):
        await make(Script(), network).run()


async def test_a_bug_in_the_engine_ends_the_run(autojump_clock: MockClock) -> None:
    class Broken(Script):
        def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
            raise ZeroDivisionError

    driver = make(Broken(), Recorder())
    driver.post(Do())
    with pytest.raises(ZeroDivisionError):
        await driver.run()


async def test_a_bug_that_an_event_meets_ends_the_run_and_spares_the_network(
    autojump_clock: MockClock,
) -> None:
    class Broken(Script):
        def handle(self, event: NetworkEvent | Do, now: float) -> Sequence[NetworkOutput | str]:
            raise ZeroDivisionError

    network = Recorder()
    with pytest.raises(ZeroDivisionError):
        async with background_nursery() as nursery:
            await start(nursery, make(Broken(), network).run)
            assert network.deliver is not None
            network.deliver(PeerDown(PeerId(b"a")))
            network.deliver(PeerDown(PeerId(b"b")))
            await trio.sleep(1)


async def test_an_engine_that_does_not_move_its_deadline_is_a_bug(autojump_clock: MockClock) -> None:
    class Stuck(Script):
        def deadline(self) -> float:
            return 0.0

    with pytest.raises(AssertionError, match="did not move its deadline"):
        await make(Stuck(), Recorder()).run()


async def test_two_drivers_over_a_memory_network(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    switch = MemorySwitch(UniformLink(0.05), Random(1))
    alice, bob = Identity(b"a" * 32).peer_id, Identity(b"b" * 32).peer_id
    here, there = switch.join(alice), switch.join(bob)
    outputs: list[str] = []
    driver = Driver(Script(), here, outputs.append)
    await start(nursery, driver.run)
    await start(nursery, Driver(Script(), there).run)
    driver.post(Do((Introduce(bob, there.addresses), Send(bob, Ask(7, b"are you there?")))))
    await trio.sleep(1)
    assert outputs == ["PeerUp", "are you there?"]


def test_toys_are_requests_and_replies() -> None:
    assert isinstance(Ask(1), Request)
    assert isinstance(Answer(1), Reply)
