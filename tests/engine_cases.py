"""Every engine, held to what engines promise; and engines that break a promise, which the suite must
catch."""

from __future__ import annotations

from dataclasses import replace
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
from swarmp2p.gossip.codec import pubsub_protocol
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import (
    Acceptance,
    Delivered,
    GossipMessage,
    Publish,
    SetAppScore,
    StartValidating,
    StopValidating,
    Subscribe,
    Unsubscribe,
    Validate,
    Validated,
)
from swarmp2p.gossip.load import (
    AskLoads,
    FollowLoads,
    LoadBoard,
    LoadConfig,
    LoadOutput,
    MemberConfig,
    MemberFound,
    PublishLoad,
    SetLoad,
    ShardConfig,
    TableConfig,
    UnfollowLoads,
    loads_protocol,
)
from swarmp2p.gossip.load_shards import shard_topic
from swarmp2p.gossip.load_signal import LOAD_TOPIC, LoadSignal, encode_signal
from swarmp2p.gossip.load_wire import LoadsReply, LoadsRequest
from swarmp2p.gossip.messages import Exchanged, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.gossip.wire import StrictNoSign, StrictSign
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeConfig, NodeEngine, NodeOutput
from swarmp2p.peer_record import seal_record
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
from swarmp2p.signed import sign_map
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
from swarmp2p.transport.sim_peers import sim_address, sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import PEERS, Make, Maker
from tests.ray_bridge.keys import cheap_keys

Special = dict[type | str, Make]

# The DHT ----------------------------------------------------------------------------------------------------

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

# Gossip -----------------------------------------------------------------------------------------------------

GOSSIP = GossipConfig(
    mesh_degree=2,
    mesh_low=1,
    mesh_high=3,
    max_ihave_ids=6,
    max_ihave_rpcs=2,
    max_peers=5,
    max_peer_topics=4,
    max_fanout=2,
    max_seen=20,
    max_cached=10,
    max_cached_bytes=4000,
    max_queued=5,
    max_queued_bytes=3000,
    max_unwanted=6,
    max_validating=8,
    max_validating_bytes=4000,
    max_rejected=5,
    max_sources=3,
    topics={
        "a": TopicConfig(score=TopicScoreConfig(delivery_weight=-10.0, failure_weight=-10.0)),
        "b": TopicConfig(no_replays=True),
        "c": TopicConfig(anonymous=True),
    },
    score=ScoreConfig(colocation_threshold=2, decay_s=20.0),
    opportunistic_graft_beats=3,
    direct_peers=(PeerInfo(PEERS[4], (sim_address(5),)),),
    direct_connect_s=10.0,
    peer_exchange=True,
    exchange_dials=2,
    max_candidates=4,
)
TOPICS = ("a", "b", "c", LOAD_TOPIC)


def signal(maker: Maker) -> LoadSignal:
    rng = maker.rng
    sequence = rng.choice((0, int(maker.now * 10), 2**60)) + rng.randrange(3)
    expires = max(0.0, maker.now + rng.choice((-40.0, 5.0, 50.0, 100.0, 1e9)))
    return LoadSignal(rng.random() * 8, 1 << 30, 0.0, rng.randrange(5), sequence=sequence, expires=expires)


def message(maker: Maker) -> GossipMessage:
    """A published message: sound, signed by another, or garbage."""
    rng = maker.rng
    author, signer = rng.choice(PEERS), rng.choice(PEERS)
    data = encode_signal(signal(maker)) if rng.random() < 0.6 else maker.data()
    seqno = rng.randrange(30).to_bytes(8, "big") if rng.random() < 0.9 else maker.data()
    sign = sim_sign(author if rng.random() < 0.9 else signer)
    if rng.random() < 0.1:
        return StrictNoSign().make(author, "c", data, seqno, sign)
    return StrictSign().make(author, rng.choice((*TOPICS, LOAD_TOPIC)), data, seqno, sign)


def exchanged(maker: Maker) -> Exchanged:
    """A peer named in a PRUNE: with its record, another's, garbage or none."""
    peer, signer = maker.rng.choice(PEERS), maker.rng.choice(PEERS)
    genuine = seal_record(peer, (sim_address(1),), 1, sim_sign(peer))
    false = seal_record(peer, (sim_address(2),), 2, sim_sign(signer))
    return Exchanged(peer, maker.rng.choice((genuine, genuine, false, maker.data(), b"")))


def gossip_command(maker: Maker) -> object:
    topic = maker.rng.choice(TOPICS)
    asked = [output.message.id for output in maker.recent if isinstance(output, Validate)]
    return maker.rng.choice(
        (
            Subscribe(topic),
            Subscribe(topic),
            Unsubscribe(topic),
            Publish(topic, maker.data()),
            StartValidating(topic, maker.rng.choice((0.1, 5.0))),
            StopValidating(topic),
            SetAppScore(maker.rng.choice(PEERS), maker.rng.choice((-3000.0, -1.0, 0.0, 5.0))),
            Validated(maker.rng.choice(asked or [b""]), maker.rng.choice(tuple(Acceptance))),
        )
    )


def gossip_engine(peer: PeerId, seed: int) -> GossipRouter:
    return GossipRouter(peer, sim_sign(peer), sim_verify, Random(seed), GOSSIP)


