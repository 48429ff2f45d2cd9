"""A Ray node as a supervised tree: what head and worker have in common.

A node lives in a private directory that is deleted with it, in the system's directory for temporary files,
because the path of a Unix socket in it may have 107 bytes at most and Ray's own part of it takes 64.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

from ..errors import UsageError
from . import _ray_node, supervisor
from .jail import NODE, Jail
from .jails import in_jail
from .tree import Tree, open_tree

OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Default size of a node's object store, in shared memory. Pages are taken as they are used; what does not fit
is spilled to the node's directory."""

STARTING_GRACE_S: Final = 1.0
"""Seconds for a node to end that nobody uses yet. Asked while it starts, it would take up to 3 s."""

MIN_PORTS: Final = len(_ray_node.SINGLE_PORTS) + 2
"""Ports that a node needs at least: GCS, its own processes, and one worker or driver."""

_KEPT_LOG_BYTES: Final = 2**20
MOST_KEPT_LOGS: Final = 16
"""Logs of nodes that failed, of which this process keeps the latest: a lender's fail as often as a borrower wants."""

_PRIVATE_PATH_BYTES: Final = (
    40  # 107, less "/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.1"
)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What to start.

    head_address: GCS to join, host:port; "" to be a head. port: a head's GCS port, 0 for any. node_ip: the
    address that others reach the node at. ports: all that its processes may listen at, MIN_PORTS at least; none for
    any free ones. enter: namespaces that it runs in, see Cell. jail: what it is jailed in, if so.
    memory_bytes: 0 leaves it to Ray. logs: folder of the log file, which is appended to; None for one that goes with
    the node, unless the node fails. connect_s: how long to try to reach the head. orphans: a directory of the caller's
    that the node deletes if the caller is killed. keep: descriptors that stay open as long as the node is there.
    """

    node_ip: str
    name: str
    head_address: str = ""
    port: int = 0
    ports: Sequence[int] = ()
    enter: Sequence[int] = ()
    jail: Jail | None = None
    cpus: float = 0
    gpus: float = 0
    memory_bytes: int = 0
    object_store_bytes: int = OBJECT_STORE_BYTES
    labels: Mapping[str, str] | None = None
    logs: Path | None = None
    connect_s: float = 2.0
    orphans: Path | None = None
    keep: Sequence[int] = ()

    @property
    def grace_s(self) -> float:
        """Seconds for an orderly end. A worker tells its head; a head has nobody to tell that matters.

        And must not: GCS that sees its driver and then its own node go counts the driver's job as finished twice, and
        deletes the classes of detached actors, which the next head would need (Ray 2.60).
        """
        return supervisor.GRACE_S if self.head_address else 0.0

    @property
    def kind(self) -> str:
        """ "head" or "worker"."""
        return "worker" if self.head_address else "head"


@dataclass(frozen=True, slots=True)
class NodeTree:
    """A node that is starting or running. directory: private to this user, and gone when the node is."""

    plan: NodePlan
    tree: Tree
    directory: Path

    def kept_log(self) -> str:
        """Path of the log of a node that failed, outside of what goes with the node."""
        if self.plan.logs is not None:
            return str(self.tree.log_path)
        descriptor, path = tempfile.mkstemp(prefix=f"swarmp2p-{self.plan.kind}-", suffix=".log")
        with open(descriptor, "wb") as file:
            file.write(self.tree.log_tail(_KEPT_LOG_BYTES))
        _kept.append(path)
        if len(_kept) > MOST_KEPT_LOGS:
            Path(_kept.popleft()).unlink(missing_ok=True)
        return path


class RayNode:
    """What a head and a worker are to those who use them: a tree with a log."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._tree.pid

    @property
    def mark(self) -> str:
        """Value of SWARMP2P_TREE in its processes' environment."""
        return self._tree.mark

    @property
    def log_path(self) -> Path:
        """What its processes print."""
        return self._tree.log_path

    async def died(self) -> str:
        """Until nothing is left of the node. Returns why, in one line."""
        return await self._tree.died()

    async def stop(self, grace_s: float = supervisor.GRACE_S) -> None:
        """End it: SIGTERM, of which the cluster learns at once; SIGKILL after the grace."""
        await self._tree.stop(grace_s)


@asynccontextmanager
async def open_node(plan: NodePlan, environment: Mapping[str, str]) -> AsyncGenerator[NodeTree, None]:
    """Start a Ray node's processes for the length of the context; `tree.told` says how far they are."""
    if plan.ports and len(plan.ports) < MIN_PORTS:
        raise UsageError(
            f"a Ray node needs {MIN_PORTS} ports or more, not {len(plan.ports)}. Nothing was started"
        )
    directory = private_directory()
    try:
        logs = directory if plan.logs is None else plan.logs.absolute()
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with open_program(
            [sys.executable, *arguments(plan, directory)],
            environment,
            directory=directory,
            log_path=logs / f"{plan.kind}.log",
            grace_s=plan.grace_s,
            enter=plan.enter,
            jail=plan.jail,
            orphans=plan.orphans,
            keep=plan.keep,
        ) as tree:
            yield NodeTree(plan, tree, directory)
    finally:
        rmtree(directory, ignore_errors=True)  # when the supervisor could not even be started


@asynccontextmanager
async def open_program(
    command: list[str],
    environment: Mapping[str, str],
    *,
    directory: Path,
    log_path: Path,
    grace_s: float,
    enter: Sequence[int],
    jail: Jail | None,
    orphans: Path | None = None,
    keep: Sequence[int] = (),
) -> AsyncGenerator[Tree, None]:
    """Run one of a node's programs as a tree, jailed or not. directory: goes with it, and holds tasks' temporary files
    and relative paths. orphans: see NodePlan. The others as `open_tree` has them."""
    for name in ("tmp", "work"):
        (directory / name).mkdir(mode=0o700)
    environment, bounds = {**environment, "TMPDIR": str(directory / "tmp")}, None
    with ExitStack() as stack:
        if jail is not None:
            command, environment, bounds = stack.enter_context(in_jail(jail, command, environment))
        async with open_tree(
            command,
            environment=environment,
            log_path=log_path,
            cwd=directory / "work",
            remove=(directory,),
            remove_orphaned=() if orphans is None else (orphans,),
            grace_s=grace_s,
            enter=enter,
            keep=keep,
            bounds=bounds,
        ) as tree:
            yield tree


def arguments(plan: NodePlan, directory: Path, python: str = "") -> list[str]:
    """What starts the node, after the name of Python. python: what its own Python processes are started by."""
    settings: _ray_node.Settings = {
        "head_address": plan.head_address,
        "port": plan.port,
        "node_ip": plan.node_ip,
        "ports": list(plan.ports),
        "name": plan.name,
        "directory": str(directory / "ray") if plan.jail is None else NODE,
        "cpus": math.ceil(plan.cpus),  # Ray gives a node whole ones only; at least what was asked for
        "gpus": math.ceil(plan.gpus),
        "memory_bytes": plan.memory_bytes,
        "object_store_bytes": plan.object_store_bytes,
        "labels": dict(plan.labels or {}),
        "connect_s": plan.connect_s,
        "python": python,
    }
    # -P: modules beside the program (worker, messages) must not hide others' of the same name
    return ["-P", _ray_node.__file__, json.dumps(settings)]


def private_directory() -> Path:
    """A new directory, for this user only, with a path short enough for Ray's sockets."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/swarm-12345678") > _PRIVATE_PATH_BYTES:
        base = "/tmp"
    return Path(tempfile.mkdtemp(prefix="swarm-", dir=base))


_kept: Final = deque[str]()
