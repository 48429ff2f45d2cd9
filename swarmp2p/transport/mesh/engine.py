"""The mesh engine: memberships of this peer, in its own clusters (heading.py) and in others' (attending.py).

Theory of operation. A lease that stands lets two peers be members of one cluster (`Permit`), and its end ends that
(`Forbid`): nothing here outlives a lease, and nobody is listened to without one. The head invites each worker, gives it
its place, and tells every worker of every change; who is a member is the head's word. What a member says of itself, and
what two members agree on, is signed by them and only passed on by the head, so that no worker needs a connection to
another. From the roster each member computes its own plan (plan.py), and for each session in it agrees on a secret with
the other side (pairing.py).

    OpenPath of a lease                     lender                  borrower (head)
      Permit                                   |  <-------- Invite  |  Admit
      Invited: cell and plane are started      |                    |
      TellFacts                                |  Join -----------> |
      Planned (own address and ports)          |  <-------- Update  |  Planned
      Paired                                   |  <- Pairing, 2 --> |  Paired

Bounds: MeshConfig. A message costs at most one signature check and, at a rate, one key agreement; what does not fit is
dropped. Members and secrets of one cluster are never seen by another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from ...engine import (
    Certified,
    Congested,
    Engine,
    Located,
    Message,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Speaks,
    Tick,
    Undeliverable,
)
from ...errors import UsageError
from ...identity import PeerId
from .attending import Attending
from .cluster_view import ClusterView, Outputs
from .config import MeshConfig
from .events import (
    Admit,
    CloseMesh,
    Forbid,
    MeshCommand,
    MeshFailed,
    MeshOutput,
    OpenMesh,
    PairAgain,
    Permit,
    TellFacts,
)
from .heading import Heading
from .members import MemberId
from .messages import Heard, Invite, Join, Pairing, Update
from .pairing import MeshKeys


class Meshes(Engine[MeshCommand, MeshOutput]):
    """The mesh engine, both roles."""

    def __init__(self, peer: PeerId, keys: MeshKeys, config: MeshConfig | None = None) -> None:
        """peer: this peer; `keys` are its."""
        self._peer, self._keys = peer, keys
        self._config = config or MeshConfig()
        self._permits: dict[MemberId, PeerId] = {}  # of leases that this peer took
        self._attending: dict[MemberId, Attending] = {}
        self._heading: dict[MemberId, Heading] = {}
        self._led: dict[MemberId, Heading] = {}  # by lease
        self._deadline = math.inf

    def deadline(self) -> float:
        return self._deadline

    def view(self, member: MemberId) -> ClusterView | None:
        """A membership, for people and tests: roster, plan, pairings."""
        if member in self._heading:
            return self._heading[member].view
        return self._attending[member].view if member in self._attending else None

    def sizes(self) -> dict[str, int]:
        """How much is held."""
        return {
            "permits": len(self._permits),
            "attended": len(self._attending),
            "clusters": len(self._heading),
            "members": max((heading.size for heading in self._heading.values()), default=0),
        }

    def handle(self, event: NetworkEvent | MeshCommand, now: float) -> Sequence[NetworkOutput | MeshOutput]:
        out: Outputs = []
        if self._deadline <= now:
            for each in self._everybody():
                if each.deadline() <= now:
                    out += each.tick(now)
        out += self._take(event, now)
        self._deadline = min((each.deadline() for each in self._everybody()), default=math.inf)
        return out

    def _everybody(self) -> list[Heading | Attending]:
        return [*self._heading.values(), *self._attending.values()]

    def _role(self, member: MemberId) -> Heading | Attending | None:
        return self._heading.get(member) or self._attending.get(member)

    def _take(self, event: NetworkEvent | MeshCommand, now: float) -> Outputs:
        match event:
            case Received(sender=sender, message=message):
                return self._receive(sender, message, now)
            case Undeliverable(peer=peer, protocol="mesh", unsupported=True):
                return self._unsupported(peer)
            case Speaks(peer=peer, protocol="mesh", serving=False):
                return self._unsupported(peer)
            case (
                Tick()
                | PeerUp()
                | PeerDown()
                | Certified()
                | Undeliverable()
                | Speaks()
                | Congested()
                | Reachable()
                | Located()
            ):
                return []
            case Permit():
                return self._permit(event, now)
            case Forbid(lease=lease):
                return self._forbid(lease, now)
            case OpenMesh():
                return self._open(event, now)
            case CloseMesh(cluster=cluster):
                self._close(cluster)
                return []
            case Admit():
                return self._admit(event, now)
            case TellFacts(member=member, facts=facts):
                role = self._role(member)
                try:
                    return [] if role is None else role.tell(facts, now)
                except UsageError as problem:
                    return [MeshFailed(member, str(problem))]
            case PairAgain(member=member, target=target):
                role = self._role(member)
                return [] if role is None else role.again(target, now)
            case _:
                assert_never(event)

    def _receive(self, sender: PeerId, message: Message, now: float) -> Outputs:
        match message:
            case Invite(lease=lease) | Update(lease=lease):
                attending = self._attending.get(lease)
                if attending is None or attending.head != sender:
                    return []
                return attending.receive(message, now)
            case Join(lease=lease) | Heard(lease=lease):
                heading = self._led.get(lease)
                return [] if heading is None else heading.receive(sender, message, now)
            case Pairing(lease=lease):
                attending = self._attending.get(lease)
                if attending is not None and attending.head == sender:
                    return attending.receive(message, now)
                heading = self._led.get(lease)
                return [] if heading is None else heading.receive(sender, message, now)
            case _:
                return []  # another engine's

    def _unsupported(self, peer: PeerId) -> Outputs:
        reason = f"peer {peer.short} does not speak the mesh's protocol (an older version?)"
        out: Outputs = []
        for heading in self._heading.values():
            out += heading.fail_peer(peer, reason)
        for attending in self._attending.values():
            if attending.head == peer and not attending.joined:
                out += attending.fail(reason, unsupported=True)
        return out

    def _permit(self, permit: Permit, now: float) -> Outputs:
        lease = permit.lease
        if permit.peer == self._peer or lease in self._permits or lease in self._attending:
            return []
        config = self._config
        if not permit.lender:
            if len(self._permits) >= config.max_permits:
                return [MeshFailed(lease, f"{config.max_permits} leases stand, and no more are taken")]
            self._permits[lease] = permit.peer
            return []
        if len(self._attending) >= config.max_attended:
            return [MeshFailed(lease, f"it works for {config.max_attended} clusters, and no more are taken")]
        attending = Attending(self._peer, self._keys, config, lease, permit.peer, now)
        self._attending[lease] = attending
        return attending.tick(now)

    def _forbid(self, lease: MemberId, now: float) -> Outputs:
        self._permits.pop(lease, None)
        self._attending.pop(lease, None)
        heading = self._led.pop(lease, None)
        return [] if heading is None else heading.remove(lease, now)

    def _open(self, order: OpenMesh, now: float) -> Outputs:
        if order.cluster in self._heading or order.cluster in self._attending:
            return [MeshFailed(order.cluster, "this id is in use; choose one at random")]
        if len(self._heading) >= self._config.max_clusters:
            problem = f"{self._config.max_clusters} clusters are open, and no more are taken; close one"
            return [MeshFailed(order.cluster, problem)]
        try:
            heading = Heading(self._peer, self._keys, self._config, order)
        except UsageError as problem_of_facts:
            return [MeshFailed(order.cluster, str(problem_of_facts))]
        self._heading[order.cluster] = heading
        return heading.begin(now)

    def _close(self, cluster: MemberId) -> None:
        heading = self._heading.pop(cluster, None)
        if heading is not None:
            self._led = {lease: led for lease, led in self._led.items() if led is not heading}

    def _admit(self, order: Admit, now: float) -> Outputs:
        heading, peer = self._heading.get(order.cluster), self._permits.get(order.lease)
        if heading is None or peer is None or order.lease in self._led or order.lease == order.cluster:
            return []
        out = heading.admit(order, peer, now)
        if not any(isinstance(each, MeshFailed) for each in out):
            self._led[order.lease] = heading
        return out
