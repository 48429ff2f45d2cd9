"""A borrower's Ray head: GCS and a node for the driver, on this machine.

GCS chooses its port itself when it binds it. Two servers can share a port without either noticing (gRPC sets
SO_REUSEPORT), so choosing one beforehand could mix two clusters; and as every head makes a token of its own,
a node that meets the wrong head is refused.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ..errors import HeadFailed, UsageError
from .environment import driver_environment, head_environment
from .events import JoinSecret
from .node_tree import OBJECT_STORE_BYTES, NodePlan, NodeTree, RayNode, open_node
from .tree import TreeEnded
from .versions import installed_versions

LOOPBACK_IP: Final = "127.0.0.1"
"""A head's default address. There GCS, the head's node and its drivers listen on localhost alone, so that nobody
outside of this machine reaches any of their ports; at every other address, of loopback too, Ray listens at all."""

_FOR_DRIVERS: Final = "[::ffff:127.0.0.1]"
"""LOOPBACK_IP as an IPv6 address (RFC 4291, 2.5.5.2), for drivers: `ray.init` replaces "127.0.0.1" by the host's
outward address, where such a head does not listen, and leaves this one as it is."""

_TOKEN_BYTES: Final = 32


class RayHead(RayNode):
    """A head that is starting or running; made by `start_head`."""

    def __init__(self, node: NodeTree, token: str) -> None:
        super().__init__(node.tree)
        self._node, self._token = node, token
        self._gcs = ""
        self.token_path = node.directory / "token"
        """A file of mode 0600 that holds the token, for RAY_AUTH_TOKEN_PATH."""

    def __repr__(self) -> str:
        return f"RayHead(address={self._gcs!r}, pid={self.pid})"

    @property
    def token(self) -> str:
        """64 hex digits: full power over this cluster."""
        return self._token

    @property
    def address(self) -> str:
        """host:port of GCS as drivers on this machine need it. Raises UsageError before `gcs_ready`."""
        host, _, port = self.secret.address.rpartition(":")
        return f"{_FOR_DRIVERS if host == LOOPBACK_IP else host}:{port}"

    @property
    def secret(self) -> JoinSecret:
        """What a worker needs to join. Raises UsageError before `gcs_ready`."""
        if not self._gcs:
            raise UsageError("the Ray head chooses its port when it starts: await gcs_ready() first")
        return JoinSecret(self._gcs, self._token)

    def driver_environment(self) -> dict[str, str]:
        """What a driver needs in its environment; see environment.py. Keep it secret."""
        return driver_environment(JoinSecret(self.address, self._token))

    async def gcs_ready(self) -> None:
        """Until GCS answers: workers may be started. Raises HeadFailed."""
        self._gcs = str(await self._told("gcs"))

    async def ready(self) -> None:
        """Until the head's own node is up as well: `ray.init(address)` works. Raises HeadFailed."""
        await self.gcs_ready()
        await self._told("joined")

    async def _told(self, subject: str) -> object:
        try:
            return await self._tree.told(subject)
        except TreeEnded as ended:
            raise HeadFailed(ended.reason, self._node.kept_log()) from None


@asynccontextmanager
async def start_head(
    *,
    node_ip: str = LOOPBACK_IP,
    port: int = 0,
    ports: Sequence[int] = (),
    cpus: float = 0,
    directory: Path | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES,
) -> AsyncGenerator[RayHead, None]:
    """Run a Ray head for the length of the context, which is entered at once: await `gcs_ready` or `ready`.

    node_ip: the address that its Ray ports are reached at, see LOOPBACK_IP. port: of GCS, 0 for any free one.
    ports: all that it, its node and its drivers may listen at, the first one GCS; none for any free ones. cpus: what
    tasks may use of this machine; with 0 they run on workers only. directory: where head.log is kept; None to keep it
    only when the head fails to start. Raises RayMissing and UsageError.
    """
    installed_versions()
    for each in ports or ((port,) if port else ()):
        _refuse_used_port(each)
    token = secrets.token_hex(_TOKEN_BYTES)
    plan = NodePlan(
        node_ip=usable_ip(node_ip),
        name="head",
        port=port,
        ports=ports,
        cpus=cpus,
        object_store_bytes=object_store_bytes,
        logs=directory,
    )
    async with open_node(plan, head_environment(token)) as node:
        head = RayHead(node, token)
        _write_private(head.token_path, token)
        yield head


def usable_ip(node_ip: str) -> str:
    """The address itself, or LOOPBACK_IP for "localhost"."""
    return LOOPBACK_IP if node_ip == "localhost" else node_ip


def _refuse_used_port(port: int) -> None:
    """Raise UsageError when somebody listens on the port, at whatever address: Ray listens on all of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"port {port} cannot be the Ray head's: {error}; choose another, or 0 for any free one. "
                "Nothing was started"
            ) from None


def _write_private(path: Path, text: str) -> None:
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
