"""What happens to a pair's connections when its carrier breaks, stops, is forged, or is a stream."""

from __future__ import annotations

import hashlib
import os
import socket

import trio

from swarmp2p.identity import Identity
from swarmp2p.transport.memory_streams import stream_pair
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.crypto import FIRST_BYTES
from swarmp2p.transport.overlay.plane import CarrierLost, CarrierUp, NeedStream, Plane, Silent

from .planes import HEAD, WAIT_S, WORKER, Pair, echo, how_it_ends, pair

SHORT = SessionConfig(silence_s=0.3, silence_rtts=0.0, heartbeat_s=0.05)
"""A partner is silent after 0.3 s, so that tests need not wait for 1.5."""


async def digest_of_all(stream: trio.SocketStream) -> None:
    """Answers with a digest of everything that came."""
    seen = hashlib.blake2b()
    while data := await stream.receive_some(1 << 20):
        seen.update(data)
    await stream.send_all(seen.digest())


async def test_a_cut_carrier_loses_no_byte() -> None:
    """Cut again and again while bytes flow: each arrives once, in order, over whatever carrier comes next."""
    async with pair() as both:
        await both.serve(digest_of_all)
        block = os.urandom(1_000_000)
        seen = hashlib.blake2b()
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                both.proxy.budgets = [2_000_000, 10, 1_000_000, 3_000_000]
                for number in range(20):
                    data = number.to_bytes(4, "big") + block
                    seen.update(data)
                    await stream.send_all(data)
                await stream.send_eof()
                assert await stream.receive_some(100) == seen.digest()
        assert both.proxy.connections == 5
        assert not any(
            isinstance(event, Silent) for event in both.head_heard.events + both.worker_heard.events
        )


async def test_connections_wait_for_a_carrier_that_is_being_dialled() -> None:
    async with pair() as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                both.proxy.refusing = True
                both.proxy.cut()
                await both.head_heard.until(CarrierLost)
                await stream.send_all(b"later")
                async with await both.connect() as another:
                    await another.send_all(b"also")
                    both.proxy.refusing = False
                    assert await stream.receive_some(10) == b"later"
                    assert await another.receive_some(10) == b"also"
        await both.head_heard.until(CarrierUp, 2)


async def test_a_silent_partner_resets_its_connections_and_can_come_back() -> None:
    async with pair(config=SHORT) as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
                both.proxy.stop()
                assert await how_it_ends(stream) is ConnectionResetError
            assert await both.head_heard.until(Silent) == Silent(WORKER)
            assert await both.worker_heard.until(Silent) == Silent(HEAD)
            await both.refused()
            await both.idle()
            both.proxy.cut()
            await both.worker.session(HEAD, b"n" * 32, initiator=False)
            await both.head.session(WORKER, b"n" * 32, initiator=True, endpoints=both.worker.endpoints)
            async with await both.connect() as stream:
                await stream.send_all(b"y")
                assert await stream.receive_some(1) == b"y"


async def test_another_endpoint_is_taken_when_the_first_is_dead() -> None:
    async with pair(establish=False) as both:
        await both.serve(echo)
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))
            with trio.fail_after(WAIT_S):
                await both.worker.session(HEAD, b"s" * 32, initiator=False)
                await both.head.session(
                    WORKER, b"s" * 32, initiator=True, endpoints=[dead.getsockname(), *both.worker.endpoints]
                )
                async with await both.connect() as stream:
                    await stream.send_all(b"x")
                    assert await stream.receive_some(1) == b"x"


async def test_the_initiator_may_dial_before_the_other_side_knows() -> None:
    async with pair(establish=False) as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            await both.head.session(WORKER, b"s" * 32, initiator=True, endpoints=both.worker.endpoints)
            async with await both.connect() as stream:
                await stream.send_all(b"early")
                await both.worker.session(HEAD, b"s" * 32, initiator=False)
                assert await stream.receive_some(10) == b"early"


async def connect_stream(both: Pair) -> trio.Event:
    """Give both planes the ends of a libp2p stream; the event is set when the head's is over."""
    one, other = Identity(b"a" * 32).peer_id, Identity(b"b" * 32).peer_id
    near, far = stream_pair(one, other, "/swarm/carrier/1.0.0")
    await both.worker.carry(HEAD, far)
    return await both.head.carry(WORKER, near)


