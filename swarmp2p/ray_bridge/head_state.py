"""What a head leaves behind so that it can be started again: GCS's own storage, the token and the port.

Without it nothing of a cluster would outlive its GCS. It is a directory for this user only:

    token       the cluster's token, 64 hex digits; mode 0600
    gcs/        what GCS keeps on disk (RocksDB): actors, jobs, placement groups, packages of runtime environments
    port        GCS's port; written when it is known
    lock        held by who uses it, and by a head's processes that are still ending

Some of it is temporary, and goes with the head; some is kept by the borrower, and then the next head on it is the same
cluster: whoever reads the directory has full power over that.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

import trio

from ..errors import UsageError
from ..private_file import replace_private, take_lock
from .node_tree import private_directory

_TOKEN_BYTES: Final = 32
_ENDING_S: Final = 8.0  # for the processes of a head whose borrower was killed; they take 3 s
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class HeadState:
    """Made by `open_head_state`. kept: whether the directory outlives the head. port: of the GCS that was there
    before, 0 when there was none. lock: a descriptor that the head's processes keep open while they live."""

    directory: Path
    token: str
    kept: bool
    lock: int
    port: int = 0

    @property
    def token_path(self) -> Path:
        """For RAY_AUTH_TOKEN_PATH."""
        return self.directory / "token"

    @property
    def storage(self) -> Path:
        """GCS's own."""
        return self.directory / "gcs"

    def remember_port(self, port: int) -> None:
        """Where GCS listens, and will."""
        replace_private(self.directory / "port", str(port).encode())


@asynccontextmanager
async def open_head_state(directory: Path | None) -> AsyncGenerator[HeadState, None]:
    """Take a directory, or a new temporary one, for the length of the context.

    Waits a few seconds for another head on it to end. Raises UsageError when that does not, or when it is no head's.
    """
    kept = directory is not None
    directory = private_directory() if directory is None else directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = directory.stat().st_mode & 0o077
    except OSError as problem:
        raise UsageError(f"no cluster can be kept in {directory}: {problem}. Nothing was started") from None
    if others:
        raise UsageError(
            f"{directory} can be read by others, and would hold a cluster's token: `chmod 700` it, or name a "
            "directory that does not exist yet. Nothing was started"
        )
    lock = await _taken(directory / "lock")
    try:
        if lock is None:
            raise UsageError(
                f"another process runs the cluster that is kept in {directory}; end that one, or name another "
                "directory. Nothing was started"
            )
        yield _begin(directory, lock, kept=kept)
    finally:
        if lock is not None:
            os.close(lock)
        if not kept:
            rmtree(directory, ignore_errors=True)


async def _taken(path: Path) -> int | None:
    """The lock, as soon as whoever has it has ended; None when that takes too long."""
    lock: int | None = None
    with trio.move_on_after(_ENDING_S):
        while (lock := take_lock(path)) is None:  # noqa: ASYNC110  another process sets no event
            await trio.sleep(_LOOK_S)
    return lock


def _begin(directory: Path, lock: int, *, kept: bool) -> HeadState:
    path, port = directory / "token", 0
    try:
        token = path.read_text().strip()
        port = int((directory / "port").read_text())
    except FileNotFoundError:
        token = secrets.token_hex(_TOKEN_BYTES)
        # A head that never got as far as its port has stored nothing either.
        rmtree(directory / "gcs", ignore_errors=True)
        replace_private(path, token.encode())
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"{directory} does not hold a cluster ({problem}); name another directory. Nothing was started"
        ) from None
    (directory / "gcs").mkdir(mode=0o700, exist_ok=True)
    return HeadState(directory, token, kept, lock, port)
