"""Leases. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from random import Random
from typing import get_args

from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge import messages as lease_messages
from swarmp2p.ray_bridge.events import (
    CommitGang,
    EndLease,
    JoinSecret,
    JournalRecord,
    LeaseActive,
    LeaseHeld,
    LeaseOutput,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathFailed,
    PathUp,
    RequestLease,
    RestoreLeases,
    Revoke,
    Role,
    StartWorker,
    StopLending,
    TakeBack,
    Versions,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import Leases
from swarmp2p.ray_bridge.lease_config import LeaseConfig
from swarmp2p.ray_bridge.wire import lease_protocol
from tests.conformance import EngineCase
from tests.made_up import PEERS, Maker, Special
from tests.ray_bridge.keys import cheap_keys

LEASE = LeaseConfig(max_half_open=4, max_half_open_per_peer=2, max_taken=3, max_finished=8, max_strangers=4)
VERSIONS = Versions("2.60.0", "3.11", "0.1.0")
GANGS = (b"g" * 16, b"h" * 16)
LEASE_IDS = tuple(number.to_bytes(16, "big") for number in range(6))


def lease_command(maker: Maker) -> object:
    """Mostly what the engine waits for, so that leases get somewhere."""
    rng = maker.rng
    last = maker.recent[-1] if maker.recent and rng.random() < 0.7 else None
    if isinstance(last, OpenPath):
        return PathUp(last.lease) if rng.random() < 0.9 else PathFailed(last.lease, "no path")
    if isinstance(last, StartWorker):
        return WorkerStarted(last.lease) if rng.random() < 0.8 else WorkerFailed(last.lease, "no memory")
    if isinstance(last, LeaseActive) and rng.random() < 0.5:
        return TakeBack(last.lease, 20.0, "the owner is back")
    if isinstance(last, LeaseHeld) and rng.random() < 0.5:
        return CommitGang(rng.choice(GANGS))
    told = [output.lease for output in maker.recent if isinstance(output, get_args(LeaseOutput))]
    lease = rng.choice(told) if told and rng.random() < 0.8 else rng.choice(LEASE_IDS)
    need = Need(cpus=rng.choice((1, 1, 1, 1, 2, 100)))
    secret = JoinSecret("127.0.0.1:6379", "token")
    allow = rng.choice((None, None, None, None, frozenset(PEERS[:3]), frozenset()))
    lend = Lend(Offer(cpus=4, max_leases=rng.choice((1, 3))), VERSIONS, allow)
    gang, queue_s = rng.choice((b"", b"", *GANGS)), rng.choice((0.0, 0.0, 30.0))
    new, known = (
        RequestLease(name, rng.choice(PEERS[:4]), need, VERSIONS, secret, "cluster", gang, (), queue_s)
        for name in (rng.randbytes(16), lease)
    )
    record = JournalRecord(lease, rng.choice(tuple(Role)), rng.choice(PEERS), "cluster", need, "active")
    ends = (
        EndLease(lease, "enough"),
        EndLease(lease, "enough"),
        EndLease(lease, "enough"),
        StopLending(),
        WorkerFailed(lease, "died"),
        PathFailed(lease, "cut"),
        TakeBack(rng.choice((lease, None)), rng.choice((0.0, 10.0)), "the owner is back"),
        Revoke(borrowers=frozenset(PEERS[:1])),
        RestoreLeases((record,), rng.random() < 0.5),
    )
    return rng.choice((lend, lend, new, new, new, known, CommitGang(rng.choice(GANGS)), rng.choice(ends)))


def lease_engine(peer: PeerId, seed: int) -> Leases:
    return Leases(peer, cheap_keys(peer, seed), Random(seed), LEASE)


LEASE_SPECIAL: Special = {
    "lease": lambda maker: maker.rng.choice(LEASE_IDS),
    Need: lambda maker: Need(cpus=maker.rng.choice((0, 1, 1e6)), kind=maker.rng.choice(("", "individual"))),
    Versions: lambda maker: maker.rng.choice((VERSIONS, Versions("", "", ""))),
    "nonce": lambda maker: maker.rng.randbytes(32),
    "cluster": lambda maker: "cluster",
}
LEASE_CASE = EngineCase(
    "leases",
    lease_engine,
    get_args(LeaseOutput),
    (lease_protocol(),),
    get_args(lease_messages.AnyLeaseMessage),
    lease_command,
    LEASE_SPECIAL,
)
