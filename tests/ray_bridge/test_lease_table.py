"""Every state against every event, for both roles: what the table names happens, all else changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from swarmp2p.engine import Message, NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.ray_bridge.auth import Terms, make_agreement, make_proof, request_digest
from swarmp2p.ray_bridge.events import (
    JAIL,
    EndLease,
    Journal,
    LeaseCommand,
    LeaseOutput,
    Lend,
    Need,
    Offer,
    PathFailed,
    PathUp,
    RequestLease,
    StopLending,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import (
    Agreement,
    Challenge,
    Proof,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)
from swarmp2p.ray_bridge.standing import Standing, agreement_digest, make_standing

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, request

LENDER, BORROWER = peer(1), peer(2)
LEASE = lease_id(1)
CONFIG = LeaseConfig(lease_s=60.0)
Event = NetworkEvent | LeaseCommand
GIVEN_STATES = (GivenState.CHALLENGED, GivenState.OPENING, GivenState.STARTING, GivenState.ACTIVE)
TAKEN_STATES = (TakenState.REQUESTING, TakenState.PROVING, TakenState.STARTING, TakenState.ACTIVE)


def names(outputs: Sequence[NetworkOutput | LeaseOutput]) -> list[str]:
    return [
        f"send {type(output.message).__name__}" if isinstance(output, Send) else type(output).__name__
        for output in outputs
        if not isinstance(output, Journal)
    ]


class Bench:
    """One engine in a wanted state, and the events to try on it. `now` is kept by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.nonce = b""
        self.agreement = b""
        self.engine: Leases

    def feed(self, event: Event) -> Sequence[NetworkOutput | LeaseOutput]:
        outputs = self.engine.handle(event, self.now)
        for output in outputs:
            if isinstance(output, Send) and isinstance(output.message, Challenge):
                self.nonce = output.message.nonce
        return outputs

    def due(self) -> Event:
        self.now = self.engine.deadline()
        return Tick()


# Lender -----------------------------------------------------------------------------------------------------


class LenderBench(Bench):
    def __init__(self, state: GivenState) -> None:
        super().__init__()
        self.engine = Leases(LENDER, cheap_keys(LENDER), Random(1), CONFIG)
        self.feed(Lend(Offer(cpus=1, max_leases=1), VERSIONS, frozenset({BORROWER})))
        steps = (
            lambda: Received(BORROWER, request()),
            self.proof,
            lambda: PathUp(LEASE),
            lambda: WorkerStarted(LEASE),
        )
        for step in steps[: 1 + GIVEN_STATES.index(state)]:
            self.feed(step())
        assert self.engine.states() == {LEASE: state}

    def proof(self) -> Received:
        keys = cheap_keys(BORROWER)
        envelope = make_proof(keys, request(), self.nonce, LENDER, BORROWER, SECRET, self.now + 5)
        return Received(BORROWER, Proof(LEASE, envelope))


