"""What this process has started, written down where its successor finds it: the ledger.

A tree ends with the process that opened it: its supervisor sees to that. Should both be killed, what the tree had
started lives on, and so do its directories; whoever starts next in this one's place reads the ledger and ends them
(orphans.py). So an entry is made before there is anything to forget, and goes after everything has.

Ledgers belong to the process, not to one peer of it: trees become orphans when the process dies, with all its peers.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from . import processes

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Here:
    """What process ids mean: they name processes of one boot, as one pid namespace numbers them.

    boot: the kernel's id of this boot. namespace: inode of the pid namespace.
    """

    boot: str
    namespace: int

    @classmethod
    def now(cls) -> Here:
        """Of this process."""
        return cls(_BOOT_ID.read_text().strip(), os.stat("/proc/self/ns/pid").st_ino)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One tree. mark: see tree.TREE_VARIABLE. owner, owner_start: the process that opened it. pid, start: its
    supervisor; 0 until it is known. Starts are in clock ticks since boot, as in /proc. directories: what goes with it.
    """

    mark: str
    here: Here
    owner: int
    owner_start: int
    directories: tuple[str, ...]
    pid: int = 0
    start: int = 0


class Ledger(Protocol):
    """Where entries are kept. Neither method raises: a disk that is full is no reason not to work."""

    def keep_tree(self, entry: TreeEntry) -> None:
        """Add an entry, or replace the one with its mark."""
        ...

    def drop_tree(self, mark: str) -> None:
        """Nothing is left of a tree."""
        ...


_open: Final[list[Ledger]] = []


@contextmanager
def open_ledger(ledger: Ledger) -> Generator[None, None, None]:
    """Have all trees of this process entered in a ledger while the context is open."""
    _open.append(ledger)
    try:
        yield
    finally:
        _open[:] = [other for other in _open if other is not ledger]


class Entered:
    """A tree's entry in the ledgers that were open when it began; in none it costs nothing."""

    def __init__(self, mark: str, directories: Sequence[Path]) -> None:
        self._ledgers = tuple(_open)
        self._entry: TreeEntry | None = None
        me = processes.look(os.getpid()) if self._ledgers else None
        if me is not None:
            places = tuple(str(directory) for directory in directories)
            self._keep(TreeEntry(mark, Here.now(), me.pid, me.start, places))

    def runs(self, pid: int) -> None:
        """Its supervisor is this child of ours, which has not been waited for."""
        child = processes.look(pid) if self._entry is not None else None
        if self._entry is not None and child is not None:
            self._keep(replace(self._entry, pid=pid, start=child.start))

    def over(self) -> None:
        """Nothing of it is left."""
        if self._entry is not None:
            for ledger in self._ledgers:
                ledger.drop_tree(self._entry.mark)

    def _keep(self, entry: TreeEntry) -> None:
        self._entry = entry
        for ledger in self._ledgers:
            ledger.keep_tree(entry)
