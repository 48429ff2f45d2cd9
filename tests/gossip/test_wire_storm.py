"""Bytes from hostile peers, through the decoders into a whole router and load board: nothing raises, nothing grows."""

from __future__ import annotations

from random import Random

import msgpack
import pytest

from swarmp2p.engine import Congested, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.errors import BadMessage
from swarmp2p.gossip import rpc_pb2 as pb
from swarmp2p.gossip.codec import Codec
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Acceptance, Delivered, StartValidating, Subscribe, Validate, Validated
from swarmp2p.gossip.load import LoadBoard
from swarmp2p.gossip.load_wire import decode_reply, decode_request
from swarmp2p.gossip.messages import MAX_RPC_BYTES
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.score_config import TopicScoreConfig
from swarmp2p.gossip.wire import StrictSign
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.peer_record import seal_record

LOADS = ("swarm/load/1", "swarm/load/1/0", "swarm/load/2")
TOPICS = ("t", "anonymous", "late", "", "x" * 1024, *LOADS)
EDGES = (0, 1, -1, 2**32, 2**63, 2**64 - 1, 1e308, float("inf"), float("nan"), 0.5, True, None, "x", b"y")
CONFIG = GossipConfig(
    peer_exchange=True,
    max_peers=6,
    max_queued=5,
    max_cached=20,
    max_seen=30,
    max_unwanted=10,
    max_validating=6,
    max_rejected=4,
    max_sources=4,
    max_candidates=5,
    topics={
        "t": TopicConfig(score=TopicScoreConfig(delivery_weight=-1.0, failure_weight=-1.0)),
        "anonymous": TopicConfig(anonymous=True),
    },
)
BOUNDS = {"peers": 6, "queued": 5, "cached": 20, "seen": 30, "unwanted": 10, "validating": 6, "candidates": 5}


