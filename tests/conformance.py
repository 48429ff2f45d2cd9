"""What every engine promises (engine.py), as a suite that runs over any engine: make an EngineCase, call
the checks.

`World` holds three engines of one kind, and hostile peers, between which messages travel as bytes:
delivered, lost, repeated, corrupted, made up; with connections that come and go and time that passes in
jumps. Each engine runs twice from the same seed. Its twin takes the same events, and Ticks in between
whenever none is due, and must put out the same: that is promises 1 and 3. Promise 2 is that nothing raises,
promise 4 that all containers that can be reached from the engine stay within its case's bounds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import FunctionType, MethodType, ModuleType
from typing import Any

from swarmp2p.engine import (
    Certified,
    Congested,
    Disconnect,
    Engine,
    Introduce,
    Located,
    Message,
    PeerDown,
    PeerUp,
    Protect,
    Reachable,
    Received,
    Reply,
    Request,
    Send,
    Serve,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.errors import BadMessage
from swarmp2p.identity import PeerId
from swarmp2p.peer_record import seal_record
from swarmp2p.transport.sim_peers import sim_address, sim_sign
from swarmp2p.wire import Exchange, WireProtocol
from tests.made_up import PEERS, Make, Maker

ENGINES = 3  # of PEERS; the others are hostile
_MAX_UNDER_WAY = 200
_MAX_ASKED = 50
_MAX_RECENT = 6
_CHECK_EVERY = 100  # steps
_WAITS_S = (0.0, 0.01, 0.1, 0.1, 1.0, 1.0, 1.0, 3.0, 3.0, 10.0)
_AGES_S = (100.0, 1e4, 1e6)


@dataclass(frozen=True)
class EngineCase:
    """One engine to hold to the promises.

    make: a new engine for a peer, all of whose chance comes from the seed. Give it a config with tiny
    bounds, and
        stand-ins for cryptography (sim_sign, sim_verify).
    outputs: the classes of its own outputs. wires: the protocols it speaks. messages: classes that peers
    may send. commands: makes up a command that an application may post; `Maker.recent` says what the engine
    told it lately. special: how to make up fields that have to mean something; see Maker. sizes: the
    engine's own account of what it holds, by name: (entries, bound). most_entries: no container that can be
    reached from the engine ever holds more.
    """

    name: str
    make: Callable[[PeerId, int], Engine[Any, Any]]
    outputs: tuple[type, ...]
    wires: Sequence[WireProtocol]
    messages: Sequence[type[Message]]
    commands: Make
    special: Mapping[type | str, Make] = field(default_factory=dict[type | str, Make])
    sizes: Callable[[Any], Mapping[str, tuple[int, int]]] = lambda engine: {}
    most_entries: int = 100


class Watched:
    """An engine and its twin, fed the same."""

    def __init__(self, case: EngineCase, peer: PeerId, seed: int) -> None:
        self.case, self.peer = case, peer
        self.engine, self._twin = case.make(peer, seed), case.make(peer, seed)
        self.up: dict[PeerId, None] = {}
        self.recent: deque[Any] = deque(maxlen=_MAX_RECENT)  # outputs for the application

    def feed(self, event: Any, now: float) -> list[Any]:
        """Have the engine take an event; returns its outputs."""
        engine, twin = self.engine, self._twin
        due = twin.deadline() <= now
        if not due:
            before = twin.deadline()
            assert list(twin.handle(Tick(), now)) == [], f"a Tick before {before} put something out at {now}"
            assert twin.deadline() == before, f"a Tick before {before} moved the deadline at {now}"
        outputs = list(engine.handle(event, now))
        assert list(twin.handle(event, now)) == outputs, f"not the same outputs for the same events: {event}"
        assert engine.deadline() == twin.deadline(), f"not the same deadline after the same events: {event}"
        assert not math.isnan(engine.deadline())
        if isinstance(event, Tick) and due:
            assert engine.deadline() > now, f"a due Tick at {now} left the deadline at {engine.deadline()}"
            assert list(engine.handle(Tick(), now)) == [], "a repeated Tick put something out"
            assert list(twin.handle(Tick(), now)) == []
        allowed = (Send, Introduce, Disconnect, Serve, Protect, *self.case.outputs)
        assert all(isinstance(output, allowed) for output in outputs), outputs
        for name, (size, bound) in self.case.sizes(engine).items():
            assert size <= bound, f"{name} holds {size} after {event}, at most {bound} are allowed"
        return outputs


@dataclass(frozen=True)
class Frame:
    """A message under way. id: that the target's network gives it. reply_id: that a reply to it has to
    carry, by the sender's count."""

    source: PeerId
    target: PeerId
    wire: WireProtocol
    body: bytes
    is_reply: bool
    id: int
    reply_id: int


