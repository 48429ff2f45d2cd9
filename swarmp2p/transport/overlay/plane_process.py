"""The plane: a process of its own that moves a member's traffic.

It keeps the traffic out of the peer's process, whose Python can then attend to the swarm, and has everything that
the other members can make it do in one place with bounded memory. It obeys requests on a Unix socket (`control.py`)
and ends when that socket does, or when the process that started it does, were it by SIGKILL; the kernel then closes
every connection. It asks no clock but the monotonic one, and knows nothing of leases, clusters or libp2p.

`plane_start.py` is the program; `plane.py` is the other end.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import SystemRandom
from typing import Any, Final, cast

from .accepting import Acceptor
from .config import SessionConfig
from .connection import STREAM
from .control import MAX_PACKET_BYTES, MAX_PORTS, Json, PlaneEvent, decode, encode, event_to_json
from .crypto import TAG_BYTES
from .dialling import MOST_ENDPOINTS, Endpoint
from .doorway import Doorway
from .listeners import LocalListeners
from .loop import WRITABLE, Loop
from .partner import Partner, relieve
from .sockets import CellSockets, OwnSockets, SocketSource, Taker, receive_descriptors

MOST_PARTNERS: Final = 1024
MOST_HELD_BYTES: Final = 512 << 20
"""What may have come for local sockets that do not take it, over all partners; each may be the same borrower's."""
_KEPT_BYTES: Final = 512 << 20
_LEAST_KEPT_BYTES: Final = 2 << 20
"""What is kept for a session's next carrier is less where there are many: 2 GB in all for 256."""
_REQUESTS_A_ROUND: Final = 64
_MOST_UNSENT_PACKETS: Final = 65_536
"""Events and answers that wait for the peer's process to read. Beyond it that process is considered stuck, and the
plane ends."""


class Refused(Exception):
    """A request cannot be done; nothing changed. The text goes back as its answer."""


