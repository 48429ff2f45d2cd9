"""The `swarmp2p` command. Exit status: 0 done, 1 failed (one message on stderr), 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import trio

from .console import add_peer_options, emit, network_key_file, state_file, until_told_to_stop
from .errors import SwarmError, UsageError
from .identity import PeerId
from .swarm_commands import add_commands

_ALLOW_FILE_EVERY_S: Final = 0.5  # how soon a change of --allow-file is noticed


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except SwarmError as problem:
        print(f"swarmp2p: {problem}", file=sys.stderr)
        return 2 if isinstance(problem, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarmp2p", description="One compute swarm out of many owners' machines."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_commands(commands.add_parser)

    lend = commands.add_parser("lend", help="lend this machine's Ray workers to peers that you allow")
    add_peer_options(lend)
    lend.add_argument("--cpus", type=float, default=1.0, help="CPUs lent (default 1)")
    lend.add_argument("--gpus", type=float, default=0.0, help="GPUs lent")
    lend.add_argument("--kind", default="individual", help="provider kind (default individual)")
    lend.add_argument("--region", default="", help="where this machine is, as borrowers may search for it")
    lend.add_argument("--node-ip", default="127.0.0.1", help="address that the worker listens on")
    lend.add_argument(
        "--allow", action="append", default=[], metavar="PEER", help="a peer that may lease; repeatable"
    )
    lend.add_argument(
        "--allow-file", type=Path, help="file with one allowed peer id a line; read again when it changes"
    )
    lend.add_argument(
        "--paths",
        default="direct,overlay",
        help="how traffic may go to workers, with commas between: direct, wireguard, overlay (default direct,overlay)",
    )
    lend.add_argument("--allow-anyone", action="store_true", help="let every peer lease")
    lend.set_defaults(run=_lend)

    demo = commands.add_parser(
        "demo", help="five peers on this machine run a real job, and one of them is killed"
    )
    demo.add_argument("--script", type=Path, help="run this Ray script instead of the built-in search")
    demo.add_argument("--plain", action="store_true", help="print lines instead of a live view")
    demo.add_argument("--json", action="store_true", help="print the figures as one JSON object at the end")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> int:
    missing = [package for package in ("rich", "sklearn") if find_spec(package) is None]
    if missing:
        raise SwarmError(
            f"the demo needs what is not installed here ({', '.join(missing)}); "
            "install it with: pip install 'swarmp2p[demo]'. Nothing was started"
        )
    from .demo.conductor import run_demo

    return trio.run(run_demo, options.script, options.plain, options.json)


def _lend(options: argparse.Namespace) -> int:
    return trio.run(_lend_until_stopped, options)


async def _lend_until_stopped(options: argparse.Namespace) -> int:
    from .opening import DEFAULT_LISTEN, open_peer
    from .paths import paths_argument
    from .ray_bridge.events import Offer

    offer = Offer(
        cpus=options.cpus,
        gpus=options.gpus,
        kind=options.kind,
        region=options.region,
        node_ip=options.node_ip,
    )

    def allowed() -> list[PeerId] | None:
        if options.allow_anyone:
            return None
        return [PeerId.from_text(text) for text in [*options.allow, *_lines(options.allow_file)]]

    first, paths = allowed(), [name.strip() for name in options.paths.split(",")]
    paths_argument(paths)  # before anything starts
    async with (
        open_peer(
            identity=options.identity,
            listen=options.listen or DEFAULT_LISTEN,
            bootstrap=options.bootstrap,
            state=state_file(options),
            mdns=options.mdns,
            upnp=options.upnp,
            network_key=network_key_file(options, options.identity),
        ) as peer,
        peer.lend(offer, allow=first, logs=options.logs, paths=paths) as lending,
        trio.open_nursery() as nursery,
    ):
        gc.freeze()  # py-libp2p's 98,000 objects would make each full collection a pause of 0.1 s
        emit(
            options,
            "lending",
            peer=str(peer.id),
            addresses=[str(address) for address in peer.addresses],
        )

        if first == [] and options.allow_file is None:
            message = (
                "nobody may borrow: name peers with --allow or --allow-file, or let all with --allow-anyone"
            )
            emit(options, "problem", message=message)

        for message in await _hindrances(paths):
            emit(options, "problem", message=message)

        async def report_borrowers() -> None:
            told = lending.borrowers
            while True:
                await lending.changed()
                if lending.borrowers == told:
                    continue
                told = lending.borrowers
                emit(options, "leases", borrowers=[str(borrower) for borrower in lending.borrowers])

        async def follow_allow_file(path: Path) -> None:
            known, told = first, ""
            while True:
                await trio.sleep(_ALLOW_FILE_EVERY_S)
                try:
                    now, problem = allowed(), ""
                except UsageError as error:  # it may be edited just now, and the list before still stands
                    now, problem = known, str(error)
                if problem != told:
                    told = problem
                    if problem:
                        emit(
                            options,
                            "problem",
                            message=f"{problem}; {path} changes nothing until it is mended",
                        )
                if now != known:
                    known = now
                    await lending.allow(now)
                    emit(options, "allowed", peers=[str(peer) for peer in now or ()])

        nursery.start_soon(report_borrowers)
        if options.allow_file is not None:
            nursery.start_soon(follow_allow_file, options.allow_file)
        await until_told_to_stop(options.exit_on_eof)
        nursery.cancel_scope.cancel()
    return 0


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
