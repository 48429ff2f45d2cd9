"""The `swarmp2p` command. Exit statuses: console.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import trio

from .console import EXIT_STATUSES, INTERRUPTED, exit_status, failed
from .errors import SwarmError
from .grant_commands import add_commands as add_grant_commands
from .lend_command import add_lend_command
from .run_command import add_run_command
from .swarm_commands import add_commands as add_swarm_commands
from .up_commands import add_up_commands


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    options.argv = sys.argv[1:] if argv is None else list(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except SwarmError as problem:
        failed(options, problem)
        status: Callable[[SwarmError], int] = getattr(options, "status_of", exit_status)
        return status(problem)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarmp2p",
        description="One compute swarm out of many owners' machines.",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_swarm_commands(commands.add_parser)
    add_lend_command(commands.add_parser)
    add_grant_commands(commands.add_parser)
    add_run_command(commands.add_parser)
    add_up_commands(commands.add_parser)

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
