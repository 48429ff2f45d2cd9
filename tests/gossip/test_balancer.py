"""choose(): only what fits, less loaded first, by lot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.gossip.balancer import Choice, choose
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadEntry
from swarmp2p.ray_bridge.events import Need

from .network import peer_id

NEED = Need(cpus=1)
ROOMY = LoadSignal(cpus_free=8, gpus_free=1, memory_free_bytes=1 << 30, kind="workstation", region="eu")


def entry(number: int, in_flight: int = 0, suspected: bool = False, signal: LoadSignal = ROOMY) -> LoadEntry:
    return LoadEntry(peer_id(number), replace(signal, in_flight=in_flight), 10.0, suspected=suspected)


def ranked(choices: Sequence[Choice]) -> list[int]:
    return [int.from_bytes(choice.provider.public_key or b"", "big") for choice in choices]


@pytest.mark.parametrize(
    ("need", "fits"),
    [
        (Need(cpus=8), True),
        (Need(cpus=8.5), False),
        (Need(cpus=0), True),
        (Need(gpus=1), True),
        (Need(gpus=2), False),
        (Need(memory_bytes=1 << 30), True),
        (Need(memory_bytes=(1 << 30) + 1), False),
        (Need(kind="workstation"), True),
        (Need(kind="gaming-pc"), False),
        (Need(region="eu"), True),
        (Need(region="us"), False),
    ],
)
def test_only_those_that_fit(need: Need, fits: bool) -> None:
    assert ranked(choose([entry(1)], need, 11.0, Random(0))) == ([1] if fits else [])


def test_nobody_to_choose() -> None:
    assert choose([], NEED, 0.0, Random(0)) == []


loads = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20)


@given(loads, st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_everyone_that_fits_once_suspects_last(providers: list[tuple[int, bool]], seed: int) -> None:
    entries = [entry(number, load, doubt) for number, (load, doubt) in enumerate(providers)]
    choices = choose(entries, NEED, 12.5, Random(seed))
    assert sorted(ranked(choices)) == list(range(len(entries)))
    assert [c.suspected for c in choices] == sorted(c.suspected for c in choices)
    by_id = {each.provider: each for each in entries}
    for choice in choices:
        assert choice.load == by_id[choice.provider].signal.in_flight
        assert choice.age_s == 2.5
        if choice.beaten is not None:
            assert choice.load <= by_id[choice.beaten].signal.in_flight, "less loaded than whom it beat"
            assert choice.beaten != choice.provider
    for sure in (False, True):  # the most loaded of all can only be last
        group = [c.load for c in choices if c.suspected is sure]
        if group and group.count(max(group)) == 1:
            assert group[-1] == max(group)
    assert choose(entries, NEED, 12.5, Random(seed)) == choices


def test_own_outstanding_requests_count() -> None:
    entries = [entry(1, in_flight=1), entry(2, in_flight=2)]
    for seed in range(20):
        assert ranked(choose(entries, NEED, 11.0, Random(seed))) == [1, 2]
        assert ranked(choose(entries, NEED, 11.0, Random(seed), {peer_id(1): 2})) == [2, 1]


def test_ties_are_broken_by_leases_then_latency() -> None:
    slow, fast, busy = replace(ROOMY, latency_s=2.0), replace(ROOMY, latency_s=1.0), replace(ROOMY, leases=1)
    for seed in range(20):
        pair = [entry(1, signal=slow), entry(2, signal=fast)]
        assert ranked(choose(pair, NEED, 11.0, Random(seed))) == [2, 1]
        pair = [entry(1, signal=busy), entry(2, signal=slow)]
        assert ranked(choose(pair, NEED, 11.0, Random(seed))) == [2, 1]


def test_equals_are_chosen_equally() -> None:
    rng = Random(3)
    entries = [entry(number) for number in range(10)]
    firsts = Counter(ranked(choose(entries, NEED, 11.0, rng))[0] for _ in range(2000))
    assert all(140 <= firsts[number] <= 260 for number in range(10))


def test_the_better_of_two() -> None:
    """With loads 0 to 9 the least loaded comes first in 2 of 10 draws, the most loaded never."""
    rng = Random(3)
    entries = [entry(number, in_flight=number) for number in range(10)]
    firsts = Counter(ranked(choose(entries, NEED, 11.0, rng))[0] for _ in range(2000))
    assert 340 <= firsts[0] <= 460
    assert firsts[9] == 0
    assert firsts[8] < firsts[4] < firsts[0]


def test_reasons_are_told() -> None:
    first, second = choose([entry(1, 1), entry(2, 5, suspected=False)], NEED, 11.0, Random(0))
    assert first.reason == f"1 in flight 1.0 s ago, preferred to {peer_id(2).short}"
    assert second.reason == "5 in flight 1.0 s ago"
    (last,) = choose([entry(1, suspected=True)], NEED, 11.0, Random(0))
    assert last.reason == "0 in flight 1.0 s ago, silent for too long"


def test_the_rule_can_be_replaced() -> None:
    def least_loaded(choices: Sequence[Choice], rng: Random) -> list[Choice]:
        return sorted(choices, key=lambda choice: choice.load)

    entries = [entry(number, in_flight=9 - number) for number in range(10)]
    assert ranked(choose(entries, NEED, 11.0, Random(0), rule=least_loaded)) == list(range(9, -1, -1))


def test_a_need_is_anything_with_its_attributes() -> None:
    @dataclass(frozen=True)
    class Mine:
        cpus: float = 1
        gpus: float = 0
        memory_bytes: int = 0
        kind: str = ""
        region: str = ""

    assert ranked(choose([entry(1)], Mine(), 11.0, Random(0))) == [1]
