"""A head, and a worker, that change things all the time: others do little for it."""

from __future__ import annotations

import os
from dataclasses import replace

from swarmp2p.engine import Received, Send
from swarmp2p.identity import Identity, verify
from swarmp2p.transport.mesh.allocation import Place
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.engine import Meshes
from swarmp2p.transport.mesh.events import Admit, MeshOutput, OpenMesh, Permit, Planned, TellFacts
from swarmp2p.transport.mesh.facts import sign_facts
from swarmp2p.transport.mesh.members import Endpoint, Facts, PortBlock, overlay_address
from swarmp2p.transport.mesh.messages import AnyMeshMessage, Entry, Heard, Invite, Join, Update
from swarmp2p.transport.mesh.pairing import MeshKeys

HEAD, WORKER, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
LEASE, CLUSTER, THIRD = b"L" * 16, b"C" * 16, b"T" * 16
FACTS = Facts(sequence=1, endpoints=(Endpoint("10.0.0.1", 5),))
CONFIG = MeshConfig()


def engine(who: Identity) -> Meshes:
    return Meshes(who.peer_id, MeshKeys(who.sign, verify, os.urandom), CONFIG)


def planned(out: object) -> int:
    """How many new plans there are."""
    assert isinstance(out, list | tuple)
    return sum(isinstance(each, Planned) for each in out)  # pyright: ignore[reportUnknownVariableType]


def test_a_head_that_changes_its_cluster_all_the_time_is_followed_at_a_pace() -> None:
    worker, now = engine(WORKER), 1e9

    def say(message: AnyMeshMessage) -> list[object]:
        return [*worker.handle(Received(HEAD.peer_id, message), now)]

    worker.handle(Permit(LEASE, HEAD.peer_id, True), now)
    say(Invite(LEASE, CLUSTER, sign_facts(CLUSTER, CLUSTER, FACTS, HEAD.sign)))
    out = worker.handle(TellFacts(LEASE, FACTS), now)
    [join] = [each.message for each in out if isinstance(each, Send)]
    assert isinstance(join, Join)
    entries = (
        _entry(CLUSTER, HEAD, 1, sign_facts(CLUSTER, CLUSTER, FACTS, HEAD.sign)),
        _entry(LEASE, WORKER, 2, join.facts),
    )
    plans = planned(say(Update(LEASE, 0, 1, entries, ())))
    heard = 0
    for number in range(2, 1000):
        facts = replace(FACTS, sequence=number, endpoints=(Endpoint("10.0.0.9", number),))
        third = _entry(THIRD, OTHER, 3, sign_facts(CLUSTER, THIRD, facts, OTHER.sign))
        out_ = say(Update(LEASE, 1, number, (third,), ()))
        plans += planned(out_)
        heard += any(isinstance(each, Send) and isinstance(each.message, Heard) for each in out_)
        now += 0.001
    most = CONFIG.updates_burst + CONFIG.updates_per_s
    assert 2 < plans <= most
    assert heard <= most
    now += 1  # what was passed over is said again
    facts = replace(FACTS, sequence=1000, endpoints=(Endpoint("10.0.0.9", 1000),))
    third = _entry(THIRD, OTHER, 3, sign_facts(CLUSTER, THIRD, facts, OTHER.sign))
    assert planned(say(Update(LEASE, 1, 1000, (third,), ()))) == 1


def test_a_worker_that_changes_its_facts_all_the_time_is_followed_at_a_pace() -> None:
    head, now = engine(HEAD), 1e9
    head.handle(OpenMesh(CLUSTER, Place(1, PortBlock(10_000, 20)), FACTS), now)
    outs: list[MeshOutput | object] = []
    for lease, who, host in ((LEASE, WORKER, 2), (THIRD, OTHER, 3)):
        head.handle(Permit(lease, who.peer_id, False), now)
        place = Place(host, PortBlock(10_000 + 20 * host, 20))
        head.handle(Admit(CLUSTER, lease, place), now)
        outs += head.handle(
            Received(who.peer_id, Join(lease, sign_facts(CLUSTER, lease, FACTS, who.sign))), now
        )
    plans = 0
    for number in range(2, 1000):
        facts = replace(FACTS, sequence=number, endpoints=(Endpoint("10.0.0.9", number),))
        join = Join(LEASE, sign_facts(CLUSTER, LEASE, facts, WORKER.sign))
        plans += planned(head.handle(Received(WORKER.peer_id, join), now))
        now += 0.01
    assert 1 <= plans <= CONFIG.changes_burst + 10 * CONFIG.changes_per_s


def _entry(member: bytes, who: Identity, host: int, facts: bytes) -> Entry:
    address = "127.0.0.1" if host == 1 else overlay_address(host)
    return Entry(member, who.peer_id, host, address, PortBlock(10_000 + 20 * host, 20), facts)
