"""js-libp2p nodes as children of a test: js/node.mjs in one Node.js process, spoken to over its pipes.

The process ends when its input does, so that nothing outlives a test run that is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import pytest
import trio

from swarmp2p.identity import PeerId
from swarmp2p.scopes import cancel_scope

JS: Final = Path(__file__).parent / "js"
NODE: Final = JS / "node_modules" / "node"
SKIP: Final = "SWARMP2P_SKIP_JS"
_MAX_LINE_BYTES: Final = 1 << 20


class JsError(Exception):
    """What a js node answered with an error; the text is its stack."""


def check_installed() -> None:
    """Fail the test with the command that helps; skip it only where the user said so."""
    if os.environ.get(SKIP):
        pytest.skip(f"{SKIP} is set: js-libp2p is left out")
    complete = JS / "node_modules" / "complete"
    if not complete.exists() or complete.read_bytes() != (JS / "package-lock.json").read_bytes():
        pytest.fail(
            "js-libp2p is not installed, or not in the versions of tests/interop/js/package-lock.json; run\n"
            "    tools/js-peers python3\n"
            f"once (it downloads 80 MB), or set {SKIP}=1 to leave these tests out",
            pytrace=False,
        )


class JsPeers:
    """One Node.js process. Its peers share an event loop, as ours share one."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._ids = count()
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._names = count()

    async def start(
        self,
        protocol: str | None = None,
        *,
        client: bool = False,
        seed: bytes | None = None,
        port: int = 0,
        gossip: Mapping[str, object] | None = None,
        relay: str | None = None,
    ) -> JsPeer:
        """Start a node. protocol: of the DHT; None for none. client: whether it only asks in it. seed: of its key, to
        have the same id again. gossip: settings of js/pubsub.mjs; None for no pubsub. relay: "serve" to relay for
        others, "use" to be reached through one only."""
        name = f"js{next(self._names)}"
        started = await self.call(
            "start",
            name=name,
            protocol=protocol,
            client=client,
            seed=None if seed is None else seed.hex(),
            port=port,
            gossip=None if gossip is None else dict(gossip),
            relay=relay,
        )
        address = next(iter(started["addresses"]), "")
        return JsPeer(self, name, PeerId.from_text(started["id"]), address)

    async def service_key(self, service: str) -> bytes:
        """A service's key, computed in JavaScript."""
        return bytes.fromhex(await self.call("serviceKey", service=service))

    async def call(self, command: str, **options: object) -> Any:
        """Run a command; raises JsError."""
        assert self._process.stdin is not None
        id = next(self._ids)
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[id] = send
        line = json.dumps({"id": id, "do": command, **options}) + "\n"
        await self._process.stdin.send_all(line.encode())
        reply = await receive.receive()
        if "error" in reply:
            raise JsError(f"{command}: {reply['error']}")
        return reply["result"]

    async def read(self) -> None:
        """Hand replies to those who wait for them."""
        assert self._process.stdout is not None
        buffer = bytearray()
        async for chunk in self._process.stdout:
            buffer += chunk
            *lines, rest = bytes(buffer).split(b"\n")
            assert len(rest) < _MAX_LINE_BYTES
            buffer = bytearray(rest)
            for line in lines:
                reply = cast(dict[str, Any], json.loads(line))
                self._waiting.pop(reply["id"]).send_nowait(reply)
        raise JsError(f"node.mjs ended with {await self._process.wait()}; its last words are on stderr")


class JsPeer:
    """One js-libp2p node."""

    def __init__(self, peers: JsPeers, name: str, id: PeerId, address: str) -> None:
        self._peers, self._name, self.id, self.address = peers, name, id, address

    async def call(self, command: str, **options: object) -> Any:
        """Run a command on this node; raises JsError."""
        return await self._peers.call(command, name=self._name, **options)

    async def dial(self, address: object) -> None:
        """Connect to a peer."""
        await self.call("dial", address=str(address))

    async def addresses(self) -> list[str]:
        """Where it can be dialled now."""
        return cast(list[str], await self.call("addresses"))

    async def ping(self, address: object) -> list[dict[str, Any]]:
        """Ping a peer; which connections there are to it."""
        return cast(list[dict[str, Any]], (await self.call("ping", address=str(address)))["through"])

    async def provide(self, key: bytes) -> int:
        """Say that this node provides a key; how many were told."""
        return cast(int, await self.call("provide", key=key.hex()))

    async def providers(self, key: bytes) -> dict[PeerId, list[str]]:
        """The providers of a key with their addresses."""
        return _by_id(await self.call("providers", key=key.hex()))

    async def content_routing(self, key: bytes) -> dict[PeerId, list[str]]:
        """The same through the interface that applications use."""
        return _by_id(await self.call("contentRouting", key=key.hex()))

    async def find_peer(self, peer: PeerId) -> list[str]:
        """The addresses of a peer."""
        return cast(list[str], (await self.call("findPeer", peer=str(peer)))["addresses"])

    async def closest(self, key: bytes) -> dict[PeerId, list[str]]:
        """The peers nearest to a key."""
        return _by_id(await self.call("closest", key=key.hex()))

    async def put(self, key: bytes, value: bytes) -> tuple[int, list[str]]:
        """Store a value; how many answered, and what went wrong with whom."""
        result = await self.call("put", key=key.hex(), value=value.hex())
        return result["stored"], result["errors"]

    async def get(self, key: bytes) -> bytes | None:
        """The best value of a key."""
        value = await self.call("get", key=key.hex())
        return None if value is None else bytes.fromhex(value)

    async def table(self) -> set[PeerId]:
        """Who is in the routing table."""
        return {PeerId.from_text(peer) for peer in await self.call("table")}

    async def holds(self, key: bytes) -> set[PeerId]:
        """Whose provider records of a key this node holds."""
        return {PeerId.from_text(peer) for peer in await self.call("holds", key=key.hex())}

    async def record(self, provider: PeerId, service: str) -> dict[str, Any] | None:
        """A provider's own record of a service, asked of it and verified in JavaScript."""
        return cast(dict[str, Any] | None, await self.call("record", provider=str(provider), service=service))

    async def stop(self) -> None:
        """End the node."""
        await self.call("stop")


def _by_id(peers: list[dict[str, Any]]) -> dict[PeerId, list[str]]:
    return {PeerId.from_text(peer["id"]): peer["addresses"] for peer in peers}


@asynccontextmanager
async def js_peers() -> AsyncGenerator[JsPeers, None]:
    """A process for js nodes while the context is open."""
    check_installed()
    process = await trio.lowlevel.open_process(
        [NODE, JS / "node.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=JS
    )
    peers = JsPeers(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peers.read)
            yield peers
            nursery.cancel_scope.cancel()
    finally:
        with cancel_scope(shield=True):
            process.kill()  # this very process, by its handle; it holds nothing that needs an orderly end
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()
