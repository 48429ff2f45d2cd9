"""How many workers an elastic cluster is to have, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.ray_bridge.demand import KIND_LABEL, LEASE_LABEL, Bundle, ClusterState, NodeState, Selector
from swarmp2p.ray_bridge.elastic import Ask, Elastic, ElasticConfig, Held, Step
from swarmp2p.ray_bridge.events import Need

CPU = Bundle((("CPU", 1.0),))
NEED = Need(cpus=2)
CONFIG = ElasticConfig(least=0, most=8, idle_s=60, patience_s=0.5, rotate_s=5)


def elastic(least: int = 0, most: int = 8, need: Need = NEED) -> Elastic:
    return Elastic(need, replace(CONFIG, least=least, most=most))


def lease(number: int) -> bytes:
    return number.to_bytes(16, "big")


def node(
    number: int,
    free: float = 0.0,
    cpus: float = 2.0,
    idle_s: float = 0.0,
    *,
    draining: bool = False,
    **labels: str,
) -> NodeState:
    known = {LEASE_LABEL: lease(number).hex(), **labels}
    return NodeState(f"{number:04x}", known, {"CPU": cpus}, {"CPU": free}, idle_s, draining)


def held(number: int, need: Need = NEED, *, active: bool = True, ending: bool = False) -> Held:
    return Held(lease(number), need, active, ending)


def settled(rule: Elastic, state: ClusterState, leases: Sequence[Held] = ()) -> Step:
    """What it decides once demand has lasted."""
    rule.step(state, leases, 0.0)
    return rule.step(state, leases, 1.0)


def wants(bundle: Bundle, count: int = 1) -> ClusterState:
    return ClusterState(wants=((bundle, count),))


def test_workers_for_what_waits_as_many_as_it_takes() -> None:
    assert settled(elastic(), wants(CPU, 5)).asks == (Ask(NEED),) * 3
    assert settled(elastic(), wants(CPU, 10**9)).asks == (Ask(NEED),) * 8
    assert settled(elastic(), ClusterState()).asks == ()


def test_demand_has_to_last_but_the_least_does_not() -> None:
    rule = elastic(least=1)
    state = wants(CPU, 5)
    assert rule.step(state, (), 0.0).asks == (Ask(NEED),)
    assert rule.step(state, (), 0.4).asks == (Ask(NEED),)
    assert rule.step(state, (), 0.5).asks == (Ask(NEED),) * 3
    assert rule.step(ClusterState(), (), 0.6).asks == (Ask(NEED),)
    assert rule.step(state, (), 0.7).asks == (Ask(NEED),), "it has come anew"


def test_what_is_free_and_what_is_coming_counts() -> None:
    state = replace(wants(CPU, 5), nodes=(node(1, free=1),))
    coming = [held(1), held(2, active=False)]
    assert settled(elastic(), state, coming).asks == (Ask(NEED),)
    assert settled(elastic(), replace(state, wants=((CPU, 3),)), coming).asks == ()


def test_a_worker_is_as_large_as_what_needs_it() -> None:
    big = Bundle((("CPU", 4.0), ("GPU", 1.0), ("memory", 5e9)))
    assert settled(elastic(), wants(big)).asks == (Ask(Need(cpus=4, gpus=1, memory_bytes=5 * 10**9)),)


@pytest.mark.parametrize(
    "bundle",
    [
        Bundle((("CPU", 1.0), ("mine", 1.0))),
        Bundle((("node:127.0.0.1", 0.01),)),
        Bundle(
            (("CPU", 1.0),), (Selector("swarmp2p.kind", ("gaming-pc",)), Selector("swarmp2p.kind", ("x",)))
        ),
        Bundle((("CPU", 1.0),), (Selector("ray.io/node-id", ("ab",)),)),
        Bundle((("CPU", 1.0),), (Selector("swarmp2p.kind", ("no such kind",)),)),
        Bundle((("CPU", 1.0),), tuple(Selector(f"label-{n}", ("x",)) for n in range(9))),
    ],
)
def test_what_no_worker_could_run_is_told_and_not_leased_for(bundle: Bundle) -> None:
    step = settled(elastic(), wants(bundle))
    assert (step.asks, step.unmeetable) == ((), (bundle,))


def test_label_selectors_say_whose_worker() -> None:
    def asks(*selectors: Selector, need: Need = NEED, now: float = 1.0) -> tuple[Ask, ...]:
        rule, state = elastic(need=need), wants(replace(CPU, selectors=selectors))
        rule.step(state, (), 0.0)
        return rule.step(state, (), now).asks

    assert asks(Selector(KIND_LABEL, ("gaming-pc",))) == (Ask(Need(cpus=2, kind="gaming-pc")),)
    assert asks(Selector("ray.io/availability-region", ("eu",))) == (Ask(Need(cpus=2, region="eu")),)
    assert asks(Selector("gpu", ("h200",))) == (Ask(Need(cpus=2, labels=(("gpu", "h200"),))),)
    several = Selector(KIND_LABEL, ("gaming-pc", "workstation"))
    assert asks(several) == (Ask(Need(cpus=2, kind="gaming-pc")),)
    assert asks(several, now=6.0) == (Ask(Need(cpus=2, kind="workstation")),), "each for a while"
    assert asks(several, need=Need(kind="workstation")) == (Ask(Need(kind="workstation")),)
    assert asks(several, need=Need(kind="edge-provider")) == ()
    none = Selector(KIND_LABEL, ("gaming-pc",), none_of=True)
    assert asks(none) == (Ask(NEED, not_kinds=frozenset({"gaming-pc"})),)
    assert asks(none, need=Need(kind="gaming-pc")) == ()


def test_a_node_without_the_labels_is_no_help() -> None:
    chosen = replace(CPU, selectors=(Selector("gpu", ("h200",)),))
    assert settled(elastic(), replace(wants(chosen), nodes=(node(1, free=2),)), [held(1)]).asks != ()
    assert (
        settled(elastic(), replace(wants(chosen), nodes=(node(1, free=2, gpu="h200"),)), [held(1)]).asks == ()
    )


def test_of_a_placement_group_all_or_none() -> None:
    apart = replace(CPU, apart=True)
    assert settled(elastic(), ClusterState(gangs=((CPU, CPU, CPU),))).asks == (Ask(NEED),) * 2
    three = ClusterState(gangs=((apart,) * 3,), nodes=(node(1, free=2),))
    assert settled(elastic(), three, [held(1)]).asks == (Ask(NEED),) * 2
    step = settled(elastic(most=2), three, [held(1)])
    assert (step.asks, step.unmeetable) == ((), (apart,))
    impossible = (CPU, Bundle((("mine", 1.0),)))
    assert settled(elastic(), ClusterState(gangs=(impossible,))).asks == ()


def test_what_the_cluster_is_asked_to_have_room_for_used_or_not() -> None:
    busy = ClusterState(least=((CPU, 4),), nodes=(node(1, free=0),))
    assert settled(elastic(), busy, [held(1)]).asks == (Ask(NEED),)
    both = replace(busy, wants=((CPU, 2),))
    assert settled(elastic(), both, [held(1)]).asks == (Ask(NEED),), "the same worker serves both"


def test_idle_workers_are_given_back_the_longest_idle_first_down_to_the_least() -> None:
    nodes = tuple(node(n, free=2, idle_s=idle) for n, idle in ((1, 61.0), (2, 59.0), (3, 90.0), (4, 70.0)))
    leases = [held(n) for n in (1, 2, 3, 4)]
    assert elastic().step(ClusterState(nodes=nodes), leases, 0.0).idle == (lease(3), lease(4), lease(1))
    assert elastic(least=2).step(ClusterState(nodes=nodes), leases, 0.0).idle == (lease(3), lease(4))
    needed = ClusterState(wants=((CPU, 1),), nodes=nodes)
    assert lease(1) not in elastic().step(needed, leases, 0.0).idle, "a task is on its way there"


def test_a_worker_is_kept_for_what_was_sent_there_and_has_not_arrived() -> None:
    """It waits at no node then, and Ray counts the worker as idle since its start."""
    rule = elastic()
    waiting = wants(CPU)
    assert settled(rule, waiting).asks == (Ask(NEED),)
    assert rule.step(waiting, [held(1, active=False)], 2.0) == Step()
    there = ClusterState(nodes=(node(1, free=2, idle_s=90.0),))
    assert rule.step(replace(there, wants=((CPU, 1),)), [held(1)], 3.0) == Step()
    assert rule.step(there, [held(1)], 3.25) == Step()
    assert rule.step(there, [held(1)], 62.9) == Step()
    assert rule.step(there, [held(1)], 63.0).idle == (lease(1),)


def test_what_the_cluster_is_to_have_room_for_is_not_given_back() -> None:
    nodes = tuple(node(n, free=2, idle_s=90.0) for n in (1, 2, 3))
    state = ClusterState(least=((CPU, 3),), nodes=nodes)
    assert elastic().step(state, [held(n) for n in (1, 2, 3)], 0.0).idle == (lease(3),)


def test_what_runs_on_a_worker_that_is_about_to_go_has_another_place_in_time() -> None:
    leases = [held(1, ending=True)]
    busy = ClusterState(nodes=(node(1, free=1, draining=True),))
    assert settled(elastic(), busy, leases).asks == (Ask(NEED),)
    assert settled(elastic(), busy, [*leases, held(2, active=False)]).asks == ()
    assert settled(elastic(), ClusterState(nodes=(node(1, free=2, draining=True),)), leases).asks == ()


def test_a_worker_that_is_about_to_go_is_replaced_beyond_the_most() -> None:
    nodes = (node(1, free=0, draining=True), node(2, free=0))
    leases = [held(1, ending=True), held(2)]
    assert elastic(least=2, most=2).step(ClusterState(nodes=nodes), leases, 0.0).asks == (Ask(NEED),)
    assert elastic(most=2).step(ClusterState(nodes=nodes), leases, 0.0).asks == ()


@dataclass
class Toy:
    """A Ray cluster that places tasks of one CPU, and lenders that grant after a while."""

    rule: Elastic
    now: float = 0.0
    waiting: int = 0
    ends: dict[int, list[float]] = field(default_factory=dict[int, list[float]])  # of tasks, by worker
    idle_since: dict[int, float] = field(default_factory=dict[int, float])
    due: dict[int, float] = field(default_factory=dict[int, float])  # when a worker is active
    made: int = 0
    given_back: int = 0
    most: int = 0

    def tick(self, step_s: float = 0.25) -> None:
        self.now += step_s
        for number, at in list(self.due.items()):
            if at <= self.now:
                del self.due[number]
                self.ends[number], self.idle_since[number] = [], self.now
        for number, ends in self.ends.items():
            ends[:] = [each for each in ends if each > self.now]
            while self.waiting and len(ends) < 2:
                ends.append(self.now + 3.0)
                self.waiting -= 1
            if ends:
                self.idle_since[number] = self.now
        nodes = tuple(
            node(number, free=2.0 - len(ends), idle_s=self.now - self.idle_since[number])
            for number, ends in self.ends.items()
        )
        state = ClusterState(wants=((CPU, self.waiting),) if self.waiting else (), nodes=nodes)
        leases = [held(n) for n in self.ends] + [held(n, active=False) for n in self.due]
        step = self.rule.step(state, leases, self.now)
        for name in step.idle:
            number = int.from_bytes(name, "big")
            assert not self.ends[number], "nothing runs there"
            del self.ends[number], self.idle_since[number]
            self.given_back += 1
        for _ in step.asks:
            self.made += 1
            self.due[self.made] = self.now + 1.5
        self.most = max(self.most, len(self.ends) + len(self.due))


@given(
    st.integers(0, 3),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=8),
)
def test_whatever_comes_is_done_within_bounds_and_the_cluster_rests_at_its_least(
    least: int, more: int, bursts: list[tuple[int, int]]
) -> None:
    toy = Toy(Elastic(NEED, ElasticConfig(least, least + more, idle_s=20.0)))
    for tasks, pause in bursts:
        toy.waiting += tasks
        for _ in range(pause):
            toy.tick()
            assert len(toy.ends) + len(toy.due) >= least
    for _ in range(800):
        toy.tick()
    assert toy.waiting == 0
    assert toy.most <= least + more
    assert len(toy.ends) == least
    assert not toy.due
    before = toy.made, toy.given_back
    for _ in range(400):
        toy.tick()
    assert (toy.made, toy.given_back) == before, "nothing comes and goes at rest"


def test_steady_work_makes_no_worker_come_and_go() -> None:
    toy = Toy(elastic())
    for _ in range(400):
        toy.waiting += 1 if toy.waiting < 2 else 0
        toy.tick()
    made = toy.made
    for _ in range(2000):
        toy.waiting += 1 if toy.waiting < 2 else 0
        toy.tick()
    assert (toy.made, toy.given_back) == (made, 0)
