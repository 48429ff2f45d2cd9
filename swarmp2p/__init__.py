"""One compute swarm out of machines that belong to different people.

This is the whole public API; everything else may change. Errors derive from `SwarmError`, and all of them
stand in `swarmp2p.errors`.

A name is imported when it is first used, so that `import swarmp2p` costs next to nothing; and even then
neither Ray nor py-libp2p is imported before a cluster or a peer is opened.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blocking import BlockingCluster, ray_cluster
    from .dht.config import DhtConfig
    from .dht.records import ServiceRecord
    from .engine import PeerInfo
    from .errors import SwarmError
    from .gossip.balancer import Affinity, Choice, Placement, Spread, Strength, choose
    from .gossip.config import GossipConfig, TopicConfig
    from .gossip.events import Acceptance, GossipMessage
    from .gossip.load import LoadConfig, LoadEntry, LoadSignal, LoadTable
    from .gossip.score_config import ScoreConfig, TopicScoreConfig
    from .identity import Identity, PeerId
    from .invite import Invite
    from .lending import Lending
    from .network_key import NetworkKey
    from .node import NodeConfig
    from .opening import open_peer
    from .peer import Peer
    from .queries import RemotePeer
    from .ray_bridge.cluster import Cluster
    from .ray_bridge.events import Need, Offer
    from .ray_bridge.grants import Grant
    from .ray_bridge.signed_lease import SignedLease
    from .subscription import Subscription
    from .transport.addresses import peer_info
else:
    _HOMES = {
        "Acceptance": ".gossip.events",
        "Affinity": ".gossip.balancer",
        "BlockingCluster": ".blocking",
        "Choice": ".gossip.balancer",
        "Cluster": ".ray_bridge.cluster",
        "DhtConfig": ".dht.config",
        "GossipConfig": ".gossip.config",
        "GossipMessage": ".gossip.events",
        "Grant": ".ray_bridge.grants",
        "Identity": ".identity",
        "Invite": ".invite",
        "Lending": ".lending",
        "LoadConfig": ".gossip.load",
        "LoadEntry": ".gossip.load",
        "LoadSignal": ".gossip.load",
        "LoadTable": ".gossip.load",
        "Need": ".ray_bridge.events",
        "NetworkKey": ".network_key",
        "NodeConfig": ".node",
        "Offer": ".ray_bridge.events",
        "Peer": ".peer",
        "PeerId": ".identity",
        "PeerInfo": ".engine",
        "Placement": ".gossip.balancer",
        "RemotePeer": ".queries",
        "ScoreConfig": ".gossip.score_config",
        "ServiceRecord": ".dht.records",
        "SignedLease": ".ray_bridge.signed_lease",
        "Spread": ".gossip.balancer",
        "Strength": ".gossip.balancer",
        "Subscription": ".subscription",
        "SwarmError": ".errors",
        "TopicConfig": ".gossip.config",
        "TopicScoreConfig": ".gossip.score_config",
        "choose": ".gossip.balancer",
        "open_peer": ".opening",
        "peer_info": ".transport.addresses",
        "ray_cluster": ".blocking",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(_HOMES[name], __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})


__all__ = [
    "Acceptance",
    "Affinity",
    "BlockingCluster",
    "Choice",
    "Cluster",
    "DhtConfig",
    "GossipConfig",
    "GossipMessage",
    "Grant",
    "Identity",
    "Invite",
    "Lending",
    "LoadConfig",
    "LoadEntry",
    "LoadSignal",
    "LoadTable",
    "Need",
    "NetworkKey",
    "NodeConfig",
    "Offer",
    "Peer",
    "PeerId",
    "PeerInfo",
    "Placement",
    "RemotePeer",
    "ScoreConfig",
    "ServiceRecord",
    "SignedLease",
    "Spread",
    "Strength",
    "Subscription",
    "SwarmError",
    "TopicConfig",
    "TopicScoreConfig",
    "choose",
    "open_peer",
    "peer_info",
    "ray_cluster",
]
