"""Ways of a lease's traffic, as lender and cluster need them, and the plainest: none but this machine's own network.

Who makes ways that cross a network stands above this package; here is what is asked of him.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import SwarmError
from .cells import Cell
from .events import LeaseCommand, LeaseId, OpenPath, PathUp, StartWorker

LOCAL_IP: Final = "127.0.0.1"
"""The one address at which Ray listens on localhost alone."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where a lease's worker runs.

    head_address: host:port of the head's GCS, as the worker reaches it. node_ip: at which the other members reach the
    worker. ports: all that it may listen at; none for any free ones. cell: None for this machine's own network.
    """

    head_address: str
    node_ip: str
    ports: Sequence[int] = ()
    cell: Cell | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How a lease's traffic goes. kind: "direct", "wireguard" or "overlay". reason: why so, in words. node_ip: the
    worker's address, "" for what its lender says."""

    kind: str = "direct"
    reason: str = ""
    node_ip: str = ""


class Ways(Protocol):
    """Makes the ways of leases' traffic, for both roles."""

    def open(self, order: OpenPath) -> None:
        """Make a way; the lease engine is told by PathUp or PathFailed."""
        ...

    def close(self, lease: LeaseId) -> None:
        """The lease is over. Its worker may still be ending."""
        ...

    def place(self, order: StartWorker) -> WorkerPlace:
        """Lender: where the worker of a lease runs whose way stands. Raises SwarmError when there is no such place."""
        ...

    def way(self, lease: LeaseId) -> Way:
        """Borrower: how the traffic of a lease goes whose worker runs."""
        ...


class NoWay(SwarmError):
    """Two peers have no way for Ray's traffic; nothing was started."""


class DirectWays:
    """Both sides on one machine, in its own network: there is nothing to make."""

    def __init__(self, post: Callable[[LeaseCommand], None], node_ip: str = LOCAL_IP) -> None:
        """node_ip: of workers."""
        self._post, self._node_ip = post, node_ip

    def open(self, order: OpenPath) -> None:
        """See Ways. Whether it may go directly is checked when the head's address is known."""
        self._post(PathUp(order.lease))

    def close(self, lease: LeaseId) -> None:
        """See Ways."""

    def place(self, order: StartWorker) -> WorkerPlace:
        """See Ways. Raises NoWay unless both addresses are this machine's."""
        problem = direct_problem(order.secret.address, self._node_ip)
        if problem is not None:
            raise NoWay(problem)
        return WorkerPlace(order.secret.address, self._node_ip)

    def way(self, lease: LeaseId) -> Way:
        """See Ways."""
        return Way("direct", "both are on this machine")


def direct_problem(head_address: str, node_ip: str) -> str | None:
    """Why Ray's traffic may not go directly between these two addresses; None when it may.

    Ray authenticates by token but does not encrypt, so a direct path stays on one machine.
    """
    head_host = head_address.rpartition(":")[0].strip("[]")
    for host in (head_host, node_ip):
        try:
            if not ipaddress.ip_address(host).is_loopback:
                return (
                    f"{host} is not a loopback address, and Ray's traffic would cross the network unencrypted"
                )
        except ValueError:
            return f"{host} is not an IP address"
    return None
