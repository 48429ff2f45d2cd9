"""A cluster that stays: the folder by which it is found, and who holds it.

    HOME/clusters/NAME/    for its user alone
        lock               locked (flock) while a process holds the cluster
        cluster.json       that process, by pid, start time, boot and pid namespace; address and workers as they are
        environment        RAY_ADDRESS and token for drivers, mode 0600: `set -a; . FILE` in a shell
        key, key.state     the peer that borrows for it
        ray                what a head that is started again goes on with
        log                what the process has to say
        over               there once `down` has been asked for: what ends is not to be gone on with

The process is found by pid and start time, and signalled through a pidfd: a number that is used again names nobody.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from .console import home
from .errors import SwarmError, UsageError
from .private_file import replace_private, take_lock
from .ray_bridge import processes
from .ray_bridge.ledger import Here

DEFAULT_NAME: Final = "default"
_KEPT: Final = ("key", "key.network", "lock")  # lenders know the cluster by its key


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds a cluster, and what it is. workers: peer and path of each."""

    pid: int
    start: int
    boot: str
    namespace: int
    peer: str = ""
    address: str = ""
    workers: tuple[tuple[str, str], ...] = ()


class KeptCluster:
    """The folder of one cluster that stays, whether it runs or not. Raises UsageError for a name that can be none."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
            raise UsageError(
                f"{name[:60]!r} cannot be a cluster's name: at most 40 letters, digits, _, . and -, of which the first "
                "is a letter or digit"
            )
        self.name = name
        self.folder = home() / "clusters" / name
        self.key = self.folder / "key"
        self.ray = self.folder / "ray"
        self.log = self.folder / "log"
        self._over = self.folder / "over"

    @classmethod
    def all(cls) -> list[KeptCluster]:
        """Every one that there is a folder of, by name."""
        try:
            return [cls(name) for name in sorted(os.listdir(home() / "clusters"))]
        except OSError:
            return []

    def held(self) -> Held | None:
        """Who holds it now; None when nobody does."""
        try:
            held = _read((self.folder / "cluster.json").read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None
        process = processes.look(held.pid)
        here = Here.now()
        lives = process is not None and process.start == held.start
        return held if lives and (held.boot, held.namespace) == (here.boot, here.namespace) else None

    def environment(self) -> dict[str, str]:
        """What a driver needs. Raises SwarmError when the cluster does not run."""
        try:
            lines = (self.folder / "environment").read_text().splitlines() if self.held() else []
        except OSError:
            lines = []
        if not lines:
            raise SwarmError(f"no cluster {self.name!r} runs here; start it with: swarmp2p up {self.name}")
        words = [shlex.split(line)[0] for line in lines]
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def remembers(self) -> bool:
        """Whether there is something to go on with."""
        return self.ray.is_dir()

    # For who holds it --------------------------------------------------------------------------------------------

    @contextmanager
    def holding(self) -> Generator[None, None, None]:
        """Hold the cluster, as this process. Raises SwarmError when another one does."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = take_lock(self.folder / "lock")
        if lock is None:
            raise SwarmError(
                f"another process holds the cluster {self.name!r}; end it with: swarmp2p down {self.name}"
            )
        try:
            self._over.unlink(missing_ok=True)
            try:
                self.tell()
                yield
            finally:
                for name in ("cluster.json", "environment"):
                    (self.folder / name).unlink(missing_ok=True)
        finally:
            os.close(lock)

    def over(self) -> bool:
        """Whether nobody is to go on with it."""
        return self._over.exists()

    def tell(
        self,
        peer: str = "",
        address: str = "",
        workers: tuple[tuple[str, str], ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Write down how the cluster is, and that this process holds it."""
        me, here = processes.look(os.getpid()), Here.now()
        assert me is not None
        held = Held(me.pid, me.start, here.boot, here.namespace, peer, address, workers)
        if environment is not None:
            lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())]
            replace_private(self.folder / "environment", "".join(lines).encode(), durable=False)
        replace_private(self.folder / "cluster.json", json.dumps(asdict(held)).encode(), durable=False)

    # For who ends it ---------------------------------------------------------------------------------------------

    def end(self, timeout_s: float) -> bool:
        """Have its process end in good order, and for good; whether one ran. Raises SwarmError when it does not in
        time."""
        held = self.held()
        if held is None:
            return False
        try:
            handle = os.pidfd_open(held.pid)
        except OSError:
            return False
        try:
            if self.held() is None:
                return False  # it ended before the pidfd was opened
            self._over.touch(mode=0o600)
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise SwarmError(
                    f"the process {held.pid} of cluster {self.name!r} has not ended within {timeout_s:g} s; what it "
                    f"does is in {self.log}; try again, or end it with: swarmp2p down {self.name} --kill"
                )
        finally:
            os.close(handle)
        return True

    def kill(self) -> None:
        """End its process at once, if one runs; supervisors see to what it started."""
        held = self.held()
        process = None if held is None else processes.look(held.pid)
        if held is not None and process is not None and process.start == held.start:
            processes.send_signal(process, signal.SIGKILL)

    def forget(self, but: Sequence[str] = ()) -> None:
        """Delete all that a cluster of this name would go on with, but its key, and what is named."""
        for entry in os.listdir(self.folder):
            if entry in _KEPT or entry in but:  # nor the lock, which another process may be taking just now
                continue
            path = self.folder / entry
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _read(text: str) -> Held:
    """Of what `tell` wrote. Raises ValueError, TypeError or KeyError for anything else."""
    found: Any = json.loads(text)
    workers = tuple((str(peer), str(path)) for peer, path in found["workers"])
    return Held(
        pid=int(found["pid"]),
        start=int(found["start"]),
        boot=str(found["boot"]),
        namespace=int(found["namespace"]),
        peer=str(found["peer"]),
        address=str(found["address"]),
        workers=workers,
    )
