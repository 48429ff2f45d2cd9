"""Cells from trio's side: opened before a worker, closed after it. `cell.py` says what a cell is.

async with open_cell() as cell:
    ... cell.sockets goes to the process that forwards, which wraps it in CellSockets ...
    async with open_tree(command, ..., enter=cell.namespaces): ...
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from shutil import rmtree
from typing import Final

import trio

from ..errors import NoCell
from . import cell as program
from .node_tree import private_directory
from .tree import Tree, TreeEnded, open_tree

_OPEN_S: Final = 10.0
"""Seconds that a cell may take to stand. It needs 40 ms, and a second on a busy machine."""

_GRACE_S: Final = 1.0


@dataclass(slots=True)
class Cell:
    """A cell that stands. `namespaces` is empty once it is closed.

    sockets: the link over which sockets inside are asked for; for one process only, to which it is inherited.
    pid: of the cell's program: /proc/PID/ns/net is the namespace. namespaces: descriptors to enter, in this order:
    the user namespace if there is one, the network namespace. They keep the cell's from being another's.
    """

    sockets: socket.socket
    pid: int
    namespaces: tuple[int, ...]
    _tree: Tree

    @property
    def mark(self) -> str:
        """Value of SWARMP2P_TREE in its program's environment."""
        return self._tree.mark

    async def died(self) -> str:
        """Until the cell's program has ended. Returns why, in one line."""
        return await self._tree.died()


@asynccontextmanager
async def open_cell(*, user_namespace: bool | None = None) -> AsyncGenerator[Cell, None]:
    """Make a cell for the length of the context, and no longer than this process lives.

    user_namespace: make it inside a user namespace, which takes no privilege; None: unless this process is root.
    Raises NoCell, with the command that enables it.
    """
    if user_namespace is None:
        user_namespace = os.geteuid() != 0
    directory = private_directory()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-I", "-S", program.__file__, str(theirs.fileno())]
    if user_namespace:
        command.append("--user-namespace")
    with ExitStack() as stack:
        stack.callback(rmtree, directory, ignore_errors=True)  # when the supervisor could not be started
        stack.enter_context(ours)
        stack.enter_context(theirs)
        async with open_tree(
            command,
            environment={},
            log_path=directory / "cell.log",
            remove=(directory,),
            grace_s=_GRACE_S,
            keep=(theirs.fileno(),),
        ) as tree:
            theirs.close()
            pid = await _stands(tree)
            names = ("user", "net") if user_namespace else ("net",)
            cell = Cell(ours, pid, tuple(_open_namespace(stack, pid, name) for name in names), tree)
            try:
                yield cell
            finally:
                cell.namespaces = ()  # else whoever comes late would enter what the numbers name by then


async def cell_problem(*, user_namespace: bool | None = None) -> str | None:
    """Why this machine cannot make cells, with the command that enables them; None when it can. Takes 40 ms."""
    try:
        async with open_cell(user_namespace=user_namespace):
            return None
    except NoCell as problem:
        return problem.reason


async def _stands(tree: Tree) -> int:
    """The pid of the cell's program, once the cell stands. Raises NoCell."""
    with trio.move_on_after(_OPEN_S):
        try:
            said = await tree.told("cell")
        except TreeEnded as ended:
            raise NoCell(ended.reason) from None
        if isinstance(said, int):
            return said
    raise NoCell(f"it did not stand within {_OPEN_S:g} s")


def _open_namespace(stack: ExitStack, pid: int, name: str) -> int:
    """A descriptor of a namespace of the cell's program. Raises NoCell."""
    try:
        number = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise NoCell(f"its {name} namespace cannot be entered: {problem}") from None
    stack.callback(os.close, number)
    return number
