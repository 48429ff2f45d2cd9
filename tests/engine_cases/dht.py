"""The DHT. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from random import Random
from typing import get_args

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    Cancel,
    DhtOutput,
    FindClosest,
    FindPeer,
    FindProviders,
    FindService,
    GetValue,
    Join,
    Provide,
    ProvideMany,
    PutValue,
    Restore,
    SaveState,
    SetAddresses,
    StopProviding,
    StopPutting,
    Withdraw,
)
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.keys import service_key
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    Ping,
    Pong,
    Provider,
    ValueStored,
)
from swarmp2p.dht.messages import GetValue as GetValueRequest
from swarmp2p.dht.messages import PutValue as PutValueRequest
from swarmp2p.dht.records import DOMAIN
from swarmp2p.dht.state import Entry, HeldProvider, HeldValue, OwnSequence, RememberedPeer
from swarmp2p.dht.wire import dht_protocol, record_protocol
from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId
from swarmp2p.signed import sign_map
from swarmp2p.transport.sim_peers import sim_address, sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import PEERS, Maker, Special

DHT = DhtConfig(
    k=4,
    alpha=2,
    find_window=2,
    max_asked=12,
    max_provider_keys=6,
    max_providers_per_key=4,
    max_providers=12,
    max_values=5,
    max_value_bytes=300,
    max_connected=6,
    max_probes=3,
    max_found=5,
    max_record_requests=3,
    max_queries=4,
    sweep_keys=2,
    sweep_batch=2,
    max_remembered=5,
    remember_interval_s=6.0,
)
SERVICES = ("ray-worker", "storage", "x")
KEYS = (*map(service_key, SERVICES), b"/pk/x", b"key", *map(bytes, PEERS[:3]))


def record(maker: Maker) -> bytes:
    """An envelope: sound, of another purpose, or garbage."""
    rng = maker.rng
    fields = {
        "service": rng.choice(SERVICES),
        "seq": rng.choice((0, 1, 5, 2**53)),
        "expires": rng.choice((0.0, maker.now - 10.0, maker.now + 100.0, maker.now + 2000.0, 1e12)),
        "attrs": rng.choice(({}, {"cpus": 4}, {"a": "b", "c": 1.5, "d": True}, {"bad": []})),
    }
    domain = DOMAIN if rng.random() < 0.9 else "another"
    return maker.data() if rng.random() < 0.2 else sign_map(domain, fields, sim_sign(rng.choice(PEERS)))


def dht_command(maker: Maker) -> object:
    rng = maker.rng
    query, key, service = rng.randrange(8), rng.choice(KEYS), rng.choice(SERVICES)
    peers = tuple(PeerInfo(peer, (sim_address(rng.randrange(9)),)) for peer in rng.choices(PEERS, k=2))
    return rng.choice(
        (
            SetAddresses((sim_address(1),)),
            Join(query, peers),
            Join(query, peers),
            Join(query, ()),
            FindClosest(query, key),
            FindPeer(query, rng.choice(PEERS)),
            Provide(query, key),
            ProvideMany(query, tuple(rng.choices(KEYS, k=5))),
            StopProviding(key),
            FindProviders(query, key, rng.randrange(3)),
            PutValue(query, key, maker.data(), rng.random() < 0.5),
            StopPutting(key),
            GetValue(query, key),
            Announce(query, service, (("cpus", 4),)),
            Withdraw(query, service),
            FindService(query, service, rng.choice(((), (("cpus", 4),))), rng.randrange(3)),
            Cancel(query),
            Restore(tuple(kept(maker) for _ in range(rng.randrange(4)))),
            SaveState(rng.random() < 0.5),
        )
    )


def kept(maker: Maker) -> Entry:
    """What a state file may say: it was this peer's own once, but for other settings, and at another time."""
    rng = maker.rng
    key, peer, then = rng.choice(KEYS), rng.choice(PEERS), maker.now + rng.choice((-1e6, -50.0, 10.0, 1e6))
    addresses = (sim_address(rng.randrange(9)),)
    provider = Provider(peer, addresses if rng.random() < 0.9 else (), record(maker))
    return rng.choice(
        (
            HeldProvider(key, provider, then, rng.randrange(9), rng.random() < 0.2),
            HeldValue(key, maker.data(), then),
            RememberedPeer(peer, addresses, then),
            OwnSequence(rng.randrange(2**40)),
        )
    )


def dht_engine(peer: PeerId, seed: int) -> Kademlia:
    return Kademlia(peer, sim_sign(peer), sim_verify, Random(seed), DHT)


DHT_SPECIAL: Special = {
    "key": lambda maker: maker.rng.choice(KEYS) if maker.rng.random() < 0.8 else maker.data(),
    "service": lambda maker: maker.rng.choice(SERVICES),
    "record": record,
    "envelope": record,
    "received": lambda maker: maker.rng.random() * 1e9,
}
DHT_MESSAGES = (
    *(FindNode, GetProviders, GetValueRequest, PutValueRequest, AddProvider, Ping, GetRecord),
    *(FoundNodes, FoundProviders, FoundValue, ValueStored, Pong, FoundRecord),
)
DHT_CASE = EngineCase(
    "dht",
    dht_engine,
    get_args(DhtOutput),
    (dht_protocol(), record_protocol()),
    DHT_MESSAGES,
    dht_command,
    DHT_SPECIAL,
)