def gossip_sizes(router: GossipRouter) -> dict[str, tuple[int, int]]:
    bounds = {
        "peers": GOSSIP.max_peers,
        "peer_topics": GOSSIP.max_peer_topics,
        "unwanted": GOSSIP.max_unwanted,
        "fanouts": GOSSIP.max_fanout,
        "seen": GOSSIP.max_seen,
        "cached": GOSSIP.max_cached,
        "cached_bytes": GOSSIP.max_cached_bytes,
        "queued": GOSSIP.max_queued,
        "validating": GOSSIP.max_validating,
        "validating_bytes": GOSSIP.max_validating_bytes,
        "rejected": GOSSIP.max_rejected,
        "sources": max(1, len(router.topics)) * GOSSIP.max_sources,  # of each topic
        "scores_kept": GOSSIP.max_peers,
        "app_scores": GOSSIP.max_peers,
        "watched": GOSSIP.max_cached,
        "hosts": GOSSIP.max_peers,
        "records": GOSSIP.max_peers,
        "candidates": GOSSIP.max_candidates,
        "exchange_dials": GOSSIP.exchange_dials,
    }
    return {name: (router.sizes()[name], bound) for name, bound in bounds.items()}


def one_of_few_ids(maker: Maker) -> bytes:
    """The id of a message that may exist."""
    return bytes(maker.rng.choice(PEERS)) + maker.rng.randrange(30).to_bytes(8, "big")


def some_ids(maker: Maker) -> tuple[bytes, ...]:
    return tuple(one_of_few_ids(maker) for _ in range(maker.rng.choice((0, 1, 3, 30))))


GOSSIP_SPECIAL: Special = {
    GossipMessage: message,
    Exchanged: exchanged,
    "topic": lambda maker: maker.rng.choice(TOPICS),
    "graft": lambda maker: tuple(maker.rng.choices(TOPICS, k=maker.rng.randrange(3))),
    "subscriptions": lambda maker: tuple(
        (maker.rng.choice(TOPICS) if maker.rng.random() < 0.7 else maker.make(str), maker.rng.random() < 0.7)
        for _ in range(maker.rng.choice((0, 0, 1, 2, 20)))
    ),
    "ids": some_ids,
    "iwant": some_ids,
    "idontwant": some_ids,
}
GOSSIP_CASE = EngineCase(
    "gossip",
    gossip_engine,
    (Delivered, Validate),
    (pubsub_protocol(),),
    (Rpc,),
    gossip_command,
    GOSSIP_SPECIAL,
    gossip_sizes,
)

# Loads ------------------------------------------------------------------------------------------------------

LOADS = LoadConfig(
    shards=ShardConfig(split_above=3, merge_below=1, review_s=4.0, overlap_s=6.0, hold_s=6.0),
    members=MemberConfig(seek_s=4.0, offer_after_s=4.0),
    verify_batch=3,
    table=TableConfig(max_providers=4),
)


def loads_engine(peer: PeerId, seed: int) -> LoadBoard:
    return LoadBoard(peer, sim_sign(peer), sim_verify, Random(seed), LOADS)


def loads_command(maker: Maker) -> object:
    """What the router delivers was checked by it, but what it says is its author's."""
    kind = maker.rng.random()
    if kind < 0.3:
        topic = shard_topic(maker.rng.choice(("", "", "0", "1", "01")))
        return MemberFound(topic, PeerInfo(maker.rng.choice(PEERS), (sim_address(maker.rng.randrange(9)),)))
    if kind < 0.6:
        return loads_or_follow(maker)
    return Delivered(message(maker), maker.rng.choice(PEERS))


LOADS_SPECIAL: Special = {
    GossipMessage: message,
    "shard": lambda maker: maker.rng.choice(("", "", "", "0", "01", "no shard")),
}
LOADS_CASE = EngineCase(
    "loads",
    loads_engine,
    get_args(LoadOutput),
    (loads_protocol(),),
    (LoadsRequest, LoadsReply),
    loads_command,
    LOADS_SPECIAL,
    lambda board: {"table": (len(board.table), 4), "shards": (len(board.shards), 40)},
)

# Leases -----------------------------------------------------------------------------------------------------

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

# Meshes -----------------------------------------------------------------------------------------------------

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

# The whole node ---------------------------------------------------------------------------------------------


def node_engine(peer: PeerId, seed: int) -> NodeEngine:
    keys = replace(cheap_keys(peer, seed), sign=sim_sign(peer), verify=sim_verify)
    return NodeEngine(peer, keys, Random(seed), NodeConfig(DHT, GOSSIP, LOADS, LEASE, MESH))


def node_command(maker: Maker) -> object:
    make = maker.rng.choice((dht_command, gossip_command, lease_command, mesh_command, loads_or_follow))
    return make(maker)


def loads_or_follow(maker: Maker) -> object:
    loaded = signal(maker)
    ask = AskLoads(maker.rng.randrange(9), tuple(maker.rng.choices(PEERS, k=3)), 1.0)
    return maker.rng.choice(
        (PublishLoad(loaded), SetLoad(loaded), SetLoad(None), FollowLoads(), UnfollowLoads(), ask)
    )


NODE_CASE = EngineCase(
    "node",
    node_engine,
    get_args(NodeOutput),
    (*DHT_CASE.wires, *GOSSIP_CASE.wires, *LOADS_CASE.wires, *LEASE_CASE.wires, *MESH_CASE.wires),
    (*DHT_MESSAGES, *GOSSIP_CASE.messages, *LOADS_CASE.messages, *LEASE_CASE.messages, *MESH_CASE.messages),
    node_command,
    {**DHT_SPECIAL, **GOSSIP_SPECIAL, **LOADS_SPECIAL, **MESH_SPECIAL, **LEASE_SPECIAL},
    lambda node: {**gossip_sizes(node.gossip), "loads": (len(node.loads.table), 4)},
)

CASES = (DHT_CASE, GOSSIP_CASE, LOADS_CASE, LEASE_CASE, MESH_CASE, NODE_CASE)
"""Every engine of swarmp2p; a new one is added here."""
