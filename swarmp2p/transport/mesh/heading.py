"""The head's role: one cluster that this peer leads. It drives everything: what is not answered is sent again.

Each worker::

    INVITED --- Join, and a path to it exists ---> MEMBER --- its lease ends ---> (departed, told to the others)
       |  repeats Invite                             |  repeats Update until it has heard of the last change
       | no Join in time, no path                    | no secret agreed on in time
       v                                             v
    (MeshFailed, once; the lease ends by that)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from ...engine import Send
from ...errors import BadMessage
from ...identity import PeerId
from ...rates import Rates
from .allocation import Place
from .cluster_view import ClusterView, Outputs
from .config import MeshConfig
from .events import Admit, MeshFailed, OpenMesh
from .facts import read_facts, sign_facts
from .members import Carrier, Facts, Member, MemberId, overlay_address, roster
from .messages import MAX_DEPARTED, MAX_ENTRIES, Entry, Heard, Invite, Join, Pairing, Update
from .pairing import MeshKeys
from .pairs import Agreed, Say
from .plan import path

_NEVER: Final = math.inf


@dataclass(slots=True)
class _Worker:
    """lease, place: as admitted. admitted: when. member: once it has joined. since: number of the change that it is
    in the roster by. acked: the last change that it heard of. told: the last that was sent to it."""

    lease: MemberId
    peer: PeerId
    place: Place
    admitted: float
    next_send: float
    wait_s: float
    member: Member | None = None
    since: int = 0
    joined: int = 0
    acked: int = 0
    told: int = 0
    failed: bool = False


class Heading:
    """One cluster."""

    def __init__(self, peer: PeerId, keys: MeshKeys, config: MeshConfig, order: OpenMesh) -> None:
        """Raises UsageError for facts that nobody would read."""
        self.cluster = order.cluster
        self._peer, self._keys, self._config = peer, keys, config
        self._workers: dict[MemberId, _Worker] = {}
        self._departed: dict[MemberId, int] = {}
        self._sequence = self._since = order.changes + 1
        self._view = ClusterView(order.cluster, keys, config)
        self._joins: Rates[MemberId] = Rates(config.joins_per_s, 4, config.max_members)
        self._changes: Rates[MemberId] = Rates(config.changes_per_s, config.changes_burst, config.max_members)
        self._relayed: Rates[MemberId] = Rates(config.relayed_per_s, config.relayed_burst, config.max_members)
        facts = replace(order.facts, sequence=1)
        envelope = sign_facts(self.cluster, self.cluster, facts, keys.sign)
        place = order.place
        self._own = Member(self.cluster, peer, place.host, place.address, place.block, facts, envelope)

    @property
    def view(self) -> ClusterView:
        return self._view

    @property
    def size(self) -> int:
        """How many workers are admitted."""
        return len(self._workers)

    def deadline(self) -> float:
        due = min((self._due(worker) for worker in self._workers.values()), default=_NEVER)
        return min(due, self._view.pairs.deadline())

    # What the application says ------------------------------------------------------------------------------

    def begin(self, now: float) -> Outputs:
        """The head is the first member."""
        return self._changed(now)

    def tell(self, facts: Facts, now: float) -> Outputs:
        """The head's facts changed."""
        facts = follow(self._own.facts, facts)
        envelope = sign_facts(self.cluster, self.cluster, facts, self._keys.sign)
        self._own = replace(self._own, facts=facts, envelope=envelope)
        self._sequence += 1
        self._since = self._sequence
        return self._changed(now)

    def admit(self, order: Admit, peer: PeerId, now: float) -> Outputs:
        """Invite a worker, once."""
        if order.lease in self._workers:
            return []
        problem = self._no_place(order.place)
        if problem is not None:
            return [MeshFailed(order.lease, problem)]
        worker = _Worker(order.lease, peer, order.place, now, now, self._config.retry_s)
        self._workers[order.lease] = worker
        return self._speak(worker, now)

    def remove(self, lease: MemberId, now: float) -> Outputs:
        """A lease is over."""
        worker = self._workers.pop(lease, None)
        if worker is None or worker.member is None:
            return []
        self._sequence += 1
        self._departed[lease] = self._sequence
        out: Outputs = []
        if len(self._departed) > self._config.max_departed:
            oldest = next(iter(self._departed))
            for each in self._workers.values():
                if each.member is not None and each.acked < self._departed[oldest]:
                    out += self._fail(each, "it has not heard of what changed in the cluster for long")
            del self._departed[oldest]
        self._forget_departed()
        return out + self._changed(now)

    def fail_peer(self, peer: PeerId, reason: str) -> Outputs:
        """A peer does not speak the protocol."""
        return [
            output
            for worker in self._workers.values()
            if worker.peer == peer and worker.member is None
            for output in self._fail(worker, reason, unsupported=True)
        ]

    def again(self, target: MemberId, now: float) -> Outputs:
        """A new secret is needed."""
        return self._pass(self._view.pairs.again(target, now))

    def tick(self, now: float) -> Outputs:
        """Say again what was not answered, and give up on who never does."""
        out: Outputs = []
        for worker in [each for each in self._workers.values() if self._due(each) <= now]:
            if self._give_up(worker) <= now:
                what = "join" if worker.member is None else "agree on a secret"
                out += self._fail(worker, f"the worker did not {what} in {self._config.join_timeout_s:g} s")
            else:
                out += self._speak(worker, now)
        return out + self._pass(self._view.pairs.tick(now))

    # What a worker says -------------------------------------------------------------------------------------

    def receive(self, sender: PeerId, message: Join | Heard | Pairing, now: float) -> Outputs:
        """A message under a lease of this cluster."""
        worker = self._workers.get(message.lease)
        if worker is None or worker.peer != sender or worker.failed:
            return []
        match message:
            case Join(facts=envelope):
                return self._join(worker, envelope, now)
            case Heard(upto=upto):
                return self._heard(worker, upto, now)
            case Pairing(source=source, target=target, envelope=envelope):
                if source != worker.lease or worker.member is None:
                    return []
                if target == self.cluster:
                    return self._pass(self._view.pairs.receive(source, envelope, now))
                return self._relay(worker, message, now)

    def _join(self, worker: _Worker, envelope: bytes, now: float) -> Outputs:
        known = worker.member
        if known is not None and known.envelope == envelope:
            return []
        if not (self._joins if known is None else self._changes).admits(worker.lease, now):
            return []
        try:
            facts = read_facts(self.cluster, worker.lease, envelope, worker.peer, self._keys.verify)
        except BadMessage:
            return []
        if known is not None and (facts.sequence <= known.facts.sequence or _other(known.facts, facts)):
            return []
        member = self._placed(worker, facts, envelope)
        if known is None:
            problem = self._no_path(member)
            if problem is not None:
                return self._fail(worker, problem)
        worker.member = member
        self._sequence += 1
        worker.since = self._sequence
        if known is None:
            worker.joined = self._sequence
        return self._changed(now)

    def _heard(self, worker: _Worker, upto: int, now: float) -> Outputs:
        if worker.member is None:
            return self._speak(worker, now) if self._joins.admits(worker.lease, now) else []
        if not worker.acked < upto <= worker.told:
            return []
        worker.acked = upto
        worker.wait_s = self._config.retry_s
        self._forget_departed()
        if upto < self._sequence:
            return self._speak(worker, now)
        worker.next_send = _NEVER
        return []

    def _relay(self, worker: _Worker, message: Pairing, now: float) -> Outputs:
        target = self._workers.get(message.target)
        if target is None or target.member is None or not self._relayed.admits(worker.lease, now):
            return []
        # Who does not know the sender would not listen to it.
        out = self._speak(target, now) if target.told < worker.joined else []
        passed = Pairing(target.lease, message.source, message.target, message.envelope)
        return [*out, Send(target.peer, passed)]

    # ----------------------------------------------------------------------------------------------------------

    def _placed(self, worker: _Worker, facts: Facts, envelope: bytes) -> Member:
        """A worker with the address that its path to the head asks for."""
        place = worker.place
        address = overlay_address(place.host)
        member = Member(worker.lease, worker.peer, place.host, address, place.block, facts, envelope)
        direct = path(self.cluster, self._own, member).carrier is Carrier.DIRECT
        return replace(member, address=facts.address) if direct and facts.address else member

    def _no_path(self, member: Member) -> str | None:
        """Why a worker cannot be a member: all pairs must reach each other."""
        for other in (self._own, *self._members()):
            if other.member == member.member:
                continue
            way = path(self.cluster, member, other, self._own)
            if way.carrier is None:
                return f"no path to peer {other.peer.short}: {way.reason}"
        return None

    def _no_place(self, place: Place) -> str | None:
        if len(self._workers) + 1 >= self._config.max_members:
            return f"the cluster has {self._config.max_members} members, and no more are taken"
        for other in self._workers.values():
            if other.place.host == place.host or other.place.block.overlaps(place.block):
                return "its place is another member's"
        if self._own.host == place.host or self._own.block.overlaps(place.block):
            return "its place is the head's"
        return None

    def _members(self) -> list[Member]:
        return [worker.member for worker in self._workers.values() if worker.member is not None]

    def _changed(self, now: float) -> Outputs:
        """The roster is another: everybody is told, those who are still being told of an earlier change next."""
        everybody = roster(self.cluster, self._peer, self._sequence, (self._own, *self._members()))
        out, said = self._view.take(everybody, now)
        for worker in self._workers.values():
            if worker.member is not None and worker.acked == worker.told and not worker.failed:
                out += self._speak(worker, now)
        return out + self._pass(said)

    def _speak(self, worker: _Worker, now: float) -> Outputs:
        """Send what the worker has to answer, and wait for that."""
        again = worker.next_send <= now
        worker.wait_s = min(2 * worker.wait_s, self._config.max_retry_s) if again else self._config.retry_s
        worker.next_send = now + worker.wait_s
        if worker.member is None:
            return [Send(worker.peer, Invite(worker.lease, self.cluster, self._own.envelope))]
        update = self._update(worker)
        worker.told = max(worker.told, update.upto)
        return [Send(worker.peer, update)]

    def _update(self, worker: _Worker) -> Update:
        """What a worker has not heard of, oldest changes first, as much as fits."""
        fresh: list[tuple[int, Member | MemberId]] = [
            (each.since, each.member)
            for each in self._workers.values()
            if each.member is not None and each.since > worker.acked
        ]
        if self._since > worker.acked:
            fresh.append((self._since, self._own))
        # whom it has never heard of need not be taken from it
        known_from = max(worker.acked, worker.joined)
        fresh += [(number, lease) for lease, number in self._departed.items() if number > known_from]
        fresh.sort(key=lambda change: change[0])
        entries: list[Entry] = []
        departed: list[MemberId] = []
        for number, change in fresh:
            if len(entries) == MAX_ENTRIES or len(departed) == MAX_DEPARTED:
                return Update(worker.lease, worker.acked, number - 1, tuple(entries), tuple(departed))
            if isinstance(change, Member):
                entries.append(_entry(change))
            else:
                departed.append(change)
        return Update(worker.lease, worker.acked, self._sequence, tuple(entries), tuple(departed))

    def _forget_departed(self) -> None:
        """Departures that everybody heard of."""
        heard = min(
            (max(each.acked, each.joined) for each in self._workers.values() if each.member is not None),
            default=self._sequence,
        )
        for lease in [lease for lease, number in self._departed.items() if number <= heard]:
            del self._departed[lease]

    def _pass(self, said: list[Say | Agreed]) -> Outputs:
        out: Outputs = []
        for each in said:
            if isinstance(each, Agreed):
                out.append(self._view.agreed(each))
                continue
            worker = self._workers.get(each.target)
            if worker is not None:
                message = Pairing(worker.lease, self.cluster, worker.lease, each.envelope)
                out.append(Send(worker.peer, message))
        return out

    def _due(self, worker: _Worker) -> float:
        return _NEVER if worker.failed else min(worker.next_send, self._give_up(worker))

    def _give_up(self, worker: _Worker) -> float:
        """When a worker has had its time."""
        if worker.member is None:
            return worker.admitted + self._config.join_timeout_s
        return self._view.pairs.waiting_since(worker.lease) + self._config.join_timeout_s

    def _fail(self, worker: _Worker, reason: str, *, unsupported: bool = False) -> Outputs:
        """Say so once; the lease's end takes the worker out."""
        if worker.failed:
            return []
        worker.failed = True
        return [MeshFailed(worker.lease, reason, unsupported)]


def _entry(member: Member) -> Entry:
    return Entry(member.member, member.peer, member.host, member.address, member.block, member.envelope)


def follow(old: Facts, new: Facts) -> Facts:
    """New facts after old ones: the number after theirs, and what may not change as it was.

    Whether it is reachable decides who of two begins their session: that stays, or what stands would begin anew.
    """
    return replace(
        new,
        sequence=old.sequence + 1,
        reachable=old.reachable,
        endpoints=new.endpoints or old.endpoints if old.endpoints else (),
        carriers=old.carriers,
        lacks=old.lacks,
        machine=old.machine,
        address=old.address,
        wireguard_key=old.wireguard_key,
        wireguard_endpoints=new.wireguard_endpoints or old.wireguard_endpoints
        if old.wireguard_endpoints
        else (),
    )


def _other(old: Facts, new: Facts) -> bool:
    """Whether new facts would make another path of one that stands."""
    return (old.carriers, old.machine, old.address, old.wireguard_key, bool(old.wireguard_endpoints)) != (
        new.carriers,
        new.machine,
        new.address,
        new.wireguard_key,
        bool(new.wireguard_endpoints),
    )
