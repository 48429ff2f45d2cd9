"""Ends what killed predecessors of this process left behind: trees whose owner and supervisor are gone.

    entry of the ledger --+-- its owner lives --------------------------> not ours to end; kept
                          +-- another boot, or another pid namespace ---> its pids name nobody here
                          +-- its supervisor lives --> SIGTERM: it ends the tree in order
                          +-- else, or past the grace --> SIGKILL, again and again until none is left
                     then its directories are deleted

What belongs to a tree is known by facts that no other process can have by chance, never by a name:

- it is the supervisor: pid and start time are those written down;
- its environment holds the tree's mark (64 random bits), of which it was born with a copy;
- it is of the session that the supervisor led, and works in the tree's directories: its working directory or an open
  file is there. A session alone would not do: numbers are used again once nobody is left in it;
- it descends from one of those.

Signals go through pidfds, after checking that the process is still the one that was seen (processes.send_signal).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Final

from . import processes, supervisor
from .ledger import Here, TreeEntry
from .processes import Process
from .tree import TREE_VARIABLE

_ENVIRONMENT_BYTES: Final = 1 << 17
_MOST_FILES: Final = 4_096  # open files of one process that are looked at


def end_orphans(entries: Sequence[TreeEntry], grace_s: float = supervisor.GRACE_S) -> tuple[TreeEntry, ...]:
    """End these trees where they are orphans. Blocks: for nothing where there is nothing to end, for about the grace
    at most otherwise, and GIVE_UP_S more for what cannot be killed.

    Returns the entries that still stand for something: their owner lives, or they cannot be ended.
    """
    here = Here.now()
    kept = [entry for entry in entries if _lives(entry.owner, entry.owner_start, entry.here, here)]
    orphans = [entry for entry in entries if entry not in kept]
    visible = [entry for entry in orphans if entry.here == here]
    stuck = _end(visible, grace_s)
    for entry in orphans:
        if entry not in stuck:
            for directory in entry.directories:
                _remove(directory)
    return (*kept, *stuck)


def members(entry: TreeEntry, everyone: Mapping[int, Process]) -> list[Process]:
    """The living processes of a tree among `everyone`, parents before children."""
    leader = everyone.get(entry.pid)
    led = entry.pid > 0 and (leader is None or leader.start == entry.start)
    roots = list[Process]()
    if leader is not None and led:
        roots.append(leader)
    for process in everyone.values():
        if process.start < entry.start or process is leader:
            continue
        if _is_marked(process.pid, entry.mark) or (
            led and process.session == entry.pid and _works_in(process.pid, entry.directories)
        ):
            roots.append(process)
    children: dict[int, list[Process]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    while roots:
        found.update((process.pid, process) for process in roots)
        roots = [
            child for process in roots for child in children.get(process.pid, ()) if child.pid not in found
        ]
    for pid in _ancestry(everyone):
        found.pop(pid, None)  # whoever restarts a peer inside of an old tree lives on
    return list(found.values())


# ------------------------------------------------------------------------------------------------------------------


def _end(entries: Sequence[TreeEntry], grace_s: float) -> list[TreeEntry]:
    """Those that could not be ended."""
    begun = time.monotonic()
    asked = False
    left = list(entries)
    while left:
        everyone = processes.all_processes()
        of = {entry.mark: members(entry, everyone) for entry in left}
        left = [entry for entry in left if of[entry.mark]]
        waited = time.monotonic() - begun
        if waited > grace_s + supervisor.GIVE_UP_S:
            break
        for entry in left:
            found = of[entry.mark]
            supervised = (found[0].pid, found[0].start) == (entry.pid, entry.start)
            if supervised and waited < grace_s:
                if not asked:
                    processes.send_signal(found[0], SIGTERM)
                continue
            # The supervisor goes last: as long as it lives, whoever loses a parent stays its descendant.
            for process in found[1:] if supervised and len(found) > 1 else found:
                processes.send_signal(process, SIGKILL)
        asked = True
        if left:
            time.sleep(processes.POLL_S)
    return left


def _lives(pid: int, start: int, its: Here, here: Here) -> bool:
    if its != here:
        return False  # its number means nothing here, and who locks the ledger has no twin
    process = processes.look(pid)
    return process is not None and process.start == start


def _is_marked(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read(_ENVIRONMENT_BYTES)
    except OSError:
        return False  # another user's, or it has ended
    return f"{TREE_VARIABLE}={mark}".encode() in environment.split(b"\0")


def _works_in(pid: int, directories: Sequence[str]) -> bool:
    """Whether its working directory or an open file is in one of these."""
    links = [f"/proc/{pid}/cwd"]
    try:
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")[:_MOST_FILES]]
    except OSError:
        pass
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if any(target == directory or target.startswith(f"{directory}/") for directory in directories):
            return True
    return False


def _ancestry(everyone: Mapping[int, Process]) -> list[int]:
    """This process and whom it descends from."""
    found, pid = list[int](), os.getpid()
    while pid in everyone and pid not in found:
        found.append(pid)
        pid = everyone[pid].parent
    return found


def _remove(directory: str) -> None:
    """Delete a directory that is ours; another user's, or a link, is left alone."""
    try:
        status = os.lstat(directory)
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and Path(directory).is_absolute():
        supervisor.remove(directory)
