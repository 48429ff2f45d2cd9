"""The worker's role: one membership in another peer's cluster. It answers its head, and repeats only its own facts.

WAITING --- Invite ---> INVITED --- TellFacts ---> JOINING --- Update that names it ---> MEMBER
   | asks to be invited    (Invited)                 | repeats Join                        | Planned, Paired
   v                                                 v                                     v
not a member, or no secret with the head, in time: (MeshFailed, once; the lease ends by that)
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from ...engine import Send
from ...errors import BadMessage
from ...identity import PeerId
from ...rates import Rates
from .cluster_view import ClusterView, Outputs
from .config import MeshConfig
from .events import Invited, MeshFailed
from .facts import read_facts, sign_facts
from .heading import follow
from .members import Facts, Member, MemberId, roster
from .messages import Entry, Heard, Invite, Join, Pairing, Update
from .pairing import MeshKeys
from .pairs import Agreed, Say

_NEVER: Final = math.inf


class Attending:
    """One membership."""

    def __init__(
        self, peer: PeerId, keys: MeshKeys, config: MeshConfig, lease: MemberId, head: PeerId, now: float
    ) -> None:
        self.lease, self.head = lease, head
        self._peer, self._keys, self._config = peer, keys, config
        self._cluster: MemberId = b""
        self._facts: Facts | None = None
        self._envelope = b""
        self._since, self._failed = now, False
        self._entries: dict[MemberId, Member] = {}
        self._upto = 0
        self._view = ClusterView(lease, keys, config)
        self._next_send, self._wait_s = now, config.retry_s / 2
        self._updates: Rates[MemberId] = Rates(config.updates_per_s, config.updates_burst, 1)
        self._invites: Rates[MemberId] = Rates(config.joins_per_s, 4, 1)

    @property
    def view(self) -> ClusterView:
        return self._view

    @property
    def joined(self) -> bool:
        return self.lease in self._entries

    def deadline(self) -> float:
        if self._failed:
            return _NEVER
        return min(self._next_send, self._give_up(), self._view.pairs.deadline())

    # What the application says ------------------------------------------------------------------------------

    def tell(self, facts: Facts, now: float) -> Outputs:
        """Own facts. Raises UsageError for what nobody would read; needs the invitation."""
        if not self._cluster:
            return []
        facts = replace(facts, sequence=1) if self._facts is None else follow(self._facts, facts)
        self._envelope = sign_facts(self._cluster, self.lease, facts, self._keys.sign)
        self._facts = facts
        return self._speak(now)

    def again(self, target: MemberId, now: float) -> Outputs:
        """A new secret is needed."""
        return self._pass(self._view.pairs.again(target, now))

    def fail(self, reason: str, *, unsupported: bool = False) -> Outputs:
        """Say so once; the lease's end takes the membership away."""
        if self._failed:
            return []
        self._failed = True
        return [MeshFailed(self.lease, reason, unsupported)]

    def tick(self, now: float) -> Outputs:
        """Say again what was not answered; give up when that takes too long."""
        if self._failed:
            return []
        if self._give_up() <= now:
            what = "the head did not invite the worker"
            if self._cluster:
                what = "there was nothing to join with" if self._facts is None else "the head took no member"
            if self.joined:
                what = "the head did not agree on a secret"
            return self.fail(f"{what} in {self._config.join_timeout_s:g} s")
        out: Outputs = self._speak(now, again=True) if self._next_send <= now else []
        return out + self._pass(self._view.pairs.tick(now))

    # What the head says -------------------------------------------------------------------------------------

    def receive(self, message: Invite | Update | Pairing, now: float) -> Outputs:
        """A message of the head's under this lease."""
        if self._failed:
            return []
        match message:
            case Invite():
                return self._invited(message, now)
            case Update():
                return self._update(message, now)
            case Pairing(source=source, target=target, envelope=envelope):
                if target != self.lease:
                    return []
                return self._pass(self._view.pairs.receive(source, envelope, now))

    def _invited(self, message: Invite, now: float) -> Outputs:
        if not self._invites.admits(self.lease, now):
            return []
        if (
            self._cluster
        ):  # it has not heard our facts, or, when we had joined already, it is a new head of ours
            if self._facts is None or message.cluster != self._cluster:
                return []
            return [Send(self.head, Join(self.lease, self._envelope))] if self.joined else self._speak(now)
        try:
            facts = read_facts(message.cluster, message.cluster, message.facts, self.head, self._keys.verify)
        except BadMessage:
            return []
        if message.cluster == self.lease:
            return []
        self._cluster, self._next_send = message.cluster, _NEVER
        return [Invited(self.lease, self._cluster, self.head, facts)]

    def _update(self, message: Update, now: float) -> Outputs:
        if self._facts is None or message.base > self._upto:
            return []
        if message.upto <= self._upto:
            return [Send(self.head, Heard(self.lease, self._upto))]
        if not self._updates.admits(self.lease, now):
            return []
        self._upto = message.upto
        for departed in message.departed:
            if departed not in (self.lease, self._cluster):
                self._entries.pop(departed, None)
        for entry in message.entries:
            self._enter(entry)
        heard: Outputs = [Send(self.head, Heard(self.lease, self._upto))]
        if not self.joined:
            return heard
        if self._entries[self.lease].envelope == self._envelope:
            self._next_send = _NEVER
        everybody = roster(self._cluster, self.head, self._upto, self._entries.values())
        out, said = self._view.take(everybody, now)
        return heard + out + self._pass(said)

    def _enter(self, entry: Entry) -> None:
        """Take a member in, if its facts are its own. The head cannot place two on one another."""
        known = self._entries.get(entry.member)
        if known is None and len(self._entries) >= self._config.max_members:
            return
        owner = {self.lease: self._peer, self._cluster: self.head}.get(entry.member)
        if owner is not None and entry.peer != owner:
            return
        if known is not None and (known.peer, known.envelope) == (entry.peer, entry.facts):
            facts = known.facts
        else:
            try:
                facts = read_facts(self._cluster, entry.member, entry.facts, entry.peer, self._keys.verify)
            except BadMessage:
                return
        for other in self._entries.values():
            if other.member != entry.member and (
                other.host == entry.host or other.block.overlaps(entry.block)
            ):
                return
        self._entries[entry.member] = Member(
            entry.member, entry.peer, entry.host, entry.address, entry.block, facts, entry.facts
        )

    # ----------------------------------------------------------------------------------------------------------

    def _speak(self, now: float, *, again: bool = False) -> Outputs:
        """Send what the head has to answer: the wish for an invitation, or own facts."""
        self._wait_s = min(2 * self._wait_s, self._config.max_retry_s) if again else self._config.retry_s
        self._next_send = now + self._wait_s
        if self._facts is None:
            return [Send(self.head, Heard(self.lease, 0))]
        return [Send(self.head, Join(self.lease, self._envelope))]

    def _pass(self, said: list[Say | Agreed]) -> Outputs:
        return [
            self._view.agreed(each)
            if isinstance(each, Agreed)
            else Send(self.head, Pairing(self.lease, self.lease, each.target, each.envelope))
            for each in said
        ]

    def _give_up(self) -> float:
        since = self._view.pairs.waiting_since(self._cluster) if self.joined else self._since
        return since + self._config.join_timeout_s
