"""The same for synchronous code: a trio loop in a thread of its own.

with swarmp2p.ray_cluster(workers=3, bootstrap=["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..."]) as cluster:
    ray.init(cluster.address)
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager, nullcontext

from anyio.from_thread import BlockingPortal, start_blocking_portal
from multiaddr.multiaddr import Multiaddr

from .begun_head import begin_head
from .gossip.balancer import Placement
from .identity import Identity, PeerId
from .invite import Invite
from .network_key import NetworkKey
from .opening import DEFAULT_DHT_PROTOCOL, DEFAULT_LISTEN, open_peer
from .ray_bridge.cluster import Cluster, LeasedWorker
from .ray_bridge.cluster_events import ClusterEvent
from .ray_bridge.environment import leave
from .ray_bridge.events import Need
from .ray_bridge.grants import Grant
from .ray_bridge.package_index import index_wanted


class BlockingCluster:
    """A cluster as synchronous code sees it; made by `ray_cluster`."""

    def __init__(self, cluster: Cluster, portal: BlockingPortal) -> None:
        self._cluster, self._portal = cluster, portal

    @property
    def address(self) -> str:
        """host:port of the head's GCS: what `ray.init(address)` takes."""
        return self._cluster.address

    @property
    def workers(self) -> tuple[LeasedWorker, ...]:
        """The workers that run now."""
        return self._cluster.workers

    @property
    def events(self) -> tuple[ClusterEvent, ...]:
        """What happened to its leases so far, at most the last 1,024 events."""
        return self._cluster.past_events

    @property
    def snapshots(self) -> dict[PeerId, float]:
        """Who holds a snapshot of the cluster, and when that was made: seconds since 1970."""
        return self._cluster.snapshots

    def withdraw_snapshots(self) -> None:
        """Nobody is to go on with this cluster: when it ends, who holds a snapshot of it is asked to delete that, which
        takes up to 7 s where some do not answer; theirs, and those of whoever is not there, expire within a week."""
        self._cluster.withdraw_snapshots()

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs in its environment to use the cluster. Keep it secret: it holds the token."""
        return self._cluster.environment

    def wait_for_workers(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until `count` workers run; raises NotEnoughWorkers after `timeout_s` seconds."""
        self._portal.call(self._cluster.wait_for_workers, count, timeout_s)


@contextmanager
def ray_cluster(
    *,
    workers: int | tuple[int, int] = 1,
    bootstrap: Iterable[Multiaddr | str] | Multiaddr | str | Invite | None = (),
    need: Need | None = None,
    min_workers: int | None = None,
    timeout_s: float = 60.0,
    lenders: Iterable[PeerId | str] | None = None,
    grants: Iterable[Grant | str] | Grant | None = None,
    paths: Iterable[str] = ("direct", "overlay"),
    placement: Placement | None = None,
    idle_s: float = 60.0,
    gang: bool = False,
    cluster_state: str | os.PathLike[str] | None = None,
    snapshots: int = 0,
    restore: bool = False,
    index: Iterable[str] | str | None = None,
    index_hosts: Iterable[str] | str = (),
    identity: Identity | str | os.PathLike[str] | None = None,
    listen: Iterable[Multiaddr | str] | Multiaddr | str | None = DEFAULT_LISTEN,
    dht_protocol: str = DEFAULT_DHT_PROTOCOL,
    state: str | os.PathLike[str] | None = None,
    mdns: bool = False,
    network_key: NetworkKey | bytes | str | os.PathLike[str] | None = None,
) -> Generator[BlockingCluster, None, None]:
    """Join the swarm, start a Ray head and lease workers for it; everything is released on exit.

    While the context is open, this process's environment holds RAY_ADDRESS and the cluster's token, so that
    `ray.init()` finds and may use it; on exit `ray.shutdown()` is called if it is still connected. Arguments
    are those of `open_peer` and `Peer.borrow`, and so are the errors raised.
    """

    @asynccontextmanager
    async def run() -> AsyncGenerator[Cluster, None]:
        # what a peer with a state runs is in its journal, and how far given lenders are it may know: its own then
        ahead = state is None and cluster_state is None and lenders is None
        async with (
            begin_head(index_wanted(index, index_hosts)) if ahead else nullcontext() as begun,
            open_peer(
                identity=identity,
                listen=listen,
                bootstrap=bootstrap,
                dht_protocol=dht_protocol,
                state=state,
                mdns=mdns,
                network_key=network_key,
            ) as peer,
            peer.borrow(
                need,
                workers=workers,
                min_workers=min_workers,
                timeout_s=timeout_s,
                lenders=lenders,
                grants=grants,
                paths=paths,
                placement=placement,
                idle_s=idle_s,
                gang=gang,
                cluster_state=cluster_state,
                begun=begun,
                snapshots=snapshots,
                restore=restore,
                index=index,
                index_hosts=index_hosts,
            ) as cluster,
        ):
            yield cluster

    with (
        start_blocking_portal("trio") as portal,
        portal.wrap_async_context_manager(run()) as cluster,
    ):
        address = cluster.address
        try:
            yield BlockingCluster(cluster, portal)
        finally:
            leave(address)  # in the thread that connected
