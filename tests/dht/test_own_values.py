"""Values that their owner stores again: when, where, and when it gives way to a better one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtOutput, PutValue, QueryDone, StopPutting
from swarmp2p.dht.messages import FindNode, FoundNodes, FoundValue, GetValue, ValueStored
from swarmp2p.dht.messages import PutValue as PutRequest
from swarmp2p.engine import NetworkOutput
from swarmp2p.identity import PeerId

from .network import peer_id
from .single import Outputs, Single, requests

NUMBERS = {peer_id(number): number for number in range(1, 6)}
DAY_S = 24 * 3600.0


class Newest:
    """The greatest value is the best."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return value.isdigit()

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return values.index(max(values, key=int))


class Bench(Single):
    """Five peers and what they hold."""

    def __init__(self, max_values: int = 100) -> None:
        validators = {"n": Newest()}
        super().__init__(DhtConfig(k=5, refresh_interval_s=1e8, validators=validators, max_values=max_values))
        self.meet(*NUMBERS.values())
        self.held: dict[PeerId, bytes] = {}
        self.puts: list[PeerId] = []

    def put(self, key: bytes, value: bytes, *, republish: bool = True) -> None:
        self.serve(self.post(PutValue(1, key, value, republish)))

    def serve(self, outputs: Outputs) -> None:
        """They do what the outputs ask, and what follows."""
        while outputs:
            following: list[NetworkOutput | DhtOutput] = []
            for to, find in requests(outputs, FindNode):
                following += self.hear(NUMBERS[to], FoundNodes(find.id, ()))
            for to, get in requests(outputs, GetValue):
                following += self.hear(NUMBERS[to], FoundValue(get.id, get.key, self.held.get(to), 0.0, ()))
            for to, put in requests(outputs, PutRequest):
                self.puts.append(to)
                self.held[to] = put.value
                following += self.hear(NUMBERS[to], ValueStored(put.id, put.key, put.value))
            outputs = following

    def live(self, seconds: float) -> int:
        """Let time pass; how many values were stored."""
        self.puts.clear()
        until = self.now + seconds
        while self.engine.deadline() <= until:
            self.serve(self.wait_for_requests(until - self.now))
        self.wait(until - self.now)
        return len(self.puts)


@pytest.mark.parametrize("key", [b"key", b"/n/key"])
def test_a_value_is_stored_again_each_interval_also_where_it_was_lost(key: bytes) -> None:
    bench = Bench()
    bench.put(key, b"7")
    assert len(bench.puts) == 5
    assert bench.live(19.0 * 3600) == 0
    bench.held.clear()
    assert bench.live(6.0 * 3600) == 5
    assert set(bench.held.values()) == {b"7"}
    assert bench.live(DAY_S) == 5


def test_once_is_once() -> None:
    bench = Bench()
    bench.put(b"key", b"7", republish=False)
    assert bench.live(3 * DAY_S) == 0


def test_until_it_is_not_wanted() -> None:
    bench = Bench()
    bench.put(b"key", b"7")
    bench.post(StopPutting(b"key"))
    bench.post(StopPutting(b"other"))
    assert bench.live(3 * DAY_S) == 0


def test_a_second_put_replaces_the_first() -> None:
    bench = Bench()
    bench.put(b"key", b"7")
    bench.put(b"key", b"8")
    assert bench.live(DAY_S) == 5
    assert set(bench.held.values()) == {b"8"}
    bench.put(b"key", b"9", republish=False)
    assert bench.live(3 * DAY_S) == 0


def test_what_the_validator_prefers_supersedes_it_wherever_it_is() -> None:
    bench = Bench()
    bench.put(b"/n/key", b"7")
    bench.held[peer_id(3)] = b"8"
    assert bench.live(3 * DAY_S) == 0
    assert sorted(bench.held.values()) == [b"7", b"7", b"7", b"7", b"8"]


def test_worse_and_invalid_values_do_not() -> None:
    bench = Bench()
    bench.put(b"/n/key", b"7")
    bench.held |= {peer_id(1): b"6", peer_id(2): b"no number"}
    assert bench.live(DAY_S) == 5
    assert set(bench.held.values()) == {b"7"}


def test_without_a_validator_another_value_supersedes_it_where_most_hold_that() -> None:
    bench = Bench()
    bench.put(b"key", b"7")
    bench.held |= {peer_id(1): b"8", peer_id(2): b"8"}
    assert bench.live(DAY_S) == 5, "two of five and its owner"
    bench.held |= {peer_id(number): b"8" for number in (1, 2, 3, 4)}
    assert bench.live(3 * DAY_S) == 0


def test_when_nobody_takes_it_it_is_tried_again_sooner() -> None:
    bench = Single(DhtConfig(k=5, refresh_interval_s=600.0))
    bench.post(PutValue(1, b"key", b"7", True))
    bench.wait(25 * 3600.0)
    bench.meet(1)
    outputs = bench.wait(700.0)
    assert requests(outputs, GetValue)


def test_what_is_refused_here_is_not_kept() -> None:
    bench = Bench()
    bench.put(b"/n/key", b"no number")
    assert bench.live(3 * DAY_S) == 0


def test_a_peer_whose_store_is_full_still_puts_its_own_values() -> None:
    bench = Bench(max_values=1)
    for key in (b"/n/a", b"/n/b", b"/n/c"):  # at most one of them is held here
        bench.puts.clear()
        bench.put(key, b"1")
        assert len(bench.puts) == 5


def test_a_value_that_the_own_validator_refuses_is_told_apart_from_one_that_nobody_took() -> None:
    bench = Bench()
    bench.put(b"/n/key", b"5")
    bench.puts.clear()
    for value in (b"no number", b"4"):
        assert bench.post(PutValue(2, b"/n/key", value, True)) == [QueryDone(2, refused=True)]
    assert bench.live(2 * DAY_S) == 10  # what was put before is still renewed