LENDER_EVENTS: dict[str, Callable[[LenderBench], Event]] = {
    "request": lambda bench: Received(BORROWER, request()),
    "changed request": lambda bench: Received(BORROWER, request(need=Need(cpus=0.5))),
    "proof": lambda bench: bench.proof(),
    "bad proof": lambda bench: Received(BORROWER, Proof(LEASE, b"nonsense")),
    "renew": lambda bench: Received(BORROWER, Renew(LEASE, 1)),
    "release": lambda bench: Received(BORROWER, Release(LEASE, "done")),
    "path up": lambda bench: PathUp(LEASE),
    "path failed": lambda bench: PathFailed(LEASE, "no route"),
    "worker started": lambda bench: WorkerStarted(LEASE),
    "worker failed": lambda bench: WorkerFailed(LEASE, "exit 1"),
    "end": lambda bench: EndLease(LEASE, "the owner is back"),
    "stop lending": lambda bench: StopLending(),
    "lend again": lambda bench: Lend(Offer(cpus=0.1), VERSIONS, frozenset()),
    "due": lambda bench: bench.due(),
    "early tick": lambda bench: Tick(),
    "peer up": lambda bench: PeerUp(BORROWER),
    "peer down": lambda bench: PeerDown(BORROWER),
    "stranger down": lambda bench: PeerDown(peer(9)),
    "stranger's release": lambda bench: Received(peer(9), Release(LEASE, "mine")),
    "borrower's challenge": lambda bench: Received(BORROWER, Challenge(LEASE, bytes(32))),
    "borrower's refusal": lambda bench: Received(BORROWER, Refuse(LEASE, "no", None)),
    "borrower's agreement": lambda bench: Received(BORROWER, Agreement(LEASE, b"x")),
    "borrower's renewed": lambda bench: Received(BORROWER, Renewed(LEASE, 1, 60.0, True)),
    "borrower's started": lambda bench: Received(BORROWER, Started(LEASE)),
}
_ENDED = ["ClosePath", "send Release", "LeaseEnded"]
_STOPPED = ["StopWorker", *_ENDED]
# A lender's answer to a message that only a borrower should get: its lease is not one that it took.
_STRANGE = {
    name: ["send Release"]
    for name in ("borrower's challenge", "borrower's agreement", "borrower's renewed", "borrower's started")
}
GIVEN_TABLE: dict[GivenState, dict[str, tuple[GivenState | None, list[str]]]] = {
    GivenState.CHALLENGED: {
        "request": (GivenState.CHALLENGED, ["send Challenge"]),
        "proof": (GivenState.OPENING, ["send Agreement", "LeaseGranted", "OpenPath"]),
        "bad proof": (None, ["send Refuse"]),
        "renew": (None, ["send Release"]),
        "release": (None, []),
        "end": (None, ["send Refuse"]),
        "stop lending": (None, ["send Refuse"]),
        "due": (None, []),
    },
    GivenState.OPENING: {
        "proof": (GivenState.OPENING, ["send Agreement"]),
        "bad proof": (GivenState.OPENING, ["send Agreement"]),
        "renew": (GivenState.OPENING, ["send Renewed"]),
        "release": (None, ["ClosePath", "send Release", "LeaseEnded"]),
        "path up": (GivenState.STARTING, ["StartWorker"]),
        "path failed": (None, _ENDED),
        "end": (None, _ENDED),
        "stop lending": (None, _ENDED),
        "due": (None, _ENDED),
    },
    GivenState.STARTING: {
        "proof": (GivenState.STARTING, ["send Agreement"]),
        "bad proof": (GivenState.STARTING, ["send Agreement"]),
        "renew": (GivenState.STARTING, ["send Renewed"]),
        "release": (None, ["StopWorker", "ClosePath", "send Release", "LeaseEnded"]),
        "worker started": (GivenState.ACTIVE, ["send Started", "LeaseActive"]),
        "path failed": (None, _STOPPED),
        "worker failed": (None, _STOPPED),
        "end": (None, _STOPPED),
        "stop lending": (None, _STOPPED),
        "due": (None, _STOPPED),
    },
    GivenState.ACTIVE: {
        "proof": (GivenState.ACTIVE, ["send Agreement"]),
        "bad proof": (GivenState.ACTIVE, ["send Agreement"]),
        "renew": (GivenState.ACTIVE, ["send Renewed"]),
        "release": (None, ["StopWorker", "ClosePath", "send Release", "LeaseEnded"]),
        "path failed": (None, _STOPPED),
        "worker failed": (None, _STOPPED),
        "end": (None, _STOPPED),
        "stop lending": (None, _STOPPED),
        "due": (None, _STOPPED),
    },
}


@pytest.mark.parametrize("name", LENDER_EVENTS)
@pytest.mark.parametrize("state", GIVEN_STATES)
def test_lender(state: GivenState, name: str) -> None:
    bench = LenderBench(state)
    outputs = bench.feed(LENDER_EVENTS[name](bench))
    after, expected = GIVEN_TABLE[state].get(name, (state, _STRANGE.get(name, [])))
    assert names(outputs) == expected
    assert bench.engine.states() == ({} if after is None else {LEASE: after})


@pytest.mark.parametrize("name", LENDER_EVENTS)
@pytest.mark.parametrize("state", GIVEN_STATES)
def test_what_a_lender_ended_stays_ended(state: GivenState, name: str) -> None:
    bench = LenderBench(state)
    bench.feed(EndLease(LEASE, "the owner is back"))
    late = LENDER_EVENTS[name]
    outputs = bench.feed(Tick() if name == "due" else late(bench))
    assert set(names(outputs)) <= {"send Release"}
    assert bench.engine.states() == {}


# Borrower ---------------------------------------------------------------------------------------------------