class World:
    """Three engines of a case and five hostile peers; `do` makes something happen."""

    def __init__(self, case: EngineCase, seed: int) -> None:
        self.case = case
        self.now = 0.0 if seed % 2 else 1.75e9  # simulations begin at 0, drivers at the time since the epoch
        self.nodes = {peer: Watched(case, peer, seed + place) for place, peer in enumerate(PEERS[:ENGINES])}
        self.under_way: deque[Frame] = deque(maxlen=_MAX_UNDER_WAY)
        self.delivered = self.refused = 0
        self.put_out: Counter[type] = Counter()  # classes of outputs, and of messages sent
        self._wires = {wire.name: wire for wire in case.wires}
        self._ids = 0
        self._asked: deque[Frame] = deque(maxlen=_MAX_ASKED)  # requests that wait for an answer, by arrival
        self._steps: dict[str, Callable[[Maker], None]] = {
            "wait": self._wait,
            "late": self._late,
            "age": self._age,
            "deliver": self._deliver,
            "settle": self._settle,
            "repeat": self._repeat,
            "lose": self._lose,
            "corrupt": self._corrupt,
            "garbage": self._garbage,
            "hostile": self._hostile,
            "answer": self._answer,
            "up": self._up,
            "again": self._again,
            "down": self._down,
            "flap": self._flap,
            "undeliverable": self._undeliverable,
            "speaks": self._speaks,
            "congested": self._congested,
            "certified": self._certified,
            "reachable": self._reachable,
            "located": self._located,
            "command": self._command,
        }

    def do(self, step: str, seed: int) -> None:
        """Make one thing happen: one of STEPS, in a way that the seed decides."""
        self._steps[step](Maker(Random(seed), self.case.special, self.now))
        if step != "late":
            self._ticks()

    # Time ---------------------------------------------------------------------------------------------------

    def _wait(self, maker: Maker) -> None:
        self.now += maker.rng.choice(_WAITS_S) * maker.rng.random()

    def _late(self, maker: Maker) -> None:
        """Time passes, and the Ticks that are due come after the next event."""
        self._wait(maker)

    def _age(self, maker: Maker) -> None:
        """So much time passes that whatever expires does."""
        self.now += maker.rng.choice(_AGES_S) * maker.rng.random()

    def _ticks(self) -> None:
        for node in self.nodes.values():
            if node.engine.deadline() <= self.now:
                self._feed(node, Tick())

    # Messages -----------------------------------------------------------------------------------------------

    def _deliver(self, maker: Maker) -> None:
        if self.under_way:
            self._arrive(self.under_way.popleft())

    def _settle(self, maker: Maker) -> None:
        for _ in range(min(60, len(self.under_way) * 2)):
            if self.under_way:
                self._arrive(self.under_way.popleft())
            self.now += 0.01
            self._ticks()

    def _repeat(self, maker: Maker) -> None:
        if self.under_way:
            self._arrive(maker.rng.choice(self.under_way))

    def _lose(self, maker: Maker) -> None:
        if self.under_way:
            del self.under_way[maker.rng.randrange(len(self.under_way))]

    def _corrupt(self, maker: Maker) -> None:
        if self.under_way:
            frame = maker.rng.choice(self.under_way)
            body = bytearray(frame.body)
            for _ in range(maker.rng.choice((1, 1, 2, 5))):
                if body:
                    body[maker.rng.randrange(len(body))] = maker.rng.randrange(256)
            if maker.rng.random() < 0.2:
                del body[maker.rng.randrange(len(body) + 1) :]
            self._arrive(replace(frame, body=bytes(body)))

    def _garbage(self, maker: Maker) -> None:
        rng = maker.rng
        wire = rng.choice(self.case.wires)
        is_reply = wire.decode_reply is not None and rng.random() < 0.5
        source, target = self._pair(maker)
        self._arrive(Frame(source, target, wire, maker.data(), is_reply, self._id(), 1))

    def _hostile(self, maker: Maker) -> None:
        """A made-up message, from anybody."""
        message: Any = maker.make(maker.rng.choice(self.case.messages))
        source, target = self._pair(maker)
        self._launch(source, target, message, 0)

    def _answer(self, maker: Maker) -> None:
        """A made-up reply to a request that somebody waits for, from whom it was asked of."""
        kinds = [kind for kind in self.case.messages if issubclass(kind, Reply)]
        if not self._asked or not kinds:
            return
        asked = maker.rng.choice(self._asked)
        own = [kind for kind in kinds if kind.protocol == asked.wire.name]
        answer = getattr(self._decode(asked), "answer", None)
        kind: Any = answer if answer in own and maker.rng.random() < 0.8 else maker.rng.choice(own or kinds)
        self._launch(asked.target, asked.source, maker.make(kind), asked.reply_id)

    def _launch(self, source: PeerId, target: PeerId, message: Message, reply_id: int) -> None:
        """Have a made-up message arrive, if its protocol has bytes for it."""
        try:
            body = self._wires[message.protocol].encode(message)
        except (ValueError, TypeError, AssertionError, OverflowError):
            return
        is_reply = isinstance(message, Reply)
        self._arrive(
            Frame(source, target, self._wires[message.protocol], body, is_reply, self._id(), reply_id)
        )

    def _pair(self, maker: Maker) -> tuple[PeerId, PeerId]:
        target = maker.rng.choice(PEERS[:ENGINES])
        return maker.rng.choice([peer for peer in PEERS if peer != target]), target

    def _arrive(self, frame: Frame) -> None:
        node = self.nodes.get(frame.target)
        message = self._decode(frame)
        if isinstance(message, Request) and message.expects_reply:
            self._asked.append(frame)
        if node is None or message is None:
            return
        if frame.source not in node.up:
            self._connect(node, frame.source)
        self.delivered += 1
        self._feed(node, Received(frame.source, message))

    def _decode(self, frame: Frame) -> Message | None:
        """As a network does: replies carry the requester's number again, requests get one of their own."""
        wire = frame.wire
        if len(frame.body) > wire.max_frame_bytes:
            return None
        try:
            if not frame.is_reply:
                return wire.decode(frame.source, frame.body, frame.id)
            assert wire.decode_reply is not None
            return wire.decode_reply(frame.source, frame.body, frame.reply_id)
        except BadMessage:
            self.refused += 1
            return None

    def _send(self, source: PeerId, send: Send) -> None:
        message = send.message
        wire = self._wires[message.protocol]
        body = wire.encode(message)
        assert len(body) <= wire.max_frame_bytes, f"{len(body)} bytes are too long for {wire.name}: {message}"
        is_reply = isinstance(message, Reply)
        reply_id = message.id if isinstance(message, Request) else 0
        if isinstance(message, Reply):
            asked = [frame for frame in self._asked if frame.id == message.id and frame.source == send.to]
            if not asked:
                return  # nobody waits any more
            self._asked.remove(asked[0])
            reply_id = asked[0].reply_id
        frame = Frame(source, send.to, wire, body, is_reply, self._id(), reply_id)
        assert self._decode(frame) is not None, f"an engine sent what its own decoder refuses: {message}"
        if send.to in PEERS:
            self.under_way.append(frame)
        else:
            self._feed(self.nodes[source], PeerDown(send.to))

    def _id(self) -> int:
        self._ids += 1
        return self._ids

    # Connections --------------------------------------------------------------------------------------------

    def _connect(self, node: Watched, peer: PeerId) -> None:
        node.up[peer] = None
        number = PEERS.index(peer)
        # Half of them were dialled, and some share a host.
        up = PeerUp(peer, (sim_address(number + 1),), number % 2 == 0, sim_address(100 + number // 4))
        self._feed(node, up)

    def _up(self, maker: Maker) -> None:
        source, target = self._pair(maker)
        if source not in self.nodes[target].up:
            self._connect(self.nodes[target], source)

    def _again(self, maker: Maker) -> None:
        """A peer has a new connection, and nobody noticed the end of the old one."""
        source, target = self._pair(maker)
        if source in self.nodes[target].up:
            self._connect(self.nodes[target], source)

    def _down(self, maker: Maker) -> None:
        source, target = self._pair(maker)
        self.nodes[target].up.pop(source, None)
        self._feed(self.nodes[target], PeerDown(source))

    def _flap(self, maker: Maker) -> None:
        """Connections come and go, quickly."""
        for _ in range(20):
            (self._up if maker.rng.random() < 0.5 else self._down)(maker)

    def _undeliverable(self, maker: Maker) -> None:
        """Requests come back that wait for an answer, or were never sent, because of one reason or another."""
        rng = maker.rng
        source, target = self._pair(maker)
        protocol, numbers = rng.choice(self.case.wires).name, [rng.randrange(20)]
        if self._asked and rng.random() < 0.8:
            asked = rng.choice(self._asked)
            source, target, protocol = asked.target, asked.source, asked.wire.name
            numbers = [asked.reply_id] * rng.choice((0, 1, 1, 2))
        if target in self.nodes and source in self.nodes[target].up:
            unsupported = rng.random() < 0.3
            self._feed(self.nodes[target], Undeliverable(source, protocol, tuple(numbers), unsupported))

    def _speaks(self, maker: Maker) -> None:
        """A connected peer serves some protocols, and then others."""
        source, target = self._pair(maker)
        if source in self.nodes[target].up:
            wire, serving = maker.rng.choice(self.case.wires), maker.rng.random() < 0.5
            agreed = maker.rng.choice(("", *wire.ids)) if serving else ""
            self._feed(self.nodes[target], Speaks(source, wire.name, serving, agreed))

    def _congested(self, maker: Maker) -> None:
        """More waits for a connected peer than its connection takes, or no more."""
        source, target = self._pair(maker)
        names = [wire.name for wire in self.case.wires if wire.exchange is Exchange.MESSAGES]
        if names and source in self.nodes[target].up:
            self._feed(
                self.nodes[target], Congested(source, maker.rng.choice(names), maker.rng.random() < 0.5)
            )

    def _certified(self, maker: Maker) -> None:
        """A connected peer's signed record, its own or made up."""
        source, target = self._pair(maker)
        if source in self.nodes[target].up:
            record = seal_record(source, (sim_address(1),), maker.rng.randrange(9), sim_sign(source))
            self._feed(self.nodes[target], Certified(source, maker.rng.choice((record, maker.data()))))

    def _reachable(self, maker: Maker) -> None:
        self._feed(self.nodes[maker.rng.choice(PEERS[:ENGINES])], Reachable(maker.rng.random() < 0.5))

    def _located(self, maker: Maker) -> None:
        """A connected peer, or the node itself, is to be dialled elsewhere."""
        source, target = self._pair(maker)
        if source in self.nodes[target].up or maker.rng.random() < 0.5:
            whose = source if source in self.nodes[target].up else target
            self._feed(self.nodes[target], Located(whose, (sim_address(maker.rng.randrange(1, 9)),)))

    def _command(self, maker: Maker) -> None:
        node = self.nodes[maker.rng.choice(PEERS[:ENGINES])]
        maker.recent = node.recent
        self._feed(node, self.case.commands(maker))

    def _feed(self, node: Watched, event: Any) -> None:
        for output in node.feed(event, self.now):
            self.put_out[type(output.message) if isinstance(output, Send) else type(output)] += 1
            if isinstance(output, Send):
                self._send(node.peer, output)
            elif isinstance(output, Disconnect):
                if node.up.pop(output.peer, 0) is None:
                    self._feed(node, PeerDown(output.peer))
            elif not isinstance(output, Introduce | Serve | Protect):
                node.recent.append(output)


STEPS = (
    *("wait", "wait", "wait", "late", "late") * 2,
    *("deliver", "deliver", "settle", "settle", "repeat", "lose", "corrupt", "garbage") * 2,
    *("hostile", "hostile", "answer", "answer", "command", "command", "command") * 2,
    *(
        "up",
        "up",
        "again",
        "down",
        "flap",
        "age",
        "undeliverable",
        "speaks",
        "congested",
        "certified",
        "located",
        "reachable",
    ),
)
"""What can happen in a World; often named, often chosen."""


def check_promises(case: EngineCase, seed: int, steps: Sequence[tuple[str, int]]) -> World:
    """Run steps, each a name out of STEPS and a seed; the engines' promises are asserted on the way."""
    world = World(case, seed)
    for number, (step, step_seed) in enumerate(steps, 1):
        world.do(step, step_seed)
        if number % _CHECK_EVERY == 0 or number == len(steps):
            check_bounds(case, world)
    return world


def check_bounds(case: EngineCase, world: World) -> None:
    """No container that can be reached from an engine holds more than the case allows."""
    for node in world.nodes.values():
        for path, size in containers(node.engine):
            assert size <= case.most_entries, f"{case.name}{path} holds {size}: more than {case.most_entries}"


def storm(case: EngineCase, seed: int, count: int) -> World:
    """Many random steps, to see what grows."""
    rng = Random(seed)
    return check_promises(case, seed, [(rng.choice(STEPS), rng.getrandbits(32)) for _ in range(count)])


def containers(engine: object) -> Iterator[tuple[str, int]]:
    """(path, length) of every container that belongs to an engine; code, classes and random sources left
    out."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", engine)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or isinstance(value, _NOT_STATE):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield path, len(value)
            waiting += [(f"{path}[]", each) for each in value.values()]
            waiting += [(f"{path}{{}}", each) for each in value if not isinstance(each, str | bytes | int)]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            yield path, len(value)
            waiting += [(f"{path}[]", each) for each in value]
        else:
            waiting += _attributes(path, value)


_NOT_STATE = (str, bytes, int, float, type, ModuleType, FunctionType, Random, type(None))


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, MethodType):
        yield path, value.__self__
        return
    names = [*getattr(value, "__dict__", ())]
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    for name in names:
        if hasattr(value, name):
            yield f"{path}.{name}", getattr(value, name)
