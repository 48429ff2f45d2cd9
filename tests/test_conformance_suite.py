"""The conformance suite finds each kind of broken promise."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from swarmp2p.engine import Engine, PeerUp, Received, Send, Tick
from swarmp2p.identity import PeerId
from tests.conformance import EngineCase, containers, storm
from tests.transport.toy import ASK, MAX_BYTES, Answer, Ask


class Counting(Engine[object, str]):
    """Answers what it is asked, asks when told to, and beats once a second; `fault` names the promise it
    breaks."""

    chance = Random(1)  # what no engine may have: shared by all

    def __init__(self, fault: str, rng: Random) -> None:
        self.fault, self.rng = fault, rng
        self.beat, self.asked = math.inf, 0
        self.heard: dict[bytes, None] = {}

    def deadline(self) -> float:
        return self.beat

    def handle(self, event: object, now: float) -> Sequence[Any]:
        fault = self.fault
        match event:
            case Received(sender, Ask(number, text)):
                if fault == "raises on what a peer sent" and text[:1] == b"x":
                    raise IndexError(text)
                self.heard[text] = None
                if len(self.heard) > 4 and fault != "keeps all that it hears":
                    del self.heard[next(iter(self.heard))]
                too_long = bytes(MAX_BYTES) if fault == "sends too long a message" else b""
                return [Send(sender, Answer(number, text + too_long))]
            case Received(sender, Answer()):
                return ["answered by another"] if fault == "puts out what it does not declare" else []
            case PeerUp(peer):
                if self.beat == math.inf:
                    self.beat = now + 1.0
                self.asked += 1
                rng = self.chance if fault == "draws from a shared source" else self.rng
                return [Send(peer, Ask(self.asked, rng.randbytes(2)))]
            case Tick():
                if fault == "puts something out at an early Tick" and now < self.beat < math.inf:
                    return ["early"]
                if fault == "counts every Tick":
                    self.asked += 1
                if now >= self.beat and fault != "leaves its deadline behind":
                    self.beat = now + 1.0 if fault != "adds to its deadline" else self.beat + 1.0
                return []
            case _:
                return []


TOY_CASE = EngineCase(
    "toy",
    lambda peer, seed: Counting("", Random(seed)),
    (bytes,),
    (ASK,),
    (Ask, Answer),
    lambda maker: "nothing",
    {"text": lambda maker: maker.rng.choice((b"x", b"y", maker.data()))},
    most_entries=5,
)
FAULTS: dict[str, type[Exception]] = {
    "raises on what a peer sent": IndexError,
    "keeps all that it hears": AssertionError,
    "sends too long a message": AssertionError,
    "puts out what it does not declare": AssertionError,
    "draws from a shared source": AssertionError,
    "puts something out at an early Tick": AssertionError,
    "counts every Tick": AssertionError,
    "leaves its deadline behind": AssertionError,
    "adds to its deadline": AssertionError,
}


def test_an_engine_without_fault_passes() -> None:
    storm(TOY_CASE, 1, 500)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_found(fault: str) -> None:
    def make(peer: PeerId, seed: int) -> Counting:
        return Counting(fault, Random(seed))

    case = replace(TOY_CASE, make=make)
    with pytest.raises(FAULTS[fault]):
        storm(case, 1, 500)


def heard(engine: Counting) -> dict[str, tuple[int, int]]:
    return {"heard": (len(engine.heard), 3)}


def test_the_sizes_that_an_engine_tells_are_held_to_their_bounds() -> None:
    case = replace(TOY_CASE, sizes=heard)
    with pytest.raises(AssertionError, match="heard holds 4"):
        storm(case, 1, 500)


def test_containers_are_found_wherever_they_are() -> None:
    class Slotted:
        __slots__ = ("items", "never_set")

        def __init__(self) -> None:
            self.items = [b"a", b"b"]

        def method(self) -> None: ...

    class Holder:
        def __init__(self) -> None:
            self.inner = {1: Slotted()}
            self.again = self.inner
            self.bound = Slotted().method
            self.queue = deque([1, 2, 3])

    found = dict(containers(Holder()))
    assert found == {".queue": 3, ".again": 1, ".bound.items": 2, ".again[].items": 2}