class Attackers:
    """Six peers that know the protocol, and make what they send."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 1.7e9
        self.keys = [Identity(self.rng.randbytes(32)) for _ in range(9)]
        self._sent: list[bytes] = []

    def peer(self) -> PeerId:
        return self.rng.choice(self.keys).peer_id

    def signal(self) -> bytes:
        rng = self.rng
        fields: dict[str, object] = dict(zip("cmgfltkr", (1, 1, 0, 0, 0, 0, "#1", ""), strict=True))
        fields |= {
            "s": int(self.now * 1000) + rng.randrange(-5, 5),
            "e": int(self.now) + 50,
            "b": rng.randrange(18),
        }
        fields |= {"v": rng.randbytes(22), "h": 5}
        while rng.random() < 0.4:
            fields[rng.choice("bcdefghklmprstvz")] = rng.choice(EDGES)
        try:
            return bytes(msgpack.packb(fields) or b"")
        except (OverflowError, ValueError):
            return rng.randbytes(20)

    def message(self) -> bytes:
        rng = self.rng
        if self._sent and rng.random() < 0.4:
            return self.spoilt(rng.choice(self._sent)) if rng.random() < 0.5 else rng.choice(self._sent)
        topic, key = rng.choice(TOPICS), rng.choice(self.keys)
        data = self.signal() if topic in LOADS else rng.randbytes(rng.choice([0, 1, 100, 2000]))
        if topic == "anonymous":
            return pb.Message(data=data, topic=topic).SerializeToString()
        number = rng.choice([0, 1, 2**63, 2**64 - 1, int(self.now * 1e9)]).to_bytes(8, "big")
        seqno = number if rng.random() < 0.9 else rng.randbytes(rng.randrange(12))
        raw = StrictSign().make(key.peer_id, topic, data, seqno, key.sign).raw
        if len(self._sent) < 300:
            self._sent.append(raw)
        return raw

    def spoilt(self, raw: bytes) -> bytes:
        body = bytearray(raw)
        for _ in range(self.rng.randrange(1, 4) if body else 0):
            body[self.rng.randrange(len(body))] = self.rng.randrange(256)
        return bytes(body)

    def ids(self) -> list[bytes]:
        rng = self.rng
        return [
            rng.randbytes(rng.choice([0, 1, 44, 46, 200]))
            if rng.random() < 0.3
            else self.peer() + rng.choice([0, 1, 2**63, 2**64 - 1]).to_bytes(8, "big")
            for _ in range(rng.randrange(20))
        ]

    def record(self) -> bytes:
        key, rng = self.rng.choice(self.keys), self.rng
        addresses = [rng.randbytes(rng.randrange(30)) for _ in range(rng.randrange(5))]
        sealed = seal_record(key.peer_id, addresses, rng.getrandbits(64), key.sign)
        return sealed if rng.random() < 0.7 else self.spoilt(sealed)

    def rpc(self) -> bytes:
        rng, rpc = self.rng, pb.RPC()

        def some() -> range:
            return range(rng.choice([0, 0, 1, 3]))

        rpc.publish.extend(self.message() for _ in some())
        for _ in some():
            rpc.subscriptions.add(subscribe=rng.random() < 0.7, topicid=rng.choice(TOPICS))
            rpc.control.ihave.add(topic_id=rng.choice(TOPICS), message_ids=self.ids())
        for _ in some():
            rpc.control.iwant.add(message_ids=self.ids())
            rpc.control.idontwant.add(message_ids=self.ids())
            rpc.control.graft.add(topic_id=rng.choice(TOPICS))
        for _ in some():
            backoff = rng.choice([0, 1, 60, 2**63, 2**64 - 1])
            peers = [pb.PeerInfo(peer_id=self.peer(), signed_peer_record=self.record()) for _ in some()]
            rpc.control.prune.add(topic_id=rng.choice(TOPICS), backoff=backoff, peers=peers)
        body = rpc.SerializeToString()
        return body if rng.random() < 0.85 else self.spoilt(body)

    def question(self) -> bytes:
        rng = self.rng
        return bytes(
            msgpack.packb({"max": rng.choice((0, 5, "x", -1)), "shard": rng.choice(("", "01", "2", 3))})
            or b""
        )

    def snapshot(self) -> bytes:
        return bytes(msgpack.packb([self.message() for _ in range(self.rng.randrange(5))]) or b"")


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_bytes(seed: int) -> None:
    them, codec = Attackers(seed), Codec()
    rng, me = them.rng, Identity(bytes(32))
    board = LoadBoard(me.peer_id, me.sign, verify, Random(seed))
    node = GossipRouter(me.peer_id, me.sign, verify, Random(seed), CONFIG)
    for topic in ("t", "anonymous", "late", *LOADS):
        node.handle(Subscribe(topic), them.now)
    node.handle(StartValidating("late", 3.0), them.now)
    asked: list[bytes] = []
    for _ in range(1500):
        them.now += rng.choice([0, 0, 0, 0, 0, 0.01, 1, 5, 70])
        peer, now = them.peer(), them.now
        try:
            match rng.randrange(12):
                case 0:
                    node.handle(PeerUp(peer, (), rng.random() < 0.5, rng.randbytes(9), them.record()), now)
                    board.handle(PeerUp(peer), now)
                case 1 if rng.random() < 0.5:
                    node.handle(PeerDown(peer), now)
                    board.handle(PeerDown(peer), now)
                case 2:
                    node.handle(Congested(peer, "pubsub", rng.random() < 0.3), now)
                case 3 if asked:
                    node.handle(Validated(asked.pop(), rng.choice(list(Acceptance))), now)
                case 4:
                    request = decode_request(peer, them.question(), 1)
                    board.handle(Received(peer, request), now)
                case 5:
                    board.handle(Received(peer, decode_reply(peer, them.snapshot(), rng.randrange(20))), now)
                    board.handle(Tick(), now)
                case _:
                    rpc = codec.decode(peer, them.rpc())
                    for message in rpc.publish:
                        board.judge(message, now)
                    for output in node.handle(Received(peer, rpc), now):
                        if isinstance(output, Send):
                            assert len(codec.encode(output.message)) <= MAX_RPC_BYTES
                        elif isinstance(output, Validate):
                            asked.append(output.message.id)
                        elif isinstance(output, Delivered):
                            board.handle(output, now)
        except BadMessage:
            continue
        sizes = node.sizes()
        assert all(sizes[name] <= bound for name, bound in BOUNDS.items()), sizes
    assert node.stats.delivered > 20, "some of it was good"
