"""What both roles of a membership share: the roster becomes a plan, and the plan's sessions become pairings."""

from __future__ import annotations

from ...engine import Introduce, NetworkOutput
from .config import MeshConfig
from .events import MeshOutput, Paired, Planned
from .members import Member, MemberId, Roster
from .pairing import Between, MeshKeys
from .pairs import Agreed, Pairs, Say
from .plan import NOTHING, MachinePlan, changes, plan

Outputs = list[NetworkOutput | MeshOutput]


class ClusterView:
    """One member's view of its cluster."""

    def __init__(self, me: MemberId, keys: MeshKeys, config: MeshConfig) -> None:
        self.me = me
        self.plan: MachinePlan = NOTHING
        self.roster: Roster | None = None
        self.pairs = Pairs(keys, config)

    def take(self, roster: Roster, now: float) -> tuple[Outputs, list[Say | Agreed]]:
        """A new roster: what to tell the application, and what the pairings say to that."""
        before, self.roster = self.roster, roster
        old, self.plan = self.plan, plan(roster, self.me)
        difference = changes(old, self.plan)
        said: list[Say | Agreed] = []
        new = {each.member for each in difference.sessions.new}
        for gone in difference.sessions.gone:
            if gone.member not in new:
                self.pairs.rest(gone.member)
        self.pairs.keep({each.member for each in roster.members})
        own = roster.get(self.me)
        for session in difference.sessions.new:
            assert own is not None, "no sessions without a place in the roster"
            between = Between(roster.cluster, self.me, own.peer, session.member, session.peer)
            said += self.pairs.want(between, session.initiator, now)
        # A stream to a member's peer, where its endpoints cannot be dialled, needs no look-up by these.
        out: Outputs = [
            Introduce(each.peer, each.addresses)
            for each in (*difference.sessions.new, *difference.moved)
            if each.initiator and each.addresses
        ]
        if before is None or difference or old.paths != self.plan.paths:
            out.append(Planned(self.me, roster, self.plan))
        return out, said

    def agreed(self, said: Agreed) -> Paired:
        """A secret, for the application."""
        return Paired(self.me, said.target, said.secret, said.initiator, said.round)

    def member(self, member: MemberId) -> Member | None:
        return None if self.roster is None else self.roster.get(member)
