"""Whatever peers send, in whatever order: the engine does not raise, stays within its bounds, keeps the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht import messages
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    Cancel,
    FindClosest,
    FindPeer,
    FindProviders,
    FindService,
    GetValue,
    Join,
    Provide,
    ProvideMany,
    PutValue,
    QueryDone,
    Refresh,
    Restore,
    SaveState,
    SetAddresses,
    StopProviding,
    StopPutting,
    Withdraw,
)
from swarmp2p.dht.keys import peer_key, service_key
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
    ProviderEcho,
    Split,
    ValueStored,
)
from swarmp2p.dht.provider_record import make_statement
from swarmp2p.dht.shards import MAX_DEPTH, attribute_key, prefix, shard_key
from swarmp2p.dht.splits import tree_of
from swarmp2p.engine import (
    Located,
    Message,
    PeerDown,
    PeerInfo,
    PeerUp,
    Reachable,
    Received,
    Request,
    Send,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.signed import sign_map

from .network import address, fake_sign, peer_id
from .single import Single

SMALL = DhtConfig(
    k=3,
    alpha=2,
    max_asked=20,
    max_provider_keys=4,
    max_providers_per_key=3,
    max_providers=8,
    max_values=4,
    max_value_bytes=8,
    max_connected=6,
    max_probes=2,
    max_found=5,
    max_record_requests=2,
    max_queries=4,
    reply_providers=2,
    refresh_interval_s=50.0,
)
NUMBERS = st.integers(0, 12)  # 0 is the engine itself
PEERS = NUMBERS.map(peer_id)
SENDERS = st.integers(1, 12).map(peer_id)
ROOTS = [service_key("svc"), attribute_key("svc", "gpu", "h100")]
SHARDS = [
    shard_key(root, depth, prefix(peer_key(peer_id(number)), depth))
    for root in ROOTS
    for depth, number in ((1, 2), (2, 3), (MAX_DEPTH, 4))
]
KEYS = st.sampled_from(
    [b"", b"k", *ROOTS, *SHARDS, b"/ns/k", bytes(peer_id(0)), bytes(peer_id(4)), b"x" * 900]
)


def at(number: int, addresses: list[int]) -> PeerInfo:
    return PeerInfo(peer_id(number), tuple(address(n) for n in addresses))


def envelope(number: int, sequence: int, expires: float, attributes: object, depths: object) -> bytes:
    """A genuine signature over a service record, or over nonsense."""
    fields = {"attrs": attributes, "depths": depths, "expires": expires, "seq": sequence, "service": "svc"}
    return sign_map("service-record", fields, fake_sign(peer_id(number)))


def statement(number: int, key: bytes) -> bytes:
    return make_statement(key, 3, 1e9, fake_sign(peer_id(number)))


def provider(number: int, addresses: list[int], record: bytes) -> Provider:
    return Provider(peer_id(number), tuple(address(n) for n in addresses), record)


INFOS = st.builds(at, NUMBERS, st.lists(NUMBERS, max_size=2))
CLOSER = st.lists(INFOS, max_size=6).map(tuple)
RECORDS = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.builds(
        envelope,
        NUMBERS,
        st.integers(0, 5),
        st.sampled_from([0.0, 900.0, 1100.0, 1e9]),
        st.sampled_from([{}, {"gpu": "h100"}, {"gpu": 5}, {b"gpu": "h100"}, {"gpu": ["h100"]}, None]),
        st.sampled_from(
            [None, {"": 1}, {"": 2, "gpu": 1}, {"": MAX_DEPTH, "gpu": MAX_DEPTH}, {"": 25}, {b"": 1}]
        ),
    ),
    st.builds(statement, NUMBERS, st.sampled_from([b"k", *ROOTS, *SHARDS])),
)
PROVIDERS = st.builds(provider, NUMBERS, st.lists(NUMBERS, max_size=2), RECORDS)
IDS = st.integers(0, 60)  # replies to requests that are under way, were, or never were
HELD = st.sampled_from([0, 1, 40, (1 << 31) - 1])
SPLITS = st.lists(
    st.builds(Split, st.sampled_from([tree_of(root) for root in ROOTS]), st.integers(1, MAX_DEPTH), HELD),
    max_size=4,
).map(tuple)
VALUES = st.one_of(st.none(), st.binary(max_size=10))
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(FindNode, IDS, KEYS),
    st.builds(GetProviders, IDS, KEYS),
    st.builds(messages.GetValue, IDS, KEYS),
    st.builds(messages.PutValue, IDS, KEYS, st.binary(max_size=10), st.just(0.0)),
    st.builds(AddProvider, IDS, KEYS, st.one_of(st.none(), PROVIDERS)),
    st.builds(Ping, IDS),
    st.builds(GetRecord, IDS, st.sampled_from(["svc", "other"])),
    st.builds(FoundNodes, IDS, CLOSER, HELD, SPLITS),
    st.builds(FoundProviders, IDS, KEYS, st.lists(PROVIDERS, max_size=6).map(tuple), CLOSER, HELD, SPLITS),
    st.builds(FoundValue, IDS, KEYS, VALUES, st.just(0.0), CLOSER),
    st.builds(ValueStored, IDS, KEYS, VALUES),
    st.builds(FoundRecord, IDS, RECORDS),
    st.builds(Pong, IDS),
    st.just(ProviderEcho()),
)
QUERIES = st.integers(1, 6)
PATHS = st.sampled_from([0, 0, 2])
COMMANDS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Join, QUERIES, CLOSER),
    st.builds(Refresh, QUERIES),
    st.builds(FindClosest, QUERIES, KEYS),
    st.builds(FindPeer, QUERIES, PEERS),
    st.builds(Provide, QUERIES, KEYS),
    st.builds(StopProviding, KEYS),
    st.builds(ProvideMany, QUERIES, st.lists(KEYS, max_size=4).map(tuple)),
    st.builds(FindProviders, QUERIES, KEYS, st.integers(0, 3), PATHS),
    st.builds(PutValue, QUERIES, KEYS, st.binary(max_size=10), st.booleans()),
    st.builds(StopPutting, KEYS),
    st.builds(GetValue, QUERIES, KEYS, PATHS),
    st.builds(Announce, QUERIES, st.just("svc"), st.sampled_from([(), (("gpu", "h100"),)])),
    st.builds(Withdraw, QUERIES, st.just("svc")),
    st.builds(
        FindService,
        QUERIES,
        st.just("svc"),
        st.sampled_from([(), (("gpu", "h100"),), (("gpu", "h100"), ("gpus", 2))]),
        st.integers(0, 2),
        PATHS,
    ),
    st.builds(Cancel, QUERIES),
    st.builds(SetAddresses, st.sampled_from([(), (address(0),)])),
    st.just(Restore()),
    st.builds(SaveState, st.booleans()),
)
STEPS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Received, SENDERS, MESSAGES),
    st.builds(Received, SENDERS, MESSAGES),
    st.builds(PeerUp, SENDERS, st.lists(NUMBERS.map(address), max_size=2).map(tuple)),
    st.builds(PeerDown, SENDERS),
    st.builds(Speaks, SENDERS, st.sampled_from(["dht", "record"]), st.booleans()),
    st.builds(Reachable, st.booleans()),
    st.builds(Located, SENDERS, st.lists(NUMBERS.map(address), max_size=2).map(tuple)),
    st.builds(
        Undeliverable,
        SENDERS,
        st.sampled_from(["dht", "record"]),
        st.lists(IDS, max_size=3).map(tuple),
        st.booleans(),
    ),
    COMMANDS,
    st.floats(0, 30).map(lambda seconds: ("wait", seconds)),
    st.just(Tick()),
)


def check_bounds(single: Single) -> None:
    """What the configuration promises."""
    engine: Any = single.engine
    traffic = engine._traffic
    table = engine.table
    for bucket in table._buckets.values():
        assert len(bucket.live) + len(bucket.suspects) <= 3
        assert len(bucket.spares) <= 3
    assert len(table) == len(table.snapshot())
    assert all(entry.addresses for entry in table.snapshot())
    assert peer_id(0) not in table
    providers = engine._providers
    assert len(providers._providers) <= 4
    assert all(len(of_key) <= 3 for of_key in providers._providers.values())
    assert len(providers) <= 8
    assert len(engine._values) <= 4
    assert len(engine._contacts) <= 6
    assert len(engine._contacts._introduced) <= 6
    assert len(traffic._queries) <= 4
    # One probe more than max_probes may be a suspect's; the rest belong to queries.
    assert len(traffic.liveness._probes) <= 2 + len(table)
    for pending in traffic._requests._pending.values():
        assert pending.info.peer in traffic._requests._by_peer
    for query in traffic._queries.values():
        assert query.lookup.in_flight <= 2
        assert query.lookup.asked <= 20


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_nothing_raises_or_grows(steps: list[Any]) -> None:
    single = Single(SMALL)
    began: dict[int, None] = {}
    for step in steps:
        if isinstance(step, tuple):
            outputs = single.wait(step[1])  # asserts that due Ticks move the deadline
        else:
            before = single.engine.deadline()
            outputs = single.post(step)
            if isinstance(step, Tick):
                assert outputs == [] or before <= single.now
        for output in outputs:
            if isinstance(output, Send):
                assert output.to != peer_id(0)
                if isinstance(output.message, FoundNodes | FoundProviders | FoundValue):
                    assert all(info.peer != output.to and info.addresses for info in output.message.closer)
                    assert len(output.message.closer) <= 3
            if isinstance(output, QueryDone):
                began.pop(output.query, None)
        check_bounds(single)
    single.wait(200.0)
    assert not single.engine._traffic._queries  # pyright: ignore[reportPrivateUsage]


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_the_same_events_give_the_same_outputs(steps: list[Any]) -> None:
    runs: list[list[str]] = []
    for _ in range(2):
        single = Single(SMALL)
        runs.append([repr(single.wait(s[1]) if isinstance(s, tuple) else single.post(s)) for s in steps])
    assert runs[0] == runs[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 40))
def test_a_lookup_among_liars_ends(seed: int, size: int) -> None:
    """Everybody makes up somebody nearer, for ever."""
    single = Single(SMALL)
    single.meet(1)
    waiting: list[tuple[Any, Request]] = []

    def take(outputs: Any) -> list[QueryDone]:
        waiting.extend(
            (o.to, o.message) for o in outputs if isinstance(o, Send) and isinstance(o.message, FindNode)
        )
        return [o for o in outputs if isinstance(o, QueryDone)]

    done = take(single.post(FindClosest(1, b"k")))
    made_up = seed
    for _ in range(100):
        if done:
            break
        to, request = waiting.pop(0)
        made_up += size
        liars = tuple(PeerInfo(peer_id(100 + made_up + n), (address(n),)) for n in range(size))
        done = take(single.post(Received(to, FoundNodes(request.id, liars))))
    assert done
    assert done[0].asked <= 20


def test_floods_of_provider_records_keys_and_values_stay_bounded() -> None:
    config = DhtConfig(max_provider_keys=50, max_providers_per_key=20, max_providers=200, max_values=30)
    single = Single(config)
    make: list[Callable[[int], Message]] = [
        lambda n: AddProvider(n, b"key %d" % n, Provider(peer_id(n % 300), (address(1),))),
        lambda n: AddProvider(n, b"hot", Provider(peer_id(n % 300), (address(1),))),
        lambda n: messages.PutValue(n, b"key %d" % n, b"v" * 8000, 0.0),
    ]
    for number in range(2000):
        for message in make:
            single.hear(number % 300, message(number))
    engine: Any = single.engine
    assert len(engine._providers) <= 200
    assert len(engine._providers._providers) <= 50
    assert len(engine._values) == 30
    assert single.engine.deadline() < math.inf


def test_a_burst_of_provider_records_from_one_honest_peer_is_all_stored() -> None:
    """py-libp2p drops those beyond 10 in 10 s while it reports success."""
    single = Single()
    for number in range(100):
        single.hear(1, AddProvider(number, b"key %d" % number, Provider(peer_id(1), (address(1),))))
    assert len(single.engine._providers) == 100  # pyright: ignore[reportPrivateUsage]
