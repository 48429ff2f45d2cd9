"""`swarmp2p up`, `down` and `leases`: clusters that stay, and what is lent and borrowed here.

`up` starts a process of its own session that holds the cluster until `down` ends it (kept_cluster.py), and returns when
the cluster runs. Where that process was killed, or the machine restarted, `up` goes on with what the cluster had.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import trio

from .cluster_options import Report, add_cluster_options, cluster_of, need_text, workers_text
from .console import FAILED, INTERRUPTED, TOLD_TO_END, home
from .errors import SwarmError
from .identity import Identity
from .kept_cluster import DEFAULT_NAME, KeptCluster
from .ray_bridge.events import JournalRecord, Role
from .ray_bridge.orphans import end_orphans
from .scopes import background_nursery, cancel_scope
from .storage.journal import SUFFIX, journal_path, read_journal

if TYPE_CHECKING:
    from .ray_bridge.cluster import Cluster

_DOWN_S: Final = 30.0
_LOOK_EVERY_S: Final = 1.0
_LAST_LINES: Final = 5


def add_up_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; add: makes the parser of one."""
    up = add("up", help="keep a cluster, until `swarmp2p down`")
    up.add_argument(
        "name", nargs="?", default=DEFAULT_NAME, help=f"the cluster's name (default {DEFAULT_NAME})"
    )
    add_cluster_options(up, identity=f"{home() / 'clusters' / 'NAME' / 'key'}")
    up.add_argument(
        "--snapshots",
        type=int,
        default=0,
        metavar="K",
        help="have K lenders each hold a sealed copy of the cluster's state, for `up --restore` elsewhere",
    )
    up.add_argument(
        "--restore",
        action="store_true",
        help="where there is no cluster here, go on with the newest copy that lenders hold; --identity names the key "
        "of the former",
    )
    up.add_argument("--foreground", action="store_true", help="hold it in this process, until told to stop")
    up.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # what `up` starts itself as
    up.set_defaults(run=_up)

    down = add("down", help="end a cluster that `swarmp2p up` keeps")
    down.add_argument(
        "name", nargs="?", default=DEFAULT_NAME, help=f"the cluster's name (default {DEFAULT_NAME})"
    )
    down.add_argument("--kill", action="store_true", help="end its process at once, whatever it does")
    down.add_argument("--json", action="store_true", help="print events as JSON lines")
    down.set_defaults(run=_down)

    leases = add(
        "leases", help="show the leases that peers of this user give and take, and the clusters that stay"
    )
    leases.add_argument(
        "--identity",
        type=Path,
        metavar="KEY",
        help="only those of the peer with this key file (KEY.state-leases)",
    )
    leases.add_argument(
        "--state", type=Path, metavar="FILE", help="only those of the peer with this state file"
    )
    leases.add_argument("--json", action="store_true", help="print events as JSON lines")
    leases.set_defaults(run=_leases)


# up ---------------------------------------------------------------------------------------------------------------


def _up(options: argparse.Namespace) -> int:
    kept = KeptCluster(options.name)
    if options.foreground or options.detached:
        return trio.run(_stand, options, kept)
    held = kept.held()
    if held is not None:
        workers = [list(worker) for worker in held.workers]
        Report(options, sys.stdout)(
            "up",
            f"{kept.name} runs already: {workers_text(len(workers))}",
            name=kept.name,
            already=True,
            workers=workers,
        )
        return 0
    return _start(options, kept)


