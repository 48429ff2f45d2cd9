"""`swarmp2p lend`: lends this machine's Ray workers, always or in its owner's hours, until told to stop.

With --hours, what was lent is taken back with notice, so that at the end of a window the machine is its owner's:

    resting ---window begins---> lending ---the notice before its end---> notice ---its end---> resting
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .cluster_options import add_paths_option, label_arguments
from .console import add_peer_options, emit, peer_of, until_told_to_stop
from .errors import UsageError
from .identity import PeerId
from .ray_bridge.events import ISOLATIONS, JAIL, Offer
from .units import Hours, Phase, memory_bytes, span_s

if TYPE_CHECKING:
    from .lending import Lending
    from .peer import Peer

_ALLOW_FILE_EVERY_S: Final = 0.5  # how soon a change of --allow-file is noticed
_CLOCK_EVERY_S: Final = 30.0  # how soon is noticed that the owner's clock was changed, or the machine slept


def add_lend_command(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; add: makes its parser."""
    lend = add("lend", help="lend this machine's Ray workers to peers that you allow")
    add_peer_options(lend)
    lend.add_argument("--cpus", type=float, default=1.0, help="CPUs lent (default 1)")
    lend.add_argument("--gpus", type=float, default=0.0, help="GPUs lent")
    lend.add_argument("--memory", metavar="SIZE", help="memory lent, such as 8G (default: Ray's choice)")
    lend.add_argument("--leases", type=int, default=1, metavar="N", help="leases at a time (default 1)")
    lend.add_argument("--kind", default="individual", help="provider kind (default individual)")
    lend.add_argument("--region", default="", help="where this machine is, as borrowers may search for it")
    lend.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a label that borrowers may ask for; repeatable",
    )
    lend.add_argument("--node-ip", default="127.0.0.1", help="address that the worker listens on")
    lend.add_argument(
        "--hours",
        metavar="HOURS",
        help="when to lend, by this machine's clock: 22:00-08:00, or several with commas between (default: always)",
    )
    lend.add_argument(
        "--notice",
        default="60s",
        metavar="TIME",
        help="how long borrowers know before the hours end (default 60s)",
    )
    lend.add_argument(
        "--isolation",
        choices=ISOLATIONS,
        default=JAIL,
        help="what keeps workers from this machine's files and processes (default jail); none: nothing does",
    )
    lend.add_argument(
        "--allow", action="append", default=[], metavar="PEER", help="a peer that may lease; repeatable"
    )
    lend.add_argument(
        "--allow-file", type=Path, help="file with one allowed peer id a line; read again when it changes"
    )
    lend.add_argument(
        "--grantor",
        action="append",
        default=[],
        metavar="PEER",
        help="an owner whose grants count here, as those of this machine's key always do; repeatable",
    )
    lend.add_argument(
        "--snapshots",
        metavar="SIZE",
        help="room for sealed copies of borrowers' clusters, such as 64M, with which they can go on elsewhere",
    )
    lend.add_argument("--allow-anyone", action="store_true", help="let every peer lease")
    add_paths_option(lend)
    lend.set_defaults(run=_lend)


def _lend(options: argparse.Namespace) -> int:
    return trio.run(_lend_until_stopped, options)


async def _lend_until_stopped(options: argparse.Namespace) -> int:
    from .paths import paths_argument

    offer = Offer(
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=0 if options.memory is None else memory_bytes(options.memory),
        kind=options.kind,
        region=options.region,
        max_leases=options.leases,
        node_ip=options.node_ip,
        labels=label_arguments(options.label),
        isolation=options.isolation,
    )
    hours = None if options.hours is None else Hours.parse(options.hours)
    notice_s = span_s(options.notice)
    paths: list[str] = options.paths
    paths_argument(paths)  # before anything starts
    if options.snapshots is not None:
        memory_bytes(options.snapshots)
    terms = _Terms(options)
    async with peer_of(options) as peer:
        command = _LendCommand(options, peer, offer, paths, terms)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run, hours, notice_s)
            await command.began.wait()
            await until_told_to_stop(options.exit_on_eof)
            nursery.cancel_scope.cancel()
    return 0