class BorrowerBench(Bench):
    def __init__(self, state: TakenState) -> None:
        super().__init__()
        self.engine = Leases(BORROWER, cheap_keys(BORROWER), Random(1), CONFIG)
        steps: tuple[Callable[[], Event], ...] = (
            self.request,
            lambda: Received(LENDER, Challenge(LEASE, bytes(32))),
            self.granted,
            lambda: Received(LENDER, Started(LEASE, self.standing())),
        )
        for step in steps[: 1 + TAKEN_STATES.index(state)]:
            self.feed(step())
        if state in (TakenState.STARTING, TakenState.ACTIVE):
            self.feed(self.due())  # so that a renewal is under way
        assert self.engine.states() == {LEASE: state}

    def request(self) -> RequestLease:
        asked = request()
        return RequestLease(LEASE, LENDER, asked.need, asked.versions, SECRET, asked.cluster)

    def granted(self) -> Received:
        asked = request()
        terms = Terms(
            LEASE,
            LENDER,
            BORROWER,
            request_digest(asked),
            asked.cluster,
            asked.need,
            "127.0.0.5",
            self.now,
            self.now + 60,
            60.0,
            JAIL,
            VERSIONS,
        )
        self.agreement = make_agreement(cheap_keys(LENDER), terms)
        return Received(LENDER, Agreement(LEASE, self.agreement))

    def standing(self, lease: bytes = LEASE) -> bytes:
        digest = agreement_digest(self.agreement)
        node = ("127.0.0.5", (0, 0))
        what = Standing(lease, LENDER, BORROWER, digest, *node, 0, self.now, self.now + 60)
        return make_standing(cheap_keys(LENDER), what)


BORROWER_EVENTS: dict[str, Callable[[BorrowerBench], Event]] = {
    "request again": lambda bench: bench.request(),
    "challenge": lambda bench: Received(LENDER, Challenge(LEASE, bytes(32))),
    "another challenge": lambda bench: Received(LENDER, Challenge(LEASE, bytes(31) + b"x")),
    "refuse": lambda bench: Received(LENDER, Refuse(LEASE, "full", 5.0)),
    "agreement": lambda bench: bench.granted(),
    "bad agreement": lambda bench: Received(LENDER, Agreement(LEASE, b"nonsense")),
    "started": lambda bench: Received(LENDER, Started(LEASE, bench.standing())),
    "unsigned started": lambda bench: Received(LENDER, Started(LEASE)),
    "another's started": lambda bench: Received(LENDER, Started(LEASE, bench.standing(lease_id(2)))),
    "renewed": lambda bench: Received(LENDER, Renewed(LEASE, 1, 60.0, False)),
    "renewed and started": lambda bench: Received(LENDER, Renewed(LEASE, 1, 60.0, True, bench.standing())),
    "unsigned renewed": lambda bench: Received(LENDER, Renewed(LEASE, 1, 60.0, True)),
    "renewed early": lambda bench: Received(LENDER, Renewed(LEASE, 7, 60.0, True, bench.standing())),
    "release": lambda bench: Received(LENDER, Release(LEASE, "the owner is back")),
    "path up": lambda bench: PathUp(LEASE),
    "path failed": lambda bench: PathFailed(LEASE, "no route"),
    "worker started": lambda bench: WorkerStarted(LEASE),
    "worker failed": lambda bench: WorkerFailed(LEASE, "exit 1"),
    "end": lambda bench: EndLease(LEASE, "done"),
    "lend": lambda bench: Lend(Offer(), VERSIONS, None),
    "stop lending": lambda bench: StopLending(),
    "early tick": lambda bench: Tick(),
    "peer up": lambda bench: PeerUp(LENDER),
    "peer down": lambda bench: PeerDown(LENDER),
    "stranger down": lambda bench: PeerDown(peer(9)),
    "stranger's release": lambda bench: Received(peer(9), Release(LEASE, "mine")),
    "stranger's refusal": lambda bench: Received(peer(9), Refuse(LEASE, "no", None)),
    "stranger's started": lambda bench: Received(peer(9), Started(LEASE)),
    "lender's request": lambda bench: Received(LENDER, request()),
    "lender's renew": lambda bench: Received(LENDER, Renew(LEASE, 1)),
    "lender's proof": lambda bench: Received(LENDER, Proof(LEASE, b"x")),
}
_REFUSED: tuple[None, list[str]] = (None, ["LeaseRefusal"])
_TAKEN_BACK: tuple[None, list[str]] = (None, ["send Release", "LeaseRefusal"])
_BROKEN: tuple[None, list[str]] = (None, ["send Release", "ClosePath", "LeaseEnded"])
_ALWAYS: dict[str, list[str]] = {
    "stranger's started": ["send Release"],
    "lender's request": ["send Refuse"],
    "lender's renew": ["send Release"],
    "lender's proof": ["send Release"],
}
TAKEN_TABLE: dict[TakenState, dict[str, tuple[TakenState | None, list[str]]]] = {
    TakenState.REQUESTING: {
        "challenge": (TakenState.PROVING, ["send Proof"]),
        "another challenge": (TakenState.PROVING, ["send Proof"]),
        "refuse": _REFUSED,
        "release": _REFUSED,
        "end": _TAKEN_BACK,
        "peer down": (TakenState.REQUESTING, ["send LeaseRequest"]),
    },
    TakenState.PROVING: {
        "agreement": (TakenState.STARTING, ["LeaseGranted", "OpenPath"]),
        "bad agreement": _TAKEN_BACK,
        "refuse": _REFUSED,
        "release": _REFUSED,
        "end": _TAKEN_BACK,
        "peer down": (TakenState.PROVING, ["send Proof"]),
    },
    TakenState.STARTING: {
        "started": (TakenState.ACTIVE, ["LeaseActive"]),
        "renewed": (TakenState.STARTING, []),
        "renewed and started": (TakenState.ACTIVE, ["LeaseActive"]),
        "release": (None, ["ClosePath", "LeaseEnded"]),
        "path failed": _BROKEN,
        "end": _BROKEN,
        "peer down": (TakenState.STARTING, ["send Renew"]),
    },
    TakenState.ACTIVE: {
        "release": (None, ["ClosePath", "LeaseEnded"]),
        "path failed": _BROKEN,
        "end": _BROKEN,
        "peer down": (TakenState.ACTIVE, ["send Renew"]),
    },
}


