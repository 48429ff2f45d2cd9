"""One member's WireGuard interface, for as long as it is a member: `open_tunnel`.

    key = WireGuardKey.generate()
    async with open_tunnel(interface_name(cluster, member), key) as tunnel:
        tunnel.port                       # UDP: what the other members are told, together with the public key
        await tunnel.settle(place)        # once the head has said where this member is
        await tunnel.apply(peers)         # again whenever members come and go; those that stay are not touched
        await tunnel.lost()               # never returns while all is well

The interface is made by a small process (`keeper.py`) that takes it away again when the context ends or this process
does. It may be put into another network namespace, that of a worker's cell, while its UDP socket stays in the one
where it was made (wireguard.com/netns): the cell then has no other way out than to the cluster's members.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import trio

from ...errors import UsageError, WireGuardFailed
from . import keeper, leftovers
from .description import MTU, PeerChanges, TunnelPeer, TunnelPlace, changes, check_peers, is_ours
from .firewall import table, table_changes
from .keys import WireGuardKey, as_text
from .leftovers import RUNTIME
from .programs import run
from .texts import (
    add_address,
    add_routes,
    bring_up,
    configuration,
    connections_with,
    handshakes,
    peer_arguments,
    received,
    remove_routes,
)

_END_S: Final = 10.0  # for the keeper to take everything away, which takes some 50 ms
_LINE_BYTES: Final = 4_096

_log = logging.getLogger(__name__)


class Tunnel:
    """A WireGuard interface that is up; made by `open_tunnel`. After WireGuardFailed it is to be closed.

    kind: "kernel" or "wireguard-go". port: UDP port that it listens at.
    """

    def __init__(self, interface: str, kind: str, process: trio.Process, namespace: int) -> None:
        assert process.stdout is not None
        self.interface, self.kind, self.port = interface, kind, 0
        self._process, self._said = process, process.stdout
        self._namespace = namespace
        self._place: TunnelPlace | None = None
        self._peers: tuple[TunnelPeer, ...] = ()
        self._changing = trio.Lock()

    @property
    def keeper(self) -> int:
        """Process id of its keeper."""
        return self._process.pid

    @property
    def place(self) -> TunnelPlace | None:
        """Where this member is; None before `settle`."""
        return self._place

    @property
    def peers(self) -> tuple[TunnelPeer, ...]:
        """Those that it has now."""
        return self._peers

    async def settle(self, place: TunnelPlace) -> None:
        """Take this member's place; once. The rules come first, so that nothing has an address without them."""
        if self._place is not None or place.interface != self.interface:
            raise UsageError(f"{self.interface} has its place already, or this one is of another interface")
        async with self._changing:
            await self._run("nft", "-f", "-", given=table(place))
            setting = f"/proc/sys/net/ipv4/conf/{self.interface}/route_localnet"
            await self._run("tee", setting, given="1")
            await self._run("ip", "-batch", "-", given=add_address(place))
            self._place = place

    async def apply(self, peers: Sequence[TunnelPeer]) -> PeerChanges:
        """Have these peers and no others; returns what was changed. Connections with those that go are reset.

        Raises UsageError, and then changes nothing.
        """
        place = self._place
        if place is None:
            raise UsageError(f"{self.interface} has no place yet; settle() it first")
        check_peers(peers, place.address)
        async with self._changing:
            todo = changes(self._peers, peers)
            if todo.remove:
                await self._run("ip", "-batch", "-", given=remove_routes(place, todo.remove))
            if todo:
                await self._run("wg", "set", self.interface, *peer_arguments(todo))
            if todo.remove or todo.add:
                await self._run("nft", "-f", "-", given=table_changes(place, todo))
            if todo.add:
                await self._run("ip", "-batch", "-", given=add_routes(place, todo.add))
            self._peers = tuple(peers)
        await self.reset(todo.remove)
        return todo

    async def reset(self, peers: Sequence[TunnelPeer]) -> None:
        """End all connections with these peers on this side, so that those who use them notice.

        Where the kernel cannot do that (CONFIG_INET_DIAG_DESTROY), they end when TCP gives up.
        """
        if peers:
            try:
                await self._run("ss", "--kill", "--tcp", "--no-header", *connections_with(peers))
            except WireGuardFailed as failed:
                _log.warning("connections with members that went cannot be reset: %s", failed.problem)

    async def handshakes(self) -> dict[bytes, int]:
        """When each peer's keys were last agreed, by its key: seconds since the epoch, 0 for never.

        While packets go both ways that is less than 3 minutes ago (WireGuard's REJECT_AFTER_TIME).
        """
        shown = await self._run("wg", "show", self.interface, "latest-handshakes")
        return handshakes(shown, [peer.key for peer in self._peers])

    async def received(self) -> dict[bytes, int]:
        """Bytes that came from each peer, by its key."""
        shown = await self._run("wg", "show", self.interface, "transfer")
        return received(shown, [peer.key for peer in self._peers])

    async def lost(self) -> str:
        """Until the interface is lost, because wireguard-go or the keeper ended. Returns why."""
        said = await _hear(self._said)
        await self._process.wait()
        return said.get("failed", "its keeper was killed")

    async def start(self, key: WireGuardKey, listen_port: int, mtu: int) -> None:
        """Key and port; it is up then, and nobody can use it."""
        given, secret = configuration(key, listen_port), as_text(key.private)
        await self._run("wg", "setconf", self.interface, "/dev/stdin", given=given, secret=secret)
        await self._run("ip", "-batch", "-", given=bring_up(self.interface, mtu))
        shown = await self._run("wg", "show", self.interface, "listen-port")
        self.port = int(shown)

    async def _run(self, *words: str, given: str = "", secret: str = "") -> str:
        return await run(self.interface, *words, given=given, secret=secret, namespace=self._namespace)


