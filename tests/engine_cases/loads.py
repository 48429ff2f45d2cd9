"""Load signals. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from random import Random
from typing import get_args

from swarmp2p.engine import PeerInfo
from swarmp2p.gossip.events import (
    Delivered,
    GossipMessage,
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
from swarmp2p.gossip.load_wire import LoadsReply, LoadsRequest
from swarmp2p.identity import PeerId
from swarmp2p.transport.sim_peers import sim_address, sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import PEERS, Maker, Special

from .gossip import message, signal

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


def loads_or_follow(maker: Maker) -> object:
    loaded = signal(maker)
    ask = AskLoads(maker.rng.randrange(9), tuple(maker.rng.choices(PEERS, k=3)), 1.0)
    return maker.rng.choice(
        (PublishLoad(loaded), SetLoad(loaded), SetLoad(None), FollowLoads(), UnfollowLoads(), ask)
    )


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
