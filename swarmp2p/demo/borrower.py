"""The demo's borrower, as a process: starts a swarm, leases workers, runs the job on them.

Prints JSON lines. Ends in good order when its standard input closes, or on SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import trio

from ..console import add_peer_options, emit, until_told_to_stop
from ..errors import SwarmError
from ..opening import DEFAULT_LISTEN, open_peer
from ..ray_bridge import supervisor
from ..ray_bridge.cluster import Cluster
from ..scopes import cancel_scope
from .process import lines_of
from .story import WORKERS


async def run(options: argparse.Namespace) -> int:
    """Be the borrower until told to stop."""
    async with (
        open_peer(identity=options.identity, listen=options.listen or DEFAULT_LISTEN) as peer,
        trio.open_nursery() as nursery,
    ):
        emit(options, "peer", peer=str(peer.id), addresses=[str(address) for address in peer.addresses])

        async def work() -> None:
            # min_workers=0: the job starts beside the hiring, so that its own start-up costs no extra time
            async with peer.borrow(workers=WORKERS, min_workers=0, logs=options.logs) as cluster:
                emit(options, "head", address=cluster.address, log=cluster.log_directory)
                async with trio.open_nursery() as inner:
                    inner.start_soon(_report, options, cluster)
                    status = await _job(options, cluster)
                    emit(options, "job", status=status)
                    await trio.sleep_forever()

        nursery.start_soon(work)
        await until_told_to_stop(exit_on_eof=True)
        nursery.cancel_scope.cancel()
    return 0


async def _report(options: argparse.Namespace, cluster: Cluster) -> None:
    async for event in cluster.events():
        emit(
            options, "cluster", kind=event.kind.value, peer=str(event.peer), reason=event.reason, at=event.at
        )


async def _job(options: argparse.Namespace, cluster: Cluster) -> int:
    """Run the job on the cluster and relay what it prints; returns its exit status.

    It runs under a supervisor, so that it ends with this process, and with everything that it starts.
    """
    command = [options.script] if options.script else ["-m", "swarmp2p.demo.digits", "--json"]
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-I", "-S", supervisor.__file__, "--parent", str(os.getpid())),
            *("--", sys.executable, *command),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # a user's script may end with a traceback: it belongs to what is shown; Ray's remarks on ours do not
        stderr=subprocess.STDOUT if options.script else None,
        env={**os.environ, **cluster.environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async for line in lines_of(process.stdout):
            _relay(options, line.decode(errors="replace"))
        return await process.wait()
    finally:
        with cancel_scope(shield=True):
            await process.stdin.aclose()  # the supervisor ends what is left, a few seconds at most
            await process.wait()


def _relay(options: argparse.Namespace, line: str) -> None:
    """Pass on what the job prints: the built-in one's events, the lines of a user's script."""
    if options.script:
        emit(options, "output", line=line)
        print(line, file=sys.stderr)  # all of it, for the log
    elif line.startswith("{"):
        emit(options, **json.loads(line))
    else:
        print(line, file=sys.stderr)  # Ray's own remarks, for the log


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and be the borrower."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_peer_options(parser)
    parser.add_argument("--script", default="")
    options = parser.parse_args(argv)
    try:
        return trio.run(run, options)
    except SwarmError as problem:
        print(json.dumps({"event": "error", "message": str(problem)}), flush=True)
        print(f"swarmp2p: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
