"""How many workers an elastic cluster is to have, and of what: Ray's demand against what is there. Pure.

Each time GCS has told its state, what waits is put, as Ray would put it, into what is free on the nodes that are there,
then into the workers that are being leased; for what is left, workers are asked for, each as the cluster's need says
and larger where a bundle is. A placement group is put whole or not at all. Nothing waits for a worker longer than it
has to, and none is leased twice for the same: what is on its way counts.

A worker that has been idle for a while, and that nothing has waited for in that time, is given back, the one longest
idle first, down to the least: what it was leased for waits no more as soon as Ray has sent it there, and gets there
later, on a busy machine by seconds. Demand must last a moment before a worker is asked for (nodes report several times
a second, and what waits for a worker that has just become free is no demand); and idle times are long in comparison:
that is the hysteresis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ..errors import UsageError
from .demand import (
    KIND_LABEL,
    LEASE_LABEL,
    RAY_REGION_LABEL,
    REGION_LABEL,
    Bundle,
    ClusterState,
    NodeState,
    Selector,
)
from .events import LeaseId, Need
from .policy import check_need

MOST_WORKERS: Final = 256
"""Of an elastic cluster: each step costs as many looks as there are nodes, for each shape that waits."""

_ROUNDING: Final = 1e-9
_OBJECT_STORE: Final = (
    "object_store_memory"  # a worker has as much as its lender gives; Ray spills what exceeds it
)
_NODE_LABELS: Final = (
    "ray.io/node",
    "swarmp2p.peer",
    "swarmp2p.lease",
)  # by which tasks choose one that is there


@dataclass(frozen=True, slots=True)
class ElasticConfig:
    """least, most: workers. idle_s: seconds without use after which a worker is given back; a guess: taking another
    costs about one. patience_s: how long demand must last; twice what GCS's picture of the nodes is old (raylets report
    every 100 ms, we look every 250). rotate_s: how long one of several kinds or regions that would do is tried."""

    least: int
    most: int
    idle_s: float = 60.0
    patience_s: float = 0.5
    rotate_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A worker to be leased. not_kinds, not_regions: of lenders that would not do."""

    need: Need
    not_kinds: frozenset[str] = frozenset()
    not_regions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of the cluster's, from the request on. active: its worker runs. ending: it is known to end soon; it
    counts as gone."""

    lease: LeaseId
    need: Need
    active: bool
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """asks: workers to be leased now, beside those held. idle: leases to be given back. unmeetable: what waits and no
    worker could run, or not within the cluster's size."""

    asks: tuple[Ask, ...] = ()
    idle: tuple[LeaseId, ...] = ()
    unmeetable: tuple[Bundle, ...] = ()


@dataclass(slots=True)
class _Bin:
    """Room on a node, or on a worker to come. used: something that waits was put there."""

    free: dict[str, float]
    labels: Mapping[str, str]
    lease: LeaseId = b""
    used: bool = False

    def fits(self, bundle: Bundle, most: int) -> int:
        """How many of a bundle go in."""
        if not all(selector.matches(self.labels) for selector in bundle.selectors):
            return 0
        for name, amount in bundle.resources:
            most = min(most, math.floor((self.free.get(name, 0.0) + _ROUNDING) / amount))
        return max(0, most)

    def take(self, bundle: Bundle, count: int) -> None:
        for name, amount in bundle.resources:
            self.free[name] -= amount * count
        self.used = True

    def copy(self) -> _Bin:
        """One to try with."""
        return replace(self, free=dict(self.free))


def _coming(need: Need, lease: LeaseId = b"") -> _Bin:
    """The room of a worker that is not there yet. Ray counts whole CPUs and GPUs, and has memory as it likes unless
    the need says how much."""
    labels = {KIND_LABEL: need.kind, REGION_LABEL: need.region, RAY_REGION_LABEL: need.region}
    known = {name: value for name, value in labels.items() if value}
    free = {
        "CPU": float(math.ceil(need.cpus)),
        "GPU": float(math.ceil(need.gpus)),
        "memory": float(need.memory_bytes or math.inf),
        _OBJECT_STORE: math.inf,
    }
    return _Bin(free, {**known, **dict(need.labels)}, lease)


