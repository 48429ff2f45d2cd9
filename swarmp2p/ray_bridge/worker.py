"""A Ray worker node on this machine, for the length of a lease.

Started under a supervisor, joined by token, and gone without a trace when the lease is over or this process
has died. Its tasks see neither the lender's environment nor its working directory. In a cell they reach the members
of their cluster and nothing else by network; in a jail they see no file, process or device of the lender's (jail.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from ..errors import NoCell, WorkerNotStarted
from .cells import Cell
from .demand import LEASE_LABEL
from .demand import PEER_LABEL as PEER_LABEL
from .environment import lender_environment
from .events import JoinSecret, Need
from .jail import Jail
from .node_tree import OBJECT_STORE_BYTES, STARTING_GRACE_S, NodePlan, NodeTree, RayNode, open_node
from .tree import Tree, TreeEnded
from .versions import check_installed
from .warm import NotWarm, WarmNode

JOIN_S: Final = 60.0
"""Seconds that a worker may take to join. It needs 1 s, and 10 s where Ray's modules are not compiled yet."""


class RayWorker(RayNode):
    """A worker node that has joined; made by `start_worker`.

    pid: of its supervisor. node_id: Ray's, as hex. log_path: what its processes print.
    """

    def __init__(self, tree: Tree, node_id: str) -> None:
        super().__init__(tree)
        self.node_id = node_id


@asynccontextmanager
async def start_worker(
    secret: JoinSecret,
    *,
    need: Need,
    node_ip: str,
    ports: Sequence[int] = (),
    cell: Cell | None = None,
    jail: Jail | None = None,
    warm: WarmNode | None = None,
    labels: Mapping[str, str] | None = None,
    directory: Path | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    timeout_s: float = JOIN_S,
) -> AsyncGenerator[RayWorker, None]:
    """Run a Ray worker node for the length of the context, which is entered once the head lists it as alive.

    need: what it offers to Ray, CPUs and GPUs rounded up. node_ip: the address that its Ray ports are reached at; at
    127.0.0.1 they listen there alone, at any other they listen at all addresses. ports: all that it may listen at; none
    for any free ones. cell: where it runs; None for this machine's own network. jail: what it is jailed in, which takes
    a cell. warm: what starts it, made in that very cell and jail, and ends with it; None to start it cold. labels: Ray
    node labels, see PEER_LABEL. directory: where worker.log is kept; None to keep it only when the worker does not
    join. Raises RayMissing, NoCell and WorkerNotStarted.
    """
    check_installed()
    if cell is not None and not cell.namespaces:
        raise NoCell("its cell has been closed")
    plan = NodePlan(
        node_ip=node_ip,
        name=(labels or {}).get(PEER_LABEL, node_ip),
        head_address=secret.address,
        ports=ports,
        enter=() if cell is None else cell.namespaces,
        jail=jail,
        cpus=need.cpus,
        gpus=need.gpus,
        memory_bytes=need.memory_bytes,
        object_store_bytes=object_store_bytes,
        labels=labels,
        logs=directory,
    )
    environment = lender_environment(secret.token)
    if labels and LEASE_LABEL in labels:
        environment["RAY_CLOUD_INSTANCE_ID"] = labels[LEASE_LABEL]  # by which Ray's autoscaler knows it
    async with _node(plan, environment, warm) as node:
        tree = node.tree
        problem = f"it did not join within {timeout_s:g} s"
        node_id: object = None
        try:
            with trio.move_on_after(timeout_s):
                node_id = await tree.told("joined")
        except TreeEnded as ended:
            problem = ended.reason
        finally:
            if node_id is None:
                await tree.stop(STARTING_GRACE_S)
        if node_id is None:
            raise WorkerNotStarted(problem, node.kept_log())
        yield RayWorker(tree, str(node_id))


@asynccontextmanager
async def _node(
    plan: NodePlan, environment: Mapping[str, str], warm: WarmNode | None
) -> AsyncGenerator[NodeTree, None]:
    """The node's processes, by a zygote if there is one."""
    if warm is not None:
        try:
            node = await warm.start(plan, environment)
        except NotWarm:
            pass  # it has ended
        else:
            try:
                yield node
            finally:
                await node.tree.stop()
            return
    async with open_node(plan, environment) as node:
        yield node
