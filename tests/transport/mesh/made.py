"""Members, rosters and keys for the tests of the mesh."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from swarmp2p.identity import PeerId
from swarmp2p.transport.mesh.members import (
    HEAD_ADDRESS,
    HEAD_HOST,
    Carrier,
    Endpoint,
    Facts,
    Member,
    PortBlock,
    Roster,
    overlay_address,
    roster,
)
from swarmp2p.transport.mesh.pairing import MeshKeys
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

CLUSTER = bytes([200]) * 16
MACHINES = (b"", b"m" * 32, b"n" * 32)


def sim_keys(peer: PeerId, seed: int = 0) -> MeshKeys:
    """Cheap signatures, real key agreement from a seeded source."""
    return MeshKeys(sim_sign(peer), sim_verify, Random(f"{peer}{seed}").randbytes)


def member_id(number: int) -> bytes:
    return bytes([number]) * 16


def worker(number: int, facts: Facts | None = None) -> Member:
    """Worker `number` (from 1), at a place of its own."""
    block = PortBlock(12_000 + 20 * number, 20)
    host = HEAD_HOST + number
    return Member(
        member_id(number), sim_peer(number), host, overlay_address(host), block, facts or facts_of(number)
    )


def head(facts: Facts | None = None) -> Member:
    return Member(CLUSTER, sim_peer(0), HEAD_HOST, HEAD_ADDRESS, PortBlock(10_000, 20), facts or facts_of(0))


def facts_of(number: int) -> Facts:
    return Facts(endpoints=(Endpoint(f"127.9.0.{number + 1}", 4001),))


def cluster(*workers: Member, own: Member | None = None, sequence: int = 1) -> Roster:
    return roster(CLUSTER, sim_peer(0), sequence, (own or head(), *workers))


ENDPOINTS = st.builds(Endpoint, st.sampled_from(("127.0.0.5", "10.0.0.9", "fe80::1")), st.integers(1, 65535))
LACKS = st.just(((Carrier.WIREGUARD, "no rights"),))


@st.composite
def drawn_facts(draw: st.DrawFn) -> Facts:
    """Facts of any member: the overlay is always among its carriers, so that all pairs have a path."""
    wireguard, direct = draw(st.booleans()), draw(st.booleans())
    carriers = (
        *((Carrier.DIRECT,) if direct else ()),
        *((Carrier.WIREGUARD,) if wireguard else ()),
        Carrier.OVERLAY,
    )
    return Facts(
        sequence=draw(st.integers(0, 5)),
        carriers=carriers,
        lacks=draw(st.just(()) | LACKS),
        endpoints=draw(st.lists(ENDPOINTS, max_size=2).map(tuple)),
        reachable=draw(st.booleans()),
        addresses=draw(st.lists(st.binary(min_size=1, max_size=20), max_size=2).map(tuple)),
        machine=draw(st.sampled_from(MACHINES)),
        address=draw(st.sampled_from(("", "127.77.1.2"))),
        wireguard_key=b"k" * 32 if wireguard else b"",
        wireguard_endpoints=draw(st.lists(ENDPOINTS, max_size=1).map(tuple)) if wireguard else (),
    )


@st.composite
def rosters(draw: st.DrawFn, most: int = 6) -> Roster:
    numbers = draw(st.lists(st.integers(1, 9), max_size=most, unique=True))
    own = head(draw(drawn_facts()))
    return cluster(*(worker(number, draw(drawn_facts())) for number in numbers), own=own)
