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
    from .errors import SwarmError
    from .gossip.config import GossipConfig, TopicConfig
    from .gossip.events import Acceptance, GossipMessage
    from .gossip.load import LoadSignal
    from .identity import Identity, PeerId
    from .lending import Lending
    from .node import NodeConfig
    from .opening import open_peer
    from .peer import Peer
    from .queries import RemotePeer
    from .ray_bridge.cluster import Cluster
    from .ray_bridge.events import Need, Offer
    from .subscription import Subscription
else:
    _HOMES = {
        "Acceptance": ".gossip.events",
        "BlockingCluster": ".blocking",
        "Cluster": ".ray_bridge.cluster",
        "DhtConfig": ".dht.config",
        "GossipConfig": ".gossip.config",
        "GossipMessage": ".gossip.events",
        "Identity": ".identity",
        "Lending": ".lending",
        "LoadSignal": ".gossip.load",
        "Need": ".ray_bridge.events",
        "NodeConfig": ".node",
        "Offer": ".ray_bridge.events",
        "Peer": ".peer",
        "PeerId": ".identity",
        "RemotePeer": ".queries",
        "ServiceRecord": ".dht.records",
        "Subscription": ".subscription",
        "SwarmError": ".errors",
        "TopicConfig": ".gossip.config",
        "open_peer": ".opening",
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
    "BlockingCluster",
    "Cluster",
    "DhtConfig",
    "GossipConfig",
    "GossipMessage",
    "Identity",
    "Lending",
    "LoadSignal",
    "Need",
    "NodeConfig",
    "Offer",
    "Peer",
    "PeerId",
    "RemotePeer",
    "ServiceRecord",
    "Subscription",
    "SwarmError",
    "TopicConfig",
    "open_peer",
    "ray_cluster",
]
