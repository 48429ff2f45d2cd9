"""What the commands have in common: options, events on standard output, exit statuses, and when to stop."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import trio

from .errors import NotEnoughWorkers, SwarmError, UsageError

if TYPE_CHECKING:
    from .peer import Peer

FAILED: Final = 1
WRONG_USAGE: Final = 2
NOT_ENOUGH: Final = 3
CANNOT_RUN: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
INTERRUPTED: Final = 130
TOLD_TO_END: Final = 143

EXIT_STATUSES: Final = """exit status:
  0    done
  1    failed; one message on standard error says why and what to do
  2    wrong usage; nothing was started
  3    not enough workers within the time given
  130  interrupted (Ctrl-C), and ended in good order
  143  told to end (SIGTERM) before there was a result

`swarmp2p run` passes on its command's status, 128 + N where signal N ended it. Where swarmp2p itself fails, it is 125,
126 for a command that cannot be executed, and 127 for one that is not found.
"""


def exit_status(problem: SwarmError) -> int:
    """Of a command that failed."""
    if isinstance(problem, UsageError):
        return WRONG_USAGE
    return NOT_ENOUGH if isinstance(problem, NotEnoughWorkers) else FAILED


def failed(options: argparse.Namespace, problem: SwarmError) -> None:
    """Say why a command failed: for people on standard error, and with --json as an event as well."""
    tell_failure(options, type(problem).__name__, str(problem))


def tell_failure(options: argparse.Namespace, error: str, message: str) -> None:
    """The same, in words. The event goes where the command's other events go: standard output, unless that is
    somebody else's (`events_on_stderr`)."""
    if getattr(options, "json", False):
        to = sys.stderr if getattr(options, "events_on_stderr", False) else None
        emit(options, "failed", to=to, error=error, message=message)
    print(f"swarmp2p: {message}", file=sys.stderr)


def home() -> Path:
    """Where commands keep what no option names: $SWARMP2P_HOME, else the user's folder for state."""
    told = os.environ.get("SWARMP2P_HOME")
    if told:
        return Path(told)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "swarmp2p"


def add_peer_options(
    parser: argparse.ArgumentParser, *, listen: str = "/ip4/127.0.0.1/tcp/0", identity: str = ""
) -> None:
    """The options that every command which opens a peer has. listen, identity: its defaults, as help shows them."""
    parser.add_argument(
        "--bootstrap",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a peer of the swarm to join, or an invite; repeatable",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help=f"where to listen (default {listen})",
    )
    kept = f"default {identity}" if identity else "a fresh key by default"
    parser.add_argument("--identity", type=Path, help=f"key file, made when missing; {kept}")
    parser.add_argument(
        "--network-key",
        type=Path,
        metavar="FILE",
        help="key of the private swarm to be in (default: KEYFILE.network, where a private swarm was joined)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        help="file for what the peer keeps over restarts, made when missing (default: KEYFILE.state with --identity, "
        "where its folder can be written to)",
    )
    parser.add_argument(
        "--mdns", action="store_true", help="find peers in the local network, and be found there"
    )
    parser.add_argument(
        "--upnp",
        action="store_true",
        help="ask the router, by UPnP, to let this peer be dialled from outside",
    )
    parser.add_argument("--logs", type=Path, help="folder for the logs of Ray's processes")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.add_argument(
        "--exit-on-eof", action="store_true", help="end in good order when standard input closes"
    )


def state_file(options: argparse.Namespace) -> Path | None:
    """Where the peer keeps its state: as told, else beside its key; nowhere for a key of the moment."""
    told: Path | None = options.state
    identity: Path | None = options.identity
    if told is not None or identity is None:
        return told
    # A key may be mounted read-only, as containers do; that is no mistake.
    return identity.with_name(f"{identity.name}.state") if os.access(identity.parent, os.W_OK) else None


def addresses_file(key: Path) -> Path:
    """Where a peer that runs with this key and stays (`swarmp2p join`) says where it can be dialled."""
    return key.with_name(f"{key.name}.addresses")


def network_key_file(options: argparse.Namespace, identity: Path | None) -> Path | None:
    """Where the private swarm's key is: as told, else where `swarmp2p join` kept it beside the peer's own."""
    told: Path | None = options.network_key
    if told is not None or identity is None:
        return told
    kept = identity.with_name(f"{identity.name}.network")
    return kept if os.path.lexists(kept) else None


def way_in(options: argparse.Namespace) -> tuple[list[str], Path | None]:
    """Whom to join through, and the file of the private swarm's key: as told, else as this machine's own peer has it
    that `swarmp2p join` runs, if it does."""
    bootstrap: list[str] = options.bootstrap
    key = network_key_file(options, options.identity)
    if bootstrap or options.mdns:
        return bootstrap, key
    try:
        addresses = addresses_file(home() / "key").read_text().split()
    except OSError:
        return [], key
    return addresses, key or network_key_file(options, home() / "key")


def peer_of(options: argparse.Namespace) -> AbstractAsyncContextManager[Peer]:
    """The peer that the options of `add_peer_options` describe. Raises what `open_peer` raises."""
    from .opening import DEFAULT_LISTEN, open_peer

    bootstrap, network_key = way_in(options)
    return open_peer(
        identity=options.identity,
        listen=options.listen or DEFAULT_LISTEN,
        bootstrap=bootstrap,
        state=state_file(options),
        mdns=options.mdns,
        upnp=options.upnp,
        network_key=network_key,
    )


def emit(options: argparse.Namespace, event: str, *, to: TextIO | None = None, **fields: object) -> None:
    """Print an event: a JSON line with --json, else a readable one. to: standard output by default."""
    if options.json:
        print(json.dumps({"event": event, **fields}), file=to, flush=True)
    else:
        print(event, *(f"{name}={value}" for name, value in fields.items()), file=to, flush=True)


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
