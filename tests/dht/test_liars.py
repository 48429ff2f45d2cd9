"""A long life among liars: they answer what the engine asks, with whatever an answer can say. Nothing raises.

test_hostile.py has bounds, and messages out of the blue; here each answer fits its request, so that queries get far.
Several faults that only such answers reach were found so.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from swarmp2p.dht import events as do
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import multihash_key, peer_key, service_key
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    Provider,
    PutValue,
    Split,
    ValueStored,
)
from swarmp2p.dht.provider_record import make_statement
from swarmp2p.dht.shards import MAX_DEPTH, attribute_key, prefix, shard_key
from swarmp2p.dht.splits import tree_of
from swarmp2p.engine import (
    PeerDown,
    PeerInfo,
    PeerUp,
    Reachable,
    Received,
    Reply,
    Request,
    Send,
    Speaks,
    Undeliverable,
)
from swarmp2p.identity import PeerId
from swarmp2p.signed import sign_map

from .network import address, fake_sign, peer_id
from .single import Outputs, Single, infos

ROOTS = [service_key("svc"), service_key("other"), attribute_key("svc", "gpu", "h100")]
KEYS = [multihash_key(b"%d" % number) for number in range(4)]
ATTRIBUTES: list[object] = [{"gpu": "h100"}, {"gpu": "h100", "n": 4}, {}, {b"x": "y"}, {"gpu": [1]}, None]
DEPTHS: list[object] = [{}, {"": 1}, {"": 3, "gpu": 2}, {"": MAX_DEPTH, "gpu": MAX_DEPTH}, {"": 25}, {b"": 1}]
MANY = 1 << 31


class Life:
    """One engine with small bounds, and up to `peers` others."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.peers = rng.choice([5, 40, 300])
        self.single = Single(
            DhtConfig(
                k=rng.choice([2, 4, 20]),
                alpha=rng.choice([1, 3, 10]),
                disjoint_paths=rng.choice([1, 1, 3]),
                max_queries=rng.choice([4, 100]),
                split_above=rng.choice([4, 32]),
                merge_below=2,
                sweep_keys=rng.choice([2, 16]),
                max_probes=rng.choice([2, 64]),
                refresh_interval_s=rng.choice([20.0, 600.0]),
                record_ttl_s=3600.0,
                announce_interval_s=rng.choice([30.0, 1200.0]),
                provide_interval_s=rng.choice([40.0, 7200.0]),
                handover_interval_s=30.0,
                query_timeout_s=rng.choice([5.0, 60.0]),
            )
        )
        self.waiting: list[tuple[PeerId, Request]] = []
        self.queries = 0

    def step(self) -> None:
        rng, chance = self.rng, self.rng.random()
        if chance < 0.5 and self.waiting:
            for _ in range(min(len(self.waiting), rng.choice([1, 3, 20]))):
                to, request = self.waiting.pop(rng.randrange(len(self.waiting)))
                reply = self.answer(request)
                if reply is not None:
                    self.take(self.single.post(Received(to, reply)))
        elif chance < 0.6:
            self.take(self.single.post(PeerUp(self.peer(), rng.choice([(), (address(self.number()),)]))))
        elif chance < 0.68:
            self.take(self.single.post(self.fact()))
        elif chance < 0.82:
            self.take(self.single.post(Received(*self.request())))
        elif chance < 0.9:
            self.take(self.single.wait(rng.choice([0.01, 0.5, 3.0, 20.0, 100.0, 700.0])))
        else:
            self.queries += 1
            self.take(self.single.post(self.command(self.queries)))

    def take(self, outputs: Outputs) -> None:
        self.waiting += [
            (out.to, out.message)
            for out in outputs
            if isinstance(out, Send) and isinstance(out.message, Request)
        ]
        del self.waiting[:-400]

    # What is said -------------------------------------------------------------------------------------------

    def number(self) -> int:
        return self.rng.randrange(1, self.peers)

    def peer(self) -> PeerId:
        return peer_id(self.number())

    def key(self) -> bytes:
        root, depth = self.rng.choice(ROOTS), self.rng.choice([0, 1, 2, 3, MAX_DEPTH])
        shard = shard_key(root, depth, prefix(peer_key(self.peer()), depth))
        return self.rng.choice([self.rng.choice(KEYS), shard, shard, bytes(self.peer())])

    def record(self, number: int) -> bytes:
        rng, sign = self.rng, fake_sign(peer_id(number) if self.rng.random() < 0.8 else self.peer())
        fields = {
            "service": rng.choice(["svc", "other"]),
            "seq": rng.choice([1, 2, (1 << 63) - 1]),
            "expires": rng.choice([0.0, self.single.now - 100.0, self.single.now + 5000.0, 1e300]),
            "attrs": rng.choice(ATTRIBUTES),
            "depths": rng.choice(DEPTHS),
        }
        statement = make_statement(self.key(), 1, self.single.now + rng.choice([-50.0, 5000.0]), sign)
        return rng.choice([b"", rng.randbytes(20), statement, sign_map("service-record", fields, sign)])

    def provider(self) -> Provider:
        number = self.number()
        return Provider(peer_id(number), self.rng.choice([(), (address(number),)]), self.record(number))

    def closer(self) -> tuple[PeerInfo, ...]:
        numbers = [self.number() for _ in range(self.rng.choice([0, 1, 5, 20, 32]))]
        return tuple(
            PeerInfo(peer_id(one), self.rng.choice([(address(one),), (), (b"\x35\x01a",)])) for one in numbers
        )

    def splits(self) -> tuple[Split, ...]:
        rng = self.rng
        trees = [tree_of(rng.choice(ROOTS)) for _ in range(rng.choice([0, 0, 1, 4]))]
        return tuple(Split(tree, rng.choice([1, 3, MAX_DEPTH]), rng.choice([0, 50, MANY])) for tree in trees)

    def answer(self, request: Request) -> Reply | None:
        rng, held = self.rng, self.rng.choice([0, 1, 40, MANY])
        match request:
            case _ if rng.random() < 0.03:
                return Pong(request.id)
            case FindNode(id):
                return FoundNodes(id, self.closer(), held, self.splits())
            case GetProviders(id, key):
                providers = tuple(self.provider() for _ in range(rng.choice([0, 1, 4, 20])))
                return FoundProviders(id, key, providers, self.closer(), held, self.splits())
            case GetValue(id, key):
                return FoundValue(id, key, rng.choice([None, b"", b"v", b"w"]), 0.0, self.closer())
            case PutValue(id, key, value):
                return ValueStored(id, key, rng.choice([None, value, b""]))
            case GetRecord(id):
                return FoundRecord(id, self.record(self.number()))
            case _:
                return None

    def request(self) -> tuple[PeerId, Request]:
        key, provider = self.key(), self.provider()
        if self.rng.random() < 0.5:
            return self.rng.choice([self.peer(), provider.peer]), AddProvider(9, key, provider)
        received = self.rng.choice([0.0, -1.0, self.single.now - 5.0, 1e12])
        others = [
            FindNode(9, key),
            GetProviders(9, key),
            GetValue(9, key),
            PutValue(9, key, b"v", received),
            Ping(9),
        ]
        return self.peer(), self.rng.choice([*others, GetRecord(9, "svc")])

    def fact(self) -> PeerDown | Undeliverable | Speaks | Reachable:
        yes = self.rng.random() < 0.5
        to, ids = self.peer(), tuple[int, ...]()
        if self.waiting:
            to, request = self.rng.choice(self.waiting)
            ids = (request.id,)
        protocol = self.rng.choice(["dht", "record"])
        facts: list[PeerDown | Undeliverable | Speaks | Reachable] = [
            PeerDown(to),
            Undeliverable(to, protocol, ids, yes),
            Speaks(to, protocol, yes),
            Reachable(yes),
        ]
        return self.rng.choice(facts)

    def command(self, query: int) -> do.DhtCommand:
        rng = self.rng
        key, paths, service = rng.choice(KEYS), rng.choice([0, 0, 1, 8]), rng.choice(["svc", "other"])
        where = rng.choice([(), (("gpu", "h100"),), (("gpu", "h100"), ("n", 4))])
        many = tuple(multihash_key(b"many %d" % number) for number in range(rng.choice([0, 1, 60])))
        commands: list[Callable[[], do.DhtCommand]] = [
            lambda: do.FindService(query, service, where, rng.choice([0, 0, 1, 5, 128, 200]), paths),
            lambda: do.FindService(query, service, (), rng.choice([0, 5])),
            lambda: do.Announce(query, service, rng.choice([(), (("gpu", "h100"),)])),
            lambda: do.Withdraw(query, service),
            lambda: do.Provide(query, key),
            lambda: do.ProvideMany(query, many),
            lambda: do.StopProviding(key),
            lambda: do.FindProviders(query, rng.choice([key, *ROOTS]), rng.choice([0, 1, 20]), paths),
            lambda: do.PutValue(query, key, b"v", rng.random() < 0.5),
            lambda: do.StopPutting(key),
            lambda: do.GetValue(query, key, paths),
            lambda: do.FindPeer(query, self.peer()),
            lambda: do.FindClosest(query, key, paths),
            lambda: do.Refresh(query),
            lambda: do.Join(query, infos(self.number(), self.number())),
            lambda: do.Cancel(rng.randrange(query)),
            lambda: do.Restore(),
            lambda: do.SaveState(rng.random() < 0.5),
            lambda: do.SetAddresses(rng.choice([(), (address(0),)])),
        ]
        return rng.choice(commands)()


@pytest.mark.parametrize("seed", range(24))
def test_a_life_among_liars_goes_on(seed: int) -> None:
    life = Life(seed)
    for _ in range(250):
        life.step()
    life.single.wait(700.0)
    assert not life.single.engine._traffic._queries  # pyright: ignore[reportPrivateUsage]