class _Terms:
    """Who may borrow, as the options say now. Raises UsageError for a list that cannot be read."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.allowed = self.read()

    def read(self) -> list[PeerId] | None:
        """The list as it is now; None for everybody."""
        options = self._options
        if options.allow_anyone:
            return None
        return [PeerId.from_text(text) for text in [*options.allow, *_lines(options.allow_file)]]


class _LendCommand:
    """Lends by the clock, and tells what happens. began: set once it has told how it begins."""

    def __init__(
        self, options: argparse.Namespace, peer: Peer, offer: Offer, paths: Sequence[str], terms: _Terms
    ) -> None:
        self._options, self._peer, self._offer, self._paths, self._terms = options, peer, offer, paths, terms
        self._warned = False
        self.began = trio.Event()

    async def run(self, hours: Hours | None, notice_s: float) -> None:
        """Lend until cancelled."""
        while True:
            phase, ends = (Phase.LENDING, None) if hours is None else hours.phase(_owners_time(), notice_s)
            if phase is Phase.RESTING:
                assert hours is not None
                self._emit("resting", until=str(ends))
                self.began.set()
                await _while_in(Phase.RESTING, hours, notice_s)
                continue
            async with self._lending() as lending:
                if hours is None:
                    await trio.sleep_forever()
                else:
                    await _while_in(Phase.LENDING, hours, notice_s)
                    phase, ends = hours.phase(_owners_time(), notice_s)
                    if phase is Phase.NOTICE:
                        self._emit("notice", until=str(ends))
                        lending.take_back(notice_s, "the hours in which its owner lends end")
                        await _while_in(Phase.NOTICE, hours, notice_s)

    @asynccontextmanager
    async def _lending(self) -> AsyncGenerator[Lending, None]:
        async with (
            self._peer.lend(
                self._offer,
                allow=self._terms.allowed,
                grantors=self._options.grantor,
                logs=self._options.logs,
                paths=self._paths,
                snapshots_bytes=memory_bytes(self._options.snapshots) if self._options.snapshots else 0,
            ) as lending,
            trio.open_nursery() as nursery,
        ):
            gc.freeze()  # py-libp2p's 98,000 objects would make each full collection a pause of 0.1 s
            self._emit(
                "lending",
                peer=str(self._peer.id),
                addresses=[str(address) for address in self._peer.addresses],
                connected=len(self._peer.connected),
                cpus=self._offer.cpus,
                gpus=self._offer.gpus,
                leases=self._offer.max_leases,
                isolation=self._offer.isolation,
            )
            if not self._warned:
                self._warned = True
                await self._warn()
                self.began.set()
            nursery.start_soon(self._report_borrowers, lending)
            if self._options.allow_file is not None:
                nursery.start_soon(self._follow_allow_file, lending, self._options.allow_file)
            yield lending
            nursery.cancel_scope.cancel()

    async def _warn(self) -> None:
        options = self._options
        if self._terms.allowed == [] and options.allow_file is None and not options.grantor:
            message = (
                "nobody may borrow without a grant of this peer: name peers with --allow or --allow-file, or "
                "let all with --allow-anyone"
            )
            self._emit("problem", message=message)
        cpus, has = self._offer.cpus, len(os.sched_getaffinity(0))
        if cpus > has:
            self._emit("problem", message=f"{cpus:g} CPUs are lent, and this machine has {has}")
        for message in await _hindrances(self._paths):
            self._emit("problem", message=message)

    async def _report_borrowers(self, lending: Lending) -> None:
        told = lending.borrowers
        while True:
            await lending.changed()
            if lending.borrowers == told:
                continue
            told = lending.borrowers
            self._emit("leases", borrowers=[str(borrower) for borrower in lending.borrowers])

    async def _follow_allow_file(self, lending: Lending, path: Path) -> None:
        told = ""
        while True:
            await trio.sleep(_ALLOW_FILE_EVERY_S)
            known = self._terms.allowed
            try:
                now, problem = self._terms.read(), ""
            except UsageError as error:  # it may be edited just now, and the list before still stands
                now, problem = known, str(error)
            if problem != told:
                told = problem
                if problem:
                    self._emit("problem", message=f"{problem}; {path} changes nothing until it is mended")
            if now != known:
                self._terms.allowed = now
                await lending.allow(now)
                self._emit("allowed", peers=[str(peer) for peer in now or ()])

    def _emit(self, event: str, **fields: object) -> None:
        emit(self._options, event, to=None, **fields)


def _owners_time() -> datetime:
    """What this machine's clock shows its owner."""
    return datetime.now()


async def _while_in(phase: Phase, hours: Hours, notice_s: float) -> None:
    """As long as the clock says so. It is looked at again and again, for it may be set, and machines sleep."""
    while True:
        now = _owners_time()
        current, ends = hours.phase(now, notice_s)
        if current is not phase:
            return
        left = _CLOCK_EVERY_S if ends is None else (ends - now).total_seconds()
        await trio.sleep(min(max(left, 0.01), _CLOCK_EVERY_S))


async def _hindrances(paths: Sequence[str]) -> list[str]:
    """What stands in the way of paths that an owner allows, and what would clear it; borrowers would be told later."""
    from .ray_bridge.cells import cell_problem
    from .transport.wireguard.problem import wireguard_problem

    found = list[str]()
    if {"overlay", "wireguard"} & set(paths) and (problem := await cell_problem()):
        found.append(f"borrowers on other machines cannot be lent to: {problem}")
    elif "wireguard" in paths and (problem := await trio.to_thread.run_sync(wireguard_problem)):
        found.append(f"no path will be WireGuard's: {problem}")
    return found


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = path.read_text()
    except OSError as problem:
        raise UsageError(
            f"cannot read the file of allowed peers {path}: {problem.strerror}; create it, or drop --allow-file"
        ) from None
    return [line for line in (raw.partition("#")[0].strip() for raw in text.splitlines()) if line]