async def test_a_libp2p_stream_carries_where_tcp_cannot_be_dialled() -> None:
    async with pair(establish=False) as both:
        await both.serve(digest_of_all)
        with trio.fail_after(WAIT_S):
            await both.worker.session(HEAD, b"s" * 32, initiator=False)
            await both.head.session(WORKER, b"s" * 32, initiator=True)
            assert await both.head_heard.until(NeedStream) == NeedStream(WORKER)
            await connect_stream(both)
            assert await both.head_heard.until(CarrierUp) == CarrierUp(WORKER, "stream")
            data = os.urandom(2_000_000)
            async with await both.connect() as stream:
                await stream.send_all(data)
                await stream.send_eof()
                assert await stream.receive_some(100) == hashlib.blake2b(data).digest()


async def test_another_stream_takes_over_and_nothing_is_lost() -> None:
    """As when a hole has been punched past the relay of the first."""
    async with pair(establish=False) as both:
        await both.serve(digest_of_all)
        with trio.fail_after(WAIT_S):
            await both.worker.session(HEAD, b"s" * 32, initiator=False)
            await both.head.session(WORKER, b"s" * 32, initiator=True)
            await both.head_heard.until(NeedStream)
            first = await connect_stream(both)
            await both.head_heard.until(CarrierUp)
            data = os.urandom(2_000_000)
            async with await both.connect() as stream:
                await stream.send_all(data[:1_000_000])
                await connect_stream(both)
                await stream.send_all(data[1_000_000:])
                await both.head_heard.until(CarrierUp, 2)
                await first.wait()
                await stream.send_eof()
                assert await stream.receive_some(100) == hashlib.blake2b(data).digest()


async def test_forged_carriers_are_closed_and_counted() -> None:
    """Whoever connects without the pair's secret gets nothing but an end; the carrier that stands goes on."""
    async with pair() as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            hello = await overhear(both)
            for forged in (
                hello,  # replayed
                hello[:16] + os.urandom(FIRST_BYTES - 16),  # the session's name, and nothing else right
                hello[:-1] + bytes([hello[-1] ^ 1]),
            ):
                async with await trio.open_tcp_stream(*both.worker.endpoints[0]) as stream:
                    await stream.send_all(forged + os.urandom(1000))
                    await how_it_ends(stream)
            async with await trio.open_tcp_stream(*both.worker.endpoints[0]) as stream:
                await stream.send_all(hello[: FIRST_BYTES - 1])
                await stream.send_eof()
                await how_it_ends(stream)
            async with await both.connect() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
        stats = await both.worker.stats()
        assert (stats["dropped"], stats["no_hello"]) == (3, 1)
        assert not any(isinstance(event, CarrierLost) for event in both.worker_heard.events)


async def overhear(both: Pair) -> bytes:
    """The hello of the carrier that stands, as somebody on the way sees it."""
    both.proxy.record = b""
    both.proxy.cut()
    await both.worker_heard.until(CarrierUp, 2)
    both.worker_heard.events.clear()
    return both.proxy.record[:FIRST_BYTES]


async def test_many_that_say_nothing_keep_nobody_out() -> None:
    async with pair() as both:
        await both.serve(echo)
        idle = [await trio.open_tcp_stream(*both.worker.endpoints[0]) for _ in range(20)]
        try:
            with trio.fail_after(WAIT_S):
                # 16 may wait from one address, so four were turned away; ours comes from another
                while (await both.worker.stats()).get("source_full", 0) < 4:
                    await trio.lowlevel.checkpoint()
                for stream in idle[:16]:
                    await stream.send_eof()
                while (await both.worker.stats()).get("no_hello", 0) < 16:
                    await trio.lowlevel.checkpoint()
                both.proxy.cut()
                await both.head_heard.until(CarrierUp, 2)
                async with await both.connect() as stream:
                    await stream.send_all(b"x")
                    assert await stream.receive_some(1) == b"x"
        finally:
            for stream in idle:
                await stream.aclose()


def descriptors(plane: Plane) -> int:
    """How many files a plane's process has open."""
    return len(os.listdir(f"/proc/{plane.pid}/fd"))


async def test_no_descriptor_stays_behind() -> None:
    async with pair() as both:
        await both.serve(echo)

        async def use() -> None:
            for _ in range(20):
                async with await both.connect() as stream:
                    await stream.send_all(b"x")
                    assert await stream.receive_some(1) == b"x"
            both.proxy.cut()
            await both.idle()

        with trio.fail_after(WAIT_S):
            await use()
            await both.head_heard.until(CarrierUp, 2)
            await both.worker_heard.until(CarrierUp, 2)
            before = [descriptors(plane) for plane in (both.head, both.worker)]
            await use()
            await both.head_heard.until(CarrierUp, 3)
            await both.worker_heard.until(CarrierUp, 3)
            while (now := [descriptors(plane) for plane in (both.head, both.worker)]) != before:
                assert sum(now) >= sum(before)
                await both.idle()
