"""The door of a borrower's machine to its package index, for the workers of one cluster: `runtime_env={"pip": ["six"]}`
installs there what it installs here, although nothing but the cluster can be reached from a worker.

    pip in a worker's jail --mesh--> the door, a port of the head's block at 127.0.0.1 --> the index, its files' host

It is a proxy that connects to the hosts of that index and to nothing else (`forwarding.py`, `package_index.py`). pip
and the index speak TLS through it with each other; names are resolved here, once a connection, and what is in the
borrower's own network is connected to only where the borrower has named it. A worker's node asks it first for what
pip is to be told (`_ray_node.py`), so no lender has to know of it, and what lenders are told is theirs to read.

Who may come: the members of the cluster, by a key that is made of the cluster's token. What they may take: `ROOM`
connections at a time, of all members together (the next ones wait, so a member can keep the others from the index, as
from the rest of the head), each with 64 KiB in flight each way, `_IDLE_S` of silence and `_LIFE_S` in all.
A GB takes 0.9 s of CPU in the peer's own loop, in portions of 64 KiB: less than a process of its own is worth.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, assert_never, cast

import trio

from ..errors import UsageError
from ..scopes import background_nursery
from . import _pip
from .environment import borrowers_environment
from .forwarding import (
    CONNECTED,
    MAX_HEAD_BYTES,
    Fetch,
    Refused,
    Tell,
    Tunnel,
    door_key,
    read_request,
    refusal,
    settings,
)
from .package_index import (
    MAX_CERTIFICATES_BYTES,
    Endpoint,
    IndexWanted,
    PackageIndex,
    PipSettings,
    endpoint_text,
    is_public,
    package_index,
)

ROOM: Final = 64
_CHUNK_BYTES: Final = 65536
_HEAD_S: Final = 10.0  # for a request to come
_DIAL_S: Final = 10.0
_NEXT_S: Final = 0.25  # until an address is tried beside the one before it (RFC 8305)
_MOST_ADDRESSES: Final = 16
_LOOKUPS: Final = 4  # at a time: a thread each, of the door's own, for as long as the system's resolver takes
_IDLE_S: Final = 120.0  # an index may think for long before it answers
_LIFE_S: Final = 3600.0  # 2 GB at half a megabyte a second
_PIP_S: Final = 20.0  # for pip to say what it is configured with; it takes 0.3 s
_LINGER_S: Final = 2.0
_END: Final = b"\r\n\r\n"
_AGAIN_S: Final = 0.1  # after a connection that could not be taken
_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Where pip, and what it is made of, look for a bundle that its own options do not name."""

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----[A-Za-z0-9+/=\s]*-----END \1-----"
)