class Plane:
    """See the module. control: the socket to the peer's process. cell: the socket to the cell, or None."""

    def __init__(self, control: socket.socket, cell: socket.socket | None, parent: int) -> None:
        self.loop = Loop()
        self.served: dict[int, str] = {}
        self.counters: dict[str, int] = Counter()
        self._control = control
        self._source: SocketSource = OwnSockets() if cell is None else CellSockets(self.loop, cell)
        self._partners: dict[bytes, Partner] = {}
        self._by_tag: dict[bytes, Partner] = {}
        self._acceptor = Acceptor()
        self._doorway = Doorway(
            self.loop, self._acceptor, self._by_tag.__contains__, self._claim, self.counters
        )
        self._listeners = LocalListeners(self.loop, self._source, self._acceptor)
        self._unsent: list[bytes] = []
        self._more = False
        self.marked = False
        self._rng = SystemRandom()
        control.setblocking(False)
        self.loop.watch(control.fileno(), self)
        if parent:
            self.loop.watch_level(os.pidfd_open(parent), _Parent(self.loop))
            if os.getppid() != parent:
                self.loop.stop()  # it died before we looked

    def run(self) -> None:
        """Until the peer's process lets go."""
        try:
            self.loop.run()
        finally:
            self._listeners.end()
            for partner in self._partners.values():
                partner.silence()
            self._doorway.end()
            self._source.end()
            self._acceptor.end()
            self.loop.end()

    def tell(self, event: PlaneEvent) -> None:
        """See `partner.Owner`."""
        self._send(event_to_json(event))

    def take_socket(self, taker: Taker) -> None:
        """See `partner.Owner`."""
        self._source.take(taker)

    def relieve(self) -> None:
        """See `partner.Owner`."""
        relieve([*self._partners.values()], MOST_HELD_BYTES)

    # Control ----------------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        """The loop's: requests have come, or answers can go."""
        if mask & WRITABLE and self._unsent:
            self.loop.mark(self)
        for _ in range(_REQUESTS_A_ROUND):
            try:
                packet, descriptors = receive_descriptors(self._control, MAX_PACKET_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.loop.stop()
                return
            sock = socket.socket(fileno=descriptors[0]) if descriptors else None
            request = decode(packet)
            number = request["id"]
            try:
                self._obey(request, sock, partial(self._answer, number))
            except Refused as refusal:
                self._answer(number, str(refusal))
        self._more = True
        self.loop.mark(self)

    def work(self) -> None:
        """The loop's: send what waits, and read on."""
        self._flush()
        if self._more:
            self._more = False
            self.ready(0)

    def _obey(self, request: Json, sock: socket.socket | None, done: Callable[[str | None], None]) -> None:
        """Do one request, and say so."""
        what = request["do"]
        if what == "stats":
            self._send({"id": request["id"], "stats": self._stats()})
        elif what == "serve":
            for port in _ports(request):
                self.served[port] = str(request["address"])
            done(None)
        elif what == "unserve":
            for port in _ports(request):
                self.served.pop(port, None)
            done(None)
        elif what == "door":
            self._send({"id": request["id"], "endpoints": self._open_doors(request)})
        else:
            target = bytes.fromhex(str(request["target"]))
            if what == "listen":
                self._listeners.listen(self._partner(target), str(request["address"]), _ports(request), done)
            elif what == "unlisten":
                address = str(request["address"])
                self._listeners.unlisten(target, [(address, port) for port in _ports(request)] or None)
                done(None)
            elif what == "session":
                self._begin(target, request)
                done(None)
            elif what == "aim":
                if target in self._partners:
                    self._partners[target].aim(_endpoints(request, "endpoints"))
                done(None)
            elif what == "carry":
                if sock is not None:
                    self._carry(target, sock)
                done(None)
            elif what == "drop":
                self._drop(target)
                done(None)
            else:
                raise Refused(f"unknown request {what!r}")

    def _open_doors(self, request: Json) -> list[list[object]]:
        opened: list[list[object]] = []
        for host, port in _endpoints(request, "at"):
            try:
                opened.append(list(self._doorway.listen((host, port))))
            except (OSError, OverflowError) as error:
                raise Refused(f"cannot take carriers at {host}, port {port}: {error}") from None
        return opened

    def _partner(self, target: bytes) -> Partner:
        partner = self._partners.get(target)
        if partner is None:
            if len(self._partners) >= MOST_PARTNERS:
                raise Refused(f"a plane has at most {MOST_PARTNERS} partners")
            partner = self._partners[target] = Partner(self, target)
            self.loop.timed.append(partner)
        return partner

    def _begin(self, target: bytes, request: Json) -> None:
        partner = self._partner(target)
        secret = bytes.fromhex(str(request["secret"]))
        config = SessionConfig(**cast("dict[str, Any]", request["config"]))
        share = max(_LEAST_KEPT_BYTES, _KEPT_BYTES // len(self._partners))
        config = replace(config, unacknowledged_most_bytes=min(config.unacknowledged_most_bytes, share))
        partner.begin(secret, bool(request["initiator"]), _endpoints(request, "endpoints"), self._rng, config)
        self._by_tag.clear()
        self._by_tag.update({each.tag: each for each in self._partners.values() if each.tag})
        self._doorway.known()

    def _carry(self, target: bytes, sock: socket.socket) -> None:
        partner = self._partners.get(target)
        if partner is not None and partner.initiator:
            sock.setblocking(False)
            partner.carry(sock, STREAM)
        else:
            self._doorway.admit_stream(sock, target)

    def _drop(self, target: bytes) -> None:
        self._listeners.unlisten(target)
        partner = self._partners.pop(target, None)
        if partner is not None:
            self._by_tag.pop(partner.tag, None)
            partner.silence()
            self.loop.timed.remove(partner)
            gc.collect()  # rare, and the only time at which cycles are left

    def _claim(self, sock: socket.socket, kind: str, hello: bytes) -> bool | None:
        """The doorway's: whose connection this is."""
        partner = self._by_tag.get(hello[:TAG_BYTES])
        return None if partner is None else partner.adopt(sock, kind, hello)

    def _stats(self) -> Json:
        partners = list(self._partners.values())
        return {
            **self.counters,
            "shed": self._acceptor.shed,
            "partners": len(partners),
            "listeners": self._listeners.count,
            "forwards": sum(partner.forwards for partner in partners),
            "sent_bytes": sum(partner.sent_bytes for partner in partners),
            "received_bytes": sum(partner.received_bytes for partner in partners),
            "resident_bytes": _resident_bytes(),
            "cpu_us": int(1e6 * sum(resource.getrusage(resource.RUSAGE_SELF)[:2])),
        }

    def _answer(self, number: object, problem: str | None) -> None:
        self._send({"id": number} if problem is None else {"id": number, "error": problem})

    def _send(self, message: Json) -> None:
        self._unsent.append(encode(message))
        if len(self._unsent) > _MOST_UNSENT_PACKETS:
            self.loop.stop()
        self.loop.mark(self)  # it leaves once what was closed is closed

    def _flush(self) -> None:
        sent = 0
        try:
            for packet in self._unsent:
                self._control.send(packet)
                sent += 1
        except BlockingIOError:
            pass
        except OSError:
            self.loop.stop()
        del self._unsent[:sent]


class _Parent:
    """Watches the process that started us."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def ready(self, mask: int) -> None:
        """It has ended."""
        self._loop.stop()


def _ports(request: Json) -> list[int]:
    ports = [int(port) for port in cast("list[int]", request["ports"])]
    if len(ports) > MAX_PORTS or any(not 0 < port < 65536 for port in ports):
        raise Refused(f"at most {MAX_PORTS} ports, from 1 to 65535")
    return ports


def _endpoints(request: Json, key: str) -> list[Endpoint]:
    return [(str(host), int(port)) for host, port in cast("list[tuple[str, int]]", request[key])][
        :MOST_ENDPOINTS
    ]


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main(control: int, cell: int | None, parent: int) -> None:
    """The program, once everything is imported. control, cell: descriptors; parent: process to die with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plane = Plane(socket.socket(fileno=control), None if cell is None else socket.socket(fileno=cell), parent)
    # What the plane makes per connection has no cycles once it is closed, so that counting references suffices.
    gc.collect()
    gc.freeze()
    gc.disable()
    plane.run()
