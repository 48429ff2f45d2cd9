"""The plane from the peer's side: `open_plane` starts its process, asks it for things, and hears what happens."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

import cryptography
import trio

from ...errors import SwarmError, UsageError
from ...scopes import background_nursery, cancel_scope
from ..network import PeerStream
from . import plane_start
from .aes import machine_has_aes
from .carrier_streams import pump
from .config import SessionConfig
from .control import (
    MAX_PACKET_BYTES,
    MAX_PORTS,
    CarrierLost,
    CarrierUp,
    Ended,
    Json,
    NeedStream,
    PlaneEvent,
    Silent,
    decode,
    encode,
    event_from_json,
)
from .crypto import SECRET_BYTES
from .dialling import Endpoint

__all__ = [
    "CarrierLost",
    "CarrierUp",
    "Ended",
    "Endpoint",
    "NeedStream",
    "Plane",
    "PlaneEnded",
    "PlaneEvent",
    "PlaneRefused",
    "Silent",
    "open_plane",
]

_END_S: Final = 2.0
_LOG_BYTES: Final = 4096


class PlaneRefused(SwarmError):
    """The plane did not do what was asked, and nothing changed. reason: why, such as a port that is taken."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the plane refused to {request}: {reason}")
        self.request, self.reason = request, reason


class PlaneEnded(SwarmError):
    """The plane's process has ended, and all its connections with it; open another. reason: its last words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the plane's process has ended: {reason}")
        self.reason = reason


class Plane:
    """A running plane; made by `open_plane`.

    member: whose it is. endpoints: (ip, port) of each place where carrier TCP connections are taken. Each method
    returns when the plane has done its work, and raises PlaneRefused or PlaneEnded.
    """

    def __init__(
        self,
        member: bytes,
        nursery: trio.Nursery,
        process: trio.Process,
        control: socket.socket,
        log: int,
        on_event: Callable[[PlaneEvent], None],
        config: SessionConfig,
    ) -> None:
        self.member = member
        self.endpoints: tuple[Endpoint, ...] = ()
        self._nursery, self._process, self._log, self._on_event = nursery, process, log, on_event
        self._config: Json = asdict(config)
        self._control = trio.socket.from_stdlib_socket(control)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.Event] = {}
        self._answers: dict[int, Json] = {}
        self._ended: str | None = None

    @property
    def pid(self) -> int:
        """The plane's process."""
        return self._process.pid

    async def serve(self, address: str, ports: Sequence[int]) -> None:
        """Let the other members reach these own ports, which are connected to at `address`. Adds to those before."""
        for some in _batches(ports):
            await self._ask("serve its ports", {"do": "serve", "address": address, "ports": some})

    async def listen(self, target: bytes, address: str, ports: Sequence[int]) -> None:
        """Listen at a member's address and ports, and forward there what connects. Ports of it that are listened at
        already stay. When one cannot be had, those of this call are let go (of up to 8,192 at a time)."""
        for some in _batches(ports):
            await self._ask(
                f"listen at {address}",
                {"do": "listen", "target": target.hex(), "address": address, "ports": some},
            )

    async def unserve(self, ports: Sequence[int]) -> None:
        """Let nobody reach these own ports any more; connections stay."""
        for some in _batches(ports):
            await self._ask("serve ports no more", {"do": "unserve", "ports": some})

    async def unlisten(self, target: bytes, address: str = "", ports: Sequence[int] = ()) -> None:
        """Close the listeners of a member, or those at an address and ports; connections stay."""
        request: Json = {"do": "unlisten", "target": target.hex()}
        for some in _batches(ports) if address else [[]]:
            await self._ask("unlisten", {**request, "address": address, "ports": some})

    async def session(
        self, target: bytes, secret: bytes, initiator: bool, endpoints: Sequence[Endpoint] = ()
    ) -> None:
        """Begin a session with a member: the first, or another with a new secret; connections of the one before
        are reset. secret: 32 bytes that both have. initiator: one of both is; it dials the endpoints (16 at
        most), and asks for streams by NeedStream where none answers."""
        if len(secret) != SECRET_BYTES:
            raise UsageError(f"a session's secret has {SECRET_BYTES} bytes, this one {len(secret)}")
        request: Json = {
            "do": "session",
            "target": target.hex(),
            "secret": secret.hex(),
            "initiator": initiator,
            "endpoints": [list(endpoint) for endpoint in endpoints],
            "config": self._config,
        }
        await self._ask("begin a session", request)

    async def aim(self, target: bytes, endpoints: Sequence[Endpoint]) -> None:
        """Have the initiator of a session dial these endpoints (16 at most) from its next round on; what stands stays.
        Nothing to do on the other side."""
        told = [list(endpoint) for endpoint in endpoints]
        await self._ask("dial elsewhere", {"do": "aim", "target": target.hex(), "endpoints": told})

    async def carry(self, target: bytes, stream: PeerStream) -> trio.Event:
        """Use a libp2p stream as carrier connection to a member, on both sides. Returns once the plane has it, with
        an event that is set when the stream is over; it is reset then."""
        ours, theirs = socket.socketpair()
        try:
            await self._ask("carry", {"do": "carry", "target": target.hex()}, theirs)
        except BaseException:
            ours.close()
            stream.reset()
            raise
        finally:
            theirs.close()
        over = trio.Event()
        self._nursery.start_soon(self._pump, stream, ours, over)
        return over

    async def drop(self, target: bytes) -> None:
        """Have no more to do with a member: its session, listeners and connections end."""
        await self._ask("drop", {"do": "drop", "target": target.hex()})

    async def stats(self) -> Mapping[str, int]:
        """What was counted so far, by name: connections, bytes, what was turned away, memory, CPU time."""
        return cast("dict[str, int]", (await self._ask("count", {"do": "stats"}))["stats"])

    async def _pump(self, stream: PeerStream, sock: socket.socket, over: trio.Event) -> None:
        try:
            await pump(stream, trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        finally:
            over.set()

    async def belong(
        self, member: bytes, listen: Sequence[str], on_event: Callable[[PlaneEvent], None]
    ) -> None:
        """Be the plane of this member from now on, with these doors, for one that was opened without. Raises
        PlaneRefused and PlaneEnded, in which case on_event may have heard nothing of the end."""
        self.member, self._on_event = member, on_event
        await self.open_doors([_endpoint(text) for text in listen])

    async def open_doors(self, listen: Sequence[Endpoint]) -> None:
        """`open_plane`'s: take carriers at these addresses."""
        answer = await self._ask("take carriers", {"do": "door", "at": [list(where) for where in listen]})
        endpoints = cast("list[tuple[str, int]]", answer["endpoints"])
        self.endpoints = tuple((host, port) for host, port in endpoints)

    async def hear(self) -> None:
        """`open_plane`'s: take in answers and events, until the process ends."""
        while True:
            try:
                packet = await self._control.recv(MAX_PACKET_BYTES)
            except OSError:
                packet = b""
            if not packet:
                break
            message = decode(packet)
            number = message.get("id")
            if isinstance(number, int):
                waiting = self._waiting.pop(number, None)
                if waiting is not None:
                    self._answers[number] = message
                    waiting.set()
            else:
                event = event_from_json(message)
                if event is not None:
                    self._on_event(event)
        reason = await self._last_words()
        self._over(reason)
        self._on_event(Ended(reason))

    async def end(self) -> None:
        """`open_plane`'s: end the process, and what is asked of it still."""
        self._over("it was closed")
        with cancel_scope(shield=True):
            self._control.close()
            with trio.move_on_after(_END_S):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        os.close(self._log)

    async def _ask(self, what: str, request: Json, sock: socket.socket | None = None) -> Json:
        number = next(self._numbers)
        if self._ended is not None:
            raise PlaneEnded(self._ended)
        answered = self._waiting[number] = trio.Event()
        rights = (
            []
            if sock is None
            else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sock.fileno().to_bytes(4, sys.byteorder))]
        )
        try:
            try:
                await self._control.sendmsg([encode({**request, "id": number})], rights)
            except (OSError, trio.ClosedResourceError):
                pass  # it is ending: `_over` wakes us
            await answered.wait()
        finally:
            self._waiting.pop(number, None)
            answer = self._answers.pop(number, None)
        if answer is None:
            assert self._ended is not None, "who waits is woken by an answer or by the end"
            raise PlaneEnded(self._ended)
        if "error" in answer:
            raise PlaneRefused(what, str(answer["error"]))
        return answer

    def _over(self, reason: str) -> None:
        """Nothing is answered any more."""
        self._ended = self._ended or reason
        for waiting in self._waiting.values():
            waiting.set()

    async def _last_words(self) -> str:
        status = await self._process.wait()
        said = os.pread(self._log, _LOG_BYTES, max(0, os.fstat(self._log).st_size - _LOG_BYTES))
        lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        return f"{how}: {lines[-1][:300]}" if lines else how


