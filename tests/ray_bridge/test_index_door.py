"""A door to a package index, with real sockets at 127.0.0.1; pip is asked in one test alone."""

from __future__ import annotations

import base64
import os
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from swarmp2p.errors import UsageError
from swarmp2p.ray_bridge import index_door
from swarmp2p.ray_bridge._ray_node import INDEX_LABEL, Packages, await_head
from swarmp2p.ray_bridge.forwarding import door_key
from swarmp2p.ray_bridge.index_door import IndexDoor, ask_pip, open_index_door, pip_settings
from swarmp2p.ray_bridge.package_index import DEFAULT_INDEX, IndexWanted, PipSettings, package_index

TOKEN = "a token"
AUTH = b"Proxy-Authorization: Basic " + base64.b64encode(f"worker:{door_key(TOKEN)}".encode()) + b"\r\n\r\n"
PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\ny\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> PipSettings:
        return PipSettings()

    monkeypatch.setattr(index_door, "ask_pip", ask)


@asynccontextmanager
async def an_index(
    serve: Callable[[trio.SocketStream], object], *more: str, scheme: str = "http"
) -> AsyncGenerator[tuple[IndexDoor, int], None]:
    """A door, and the port of what it leads to, where each connection is served so."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        wanted = IndexWanted((f"{scheme}://127.0.0.1:{port}/simple", *more))
        async with open_index_door(0, TOKEN, wanted) as door:
            yield door, port
        nursery.cancel_scope.cancel()


async def everything(stream: trio.SocketStream) -> bytes:
    found = bytearray()
    while chunk := await stream.receive_some():
        found += chunk
    return bytes(found)


async def say(door: IndexDoor, said: bytes) -> bytes:
    """All that is answered."""
    async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
        await stream.send_all(said)
        return await everything(stream)


async def shout(stream: trio.SocketStream) -> None:
    """Send back what comes, in capitals, and end when it ends."""
    while chunk := await stream.receive_some():
        await stream.send_all(chunk.upper())


async def hello(stream: trio.SocketStream) -> None:
    """Answer one request with itself."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + head)


async def test_a_tunnel_carries_both_ways_until_its_end() -> None:
    async with an_index(shout, scheme="https") as (door, port):
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
            head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode() + AUTH
            await stream.send_all(head + b"early")
            await stream.send_all(b"-later" * 50_000)
            await stream.send_eof()
            answer = await everything(stream)
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nEARLY" + b"-LATER" * 50_000


async def test_a_page_is_fetched_without_the_key() -> None:
    async with an_index(hello) as (door, port):
        answer = await say(door, f"GET http://127.0.0.1:{port}/simple/six/ HTTP/1.1\r\n".encode() + AUTH)
        passed = f"GET /simple/six/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        assert answer == f"HTTP/1.1 200 OK\r\n\r\n{passed}".encode()


async def test_more_than_one_request_on_a_connection_is_its_end() -> None:
    async with an_index(shout) as (door, port):
        fetch = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n".encode() + AUTH
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
            await stream.send_all(fetch)
            assert (await stream.receive_some()).startswith(b"GET / HTTP/1.1")  # of one that does not close
            await stream.send_all(fetch)
            with suppress(trio.BrokenResourceError):  # its end, or a reset, for what was sent is not taken
                while await stream.receive_some():
                    pass


