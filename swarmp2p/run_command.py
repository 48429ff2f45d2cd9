"""`swarmp2p run -- COMMAND`: a cluster for the length of one command, in which `ray.init()` just works.

    borrowing --enough workers--> COMMAND runs --it ends--> releasing --> its exit status
        |  Ctrl-C, SIGTERM            |  Ctrl-C, SIGTERM: passed on; the second is SIGTERM to it, the third SIGKILL
        v                             v
    releasing --> 130 or 143      it ends as it does

Standard input, output and error are COMMAND's; what swarmp2p has to say goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import trio

from .cluster_options import Report, add_cluster_options, cluster_of, workers_text
from .console import CANNOT_RUN, NOT_EXECUTABLE, NOT_FOUND, home, tell_failure
from .errors import SwarmError, UsageError
from .kept_cluster import KeptCluster
from .scopes import background_nursery, cancel_scope

_END_S: Final = 5.0  # for a command that must end because its cluster did


def add_run_command(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; add: makes its parser."""
    run = add(
        "run",
        help="run a command in a cluster of leased workers; ray.init() in it finds them",
        usage="swarmp2p run [OPTIONS] -- COMMAND [ARGUMENT ...]",
    )
    add_cluster_options(run, identity=f"{home() / 'borrower'}")
    run.add_argument(
        "--cluster", metavar="NAME", help="use the cluster that `swarmp2p up NAME` keeps instead"
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, after --")
    run.set_defaults(run=_run, status_of=_status_of, events_on_stderr=True)


def _status_of(problem: SwarmError) -> int:
    return CANNOT_RUN  # whatever it was: the others are the command's


def _run(options: argparse.Namespace) -> int:
    command: list[str] = options.command[options.command[:1] == ["--"] :]
    if not command:
        raise UsageError("no command is given to run: swarmp2p run --workers 4 -- python train.py")
    if options.cluster is not None:
        return _execute(options, command, KeptCluster(options.cluster).environment())
    return trio.run(_run_in_cluster, options, command)


def _execute(options: argparse.Namespace, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Become the command."""
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    except OSError as problem:
        return _not_run(options, command[0], problem)


def _not_run(options: argparse.Namespace, name: str, problem: OSError) -> int:
    missing = isinstance(problem, FileNotFoundError)
    why = (problem.strerror or str(problem)).lower()
    tell_failure(options, type(problem).__name__, f"cannot run {name}: {why}")
    return NOT_FOUND if missing else NOT_EXECUTABLE


async def _run_in_cluster(options: argparse.Namespace, command: Sequence[str]) -> int:
    job, status = _Job(options, Report(options, sys.stderr)), CANNOT_RUN
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with background_nursery() as nursery:
            nursery.start_soon(job.listen, signals)
            with job.waiting:
                async with cluster_of(options, job.report, identity=home() / "borrower") as cluster:
                    status = await job.run(command, cluster.environment)
                    job.report("releasing", f"releasing {workers_text(len(cluster.workers))}")
    return job.status if job.waiting.cancelled_caught else status


class _Job:
    """The command's process, and what signals do to it. waiting: cancelled when there is none yet."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._options, self.report = options, report
        self.waiting = cancel_scope()
        self.status = 0
        self._process: trio.Process | None = None
        self._signals = 0

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Take signals until cancelled."""
        async for number in signals:
            self._signals += 1
            process = self._process
            if process is None:
                self.status = 128 + number
                self.waiting.cancel()
            elif process.returncode is None:
                if self._signals > 1:
                    process.send_signal(signal.SIGTERM if self._signals == 2 else signal.SIGKILL)
                elif number != signal.SIGINT or not _typed():
                    process.send_signal(signal.Signals(number))

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the command; its exit status, 128 + N where signal N ended it."""
        self.report("running", "", command=list(command))
        try:
            process = await trio.lowlevel.open_process(command, env={**os.environ, **environment})
        except OSError as problem:
            return _not_run(self._options, command[0], problem)
        self._process = process
        try:
            await process.wait()
        finally:
            if process.returncode is None:  # the cluster failed under it
                with cancel_scope(shield=True):
                    with trio.move_on_after(_END_S):
                        process.terminate()
                        await process.wait()
                    process.kill()
                    await process.wait()
        assert process.returncode is not None
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        self.report("ended", "", status=status)
        return status


def _typed() -> bool:
    """Whether SIGINT probably came from Ctrl-C at the terminal, which sends it to the command as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