def _start(options: argparse.Namespace, kept: KeptCluster) -> int:
    """Start the process that holds the cluster, and tell what it tells until that is up."""
    kept.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rest = list(options.argv)[1:]
    command = [sys.executable, "-m", "swarmp2p", "up", "--detached", "--json", *rest]
    log = os.open(kept.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    finally:
        os.close(log)
    assert process.stdout is not None
    with process.stdout:
        try:
            with _told_to_end():
                if _relay(options, process.stdout, kept):
                    process.returncode = 0  # it stays; nobody waits for it
                    return 0
                status = process.wait()
        except (KeyboardInterrupt, _ToldToEnd) as told:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return TOLD_TO_END if isinstance(told, _ToldToEnd) else INTERRUPTED
    lines = kept.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    for line in lines:
        print(line, file=sys.stderr)
    return status or FAILED


class _ToldToEnd(BaseException):
    """SIGTERM came."""


@contextmanager
def _told_to_end() -> Generator[None, None, None]:
    """Raise that in the context: who started the cluster's process ends it, too."""

    def raises(number: int, frame: object) -> None:
        raise _ToldToEnd

    former = signal.signal(signal.SIGTERM, raises)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _relay(options: argparse.Namespace, said: IO[str], kept: KeptCluster) -> bool:
    """Tell what it tells, until it is up; False when it ends before."""
    for line in said:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if options.json:
            print(line, end="", flush=True)
        elif event["event"] == "up":
            print(f"{kept.name} is up: {workers_text(len(event['workers']))}. In a shell:")
            print(f"  set -a; . {event['environment']}; set +a; python train.py")
            print(f"or: swarmp2p run --cluster {kept.name} -- python train.py")
            print(f"until: swarmp2p down {kept.name}", flush=True)
        elif event.get("text"):
            print(f"swarmp2p: {event['text']}", file=sys.stderr, flush=True)
        if event["event"] == "up":
            return True
    return False


async def _stand(options: argparse.Namespace, kept: KeptCluster) -> int:
    """Hold the cluster until told to stop. What it would be resumed with stays: a machine that shuts down says no more
    than SIGTERM; `down` deletes it."""
    report = Report(options, sys.stdout)
    status, was_up, waiting = 0, False, cancel_scope()
    with kept.holding(), trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def listen() -> None:
            nonlocal status
            async for number in signals:
                status = status or 128 + number
                waiting.cancel()

        new = not kept.remembers()
        try:
            async with background_nursery() as nursery:
                nursery.start_soon(listen)
                with waiting:
                    async with cluster_of(
                        options,
                        report,
                        identity=kept.key,
                        cluster_state=kept.ray,
                        snapshots=options.snapshots,
                        restore=options.restore,
                    ) as cluster:
                        _told(kept, cluster, options, environment=cluster.environment)
                        report(
                            "up",
                            "it stands; Ctrl-C ends it",
                            name=kept.name,
                            address=cluster.address,
                            workers=_workers(cluster),
                            environment=str(kept.folder / "environment"),
                        )
                        was_up = True
                        if options.detached:
                            _let_go_of_output()
                        try:
                            await _follow(kept, cluster, options)
                        finally:
                            if kept.over():
                                cluster.withdraw_snapshots()
        finally:
            if new and not was_up:
                kept.forget(but=("log",))  # nobody can have used it
    return 0 if was_up else status


def _let_go_of_output() -> None:
    """Nobody reads it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


async def _follow(kept: KeptCluster, cluster: Cluster, options: argparse.Namespace) -> None:
    """Keep what is written of the cluster true, until cancelled."""
    known = _workers(cluster)
    while True:
        await trio.sleep(_LOOK_EVERY_S)
        if _workers(cluster) != known:
            known = _workers(cluster)
            _told(kept, cluster, options)


def _told(
    kept: KeptCluster,
    cluster: Cluster,
    options: argparse.Namespace,
    environment: Mapping[str, str] | None = None,
) -> None:
    peer = str(Identity.load(options.identity).peer_id)
    kept.tell(peer, cluster.address, _workers(cluster), environment)


def _workers(cluster: Cluster) -> tuple[tuple[str, str], ...]:
    return tuple((str(worker.peer), worker.path) for worker in cluster.workers)


# down -------------------------------------------------------------------------------------------------------------


def _down(options: argparse.Namespace) -> int:
    kept = KeptCluster(options.name)
    if not kept.folder.is_dir():
        raise SwarmError(f"there is no cluster {kept.name!r}; `swarmp2p leases` names those that there are")
    if options.kill:
        kept.kill()
    ran = kept.end(_DOWN_S)
    journal = journal_path(f"{kept.key}.state")
    left = read_journal(journal).trees
    if left:
        end_orphans(left)  # of a process that was killed; its leases end as their lenders hear no more of it
    kept.forget()
    text = (
        f"{kept.name} is down"
        if ran or options.kill
        else f"{kept.name} did not run; what was left of it is gone"
    )
    Report(options, sys.stdout)("down", text, name=kept.name, ran=ran)
    return 0


# leases -----------------------------------------------------------------------------------------------------------


def _leases(options: argparse.Namespace) -> int:
    alone = options.state or (None if options.identity is None else f"{options.identity}.state")
    states = _states() if alone is None else [Path(alone)]
    now, count = time.time(), 0
    for state in states:
        lives = _is_locked(f"{state}-lock")
        for record in read_journal(journal_path(state)).leases:
            count += 1
            _show_lease(options, state, record, lives, now)
    if alone is None:
        for kept in KeptCluster.all():
            held = kept.held()
            workers = [] if held is None else [list(worker) for worker in held.workers]
            text = f"cluster {kept.name}: " + (
                "down" if held is None else f"up, {workers_text(len(workers))}"
            )
            Report(options, sys.stdout)(
                "cluster",
                text,
                name=kept.name,
                up=held is not None,
                workers=workers,
                folder=str(kept.folder),
            )
    Report(options, sys.stdout)("leases", f"{count} leases" if count != 1 else "1 lease", count=count)
    return 0


def _states() -> list[Path]:
    """State files that commands keep where none is named."""
    return [
        Path(str(journal).removesuffix(SUFFIX))
        for journal in sorted([*home().glob(f"*{SUFFIX}"), *home().glob(f"clusters/*/*{SUFFIX}")])
    ]


def _show_lease(
    options: argparse.Namespace, state: Path, record: JournalRecord, lives: bool, now: float
) -> None:
    """lives: whether the peer runs, so that what its journal says is so."""
    role = "lent to" if record.role is Role.LENDER else "borrowed from"
    text = f"{record.state if lives else 'peer not running'}: {need_text(record.need)} {role} {record.peer}"
    Report(options, sys.stdout)(
        "lease",
        text,
        lease=record.lease.hex(),
        role=record.role.value,
        peer=str(record.peer),
        cluster=record.cluster,
        state=record.state,
        live=lives,
        cpus=record.need.cpus,
        gpus=record.need.gpus,
        memory_bytes=record.need.memory_bytes,
        ends_in_s=round(record.until - now, 1),
        of=str(state),
    )


def _is_locked(path: str) -> bool:
    """Whether a process holds a lock file."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