def _in_use(node: NodeState) -> list[Bundle]:
    """What runs on a node that will go, and need another place soon."""
    used = [(name, amount - node.available.get(name, 0.0)) for name, amount in sorted(node.total.items())]
    taken = tuple((name, amount) for name, amount in used if name in ("CPU", "GPU") and amount > _ROUNDING)
    return [Bundle(taken)] if taken else []


def _lease_of(node: NodeState) -> LeaseId:
    """Of a worker that says so; empty for others."""
    try:
        return bytes.fromhex(node.labels.get(LEASE_LABEL, ""))
    except ValueError:
        return b""


@dataclass(slots=True)
class Elastic:
    """The decisions of one elastic cluster. need: what each worker has at least."""

    need: Need
    config: ElasticConfig
    _since: float = field(default=math.inf)  # when demand for more workers was first seen
    _wanted: dict[LeaseId, float] = field(
        default_factory=dict[LeaseId, float]
    )  # when something last waited that would go to this worker; of leases held

    def step(self, state: ClusterState, held: Sequence[Held], now: float) -> Step:
        """What to do, as GCS says that things are. held: every lease asked for or standing."""
        config = self.config
        staying = [each for each in held if not each.ending]
        leases = {each.lease: each for each in held}
        seen: dict[LeaseId, NodeState] = {}
        bins: list[_Bin] = []
        totals: list[_Bin] = []
        moving: list[Bundle] = []
        for node in state.nodes:
            lease = _lease_of(node)
            if lease:
                seen[lease] = node
            if lease in leases and leases[lease].ending:
                moving += _in_use(node)
            if node.draining or (lease in leases and leases[lease].ending):
                continue
            bins.append(_Bin(dict(node.available), node.labels, lease))
            totals.append(_Bin(dict(node.total), node.labels, lease))
        for each in staying:
            if each.lease not in seen:
                bins.append(_coming(each.need, each.lease))
                totals.append(_coming(each.need, each.lease))
        room = max(0, config.most - len(staying))
        packing = _Packing(self.need, room, now, config.rotate_s)
        short = min(room, max(0, config.least - len(staying)))
        for _ in range(short):
            packing.add(Ask(self.need), bins, totals)
        for bundle, count in state.least:
            packing.put(bundle, count, totals, bins)
        for gang in state.gangs:
            packing.put_gang(gang, bins)
        for bundle, count in state.wants:
            packing.put(bundle, count, bins)
        unmeetable = tuple(packing.unmeetable)
        for bundle in moving:
            packing.put(bundle, 1, bins)
        asks = packing.asks
        coming = any(each.used and each.lease in leases and each.lease not in seen for each in bins)
        if coming or len(asks) > short:
            self._since = min(self._since, now)
            if now < self._since + config.patience_s:
                del asks[short:]
        else:
            self._since = math.inf
        self._note_wanted(staying, [*bins, *totals], now)
        return Step(tuple(asks), self._idle(staying, seen, now), unmeetable)

    def _note_wanted(self, staying: Sequence[Held], bins: Iterable[_Bin], now: float) -> None:
        wanted = {each.lease for each in bins if each.used}
        known = self._wanted
        self._wanted = {
            each.lease: now if each.lease in wanted else known.get(each.lease, -math.inf) for each in staying
        }

    def _idle(
        self, staying: Sequence[Held], seen: Mapping[LeaseId, NodeState], now: float
    ) -> tuple[LeaseId, ...]:
        idle = [
            each.lease
            for each in staying
            if each.active
            and each.lease in seen
            and not seen[each.lease].draining
            and self._wanted[each.lease] < now
            and min(seen[each.lease].idle_s, now - self._wanted[each.lease]) >= self.config.idle_s
        ]
        idle.sort(key=lambda lease: -seen[lease].idle_s)
        return tuple(idle[: max(0, len(staying) - self.config.least)])


