"""Nodes that are ready to start: a zygote under its supervisor, ahead of any lease. `zygote.py` says what that is.

async with open_warm(environment) as warm:
    ... there is a lease ...
    node = await warm.start(plan, environment with the token)
"""

from __future__ import annotations

import array
import marshal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from shutil import rmtree
from typing import Final

import trio

from ..errors import SwarmError
from . import supervisor, zygote
from .jail import SCRATCH, WORK, Jail, jail_environment
from .node_tree import NodePlan, NodeTree, arguments, open_program, private_directory
from .tree import TREE_VARIABLE, Tree, TreeEnded

WARM_S: Final = 60.0
"""Seconds that a zygote may take. It needs 1 s, and 10 s where Ray's modules are not compiled yet."""


class NotWarm(SwarmError):
    """There is no zygote, and nothing was left; a node can be started without. reason: why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no zygote could be made ready for Ray's nodes: {reason}")
        self.reason = reason


class WarmNode:
    """A zygote that waits; made by `open_warm`. It starts one node.

    tree: its processes. jail: where they are. directory: outside of it. zygote_directory: the zygote's, inside of it.
    """

    def __init__(
        self, tree: Tree, directory: Path, zygote_directory: str, orders: socket.socket, jail: Jail | None
    ) -> None:
        self.tree, self.directory, self.zygote_directory = tree, directory, zygote_directory
        self._orders, self.jail = orders, jail

    async def died(self) -> str:
        """Until nothing is left of it. Returns why, in one line."""
        return await self.tree.died()

    async def start(self, plan: NodePlan, environment: Mapping[str, str]) -> NodeTree:
        """Have the node started; `tree.told` says how far it is. Its end is the tree's. Raises NotWarm."""
        directory, descriptors, rights = self.directory, list[int](), array.array("i")
        work = str(directory / "work")
        environment = {**environment, "TMPDIR": str(directory / "tmp")}
        if self.jail is not None:
            environment, work = jail_environment(self.jail.system, environment), WORK
        if plan.logs is not None:
            plan.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = await self.tree.move_log(plan.logs.absolute() / f"{plan.kind}.log")
            if log is not None:
                descriptors.append(2)
                rights.append(log)
        request = marshal.dumps(
            (
                arguments(plan, directory, python=f"{self.zygote_directory}/{zygote.EXECUTABLE}"),
                work,
                {**environment, **_SETTINGS, TREE_VARIABLE: self.tree.mark},
                descriptors,
            )
        )
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._orders.sendmsg([request], ancillary)
        except OSError as problem:
            raise NotWarm(str(problem)) from None
        self._orders.close()
        return NodeTree(plan, self.tree, directory)


@asynccontextmanager
async def open_warm(
    environment: Mapping[str, str],
    *,
    enter: Sequence[int] = (),
    jail: Jail | None = None,
    orphans: Path | None = None,
    keep: Sequence[int] = (),
    grace_s: float = supervisor.GRACE_S,
) -> AsyncGenerator[WarmNode, None]:
    """Have a zygote for the length of the context, which is entered once it has imported Ray.

    environment: what the node will have, without its token. enter: namespaces to run in, see Cell. jail: what to be
    jailed in. orphans, keep, grace_s: see NodePlan. Raises NotWarm.
    """
    directory = private_directory()
    inside = str(directory / "zygote") if jail is None else f"{SCRATCH}/zygote"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ExitStack() as stack:
        stack.callback(rmtree, directory, ignore_errors=True)  # when the supervisor could not be started
        stack.enter_context(ours)
        stack.enter_context(theirs)
        async with open_program(
            [sys.executable, "-P", zygote.__file__, str(theirs.fileno()), inside],
            {**environment, **_SETTINGS},
            directory=directory,
            log_path=directory / "worker.log",
            grace_s=grace_s,
            enter=enter,
            jail=jail,
            orphans=orphans,
            keep=(theirs.fileno(), *keep),
        ) as tree:
            theirs.close()
            await _warm(tree)
            yield WarmNode(tree, directory, inside, ours, jail)


async def _warm(tree: Tree) -> None:
    with trio.move_on_after(WARM_S):
        try:
            await tree.told("warm")
        except TreeEnded as ended:
            raise NotWarm(ended.reason) from None
        return
    raise NotWarm(f"it was not ready within {WARM_S:g} s")


_SETTINGS: Final = {
    # Agents are not the raylet's own children here, so that they watch a pipe and not their parent's pid.
    "RAY_enable_pipe_based_agent_to_parent_health_check": "1",
    # The agent of runtime environments starts a little later: asked before, it is asked again after this.
    "RAY_agent_manager_retry_interval_ms": "50",
}
