"""Meshes. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from random import Random
from typing import get_args

from swarmp2p.identity import PeerId
from swarmp2p.transport.mesh import messages as mesh_messages
from swarmp2p.transport.mesh.allocation import Place
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.engine import Meshes
from swarmp2p.transport.mesh.events import (
    Admit,
    CloseMesh,
    Forbid,
    Invited,
    MeshFailed,
    MeshOutput,
    OpenMesh,
    PairAgain,
    Paired,
    Permit,
    TellFacts,
)
from swarmp2p.transport.mesh.facts import sign_facts
from swarmp2p.transport.mesh.members import Carrier, Endpoint, Facts, PortBlock
from swarmp2p.transport.mesh.pairing import Between, MeshKeys, Statement, Step, sign_statement
from swarmp2p.transport.mesh.wire import mesh_protocol
from swarmp2p.transport.sim_peers import sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import PEERS, Maker, Special

from .leases import LEASE_IDS

MESH = MeshConfig(
    join_timeout_s=1e8,  # storms age by less: hardly a member would get far otherwise
    max_retry_s=1.0,
    max_attended=4,
    max_clusters=2,
    max_members=4,
    max_departed=2,
    max_permits=6,
    relayed_burst=8,
    joins_per_s=9,
)
CLUSTERS = tuple(bytes([200 + number]) * 16 for number in range(3))


def mesh_engine(peer: PeerId, seed: int) -> Meshes:
    return Meshes(peer, MeshKeys(sim_sign(peer), sim_verify, Random(f"{peer}{seed}").randbytes), MESH)


def mesh_facts(maker: Maker) -> Facts:
    rng = maker.rng
    carriers = rng.choice((tuple(Carrier), *((Carrier.OVERLAY,),) * 4, (Carrier.OVERLAY, Carrier.DIRECT), ()))
    key = b"k" * 32 if Carrier.WIREGUARD in carriers else b""
    endpoints = (Endpoint("127.0.0.9", 4001),) * rng.randrange(3)
    machine = rng.choice((b"", b"m" * 32))
    return Facts(
        rng.choice((0, 1, 2, 9)),
        carriers,
        (),
        endpoints,
        True,
        (),
        machine,
        "",
        key,
        endpoints if key else (),
    )


def mesh_place(maker: Maker) -> Place:
    number = maker.rng.randrange(1, 6)
    return Place(number, PortBlock(10_000 + 20 * number, 20))


def mesh_envelope(maker: Maker) -> bytes:
    """A pairing's statement between some of PEERS: sound, or of something else."""
    rng = maker.rng
    if rng.random() < 0.2:
        return maker.data() or b"x"
    source, target = rng.choice(PEERS[:4]), rng.choice(PEERS[:4])
    between = Between(rng.choice(CLUSTERS), mesh_member(maker), source, mesh_member(maker), target)
    step = rng.choice(tuple(Step))
    key = b"" if step is Step.AGAIN else rng.choice((bytes(32), rng.randbytes(32)))
    statement = Statement(
        step, rng.choice((0, 1, 2**41, 2**53)), key, bytes(32) if step is Step.ANSWER else b""
    )
    return sign_statement(between, statement, maker.now + rng.choice((-1e3, 30.0)), sim_sign(source))


def mesh_member(maker: Maker) -> bytes:
    return maker.rng.choice((*LEASE_IDS, *CLUSTERS))


def mesh_signed_facts(maker: Maker) -> bytes:
    member, cluster = mesh_member(maker), maker.rng.choice(CLUSTERS)
    if maker.rng.random() < 0.3:
        member = cluster
    return sign_facts(cluster, member, mesh_facts(maker), sim_sign(maker.rng.choice(PEERS[:4])))


def mesh_command(maker: Maker) -> object:
    """Three engines that lead and attend a few clusters: lease n is between peers 0 and 1 + n mod 2."""
    rng = maker.rng
    told = [each for each in maker.recent if isinstance(each, Invited | Paired | MeshFailed)]
    last = rng.choice(told) if told and rng.random() < 0.6 else None
    if isinstance(last, Invited):
        return TellFacts(last.lease, mesh_facts(maker))
    if isinstance(last, Paired) and rng.random() < 0.5:
        return PairAgain(last.member, last.target)
    number = rng.randrange(len(LEASE_IDS))
    lease, cluster = LEASE_IDS[number], rng.choice((*CLUSTERS[:1] * 3, *CLUSTERS))
    if isinstance(last, MeshFailed) and rng.random() < 0.3:
        return Forbid(last.lease)
    lends, takes = Permit(lease, PEERS[0], True), Permit(lease, PEERS[1 + number % 2], False)
    opens = OpenMesh(cluster, Place(1, PortBlock(10_000, 20)), mesh_facts(maker))
    admits = Admit(cluster, lease, mesh_place(maker))
    again = PairAgain(rng.choice((lease, cluster)), rng.choice((lease, cluster)))
    tells = TellFacts(rng.choice((lease, cluster)), mesh_facts(maker))
    ends = Forbid(lease) if rng.random() < 0.7 else CloseMesh(cluster)
    return rng.choice((lends, lends, takes, takes, opens, admits, admits, admits, tells, again, ends))


MESH_SPECIAL: Special = {
    "facts": mesh_signed_facts,
    "envelope": mesh_envelope,
    "source": mesh_member,
    "target": mesh_member,
    "member": mesh_member,
    "address": lambda maker: "127.64.0.5",
    "host": lambda maker: maker.rng.randrange(1, 6),
    "base": lambda maker: maker.rng.choice((0, 0, 1, 2)),
    "upto": lambda maker: maker.rng.choice((1, 2, 3, 9)),
    "entries": lambda maker: tuple(maker.make(mesh_messages.Entry) for _ in range(maker.rng.randrange(3))),
    "departed": lambda maker: tuple(maker.rng.choices(LEASE_IDS, k=maker.rng.randrange(3))),
    PortBlock: lambda maker: PortBlock(10_000 + 20 * maker.rng.randrange(6), 20),
}
MESH_CASE = EngineCase(
    "meshes",
    mesh_engine,
    get_args(MeshOutput),
    (mesh_protocol(),),
    get_args(mesh_messages.AnyMeshMessage),
    mesh_command,
    {
        **MESH_SPECIAL,
        "lease": lambda maker: maker.rng.choice(LEASE_IDS),
        "cluster": lambda m: m.rng.choice(CLUSTERS),
    },
    lambda meshes: {
        name: (meshes.sizes()[name], bound)
        for name, bound in (("permits", 6), ("attended", 4), ("clusters", 2), ("members", 4))
    },
)
