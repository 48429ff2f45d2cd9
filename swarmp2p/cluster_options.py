"""What `swarmp2p run` and `swarmp2p up` have in common: the options of a cluster, and telling how it comes about."""

from __future__ import annotations

import argparse
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import trio

from .command_grants import grants_to_show
from .console import add_peer_options, emit, peer_of
from .errors import UsageError
from .identity import PeerId
from .ray_bridge.events import Need
from .scopes import background_nursery
from .units import memory_bytes, memory_text, span_s

if TYPE_CHECKING:
    from .peer import Peer
    from .ray_bridge.cluster import Cluster

_QUIET_S: Final = 5.0  # after which people are told that nobody was found so far
_MOST_TOLD: Final = 1024  # different things said of lenders; after that, no further ones


def add_cluster_options(parser: argparse.ArgumentParser, *, identity: str) -> None:
    """identity: the default key file, as help shows it."""
    add_peer_options(parser, identity=identity)
    parser.add_argument(
        "--workers",
        default="1",
        metavar="N",
        help="how many, or bounds such as 2-16 to follow the load (default 1)",
    )
    parser.add_argument(
        "--min-workers",
        type=int,
        metavar="N",
        help="begin as soon as so many run (default: all, or the lower bound)",
    )
    parser.add_argument(
        "--gang",
        action="store_true",
        help="all of them or none: lenders wait for each other, and nothing starts before",
    )
    parser.add_argument(
        "--timeout", default="60s", metavar="TIME", help="how long to wait for them (default 60s)"
    )
    parser.add_argument("--cpus", type=float, default=1.0, help="CPUs of each worker (default 1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each worker")
    parser.add_argument("--memory", metavar="SIZE", help="memory of each worker, such as 8G (default: any)")
    parser.add_argument("--kind", default="", help="only lenders of this kind")
    parser.add_argument("--region", default="", help="only lenders in this region")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="only lenders with it; repeatable"
    )
    parser.add_argument(
        "--grant",
        action="append",
        default=[],
        metavar="GRANT",
        help="a permission to lease, from `swarmp2p grant`; repeatable (those kept by `swarmp2p grants` count anyway)",
    )
    parser.add_argument(
        "--lender",
        action="append",
        default=[],
        metavar="PEER",
        help="only this lender; repeatable (default: any)",
    )
    add_paths_option(parser)
    parser.add_argument(
        "--index",
        action="append",
        metavar="URL",
        help="a package index for runtime_env's pip, the main one first; repeatable, none for no index (default: what "
        "pip uses here, but for local ones and such that take a password)",
    )
    parser.add_argument(
        "--index-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a further host that files of these indexes come from; repeatable",
    )


def add_paths_option(parser: argparse.ArgumentParser) -> None:
    """Of lenders, too."""
    parser.add_argument(
        "--paths",
        type=lambda text: [name.strip() for name in text.split(",")],
        default="direct,overlay",
        metavar="PATHS",
        help="how traffic may go to workers, with commas between: direct, wireguard, overlay (default direct,overlay)",
    )


