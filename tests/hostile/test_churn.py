"""Peers that come and go at the worst moment: what was about to be sent to them is lost, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import cast

import trio
import trio.testing

from swarmp2p.engine import NetworkEvent, PeerDown, PeerUp
from swarmp2p.scopes import start
from swarmp2p.transport.host import Host
from swarmp2p.transport.muxer import MuxedConnection
from swarmp2p.transport.secure import SecureChannel
from tests.transport.rawpeer import raw_peer
from tests.transport.station import PATIENCE_S, named
from tests.transport.toy import TOYS, Ask, Shout

_GO_AWAY = Struct("!BBHII").pack(0, 3, 0, 0, 0)


class _Late(Host):
    """A host that is slow to send what has been queued: only when the test says so."""

    def __init__(self) -> None:
        super().__init__(named("victim"), ["/ip4/127.0.0.1/tcp/0"], TOYS)
        self.due: list[Callable[[], None]] = []

    def _soon(self, act: Callable[[], None]) -> None:
        self.due.append(act)


async def test_what_was_queued_for_a_peer_that_has_left_is_dropped() -> None:
    host, left = _Late(), trio.Event()

    def deliver(event: NetworkEvent) -> None:
        match event:
            case PeerUp(peer):
                host.send(peer, Shout(b"hello"))
                host.send(peer, Ask(1, b"hello"))
                host.disconnect(peer)
            case PeerDown():
                for act in host.due:
                    act()
                left.set()
            case _:
                pass

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await start(nursery, host.run, deliver)
            async with raw_peer(host):
                await left.wait()
            nursery.cancel_scope.cancel()
    assert host.due


class _FullPipe:
    """A connection that takes nothing."""

    local = ("127.0.0.1", 2)
    relay = limit = None

    def __init__(self) -> None:
        self._shut = trio.Event()

    def get_remote_address(self) -> None:
        return None

    async def drain(self) -> None:
        await self._shut.wait()

    def shut(self) -> None:
        self._shut.set()


class _LastWords:
    """A channel whose other side goes away, at the moment when `gone` is set; nothing can be sent from then on."""

    def __init__(self) -> None:
        self.peer, self.pipe, self.gone = named("mallory").peer_id, _FullPipe(), trio.Event()
        self.unsent = 0

    async def read(self) -> bytes:
        self.gone.set()
        return _GO_AWAY

    def push(self, data: bytes) -> None:
        self.unsent += len(data) if self.gone.is_set() else 0


async def test_what_is_written_while_the_other_side_goes_away_is_lost() -> None:
    """The order in which trio runs two tasks is random, so this takes a few tries to see a connection that minds."""

    async def write() -> None:
        await channel.gone.wait()
        stream.push(b"too late")

    with trio.fail_after(PATIENCE_S):
        for _ in range(16):
            channel = _LastWords()
            async with trio.open_nursery() as nursery:
                connection = MuxedConnection(
                    cast(SecureChannel, channel), True, 64, lambda stream: stream.reset(), nursery
                )
                stream = connection.open()
                nursery.start_soon(write)
                await trio.testing.wait_all_tasks_blocked()
                await connection.run()
            assert stream.broken
