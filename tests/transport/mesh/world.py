"""Mesh engines in the simulator: heads, workers, leases that begin and end, a network that loses, repeats and delays.

Leases are played by the world: both sides get `Permit` and, later, `Forbid`, not at the same time. What has to hold in
the end is in `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from swarmp2p.engine import Engine, NetworkEvent, NetworkOutput, Received
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.mesh.allocation import Allocation
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.engine import Meshes
from swarmp2p.transport.mesh.events import (
    Admit,
    Forbid,
    Invited,
    MeshCommand,
    MeshFailed,
    MeshOutput,
    OpenMesh,
    PairAgain,
    Paired,
    Permit,
    Planned,
    TellFacts,
)
from swarmp2p.transport.mesh.members import Carrier, Endpoint, Facts
from swarmp2p.transport.mesh.plan import path
from swarmp2p.transport.sim import Simulator
from swarmp2p.transport.sim_peers import sim_peer

from .made import CLUSTER, sim_keys

HEAD = sim_peer(0)


class Repeating(Engine[MeshCommand, MeshOutput]):
    """An engine whose network hands some messages over twice, and some of them much later."""

    def __init__(self, inner: Meshes, rng: Random, share: float) -> None:
        self.inner, self._rng, self._share = inner, rng, share
        self._kept: list[Received] = []

    def handle(self, event: NetworkEvent | MeshCommand, now: float) -> Sequence[NetworkOutput | MeshOutput]:
        out = [*self.inner.handle(event, now)]
        if isinstance(event, Received) and self._rng.random() < self._share:
            out += self.inner.handle(event, now)
            self._kept = [*self._kept[-20:], event]
        if self._kept and self._rng.random() < self._share:
            out += self.inner.handle(self._rng.choice(self._kept), now)
        return out

    def deadline(self) -> float:
        return self.inner.deadline()


@dataclass(slots=True)
class World:
    """One cluster, led by peer 0; peer n lends lease n."""

    seed: int
    loss: float = 0.0
    copies: float = 0.0
    jitter: float = 0.9
    config: MeshConfig = field(default_factory=lambda: MeshConfig(join_timeout_s=300.0))
    simulator: Simulator[MeshCommand, MeshOutput] = field(init=False)
    engines: dict[PeerId, Meshes] = field(default_factory=dict[PeerId, Meshes])
    secrets: dict[tuple[bytes, bytes], list[Paired]] = field(
        default_factory=dict[tuple[bytes, bytes], list[Paired]]
    )
    plans: dict[bytes, Planned] = field(default_factory=dict[bytes, Planned])
    failed: list[MeshFailed] = field(default_factory=list[MeshFailed])
    leases: dict[bytes, PeerId] = field(default_factory=dict[bytes, PeerId])
    facts: dict[PeerId, Facts] = field(default_factory=dict[PeerId, Facts])
    rng: Random = field(init=False)
    allocation: Allocation = field(init=False)

    def __post_init__(self) -> None:
        self.rng = Random(f"world {self.seed}")
        link = UniformLink(0.05, self.jitter, self.loss)
        self.simulator = Simulator(self.seed, link, self._output)
        self.allocation = Allocation(self.rng, lambda address, port: port % 97 != 0)
        self.start(HEAD)
        self.open()

    def start(self, peer: PeerId) -> None:
        """Have a peer come up, as new."""
        self.engines[peer] = Meshes(peer, sim_keys(peer, self.rng.getrandbits(30)), self.config)
        inner = Repeating(self.engines[peer], Random(f"{self.seed} {peer}"), self.copies)
        self.simulator.add(peer, inner, addresses=(peer[-7:],))
        if peer != HEAD:
            self.simulator.connect(peer, HEAD)

    def open(self) -> None:
        self.facts[HEAD] = self._facts(HEAD)
        place = self.allocation.get(CLUSTER) or self.allocation.head(CLUSTER)
        self.post(HEAD, OpenMesh(CLUSTER, place, self.facts[HEAD]))

    def lease(self, number: int) -> bytes:
        """A new lease of peer `number`'s; both sides hear of it, one later than the other."""
        peer = sim_peer(number)
        if peer not in self.engines:
            self.start(peer)
        lease = self.rng.randbytes(16)
        self.leases[lease] = peer
        self.facts[peer] = self._facts(peer)
        place = self.allocation.give(lease, 1)
        late, early = self.rng.random(), self.rng.random()
        self.post(peer, Permit(lease, HEAD, True), late)
        self.post(HEAD, Permit(lease, peer, False), early)
        self.post(HEAD, Admit(CLUSTER, lease, place), early)
        return lease

    def end(self, lease: bytes) -> None:
        peer = self.leases.pop(lease)
        self.post(peer, Forbid(lease), 1.0 + self.rng.random())  # not before it began
        self.post(HEAD, Forbid(lease), 1.0 + self.rng.random())
        self.run(2.1)
        self.allocation.release(lease)

    def crash(self, number: int) -> None:
        """A lender dies; its leases end at the head some seconds later."""
        peer = sim_peer(number)
        self.simulator.crash(peer)
        del self.engines[peer]
        for lease in [lease for lease, lender in self.leases.items() if lender == peer]:
            del self.leases[lease]
            self.post(HEAD, Forbid(lease), 3.0)

    def post(self, peer: PeerId, event: NetworkEvent | MeshCommand, delay: float = 0.0) -> None:
        self.simulator.post(peer, event, delay)

    def run(self, seconds: float) -> None:
        self.simulator.run(self.simulator.now + seconds)

    def _facts(self, peer: PeerId) -> Facts:
        """A machine of its own, the head's, or one that it shares with other workers."""
        rng = self.rng
        wireguard = rng.random() < 0.3
        return Facts(
            carriers=(Carrier.DIRECT, *((Carrier.WIREGUARD,) if wireguard else ()), Carrier.OVERLAY),
            endpoints=(Endpoint("127.0.0.1", rng.randrange(1, 65536)),),
            reachable=rng.random() < 0.7,
            machine=rng.choice((b"m" * 32, b"n" * 32, b"o" * 32)),
            wireguard_key=peer[-32:] if wireguard else b"",
            wireguard_endpoints=(Endpoint("127.0.0.1", 9),) if wireguard and rng.random() < 0.5 else (),
        )

    def _output(self, now: float, peer: PeerId, output: MeshOutput) -> None:
        match output:
            case Invited(lease=lease):
                self.simulator.post(peer, TellFacts(lease, self.facts[peer]), self.rng.random() * 0.3)
            case Paired(member=member, target=target):
                known = self.secrets.setdefault((member, target), [])
                assert all(output.round > each.round for each in known), "rounds grow"
                known.append(output)
            case Planned(member=member):
                self.plans[member] = output
            case MeshFailed():
                self.failed.append(output)

    def again(self) -> None:
        """Some pair wants a new secret."""
        if self.secrets:
            member, target = self.rng.choice(sorted(self.secrets))
            owner = HEAD if member == CLUSTER else self.leases.get(member)
            if owner is not None:
                self.post(owner, PairAgain(member, target))

    def check(self) -> None:
        """All that stand know each other, plan alike, and have each pair's secret."""
        members = {CLUSTER: HEAD, **self.leases}
        rosters = {member: self.plans[member].roster for member in members}
        for member, roster in rosters.items():
            assert {each.member: each.peer for each in roster.members} == members, (self.seed, member)
            assert roster.members[0].facts is not None
            strangers = [each.facts for each in roster.members]
            assert strangers == [each.facts for each in rosters[CLUSTER].members]
            assert [(each.address, each.block) for each in roster.members] == [
                (each.address, each.block) for each in rosters[CLUSTER].members
            ]
            view = self.engines[members[member]].view(member)
            assert view is not None
            assert view.plan == self.plans[member].plan
        for a in members:
            for b in members:
                session = [each for each in self.plans[a].plan.sessions if each.member == b]
                if not session:
                    continue
                ours, theirs = self.secrets[a, b][-1], self.secrets[b, a][-1]
                assert ours.secret == theirs.secret, (self.seed, a, b)
                assert ours.initiator is session[0].initiator is not theirs.initiator
        head = rosters[CLUSTER].get(CLUSTER)
        for one in rosters[CLUSTER].members:
            for other in rosters[CLUSTER].members:
                assert one is other or path(CLUSTER, one, other, head).carrier is not None
