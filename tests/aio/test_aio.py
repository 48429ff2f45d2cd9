"""swarmp2p.aio in asyncio loops: what works in trio works here, cancelled and failing calls included."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import swarmp2p.aio
from swarmp2p import Acceptance, GossipMessage, LoadSignal, Offer, Peer, Subscription
from swarmp2p.aio.guest import Guest, open_guest
from swarmp2p.aio.proxies import Proxy
from swarmp2p.errors import NotEnoughWorkers, PeerClosed, PeerNotFound, UsageError
from swarmp2p.identity import Identity
from swarmp2p.scopes import cancel_scope
from swarmp2p.transport.network import PeerStream
from tests.test_run_command import lender


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def test_two_peers_find_each_other_and_talk() -> None:
    async def main() -> None:
        async with (
            swarmp2p.aio.open_peer() as alice,
            swarmp2p.aio.open_peer(bootstrap=alice.addresses) as bob,
        ):
            assert isinstance(alice, Peer)
            assert bob.connected == (alice.id,)
            assert bob.now() > 1e9
            async with bob.announce("echo", {"model": "tiny"}) as announcement:
                await announcement.update({"model": "small"})
                records = [record async for record in alice.find("echo", {"model": "small"})]
                assert [record.provider for record in records] == [bob.id]
            await bob.dht.provide(b"weights")
            async for provider in alice.dht.find_providers(b"weights", limit=1):
                assert provider.id == bob.id
            bob.dht.stop_providing(b"weights")  # a plain call, outside of trio
            assert len(await alice.dht.closest(b"key")) == 1
            async with bob.follow_loads() as loads:
                assert loads is bob.loads
                await alice.set_load(LoadSignal(cpus_free=1, in_flight=0))

            async def shout(stream: PeerStream) -> None:
                await asyncio.sleep(0.01)  # the handler is asyncio's
                await stream.send_all((await stream.receive_some()).upper())

            alice.handle("/shout/1.0.0", shout)
            async with await bob.open_stream(alice.id, "/shout/1.0.0") as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"HELLO"
                assert stream.peer == alice.id

    run(main())


def test_gossip_with_a_validator_of_asyncios() -> None:
    async def main() -> None:
        async def short(message: GossipMessage) -> Acceptance:
            await asyncio.sleep(0)
            return Acceptance.ACCEPT if len(message.data) < 10 else Acceptance.REJECT

        async with (
            swarmp2p.aio.open_peer() as alice,
            swarmp2p.aio.open_peer(bootstrap=alice.addresses) as bob,
        ):
            async with alice.subscribe("news") as news, alice.validate("news", short):
                assert isinstance(news, Subscription)
                while not bob.subscribers("news"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await bob.publish("news", b"spam" * 10)
                await bob.publish("news", b"ham")
                assert (await anext(news)).data == b"ham"
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(news), 0.1)
                await bob.publish("news", b"eggs")
                assert (await anext(news)).data == b"eggs", "nothing was lost by the one that was cancelled"

    run(main())


WORK = """
import ray
ray.init(logging_level="ERROR", log_to_driver=False)
print(ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=100))
"""


@pytest.mark.slow
def test_a_cluster_in_an_asyncio_program() -> None:
    async def main(address: str) -> None:
        async with swarmp2p.aio.open_peer(bootstrap=address) as peer:
            async with peer.borrow(paths="direct", timeout_s=50) as cluster:
                assert [worker.path for worker in cluster.workers] == ["direct"]
                job = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    WORK,
                    env={**os.environ, **cluster.environment},
                    stdout=subprocess.PIPE,
                )
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(cluster.wait_for_workers(2), 0.1)
                said, _ = await job.communicate()
                assert b"42" in said.split()
            with pytest.raises(NotEnoughWorkers):
                async with peer.borrow(lenders=[], timeout_s=0.1):
                    pytest.fail("somebody lent")

    with lender() as lends:
        asyncio.run(asyncio.wait_for(main(lends.address), 150))


def test_errors_are_the_same() -> None:
    async def main() -> None:
        with pytest.raises(UsageError):
            async with swarmp2p.aio.open_peer(mdns=1):  # type: ignore[arg-type]
                pytest.fail("it was opened")
        async with swarmp2p.aio.open_peer() as peer:
            with pytest.raises(PeerNotFound):
                await peer.dht.find_peer(Identity.generate().peer_id)
            with pytest.raises(UsageError):
                peer.find(1)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="kind"):
                async with peer.lend(Offer(kind="toaster")):
                    pytest.fail("it lends")
            with pytest.raises(ZeroDivisionError):
                async with peer.announce("service"):
                    raise ZeroDivisionError
            reader = asyncio.create_task(anext(peer.find("nothing that anybody has")))
        with pytest.raises(PeerClosed):
            await peer.dht.closest(b"key")
        with pytest.raises((PeerClosed, StopAsyncIteration)):
            await reader

    run(main())


def test_a_cancelled_call_has_ended_when_it_says_so() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def slow() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with cancel_scope(shield=True):
                    await trio.sleep(0.05)
                ended.append("trio's")

        async with open_guest() as guest:
            task = asyncio.create_task(guest.run(slow))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # again: it waits all the same
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended == ["trio's"]

            async def waits() -> None:
                try:
                    await asyncio.sleep(100)
                finally:
                    ended.append("asyncio's")

            async def calls_asyncio() -> None:
                with trio.move_on_after(0.05):
                    await guest.wait_for(waits())
                ended.append("then trio's")

            await guest.run(calls_asyncio)
            assert ended[1:] == ["asyncio's", "then trio's"]

            async def fails() -> None:
                raise KeyError("asyncio's own")

            with pytest.raises(KeyError, match="asyncio's own"):
                await guest.run(lambda: guest.wait_for(fails()))

            async def gives_up() -> None:
                raise asyncio.CancelledError

            with pytest.raises(RuntimeError, match="was cancelled by somebody else"):
                await guest.run(lambda: guest.wait_for(gives_up()))
            left = asyncio.create_task(guest.run(trio.sleep_forever))
            await asyncio.sleep(0.02)
        with pytest.raises(PeerClosed):
            await left

    run(main())


class Contexts:
    """Contexts of trio's that do something to their body."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @asynccontextmanager
    async def that_fails(self) -> AsyncGenerator[str, None]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fail)
                yield "inside"
        except BaseExceptionGroup as group:
            self.told.append("left")
            raise group.exceptions[0] from None

    async def _fail(self) -> None:
        await trio.sleep(0.02)
        raise ConnectionError("the head is gone")

    @asynccontextmanager
    async def that_forgives(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except IndexError:
            self.told.append("forgiven")

    @asynccontextmanager
    async def that_is_never_ready(self) -> AsyncGenerator[None, None]:
        try:
            await trio.Event().wait()
            yield
        finally:
            self.told.append("given up")

    @asynccontextmanager
    async def that_just_ends(self) -> AsyncGenerator[None, None]:
        with trio.move_on_after(0.02):
            yield


def test_what_contexts_do_to_their_bodies() -> None:
    async def main() -> None:
        contexts = Contexts()
        async with open_guest() as guest:
            proxy: Any = Proxy(guest, contexts)
            with pytest.raises(ConnectionError, match="the head is gone"):
                async with proxy.that_fails() as value:
                    assert value == "inside"
                    try:
                        await asyncio.sleep(100)
                    finally:
                        await asyncio.sleep(0.02)  # the body cleans up first
                        contexts.told.append("body")
            assert contexts.told == ["body", "left"]
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)
            async with proxy.that_forgives():
                contexts.told[100] = ""
            async with proxy.that_just_ends():
                await asyncio.sleep(100)
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.05), proxy.that_is_never_ready():
                    pytest.fail("it was entered")
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.05), proxy.that_forgives():
                    await asyncio.sleep(100)
            assert contexts.told[2:] == ["forgiven", "given up"]

    run(main())


def test_a_loop_after_the_other_and_one_beside_the_other() -> None:
    async def main() -> None:
        async with open_guest() as guest, open_guest() as same:
            assert guest is same
            assert isinstance(guest, Guest)
        async with open_guest() as other:
            assert other is not guest
            await other.run(trio.lowlevel.checkpoint)
        with pytest.raises(PeerClosed):
            await guest.run(trio.lowlevel.checkpoint)
        guest.soon(lambda: None)

    run(main())
    thread = threading.Thread(target=run, args=(main(),))
    thread.start()
    thread.join()
