"""Running `wg`, `ip` and `nft` from trio: no shell, secrets to standard input alone, errors in one line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import trio

from ...errors import WireGuardFailed
from .keeper import COMMAND_S, environment, inside, search_path

_MAX_PROBLEM_CHARS: Final = 300


async def run(interface: str, *words: str, given: str = "", namespace: int = -1, secret: str = "") -> str:
    """Run a command that concerns an interface, and return what it prints. Raises WireGuardFailed.

    given: its standard input. namespace: descriptor of the network namespace to run it in; -1 for ours. secret: must
    not be in an error, should the command repeat it.
    """
    prefix, kept = inside(namespace)
    problem = f"{words[0]} took more than {COMMAND_S:.0f} s"
    with trio.move_on_after(COMMAND_S):
        try:
            done = await trio.run_process(
                [*prefix, *words],
                stdin=given.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                pass_fds=kept,
                env=environment(),
            )
        except OSError as error:
            problem = f"cannot run {words[0]}: {error.strerror}"
        else:
            if not done.returncode:
                return done.stdout.decode("utf-8", "replace")
            problem = f"{' '.join(words[:2])}: {_problem(done)}"
    raise WireGuardFailed(interface, problem.replace(secret, "(secret)") if secret else problem)


def _problem(done: subprocess.CompletedProcess[bytes]) -> str:
    said = " ".join(done.stderr.decode("utf-8", "replace").split())
    return said[-_MAX_PROBLEM_CHARS:] or f"it ended with status {done.returncode}"


def missing(names: Sequence[str]) -> list[str]:
    """Those of these programs that are not installed."""
    return [name for name in names if shutil.which(name, path=search_path()) is None]