async def test_who_may_not_is_told_so_and_nothing_is_connected() -> None:
    async def never(_: trio.SocketStream) -> None:
        raise AssertionError("it was connected to")

    async with an_index(never) as (door, port):
        assert (await say(door, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())).startswith(
            b"HTTP/1.1 407 "
        )
        assert (await say(door, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n" + AUTH)).startswith(b"HTTP/1.1 403 ")
        assert (await say(door, b"x" * 100_000)).startswith(b"HTTP/1.1 400 ")


async def test_an_index_that_is_not_there() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_index_door(0, TOKEN, IndexWanted((f"https://127.0.0.1:{port}/",))) as door:
        answer = await say(door, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode() + AUTH)
        assert answer.startswith(
            f"HTTP/1.1 502 the borrower's machine cannot reach 127.0.0.1:{port}".encode()
        )


async def test_what_pip_alone_says_leads_to_nothing_in_the_borrowers_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(_: trio.SocketStream) -> None:
        raise AssertionError("it was connected to")

    async with an_index(never) as (_, port):

        async def ask() -> PipSettings:
            return PipSettings(f"http://localhost:{port}/simple")

        monkeypatch.setattr(index_door, "ask_pip", ask)
        async with open_index_door(0, TOKEN, DEFAULT_INDEX) as door:
            answer = await say(door, f"GET http://localhost:{port}/simple/six/ HTTP/1.1\r\n".encode() + AUTH)
    assert answer.startswith(f"HTTP/1.1 403 localhost:{port} is in the borrower's own network".encode())


async def test_what_was_looked_at_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers for a name may answer otherwise the second time."""
    real, looked = socket.getaddrinfo, list[object]()

    def lookup(host: object, *rest: Any, **more: Any) -> Any:
        if host not in ("index.example", b"index.example"):
            return real(host, *rest, **more)  # type: ignore[arg-type]
        looked.append(host)
        return real("127.0.0.2" if len(looked) == 1 else "127.0.0.1", *rest, **more)

    async def never(_: trio.SocketStream) -> None:
        raise AssertionError("it was connected to")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(index_door, "is_public", "127.0.0.2".__eq__)
    async with an_index(never) as (_, port), trio.open_nursery() as nursery:

        async def ask() -> PipSettings:
            return PipSettings(f"http://index.example:{port}/simple")

        monkeypatch.setattr(index_door, "ask_pip", ask)
        nursery.start_soon(trio.serve_listeners, hello, await trio.open_tcp_listeners(port, host="127.0.0.2"))
        async with open_index_door(0, TOKEN, DEFAULT_INDEX) as door:
            answer = await say(door, f"GET http://index.example:{port}/ HTTP/1.1\r\n".encode() + AUTH)
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("silent", [True, False])
async def test_an_address_that_does_not_answer_is_not_the_last(
    silent: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trio.open_tcp_stream

    async def dial(host: str, port: int) -> trio.SocketStream:
        if host == "127.0.0.1":
            return await real(host, port)
        if silent:
            await trio.sleep_forever()
        raise ConnectionRefusedError

    async def lookup(*_: object) -> list[str]:
        return ["127.0.0.9", "::9", "127.0.0.1"]

    async with an_index(hello) as (door, port), await real("127.0.0.1", door.port) as stream:
        monkeypatch.setattr(trio, "open_tcp_stream", dial)
        monkeypatch.setattr(index_door, "_addresses", lookup)
        await stream.send_all(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n".encode() + AUTH)
        assert (await everything(stream)).startswith(b"HTTP/1.1 200 OK")


async def test_a_resolver_that_takes_long_takes_no_thread_of_the_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, over = threading.Event(), threading.Event()

    def lookup(*_: object, **__: object) -> list[object]:
        began.set()
        over.wait(5)  # not for ever, where it is asked in the loop
        raise socket.gaierror(socket.EAI_NONAME, "there is none")

    async with (
        open_index_door(0, TOKEN, IndexWanted(("https://index.example/",))) as door,
        await trio.open_tcp_stream("127.0.0.1", door.port) as stream,
    ):
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        await stream.send_all(b"CONNECT index.example:443 HTTP/1.1\r\n" + AUTH)
        try:
            while not began.is_set():  # noqa: ASYNC110  a thread sets it
                await trio.sleep(0.001)
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        finally:
            over.set()
        assert (await everything(stream)).startswith(b"HTTP/1.1 502 ")


async def test_what_pip_is_to_be_told_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be a megabyte, and a member can ask all the time."""
    made = list[object]()

    def settings(index: object) -> bytes:
        made.append(index)
        return b"HTTP/1.1 200 OK\r\n\r\n"

    monkeypatch.setattr(index_door, "settings", settings)
    async with open_index_door(0, TOKEN, IndexWanted(())) as door:
        for _ in range(3):
            assert (await say(door, b"GET / HTTP/1.1\r\n" + AUTH)).startswith(b"HTTP/1.1 200 OK")
    assert len(made) == 1


async def test_who_says_nothing_keeps_others_out_for_a_while_only(autojump_clock: MockClock) -> None:
    async with an_index(hello) as (door, _), trio.open_nursery() as nursery:
        for _each in range(index_door.ROOM):
            nursery.start_soon(say, door, b"GET")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        assert (await say(door, b"GET / HTTP/1.1\r\n" + AUTH)).startswith(b"HTTP/1.1 200 OK")
        assert trio.current_time() - began <= 15


async def test_a_tunnel_in_which_nothing_moves_ends(autojump_clock: MockClock) -> None:
    async with an_index(shout, scheme="https") as (door, port):
        began = trio.current_time()
        answer = await say(door, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode() + AUTH)
        assert trio.current_time() - began <= 150
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"


async def test_a_port_that_is_somebodys() -> None:
    async with open_index_door(0, TOKEN, IndexWanted(())) as door:
        with pytest.raises(UsageError, match="begin again"):
            async with open_index_door(door.port, TOKEN, IndexWanted(())):
                pass


async def told(door: IndexDoor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a worker's node has in its environment for pip."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_TOKEN": TOKEN})
    await trio.to_thread.run_sync(Packages("127.0.0.1", door.port, str(folder / "ray")).apply)
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}


async def test_a_node_asks_what_pip_is_to_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> PipSettings:
        return PipSettings("", "", {"global.trusted-host": "a.example b.example"}, PEM)

    monkeypatch.setattr(index_door, "ask_pip", ask)
    more = "https://b.example/simple", "https://c.example/simple"
    async with an_index(hello, *more) as (door, port):
        assert await told(door, tmp_path, monkeypatch) == {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_PROXY": f"http://worker:{door_key(TOKEN)}@127.0.0.1:{door.port}",
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "PIP_EXTRA_INDEX_URL": "https://b.example/simple https://c.example/simple",
            "PIP_TRUSTED_HOST": "a.example b.example",
            "PIP_CERT": str(tmp_path / "ray" / "certificates.pem"),
        }
    assert (tmp_path / "ray" / "certificates.pem").read_text() == PEM


async def test_a_node_without_an_index_has_the_door_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_index_door(0, TOKEN, IndexWanted(())) as door:
        found = await told(door, tmp_path, monkeypatch)
        assert sorted(found) == ["PIP_CONFIG_FILE", "PIP_PROXY", "PIP_RETRIES"]
        assert b"offers no package index" in await say(door, b"CONNECT index.example:443 HTTP/1.1\r\n" + AUTH)


async def test_a_node_does_without_a_door_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nonsense(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b'HTTP/1.1 200 OK\r\n\r\n{"index": 7}')

    async with an_index(nonsense) as (door, port):
        door.port = port
        assert await told(door, tmp_path, monkeypatch) == {}


def test_a_node_asks_the_head_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster that goes on elsewhere, GCS still knows the head before, whose door was at another port."""
    nodes = {b"before": ("DEAD", "10001"), b"now": ("ALIVE", "10002")}

    class Client:
        def __init__(self, address: str) -> None:
            pass

        def get_all_node_info(self, state_filter: str | None = None, **_: object) -> dict[bytes, object]:
            return {
                name: SimpleNamespace(labels={INDEX_LABEL: port})
                for name, (state, port) in nodes.items()
                if state_filter in (None, state)
            }

    states = SimpleNamespace(ALIVE="ALIVE")
    fakes = {
        "ray._raylet": SimpleNamespace(GcsClient=Client),
        "ray.exceptions": SimpleNamespace(AuthenticationError=KeyError, RpcError=KeyError),
        "ray.core.generated.gcs_service_pb2": SimpleNamespace(
            GetAllNodeInfoRequest=SimpleNamespace(NodeSelector=SimpleNamespace)
        ),
        "ray.core.generated.gcs_pb2": SimpleNamespace(GcsNodeInfo=SimpleNamespace(GcsNodeState=states)),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(cast("dict[str, Any]", sys.modules), name, fake)
    assert await_head("127.0.0.1:1") == 10002


def test_certificates_are_those_that_pip_trusts(tmp_path: Path) -> None:
    bundle, other = tmp_path / "bundle.pem", tmp_path / "other.pem"
    bundle.write_text(PEM)
    other.write_text("no certificates")
    said = {"default": "https://index.example/", "files": "files.example", "config": {}}
    configured = {**said, "config": {"global.cert": str(bundle)}}
    assert pip_settings(configured, {"SSL_CERT_FILE": str(other)}).certificates == PEM
    assert pip_settings(said, {"SSL_CERT_FILE": str(bundle)}).certificates == PEM
    assert pip_settings(said, {"SSL_CERT_FILE": str(bundle), "CURL_CA_BUNDLE": str(other)}).certificates == ""
    assert pip_settings(said, {"REQUESTS_CA_BUNDLE": str(tmp_path)}).certificates == ""
    assert pip_settings(said, {}).certificates == ""
    assert pip_settings({}, {"SSL_CERT_FILE": str(bundle)}) == PipSettings()
    assert pip_settings(said, {"SSL_CERT_FILE": "~nobody-of-this-name/x"}).certificates == ""
    bundle.write_text(f"of Müller's proxy\n{KEY}{PEM}{KEY}{PEM}", "utf-8")  # as some proxies write theirs
    assert pip_settings(configured, {}).certificates == PEM + PEM
    bundle.write_text(PEM * 100_000)
    assert pip_settings(configured, {}).certificates == ""


async def test_pip_says_what_it_is_configured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a.example/\n[install]\nextra-index-url =\n  https://b.example/\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_INDEX_URL", "https://c.example/")
    pip = await ask_pip()
    assert pip.default.startswith("https://")
    assert "." in pip.files
    found = package_index(pip, DEFAULT_INDEX)
    assert found.urls == ("https://c.example/", "https://b.example/")