@dataclass(slots=True)
class _Packing:
    """Puts bundles into bins, and adds bins while there may be more workers."""

    template: Need
    room: int
    now: float
    rotate_s: float
    asks: list[Ask] = field(default_factory=list[Ask])
    unmeetable: list[Bundle] = field(default_factory=list[Bundle])

    def add(self, ask: Ask, *into: list[_Bin]) -> None:
        """One more worker, last in each of these lists."""
        self.asks.append(ask)
        for bins in into:
            bins.append(_coming(ask.need))

    def put(self, bundle: Bundle, count: int, bins: list[_Bin], also: list[_Bin] | None = None) -> None:
        """As many as go in. also: where workers that are added count, too."""
        for each in bins:
            taken = each.fits(bundle, count)
            if taken:
                each.take(bundle, taken)
                count -= taken
            if not count:
                return
        ask = self.worker_for(bundle)
        while count and ask is not None and len(self.asks) < self.room:
            self.add(ask, bins, *(() if also is None else (also,)))
            taken = bins[-1].fits(bundle, count)
            bins[-1].take(bundle, taken)
            count -= taken
        if count:
            self.unmeetable.append(bundle)

    def put_gang(self, gang: Sequence[Bundle], bins: list[_Bin]) -> None:
        """All of them, or none."""
        trial = [each.copy() for each in bins]
        before = len(self.asks)
        alone: set[int] = set()  # bins that one of them has that wants no other of them there
        for bundle in gang:
            place = next(
                (n for n, each in enumerate(trial) if n not in alone and each.fits(bundle, 1)),
                None,
            )
            if place is None:
                ask = self.worker_for(bundle)
                if ask is None or len(self.asks) >= self.room:
                    del self.asks[before:]
                    self.unmeetable.append(bundle)
                    return
                self.add(ask, trial)
                place = len(trial) - 1
            trial[place].take(bundle, 1)
            if bundle.apart:
                alone.add(place)
        bins[:] = trial

    def worker_for(self, bundle: Bundle) -> Ask | None:
        """What worker would run this; None when none could."""
        wanted = dict(bundle.resources)
        need = replace(
            self.template,
            cpus=max(self.template.cpus, wanted.pop("CPU", 0.0)),
            gpus=max(self.template.gpus, wanted.pop("GPU", 0.0)),
            memory_bytes=max(self.template.memory_bytes, math.ceil(wanted.pop("memory", 0.0))),
        )
        wanted.pop(_OBJECT_STORE, None)
        if wanted:
            return None  # users' own resources, or a certain node
        ask = Ask(need)
        for selector in bundle.selectors:
            chosen = self._choose(ask, selector)
            if chosen is None:
                return None
            ask = chosen
        try:
            check_need(ask.need)
        except UsageError:  # a kind that there is none of, more labels than can be sent
            return None
        return ask if _coming(ask.need).fits(bundle, 1) else None

    def _choose(self, ask: Ask, selector: Selector) -> Ask | None:
        """The same with one more condition; None when they contradict each other, or nobody can be asked for it."""
        need, values = ask.need, selector.values
        match selector.label:
            case label if label == KIND_LABEL:
                if selector.none_of:
                    return None if need.kind in values else replace(ask, not_kinds=ask.not_kinds | {*values})
                kind = self._one_of(need.kind, values)
                return None if kind is None else replace(ask, need=replace(need, kind=kind))
            case label if label in (REGION_LABEL, RAY_REGION_LABEL):
                if selector.none_of:
                    return (
                        None
                        if need.region in values
                        else replace(ask, not_regions=ask.not_regions | {*values})
                    )
                region = self._one_of(need.region, values)
                return None if region is None else replace(ask, need=replace(need, region=region))
            case label:
                known = dict(need.labels)
                if selector.none_of:
                    return None if known.get(label) in values else ask
                value = self._one_of(known.get(label, ""), values)
                if value is None or label.startswith(_NODE_LABELS):
                    return None
                return replace(ask, need=replace(need, labels=tuple(sorted({**known, label: value}.items()))))

    def _one_of(self, given: str, values: Sequence[str]) -> str | None:
        """The value that must be, or one of those that may, each for a while."""
        if given:
            return given if given in values else None
        return values[int(self.now / self.rotate_s) % len(values)] if values else None