def label_arguments(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE texts as pairs; raises UsageError."""
    pairs = list[tuple[str, str]]()
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{text!r} is no label: write NAME=VALUE, such as gpu=a100")
        pairs.append((name, value))
    return tuple(pairs)


def count_of_workers(text: str) -> int | tuple[int, int]:
    """4, or (2, 16) of "2-16". Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", text)
    if found is None:
        raise UsageError(f"{text!r} is no count of workers: write 4, or bounds such as 2-16")
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


def need_of(options: argparse.Namespace) -> Need:
    """What the options ask of each worker. Raises UsageError."""
    return Need(
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=0 if options.memory is None else memory_bytes(options.memory),
        kind=options.kind,
        region=options.region,
        labels=label_arguments(options.label),
    )


def need_text(need: Need) -> str:
    """A need for people: 2 CPUs, 1 GPU, 8G."""
    parts = [f"{need.cpus:g} CPU{'s' * (need.cpus != 1)}"]
    if need.gpus:
        parts.append(f"{need.gpus:g} GPU{'s' * (need.gpus != 1)}")
    if need.memory_bytes:
        parts.append(memory_text(need.memory_bytes))
    return ", ".join(parts)


def workers_text(count: int) -> str:
    """1 worker, 2 workers."""
    return f"{count} worker{'s' * (count != 1)}"


class Report:
    """Says how a command gets on, on a stream: lines for people, events with --json."""

    def __init__(self, options: argparse.Namespace, stream: TextIO) -> None:
        self._options, self._stream = options, stream

    def __call__(self, event: str, text: str, **fields: object) -> None:
        """text: for people; "" for what is told by JSON alone."""
        if self._options.json:
            emit(self._options, event, to=self._stream, **fields, **({"text": text} if text else {}))
        elif text:
            print(f"swarmp2p: {text}", file=self._stream, flush=True)


@asynccontextmanager
async def cluster_of(
    options: argparse.Namespace, report: Report, *, identity: Path, **further: Any
) -> AsyncGenerator[Cluster, None]:
    """The cluster that the options ask for, once as many workers run as they say; told step by step. further:
    arguments of `Peer.borrow`. Raises what that raises."""
    need, workers = need_of(options), count_of_workers(options.workers)
    wanted = workers if isinstance(workers, int) else workers[0]
    first = wanted if options.min_workers is None else options.min_workers
    timeout_s = span_s(options.timeout)
    lenders = [PeerId.from_text(text) for text in options.lender] or None
    if options.identity is None:
        identity.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        options.identity = identity
    async with peer_of(options) as peer:
        began = peer.now()
        report(
            "borrowing",
            f"borrowing {wanted} x {need_text(need)} as {peer.id}",
            peer=str(peer.id),
            workers=wanted,
        )
        async with (
            peer.borrow(
                need,
                workers=workers,
                min_workers=0,
                timeout_s=timeout_s,
                lenders=lenders,
                grants=grants_to_show(options.grant, peer),
                logs=options.logs,
                gang=options.gang,
                paths=options.paths,
                index=() if options.index == ["none"] else options.index,
                index_hosts=options.index_host,
                **further,
            ) as cluster,
            background_nursery() as nursery,
        ):
            nursery.start_soon(_tell, cluster, report, began, first)
            nursery.start_soon(_tell_of_nobody, cluster, peer, report, timeout_s)
            await cluster.wait_for_workers(first, timeout_s)
            await trio.lowlevel.checkpoint()  # `_tell` was woken with us: what it has to say comes first
            yield cluster


async def _tell_of_nobody(cluster: Cluster, peer: Peer, report: Report, timeout_s: float) -> None:
    """Say why nothing happens, when nothing does."""
    await trio.sleep(_QUIET_S)
    if cluster.workers or cluster.refusals:
        return
    why = (
        "no lender has given a worker so far"
        if peer.connected
        else "this peer has found no swarm: run `swarmp2p join INVITE`, or name one of its peers with --bootstrap"
    )
    report("waiting", f"{why}; waiting up to {timeout_s:g} s in all", connected=len(peer.connected))


async def _tell(cluster: Cluster, report: Report, began: float, first: int) -> None:
    from .ray_bridge.cluster_events import ClusterEventKind as Kind

    told = dict[tuple[str, str, str], None]()
    async for event in cluster.events:
        who = f"{event.peer.short}"
        fields: dict[str, object] = {"peer": str(event.peer), "at_s": round(event.at - began, 3)}
        if event.kind is Kind.ACTIVE:
            count = len(cluster.workers)
            of = f" of {first}" if count <= first else ""
            report(
                "worker",
                f"{count}{of} workers run: {who}, {event.reason} ({event.at - began:.1f} s)",
                workers=count,
                path=event.reason,
                **fields,
            )
            continue
        key = (event.kind.value, str(event.peer), event.reason)
        if key in told or len(told) >= _MOST_TOLD:
            continue
        told[key] = None
        spoken = event.kind not in (Kind.FOUND, Kind.ASKED, Kind.GRANTED)
        text = f"{who}: {event.kind.value}: {event.reason}" if spoken else ""
        report(event.kind.value, text, reason=event.reason, **fields)
