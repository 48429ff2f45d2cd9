"""What a peer keeps of grants over restarts: those that it holds, and the owners' lists of revocations that it knows.

One text file beside the peer's state, mode 0600, one entry a line: `held <grant>` or `revoked <owner> <list>`. Every
entry is signed, so that a damaged or foreign line is left out when the file is read, and nothing else is lost. It is
replaced as a whole, under a lock: `swarmp2p revoke` adds to it while a lender with the same key runs and reads it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import base58

from .descriptors import remedy
from .errors import BadMessage, GrantError, StateFileError, UsageError
from .identity import PeerId, verify
from .private_file import replace_private
from .ray_bridge.grants import Grant
from .ray_bridge.revocations import MAX_OWNERS, RevocationList, read_revocations

MAX_HELD: Final = 64
"""Grants that a peer keeps; beyond them those that expire first are forgotten."""

_MAX_FILE_BYTES: Final = 16 << 20


def grants_path(state: str | os.PathLike[str]) -> Path:
    """Where the grants of a peer with this state file are."""
    return Path(f"{os.fspath(state)}-grants")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file says. held: grants, as they were given. lists: the newest of each owner."""

    held: tuple[Grant, ...] = ()
    lists: tuple[RevocationList, ...] = ()

    def with_more(self, held: Iterable[Grant], lists: Iterable[RevocationList], now: float) -> Kept:
        """Both together, without grants that have expired."""
        grants = {grant.id: grant for grant in (*self.held, *held) if grant.terms.expires > now}
        lasting = sorted(grants.values(), key=lambda grant: grant.terms.expires, reverse=True)[:MAX_HELD]
        newest: dict[PeerId, RevocationList] = {}
        for one in (*self.lists, *lists):
            known = newest.get(one.owner)
            if known is None or one.sequence > known.sequence:
                newest.pop(one.owner, None)
                newest[one.owner] = one
        return Kept(tuple(lasting), tuple(newest.values())[-MAX_OWNERS:])


class GrantFile:
    """The file at `path`; made when something is to be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> tuple[int, int]:
        """What changes when the file does; (0, 0) while there is none."""
        try:
            status = os.stat(self.path)
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def read(self) -> Kept:
        """What it holds; nothing when there is none. Raises StateFileError when it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                text = file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            return Kept()
        except OSError as problem:
            raise self._error(problem) from None
        held: list[Grant] = []
        lists: list[RevocationList] = []
        for line in text.splitlines():
            try:
                match line.split():
                    case ["held", grant]:
                        held.append(Grant.parse(grant, verify))
                    case ["revoked", owner, envelope]:
                        who = PeerId.from_text(owner)
                        lists.append(read_revocations(base58.b58decode(envelope), who, verify))
                    case _:
                        pass
            except (BadMessage, GrantError, UsageError, ValueError):
                continue
        return Kept().with_more(held, lists, 0.0)

    def add(self, now: float, held: Iterable[Grant] = (), lists: Iterable[RevocationList] = ()) -> Kept:
        """Keep more; returns all that is kept now. Raises StateFileError, and then nothing was changed."""
        with self._locked():
            before = self.read()
            kept = before.with_more(held, lists, now)
            if kept != before:
                self._write(kept)
        return kept

    def _write(self, kept: Kept) -> None:
        lines = [f"held {grant.text}\n" for grant in kept.held]
        lines += [f"revoked {one.owner} {base58.b58encode(one.envelope).decode()}\n" for one in kept.lists]
        try:
            replace_private(self.path, "".join(lines).encode())
        except OSError as problem:
            raise self._error(problem) from None

    @contextmanager
    def _locked(self) -> Generator[None, None, None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a file of its own: the kept one is replaced, and a lock on what was replaced locks nothing
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise self._error(problem) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _error(self, problem: OSError) -> StateFileError:
        advice = remedy(problem, "make its folder writable, or name another with state= or --state")
        return StateFileError(str(self.path), (problem.strerror or str(problem)).lower(), advice)