@pytest.mark.parametrize("name", BORROWER_EVENTS)
@pytest.mark.parametrize("state", TAKEN_STATES)
def test_borrower(state: TakenState, name: str) -> None:
    bench = BorrowerBench(state)
    outputs = bench.feed(BORROWER_EVENTS[name](bench))
    after, expected = TAKEN_TABLE[state].get(name, (state, _ALWAYS.get(name, [])))
    assert names(outputs) == expected
    assert bench.engine.states() == ({} if after is None else {LEASE: after})


@pytest.mark.parametrize("name", BORROWER_EVENTS)
@pytest.mark.parametrize("state", TAKEN_STATES)
def test_what_a_borrower_ended_stays_ended(state: TakenState, name: str) -> None:
    bench = BorrowerBench(state)
    bench.feed(EndLease(LEASE, "done"))
    outputs = bench.feed(BORROWER_EVENTS[name](bench))
    assert set(names(outputs)) <= ({"LeaseRefusal"} if name == "request again" else {"send Release"})
    assert bench.engine.states() == {}


@pytest.mark.parametrize("state", TAKEN_STATES)
def test_silence_ends_every_state(state: TakenState) -> None:
    bench = BorrowerBench(state)
    last: Sequence[NetworkOutput | LeaseOutput] = ()
    began = bench.now
    while bench.engine.states():
        last = bench.feed(bench.due())
    granted = state in (TakenState.STARTING, TakenState.ACTIVE)
    assert names(last) == (_BROKEN if granted else _TAKEN_BACK)[1]
    assert bench.now - began <= CONFIG.starting_silence_s


@pytest.mark.parametrize("state", TAKEN_STATES)
def test_a_third_peer_down_ends_every_state(state: TakenState) -> None:
    bench = BorrowerBench(state)
    for _ in range(2):
        assert names(bench.feed(PeerDown(LENDER)))[0].startswith("send")
    granted = state in (TakenState.STARTING, TakenState.ACTIVE)
    assert names(bench.feed(PeerDown(LENDER))) == (_BROKEN if granted else _TAKEN_BACK)[1]


def test_the_tables_know_every_state() -> None:
    assert set(GIVEN_TABLE) == set(GivenState) - {GivenState.QUEUED}, "test_lease_queue.py has that one"
    assert set(TAKEN_TABLE) == set(TAKEN_STATES)
    assert {name for row in GIVEN_TABLE.values() for name in row} <= set(LENDER_EVENTS)
    assert {name for row in TAKEN_TABLE.values() for name in row} <= set(BORROWER_EVENTS)


class Foreign(Message):
    """A message of another engine."""

    protocol = "other"


def test_messages_of_other_engines_are_not_listened_to() -> None:
    bench = LenderBench(GivenState.ACTIVE)
    assert bench.feed(Received(BORROWER, Foreign())) == []