@asynccontextmanager
async def open_tunnel(
    interface: str,
    key: WireGuardKey,
    *,
    listen_port: int = 0,
    mtu: int = MTU,
    namespace: int = -1,
    runtime: Path = RUNTIME,
    kinds: Sequence[str] = keeper.KINDS,
) -> AsyncGenerator[Tunnel, None]:
    """Have an interface for the length of the context. Raises WireGuardFailed; nothing stays then.

    interface: from `interface_name`. listen_port: UDP, 0 for any. mtu: bytes of a packet inside. namespace: descriptor
    of the network namespace to put it into; -1 for this process's own. runtime: folder of the keepers'
    records. kinds: of WireGuard, tried in this order.
    """
    if not is_ours(interface) or not 0 <= listen_port < 65_536 or not 576 <= mtu <= 65_535:
        raise UsageError(f"no tunnel can be: name {interface!r}, UDP port {listen_port}, MTU {mtu}")
    try:
        await trio.to_thread.run_sync(leftovers.clean, runtime)
    except OSError as problem:
        raise WireGuardFailed(interface, f"no records can be kept in {runtime}: {problem}") from None
    process = await _start(interface, namespace, runtime, kinds)
    try:
        assert process.stdout is not None
        said = await _hear(process.stdout)
        if "kind" not in said:
            raise WireGuardFailed(interface, said.get("failed", "its keeper was killed"))
        tunnel = Tunnel(interface, said["kind"], process, namespace)
        await tunnel.start(key, listen_port, mtu)
        yield tunnel
    finally:
        await _end(process)


async def _start(interface: str, namespace: int, runtime: Path, kinds: Sequence[str]) -> trio.Process:
    arguments = ["--parent", str(os.getpid()), "--record", str(leftovers.record(runtime, interface))]
    arguments += ["--interface", interface]
    if namespace >= 0:
        arguments += ["--namespace", str(namespace)]
    return await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", keeper.__file__, *arguments, *kinds],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(namespace,) if namespace >= 0 else (),
        env={"PATH": keeper.search_path()},
        start_new_session=True,
    )


async def _hear(stream: trio.abc.ReceiveStream) -> dict[str, str]:
    """The keeper's next line; nothing at its end."""
    line = b""
    try:
        while not line.endswith(b"\n"):
            more = await stream.receive_some(_LINE_BYTES)
            if not more:
                return {}
            line += more
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return {}
    return cast("dict[str, str]", json.loads(line.splitlines()[0]))


async def _end(process: trio.Process) -> None:
    """Have the keeper take everything away, and wait for it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.move_on_after(_END_S) as scope:
        scope.shield = True
        try:
            await process.stdin.send_all(b"stop")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is ending already
        await process.stdin.aclose()
        await process.wait()
    with trio.move_on_after(1.0) as scope:
        scope.shield = True
        process.terminate()
        await process.stdout.aclose()
        await process.wait()