class IndexDoor:
    """Made by `open_index_door`. port: where it is."""

    def __init__(self, port: int, token: str, wanted: IndexWanted) -> None:
        self.port = port
        self._key, self._wanted = door_key(token), wanted
        self._index: PackageIndex | None = None
        self._told = b""
        self._asking = trio.Lock()
        self._lookups = trio.CapacityLimiter(_LOOKUPS)

    async def index(self) -> PackageIndex:
        """What workers may use. pip is asked what it is configured with when somebody wants to know, not while the head
        starts, which keeps two cores busy."""
        async with self._asking:
            if self._index is None:
                pip = PipSettings() if self._wanted.urls == () else await ask_pip()
                self._index = package_index(pip, self._wanted)
                # once: with certificates it is a megabyte, and who asks sends 100 bytes
                self._told = settings(self._index)
            return self._index

    async def say_left_out(self, say: Callable[[str], None]) -> None:
        """Once that is known, say of which of the borrower's indexes workers are not told, and why."""
        for reason in (await self.index()).left_out:
            say(reason)

    async def serve(self, listener: trio.SocketListener) -> None:
        """`open_index_door`'s: until cancelled."""
        room = trio.Semaphore(ROOM)
        async with trio.open_nursery() as nursery:
            while True:
                await room.acquire()
                try:
                    stream = await listener.accept()
                except OSError:  # no descriptors are left
                    room.release()
                    await trio.sleep(_AGAIN_S)
                else:
                    nursery.start_soon(self._attend, stream, room)

    async def _attend(self, stream: trio.SocketStream, room: trio.Semaphore) -> None:
        try:
            with trio.move_on_after(_LIFE_S):
                await self._answer(stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the two has gone
        finally:
            room.release()
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head, rest = b"", b""
        with trio.move_on_after(_HEAD_S):
            head, rest = await _head(stream)
        if not head:
            return
        index = await self.index()
        asked = read_request(head, index, self._key)
        match asked:
            case Tell():
                await _last(stream, self._told)
            case Refused():
                await _last(stream, refusal(asked))
            case Tunnel() | Fetch():
                far = await _connect(asked.to, self._lookups, named=asked.to in index.named)
                if isinstance(far, Refused):
                    await _last(stream, refusal(far))
                    return
                try:
                    if isinstance(asked, Fetch):
                        await far.send_all(asked.head)
                    else:
                        await stream.send_all(CONNECTED)
                        await far.send_all(rest)
                    await _relay(stream, far, both=isinstance(asked, Tunnel))
                finally:
                    await trio.aclose_forcefully(far)
            case _:
                assert_never(asked)


async def _head(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """A request's head, and what came after it; (b"", ...) when none came. One that is too long is cut, and no
    request."""
    held = bytearray()
    end = -1
    while end < 0 and len(held) <= MAX_HEAD_BYTES:
        chunk = await stream.receive_some(_CHUNK_BYTES)
        if not chunk:
            return b"", b""
        held += chunk
        end = held.find(_END, max(0, len(held) - len(chunk) - len(_END)))
    cut = MAX_HEAD_BYTES + 1 if end < 0 else end + len(_END)
    return bytes(held[:cut]), bytes(held[cut:])


async def _last(stream: trio.SocketStream, said: bytes) -> None:
    """Say the last thing. What is still on its way from the other side would have the kernel throw that away."""
    with trio.move_on_after(_IDLE_S):
        await stream.send_all(said)
        await stream.send_eof()
    with trio.move_on_after(_LINGER_S):
        while await stream.receive_some(_CHUNK_BYTES):
            pass


async def _connect(
    to: Endpoint, lookups: trio.CapacityLimiter, *, named: bool
) -> trio.SocketStream | Refused:
    """named: by the borrower, who may mean a host of its own network."""
    try:
        with trio.fail_after(_DIAL_S):
            addresses = await _addresses(to, lookups)
            if not named and not all(map(is_public, addresses)):
                return Refused(
                    403,
                    f"{endpoint_text(to)} is in the borrower's own network, which is open to lenders only where it is "
                    "named: borrow(index=...), --index",
                )
            return await _reach(addresses, to[1])
    except trio.TooSlowError:
        return Refused(
            504, f"the borrower's machine has not reached {endpoint_text(to)} within {_DIAL_S:g} s"
        )
    except OSError:  # what exactly is nothing for lenders
        return Refused(502, f"the borrower's machine cannot reach {endpoint_text(to)}")


async def _addresses(to: Endpoint, lookups: trio.CapacityLimiter) -> list[str]:
    """What a host's name means now. Raises OSError."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(to[0]))]
    ask = partial(socket.getaddrinfo, to[0].encode("ascii"), to[1], type=socket.SOCK_STREAM)
    run_sync = cast(Any, trio.to_thread.run_sync)  # trio-stubs are older than this keyword
    found = await run_sync(ask, abandon_on_cancel=True, limiter=lookups)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:_MOST_ADDRESSES]


async def _reach(addresses: Sequence[str], port: int) -> trio.SocketStream:
    """The first of them that takes a connection: these and no others, for another look at a name may find another
    host. Raises OSError."""
    reached: list[trio.SocketStream] = []

    async def attempt(address: str, failed: trio.Event) -> None:
        try:
            reached.append(await trio.open_tcp_stream(address, port))
        except OSError:
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(_NEXT_S):
                    await failed.wait()
        if not reached:
            raise ConnectionError("no address takes connections")
        return reached.pop(0)
    finally:
        for stream in reached:  # of two at once, or when this was cancelled
            stream.socket.close()


async def _relay(near: trio.SocketStream, far: trio.SocketStream, *, both: bool) -> None:
    """Pass on what `far` sends until it has ended, or nothing has moved for long. both: what `near` sends, too;
    otherwise it has nothing to say any more, and whatever comes from it is the end."""
    moved = trio.current_time()

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        nonlocal moved
        try:
            while chunk := await source.receive_some(_CHUNK_BYTES):
                await sink.send_all(chunk)
                moved = trio.current_time()
            await sink.send_eof()
        except (OSError, trio.BrokenResourceError):
            nursery.cancel_scope.cancel()

    async def hear() -> None:
        with suppress(OSError, trio.BrokenResourceError):
            await near.receive_some(1)
        nursery.cancel_scope.cancel()

    async def watch() -> None:
        while (left := moved + _IDLE_S - trio.current_time()) > 0:  # noqa: ASYNC110  it moves all the time
            await trio.sleep(left)
        nursery.cancel_scope.cancel()

    async with background_nursery() as nursery:
        nursery.start_soon(watch)
        if both:
            nursery.start_soon(pump, near, far)
        else:
            nursery.start_soon(hear)
        await pump(far, near)


async def ask_pip() -> PipSettings:
    """What pip is configured with here; nothing where that cannot be found out. Takes 0.3 s."""
    environment = borrowers_environment({})
    # -P: modules beside the program must not hide others' of the same name
    command = [sys.executable, "-P", _pip.__file__]
    said: Any = {}
    with trio.move_on_after(_PIP_S):
        try:
            done = await trio.run_process(
                command,
                env=environment,
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                deliver_cancel=_kill,
            )
            said = json.loads(done.stdout)
        except (OSError, ValueError):
            pass
    return pip_settings(said, environment)


async def _kill(process: trio.Process) -> None:
    """It reads, and has nothing to put away."""
    process.kill()


def pip_settings(said: Any, environment: Mapping[str, str]) -> PipSettings:
    """What `_pip.py` has said, with the certificates that pip trusts here."""
    if not isinstance(said, dict) or "config" not in said:
        return PipSettings()
    told = cast("dict[str, Any]", said)
    config = {str(name): str(value) for name, value in told["config"].items()}
    pip = PipSettings(str(told["default"]), str(told["files"]), config)
    path = pip.option("cert") or next(filter(None, map(environment.get, _CERTIFICATES)), "")
    return replace(pip, certificates=_certificates(os.path.expanduser(path))) if path else pip


def _certificates(path: str) -> str:
    """The certificates of a bundle, and nothing else that is in that file, such as the key of one; "" where it is none
    that can be passed on."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_CERTIFICATES_BYTES + 1).decode("ascii", "replace")
    except (OSError, ValueError):
        return ""
    if len(text) > MAX_CERTIFICATES_BYTES:
        return ""
    return "".join(f"{found[0]}\n" for found in _CERTIFICATE.finditer(text))


@asynccontextmanager
async def open_index_door(port: int, token: str, wanted: IndexWanted) -> AsyncGenerator[IndexDoor, None]:
    """A door for the length of the context, which is entered at once. port: its own, 0 for any. token: of the cluster.
    Raises UsageError where the port is somebody's."""
    try:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    except OSError as problem:
        raise UsageError(
            f"port {port} of the head's block cannot be listened at: {problem}; begin again, for other ports. Nothing "
            "was started"
        ) from None
    async with listener, background_nursery() as nursery:
        door = IndexDoor(listener.socket.getsockname()[1], token, wanted)
        nursery.start_soon(door.serve, listener)
        yield door
