"""choose(): only what fits, less loaded first, by lot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.gossip import adaptive
from swarmp2p.gossip.balancer import (
    Adaptive,
    Affinity,
    Choice,
    Placement,
    PowerOf,
    Spread,
    Strength,
    after_probes,
    choose,
    least_loaded,
    power_of_two,
    reconsider,
    uniform,
)
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadEntry
from swarmp2p.identity import PeerId
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
    choices = choose(entries, NEED, 12.5, Random(seed), rule=power_of_two)
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
    assert choose(entries, NEED, 12.5, Random(seed), rule=power_of_two) == choices


def test_own_outstanding_requests_count() -> None:
    entries = [entry(1, in_flight=1), entry(2, in_flight=2)]
    for seed in range(20):
        assert ranked(choose(entries, NEED, 11.0, Random(seed), rule=power_of_two)) == [1, 2]
        assert ranked(choose(entries, NEED, 11.0, Random(seed), {peer_id(1): 2}, rule=power_of_two)) == [2, 1]


def test_ties_are_broken_by_leases_then_latency() -> None:
    slow, fast, busy = replace(ROOMY, latency_s=2.0), replace(ROOMY, latency_s=1.0), replace(ROOMY, leases=1)
    for seed in range(20):
        pair = [entry(1, signal=slow), entry(2, signal=fast)]
        assert ranked(choose(pair, NEED, 11.0, Random(seed), rule=power_of_two)) == [2, 1]
        pair = [entry(1, signal=busy), entry(2, signal=slow)]
        assert ranked(choose(pair, NEED, 11.0, Random(seed), rule=power_of_two)) == [2, 1]


def test_equals_are_chosen_equally() -> None:
    rng = Random(3)
    entries = [entry(number) for number in range(10)]
    firsts = Counter(ranked(choose(entries, NEED, 11.0, rng, rule=power_of_two))[0] for _ in range(2000))
    assert all(140 <= firsts[number] <= 260 for number in range(10))


def test_the_better_of_two() -> None:
    """With loads 0 to 9 the least loaded comes first in 2 of 10 draws, the most loaded never."""
    rng = Random(3)
    entries = [entry(number, in_flight=number) for number in range(10)]
    firsts = Counter(ranked(choose(entries, NEED, 11.0, rng, rule=power_of_two))[0] for _ in range(2000))
    assert 340 <= firsts[0] <= 460
    assert firsts[9] == 0
    assert firsts[8] < firsts[4] < firsts[0]


def test_reasons_are_told() -> None:
    first, second = choose(
        [entry(1, 1), entry(2, 5, suspected=False)], NEED, 11.0, Random(0), rule=power_of_two
    )
    assert first.reason == f"1 in flight 1.0 s ago, preferred to {peer_id(2).short}"
    assert second.reason == "5 in flight 1.0 s ago"
    (last,) = choose([entry(1, suspected=True)], NEED, 11.0, Random(0), rule=power_of_two)
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


# The adaptive rule ------------------------------------------------------------------------------------------

ADAPTIVE = Adaptive(service_s=1.0)


def board(in_flight: Sequence[int], latency: bool = True) -> list[LoadEntry]:
    """Providers of speed 1 whose signals arrived at 10.0."""
    signals = [replace(ROOMY, latency_s=float(load + 1) if latency else 0.0) for load in in_flight]
    return [entry(number, load, signal=signals[number]) for number, load in enumerate(in_flight)]


def firsts(
    entries: Sequence[LoadEntry], age_s: float, draws: int = 1000, own: dict[PeerId, int] | None = None
) -> Counter[int]:
    rng = Random(5)
    return Counter(ranked(choose(entries, NEED, 10.0 + age_s, rng, own, ADAPTIVE))[0] for _ in range(draws))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.floats(0, 1e6)), max_size=20),
    st.floats(0, 1e6),
    st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_adaptive_ranks_everyone_that_fits_once(
    providers: list[tuple[int, bool, float]], age_s: float, seed: int
) -> None:
    entries = [
        entry(number, load, doubt, replace(ROOMY, latency_s=latency_s))
        for number, (load, doubt, latency_s) in enumerate(providers)
    ]
    choices = choose(entries, NEED, 10.0 + age_s, Random(seed))
    assert sorted(ranked(choices)) == list(range(len(entries)))
    assert [c.suspected for c in choices] == sorted(c.suspected for c in choices)
    assert choose(entries, NEED, 10.0 + age_s, Random(seed)) == choices, "the seed decides"


def test_fresh_signals_decide_sharply() -> None:
    assert set(firsts(board([3, 0, 2, 1, 0, 4]), 0.0)) == {1, 4}


def test_old_signals_leave_it_to_chance() -> None:
    counts = firsts(board([3, 0, 2, 1, 0, 4]), 1000.0, 6000)
    chi_squared = sum((counts[number] - 1000) ** 2 / 1000 for number in range(6))
    assert chi_squared < 15.1  # 99 % of fair lots, 5 degrees of freedom


def test_the_older_the_signals_the_flatter_the_choice() -> None:
    shares = [firsts(board([4, 0, 4, 4, 4]), age_s)[1] for age_s in (0.0, 1.0, 4.0, 100.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1000
    assert shares[-1] < 250


def test_more_outstanding_is_never_chosen_more() -> None:
    for age_s in (0.0, 0.3, 2.0, 10.0):
        shares = [firsts(board([1, 1, 0, 2]), age_s, own={peer_id(2): own})[2] for own in range(6)]
        assert all(b <= a + 40 for a, b in pairwise(shares)), "but for chance"
        assert shares[0] > shares[-1] or not shares[0]


def test_faster_providers_get_more() -> None:
    slow, fast = replace(ROOMY, speed=1.0), replace(ROOMY, speed=3.0)
    counts = firsts([entry(1, signal=slow), entry(2, signal=fast)], 100.0, 4000)
    assert 2.5 < counts[2] / counts[1] < 12.0, "at least by speed; with so little to do, more"


def test_of_very_many_a_sample_is_weighed() -> None:
    entries = [entry(number, number % 7) for number in range(600)]
    choices = choose(entries, NEED, 10.0, Random(1), rule=Adaptive(sample=50))
    assert sorted(ranked(choices)) == list(range(600))
    assert choices[0].load == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Adaptive(service_s=0.0), "Adaptive.service_s is a number of seconds above 0"),
        (lambda: Adaptive(catch_up=-1.0), "Adaptive.catch_up is a number above 0"),
        (lambda: Adaptive(sample=0), "Adaptive.sample is a whole number above 0"),
        (lambda: PowerOf(0), "PowerOf.draws is a whole number above 0"),
        (lambda: Spread(most=0), "Spread.most is a whole number above 0"),
        (lambda: Affinity(Strength.PREFER, worth_s=-1.0), "worth_s is a number of seconds of at least 0"),
        (lambda: Affinity("prefer"), "Strength.REQUIRE"),  # type: ignore[arg-type]
        (lambda: Affinity(Strength.AVOID, kinds="edge"), "kinds are a set of str"),  # type: ignore[arg-type]
        (lambda: Affinity(Strength.AVOID, regions=["eu"]), "regions are a set"),  # type: ignore[arg-type]
        (lambda: Affinity(Strength.AVOID, peers=frozenset({"12D"})), "set of PeerId"),  # type: ignore[arg-type]
        (lambda: Placement(distance_weight=float("nan")), "Placement.distance_weight is a number"),
        (lambda: Placement(affinities=Affinity(Strength.AVOID)), "list of Affinity"),  # type: ignore[arg-type]
        (lambda: Placement(spreads=(Strength.AVOID,)), "list of Spread"),  # type: ignore[arg-type]
        (lambda: Placement(distance=0.1), "peer.distance"),  # type: ignore[arg-type]
    ],
)
def test_settings_are_checked(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()


def test_other_rules() -> None:
    entries = [entry(number, 9 - number) for number in range(10)]
    assert ranked(choose(entries, NEED, 11.0, Random(0), rule=least_loaded)) == list(range(9, -1, -1))
    assert ranked(choose(entries, NEED, 11.0, Random(0), rule=PowerOf(10)))[0] == 9
    assert sorted(ranked(choose(entries, NEED, 11.0, Random(0), rule=uniform))) == list(range(10))


# Where providers should be ----------------------------------------------------------------------------------

EU, US = replace(ROOMY, region="eu"), replace(ROOMY, region="us")


def placed(entries: Sequence[LoadEntry], placement: Placement, seed: int = 0) -> list[int]:
    return ranked(choose(entries, NEED, 11.0, Random(seed), rule=ADAPTIVE, placement=placement))


def test_required_and_forbidden_are_filters() -> None:
    entries = [entry(1, signal=EU), entry(2, signal=US)]
    required = Affinity(Strength.REQUIRE, regions=frozenset({"us"}))
    assert placed(entries, Placement([required])) == [2]
    assert placed(entries, Placement([Affinity(Strength.FORBID, peers=frozenset({peer_id(2)}))])) == [1]
    assert placed(entries, Placement([Affinity(Strength.FORBID, kinds=frozenset({"workstation"}))])) == []


def test_preferred_and_avoided_weigh_against_load() -> None:
    near = Affinity(Strength.PREFER, regions=frozenset({"us"}), worth_s=5.0)
    avoid = Affinity(Strength.AVOID, regions=frozenset({"eu"}), worth_s=5.0)
    for affinity in (near, avoid):
        for load, best in ((2, 2), (40, 1)):
            entries = [entry(1, 0, signal=EU), entry(2, load, signal=US)]
            assert placed(entries, Placement([affinity]))[0] == best


def test_nearer_is_better_and_unknown_is_far() -> None:
    entries = [entry(1), entry(2), entry(3)]
    distances = {peer_id(1): 0.2, peer_id(2): 0.01}
    placement = Placement(distance=distances.get, distance_weight=100.0)
    for seed in range(20):
        assert placed(entries, placement, seed) == [2, 1, 3]


def test_spread_puts_those_too_many_last_or_out() -> None:
    entries = [entry(1, signal=EU), entry(2, signal=EU), entry(3, signal=US), entry(4, signal=EU)]
    for seed in range(20):
        order = placed(entries, Placement(spreads=[Spread()]), seed)
        assert 3 in order[:2]
        assert sorted(order) == [1, 2, 3, 4]
        assert len(placed(entries, Placement(spreads=[Spread(hard=True)]), seed)) == 2
        assert placed(entries, Placement(spreads=[Spread(used={"eu": 1})]), seed)[0] == 3
    unnamed = [entry(number, signal=replace(ROOMY, region="")) for number in range(3)]
    assert len(placed(unnamed, Placement(spreads=[Spread(hard=True)]))) == 3


def test_a_spread_counts_those_who_are_there_already() -> None:
    entries = [entry(1, signal=EU), entry(2, 3, signal=US)]
    beside = Placement(spreads=[Spread(used={"us": 1}, most=2)]).beside(
        [entry(8, signal=EU), entry(9, signal=EU)]
    )
    assert beside.spreads[0].used == {"us": 1, "eu": 2}
    for seed in range(20):
        assert placed(entries, beside, seed) == [2, 1]


# After probes -----------------------------------------------------------------------------------------------


def test_after_probes_who_has_no_room_is_out_and_who_is_silent_is_last() -> None:
    ranking = choose(board([0, 0, 0, 0]), NEED, 10.2, Random(1), rule=ADAPTIVE)
    order = [choice.provider for choice in ranking]
    signals = {order[0]: replace(ROOMY, cpus_free=0.5), order[1]: replace(ROOMY, in_flight=9)}
    left = after_probes(ranking, signals, [order[2]], NEED)
    assert [choice.provider for choice in left] == [order[3], order[1], order[2]]
    assert left[1].entry.signal == signals[order[1]]
    assert left[2].reason.endswith("did not answer")
    assert after_probes(ranking, {}, [], NEED) == ranking


def test_one_that_is_busier_than_expected_steps_back() -> None:
    first, second, third = choose(board([0, 0, 0]), NEED, 10.2, Random(1), rule=ADAPTIVE)
    order = [first.provider, second.provider, third.provider]

    def after(loads: dict[PeerId, int]) -> list[PeerId]:
        return [choice.provider for choice in reconsider([first, second, third], loads)]

    assert after({}) == order
    assert after({order[0]: 0}) == order
    assert after({order[0]: 9}) == [order[1], order[0], order[2]]
    assert after({order[0]: 9, order[1]: 7}) == [order[2], order[1], order[0]]
    assert after({order[0]: 9, order[1]: 7, order[2]: 8}) == [order[1], order[2], order[0]]
    assert "busier than expected" in reconsider([first, second], {order[0]: 9})[1].reason
    assert "0.0 s ago" in reconsider([first, second], {order[0]: 0})[0].reason


# What a choice costs, and what chance may do ----------------------------------------------------------------


def test_a_choice_among_very_many_weighs_a_sample_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    poured = adaptive._poured  # pyright: ignore[reportPrivateUsage]

    def count(views: Sequence[tuple[float, float, float, float]], level_s: float) -> tuple[float, float]:
        rounds.append(len(views))
        return poured(views, level_s)

    monkeypatch.setattr(adaptive, "_poured", count)
    for age_s in (0.0, 0.5, 5.0, 500.0):
        rounds.clear()
        entries = [entry(number, number % 9) for number in range(5000)]
        choices = Adaptive()(
            [Choice(each.provider, each, each.signal.in_flight, age_s) for each in entries], Random(1)
        )
        assert len(choices) == 5000
        assert set(rounds) == {256}
        assert len(rounds) <= 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_own_requests_never_bring_a_provider_forward(
    loads: list[int], data: st.DataObject, seed: int
) -> None:
    entries = [entry(number, load) for number, load in enumerate(loads)]
    place = data.draw(st.integers(0, len(loads) - 1))
    ranks = [
        ranked(choose(entries, NEED, 11.0, Random(seed), {peer_id(place): own}, least_loaded)).index(place)
        for own in range(7)
    ]
    assert ranks == sorted(ranks)
    assert ranks[-1] == len(loads) - 1, "seven at one, and at most five at others"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_after_probes_everyone_stands_once_who_has_room(
    providers: list[tuple[int, bool]], data: st.DataObject
) -> None:
    ranking = choose(
        [entry(number, load) for number, (load, _) in enumerate(providers)], NEED, 12.0, Random(1)
    )
    full = replace(ROOMY, cpus_free=0)
    signals = {
        choice.provider: data.draw(st.sampled_from([full, ROOMY, replace(ROOMY, in_flight=9)]))
        for choice in ranking[: data.draw(st.integers(0, 4))]
    }
    silent = [choice.provider for choice in ranking if choice.provider not in signals][:2]
    left = after_probes(ranking, signals, silent, NEED)
    room = {choice.provider for choice in ranking if signals.get(choice.provider) != full}
    assert {choice.provider for choice in left} == room
    assert len(left) == len(room)
    assert [choice.provider for choice in left][len(left) - len(silent) :] == silent