@asynccontextmanager
async def open_plane(
    member: bytes,
    *,
    listen: Sequence[str] = ("127.0.0.1",),
    cell: socket.socket | None = None,
    on_event: Callable[[PlaneEvent], None] = lambda event: None,
    config: SessionConfig | None = None,
) -> AsyncGenerator[Plane, None]:
    """Run a member's plane for the length of the context; it does not outlive this process either.

    member: its id. listen: where carrier TCP connections are taken, as "ip", "ip:port", "v6" or "[v6]:port".
    cell: the socket to the cell that makes the plane's local sockets (see `sockets.py`), which stays the caller's;
    None for the namespace of this process. on_event: called in trio's thread with each event; must not raise.
    config: of its sessions.
    Raises PlaneRefused when it cannot listen, UsageError.
    """
    places = [_endpoint(text) for text in listen]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = os.memfd_create("plane")
    try:
        inherited = [theirs.fileno()] + ([] if cell is None else [cell.fileno()])
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-I", "-S", plane_start.__file__),
                str(theirs.fileno()),
                str(-1 if cell is None else cell.fileno()),
                str(os.getpid()),
                str(Path(__file__).resolve().parents[3]),
                *_sites(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=inherited,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(log)
        raise
    finally:
        theirs.close()
    async with background_nursery() as nursery:
        plane = Plane(
            member, nursery, process, ours, log, on_event, config or SessionConfig(aes=machine_has_aes())
        )
        try:
            nursery.start_soon(plane.hear)
            await plane.open_doors(places)
            yield plane
        finally:
            nursery.cancel_scope.cancel()
            await plane.end()


_ENVIRONMENT: Final = {
    # Read by glibc. One arena: there is one thread. Buffers of up to 4 MiB come from the heap, which is kept while it
    # shrinks by less than 16 MiB: with the defaults each large buffer is mapped, faulted in and unmapped again.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
}


def _sites() -> list[str]:
    """Where `cryptography` is found."""
    assert cryptography.__file__ is not None
    return [str(Path(cryptography.__file__).resolve().parents[1])]


def _batches(ports: Sequence[int]) -> list[list[int]]:
    return [list(ports[start : start + MAX_PORTS]) for start in range(0, len(ports), MAX_PORTS)]


def _endpoint(text: str) -> Endpoint:
    """ "ip", "ip:port", "v6", "[v6]:port" as (ip, port), port 0 for any."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        return host, int(port or "0")
    except (OSError, ValueError):
        raise UsageError(f"listen={text!r} is no IP address with an optional port") from None
