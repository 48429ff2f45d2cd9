"""What is left of tunnels whose keepers were killed, too: found by their records, and removed at the next start.

A record is a JSON file of the interface's name, locked by its keeper (`keeper.py`) as long as that lives, in a folder
that is emptied when the machine restarts, as its interfaces are. A record that can be locked is of a dead keeper.
What it names is ours by name, and is removed; what is in another network namespace than ours is left to a peer there.
wireguard-go dies with its keeper; if it should not have, it is ended by its pid, when that is still the same process.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

from . import keeper
from .description import is_ours

RUNTIME: Final = Path("/run/swarmp2p")
"""Folder of the records; for root alone, who is the only one to make interfaces."""

_SUFFIX: Final = ".wireguard"
_MAX_RECORD_BYTES: Final = 4_096


def record(runtime: Path, interface: str) -> Path:
    """Where the record of an interface is."""
    return runtime / f"{interface}{_SUFFIX}"


def clean(runtime: Path = RUNTIME) -> list[str]:
    """Remove what nobody keeps. Returns the names of those interfaces. Makes the folder when it is not there."""
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    removed = list[str]()
    for path in sorted(runtime.glob(f"*{_SUFFIX}")):
        interface = path.name.removesuffix(_SUFFIX)
        if is_ours(interface) and _clean(path, interface):
            removed.append(interface)
    return removed


def _clean(path: Path, interface: str) -> bool:
    try:
        lock = keeper.take_record(str(path))
    except (keeper.Failed, OSError):
        return False  # it is kept, or not ours to touch
    try:
        told = _read(lock)
        here = os.stat("/proc/self/ns/net").st_ino
        if told.get("namespace", here) != here:
            return False
        _end_child(told.get("child"), told.get("started"))
        keeper.remove_interface(interface)
        keeper.remove_socket(interface)
        keeper.remove_table(interface)
        path.unlink()
        return True
    finally:
        os.close(lock)


def _read(descriptor: int) -> dict[str, Any]:
    """What a record says; nothing, when its keeper was killed before it had written all of it."""
    try:
        told = json.loads(os.pread(descriptor, _MAX_RECORD_BYTES, 0))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _end_child(pid: object, began: object) -> None:
    if not isinstance(pid, int) or pid <= 0:
        return
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if (
            keeper.started(pid) == began
        ):  # looked at after it was opened: this is the process that is signalled
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(handle)
