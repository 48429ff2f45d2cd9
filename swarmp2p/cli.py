"""The `swarmp2p` command. Exit status: 0 done, 1 failed (one message on stderr), 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from .errors import SwarmError, UsageError
from .identity import PeerId


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

    lend = commands.add_parser("lend", help="lend this machine's Ray workers to peers that you allow")
    add_peer_options(lend)
    lend.add_argument("--cpus", type=float, default=1.0, help="CPUs lent to each lease (default 1)")
    lend.add_argument("--gpus", type=float, default=0.0, help="GPUs lent to each lease")
    lend.add_argument("--kind", default="individual", help="provider kind (default individual)")
    lend.add_argument("--region", default="", help="where this machine is, as borrowers may search for it")
    lend.add_argument("--node-ip", default="127.0.0.1", help="address that the worker listens on")
    lend.add_argument(
        "--allow", action="append", default=[], metavar="PEER", help="a peer that may lease; repeatable"
    )
    lend.add_argument(
        "--allow-file", type=Path, help="file with one allowed peer id a line; read again when it changes"
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


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command which opens a peer has."""
    parser.add_argument(
        "--bootstrap",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a peer of the swarm to join; repeatable",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where to listen (default /ip4/127.0.0.1/tcp/0)",
    )
    parser.add_argument("--identity", type=Path, help="key file, made when missing; a fresh key by default")
    parser.add_argument("--logs", type=Path, help="folder for the logs of Ray's processes")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.add_argument(
        "--exit-on-eof", action="store_true", help="end in good order when standard input closes"
    )


def _demo(options: argparse.Namespace) -> int:
    from .demo.conductor import run_demo

    return trio.run(run_demo, options.script, options.plain, options.json)


def _lend(options: argparse.Namespace) -> int:
    return trio.run(_lend_until_stopped, options)


def emit(options: argparse.Namespace, event: str, **fields: object) -> None:
    """Print an event: a JSON line with --json, else a readable one."""
    if options.json:
        print(json.dumps({"event": event, **fields}), flush=True)
    else:
        print(event, *(f"{name}={value}" for name, value in fields.items()), flush=True)


async def until_told_to_stop(exit_on_eof: bool) -> None:
    """Wait for SIGINT or SIGTERM, or for the end of standard input."""
    async with trio.open_nursery() as nursery:

        async def wait_for_signal() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        async def wait_for_eof() -> None:
            async with trio.lowlevel.FdStream(0) as stream:
                while await stream.receive_some(4096):
                    pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_signal)
        if exit_on_eof:
            nursery.start_soon(wait_for_eof)


async def _lend_until_stopped(options: argparse.Namespace) -> int:
    from .peer import DEFAULT_LISTEN, open_peer
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

    async with (
        open_peer(
            identity=options.identity, listen=options.listen or DEFAULT_LISTEN, bootstrap=options.bootstrap
        ) as peer,
        peer.lend(offer, allow=allowed(), logs=options.logs) as lending,
        trio.open_nursery() as nursery,
    ):
        emit(
            options,
            "lending",
            peer=str(peer.id),
            addresses=[str(address) for address in peer.addresses],
        )

        async def report_borrowers() -> None:
            while True:
                await lending.changed()
                emit(options, "leases", borrowers=[str(borrower) for borrower in lending.borrowers])

        async def follow_allow_file(path: Path) -> None:
            known = allowed()
            while True:
                await trio.sleep(_ALLOW_FILE_EVERY_S)
                now = allowed()
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


_ALLOW_FILE_EVERY_S = 0.5


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
