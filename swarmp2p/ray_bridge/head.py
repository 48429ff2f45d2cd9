"""A borrower's Ray head: GCS and a node for the driver, on this machine, started again when it is killed.

GCS chooses its port itself when it binds it. Two servers can share a port without either noticing (gRPC sets
SO_REUSEPORT), so choosing one beforehand could mix two clusters; and as every head makes a token of its own,
a node that meets the wrong head is refused.

What dies, and what goes on (head_state.py says what is kept for it):

    GCS alone           _ray_node.py starts it again at its port: drivers, tasks and actors go on
    anything else       all of the head's processes end and are started again: workers and their actors go on; drivers
                        have lost their node, and go on after `ray.shutdown()` and `ray.init()`
    it again and again  `died`: the cluster cannot be used any more
    its borrower        all of its processes end; with a directory of its own, another head can go on from there

So that starting it again takes no longer than it must, a zygote (zygote.py) waits for that beside a head that runs.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from ..errors import HeadFailed, UsageError
from ..scopes import TaskStatus, background_nursery, start
from . import supervisor
from ._ray_node import INDEX_LABEL
from .environment import driver_environment, head_environment
from .events import JoinSecret
from .head_state import HeadState, open_head_state
from .node_tree import OBJECT_STORE_BYTES, NodePlan, NodeTree, open_node
from .tree import TreeEnded
from .versions import installed_versions
from .warm import NotWarm, WarmNode, open_warm

LOOPBACK_IP: Final = "127.0.0.1"
"""A head's default address. There GCS, the head's node and its drivers listen on localhost alone, so that nobody
outside of this machine reaches any of their ports; at every other address, of loopback too, Ray listens at all."""

_FOR_DRIVERS: Final = "[::ffff:127.0.0.1]"
"""LOOPBACK_IP as an IPv6 address (RFC 4291, 2.5.5.2), for drivers: `ray.init` replaces "127.0.0.1" by the host's
outward address, where such a head does not listen, and leaves this one as it is."""

_STANDBY_S: Final = 5.0
"""From a head that is up to its zygote, whose second of CPU time others need more before that."""

_SHORT_S: Final = 10.0
_MOST_SHORT: Final = 3
"""So many times in a row may it end within `_SHORT_S` of being started again."""


@dataclass(frozen=True, slots=True)
class HeadRestart:
    """A head, or a part of it, was started again. number: how many times that was so far. reason: what had happened.
    drivers: whether they go on; if not, each calls `ray.shutdown()` and `ray.init()`."""

    number: int
    reason: str
    drivers: bool


class RayHead:
    """A head that is starting or running; made by `start_head`."""

    def __init__(self, state: HeadState, rtt_s: Callable[[], float], *, resumes: bool = False) -> None:
        self._state, self._rtt_s, self._resumes = state, rtt_s, resumes
        self._gcs = ""
        self._node: NodeTree | None = None
        self._joined = False
        self._stopping = False
        self._restart = HeadRestart(0, "", drivers=True)
        self._failed: HeadFailed | None = None
        self._changed = trio.Event()
        self._warm: WarmNode | None = None

    def __repr__(self) -> str:
        return f"RayHead(address={self._gcs!r}, pid={self.pid})"

    @property
    def token(self) -> str:
        """64 hex digits: full power over this cluster."""
        return self._state.token

    @property
    def token_path(self) -> Path:
        """A file of mode 0600 that holds the token, for RAY_AUTH_TOKEN_PATH."""
        return self._state.token_path

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
        return JoinSecret(self._gcs, self.token)

    @property
    def pid(self) -> int:
        """The supervisor's process id; another one after each restart."""
        return self._now.tree.pid

    @property
    def mark(self) -> str:
        """Value of SWARMP2P_TREE in its processes' environment."""
        return self._now.tree.mark

    @property
    def directory(self) -> Path:
        """Ray's own directory and others of its processes; another one after each restart."""
        return self._now.directory

    @property
    def log_path(self) -> Path:
        """What its processes print."""
        return self._now.tree.log_path

    @property
    def prepared(self) -> bool:
        """Whether a zygote waits, with which starting it again takes a second less."""
        return self._warm is not None

    def driver_environment(self) -> dict[str, str]:
        """What a driver needs in its environment; see environment.py. Keep it secret."""
        return driver_environment(JoinSecret(self.address, self.token))

    async def gcs_ready(self) -> None:
        """Until GCS has answered: workers may be started. Raises HeadFailed."""
        await self._until(lambda: bool(self._gcs))

    async def ready(self) -> None:
        """Until the head's own node is up as well: `ray.init(address)` works. Raises HeadFailed."""
        await self._until(lambda: self._joined)

    async def restarted(self, after: int = 0) -> HeadRestart:
        """Until it has been started again more than `after` times, and works. Raises HeadFailed when it is over."""
        await self._until(lambda: self._joined and self._restart.number > after)
        return self._restart

    async def died(self) -> str:
        """Until it is over, and nothing is left of it. Returns why, in one line."""
        try:
            await self._until(lambda: False)
        except HeadFailed as failed:
            return failed.problem
        raise AssertionError("nothing else ends the wait")

    async def stop(self, grace_s: float = supervisor.GRACE_S) -> None:
        """End it: SIGTERM, of which the cluster learns at once; SIGKILL after the grace."""
        self._stopping = True
        await self._now.tree.stop(grace_s)

    async def run(self, plan: NodePlan, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """`start_head`'s: start it, and start it again, until that is of no use. Raises UsageError."""
        short = 0
        while True:
            began = trio.current_time()
            async with self._node_of(plan, self._environment()) as node:
                self._node = node
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                reason = await self._follow(node)
                self._joined = False
                short = short + 1 if trio.current_time() < began + _SHORT_S else 0
                if self._stopping or not self._gcs or short > _MOST_SHORT:
                    self._failed = HeadFailed(reason, node.kept_log())
                    self._news()
                    return
            self._restart = HeadRestart(self._restart.number + 1, reason, drivers=False)
            plan = replace(plan, port=self._port)

    async def standby(self, plan: NodePlan, over: Callable[[], None]) -> None:
        """`start_head`'s: have a zygote for the next start of the head. over: called when there has to be another."""
        with suppress(HeadFailed, NotWarm):  # without one it takes a second more
            await self._until(lambda: self._joined)
            await trio.sleep(_STANDBY_S)
            async with open_warm(
                self._environment(), orphans=plan.orphans, keep=plan.keep, grace_s=plan.grace_s
            ) as warm:
                self._warm = warm
                try:
                    await self._until(lambda: self._warm is not warm)
                    over()
                    await warm.tree.wait()
                finally:
                    self._warm = None if self._warm is warm else self._warm

    @asynccontextmanager
    async def _node_of(
        self, plan: NodePlan, environment: Mapping[str, str]
    ) -> AsyncGenerator[NodeTree, None]:
        """The node's processes, by the zygote if there is one."""
        warm, self._warm = self._warm, None
        self._news()
        node: NodeTree | None = None
        if warm is not None:
            with suppress(NotWarm):  # it has ended
                node = await warm.start(plan, environment)
        if node is not None:
            yield node  # which `standby` ends
            return
        async with open_node(plan, environment) as node:
            yield node

    def _environment(self) -> dict[str, str]:
        return head_environment(
            self.token_path, self._state.storage, self._rtt_s(), self._resumes and not self._gcs
        )

    @property
    def _port(self) -> int:
        return int(self._gcs.rpartition(":")[2])

    async def _follow(self, node: NodeTree) -> str:
        """Take in what the head's processes say, until they have ended. Returns why."""
        try:
            self._gcs = str(await node.tree.told("gcs"))
            self._state.remember_port(self._port)
            self._news()
            await node.tree.told("joined")
            self._joined = True
            self._news()
            revived = 0
            while True:
                revived += 1
                reason = str(await node.tree.told(f"gcs again {revived}"))
                self._restart = HeadRestart(self._restart.number + 1, reason, drivers=True)
                self._news()
        except TreeEnded as ended:
            return ended.reason

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self._failed is not None:
                raise HeadFailed(self._failed.problem, self._failed.log)
            await self._changed.wait()

    def _news(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @property
    def _now(self) -> NodeTree:
        assert self._node is not None, "start_head yields a head whose processes have been started"
        return self._node


@asynccontextmanager
async def start_head(
    *,
    node_ip: str = LOOPBACK_IP,
    port: int = 0,
    ports: Sequence[int] = (),
    cpus: float = 0,
    directory: Path | None = None,
    state: Path | HeadState | None = None,
    resumes: bool = False,
    rtt_s: Callable[[], float] = lambda: 0.0,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    index_port: int = 0,
) -> AsyncGenerator[RayHead, None]:
    """Run a Ray head for the length of the context, which is entered at once: await `gcs_ready` or `ready`.

    node_ip: the address that its Ray ports are reached at, see LOOPBACK_IP. port: of GCS, 0 for any free one.
    ports: all that it, its node and its drivers may listen at, the first one GCS; none for any free ones. cpus: what
    tasks may use of this machine; with 0 they run on workers only. directory: where head.log is kept; None to keep it
    only when the head fails to start. state: directory of a cluster that is to outlive this process, see
    head_state.py; when there is one in it already, the head goes on with that, at its port if that is free. resumes:
    whether workers of the head before may come back; they are given a while to. rtt_s:
    the longest round trip to a worker, in seconds, as known when the head is started, or started again; by it the head
    tells the dead from the distant. index_port: where workers ask for the package index (index_door.py), 0 for
    nowhere. Raises RayMissing and UsageError.
    """
    installed_versions()
    opened = nullcontext(state) if isinstance(state, HeadState) else open_head_state(state)
    async with opened as kept, background_nursery() as nursery:
        for each in ports or ((port,) if port else ()):
            problem = _used(each)
            if problem is not None:
                raise UsageError(
                    f"port {each} cannot be the Ray head's: {problem}; choose another, or 0 for any free one. "
                    "Nothing was started"
                )
        if not port and kept.port and _used(kept.port) is None:
            port = kept.port
        plan = NodePlan(
            node_ip=usable_ip(node_ip),
            name="head",
            port=port,
            ports=ports,
            cpus=cpus,
            object_store_bytes=object_store_bytes,
            labels={INDEX_LABEL: str(index_port)} if index_port else None,
            logs=directory,
            orphans=None if kept.kept else kept.directory,
            keep=(kept.lock,),
        )
        head = RayHead(kept, rtt_s, resumes=resumes)
        await start(nursery, head.run, plan)

        def standby() -> None:
            nursery.start_soon(head.standby, plan, standby)

        standby()
        yield head


def usable_ip(node_ip: str) -> str:
    """The address itself, or LOOPBACK_IP for "localhost"."""
    return LOOPBACK_IP if node_ip == "localhost" else node_ip


def _used(port: int) -> OSError | OverflowError | None:
    """Why nobody can listen on the port: somebody does, at whatever address, for Ray listens on all of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # what is left of earlier connections is no matter
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            return error
    return None
