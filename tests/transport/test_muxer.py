"""A stream's bytes handed on where they arrive."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
import trio

from swarmp2p.errors import BadMessage
from swarmp2p.transport.muxer import MuxedStream
from tests.transport.station import PATIENCE_S
from tests.transport.test_streams import Wire, running_wire


async def two(wire: Wire) -> tuple[MuxedStream, MuxedStream]:
    ours = wire.here.open()
    ours.push(b"?")
    theirs = await wire.accepted()
    assert await theirs.read() == b"?"
    return ours, theirs


async def test_all_that_arrives_is_poured_until_the_end() -> None:
    with trio.fail_after(PATIENCE_S):
        async with running_wire() as wire:
            ours, theirs = await two(wire)
            got = bytearray()
            theirs.unread(b"put back, ")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.pour, got.extend)
                for _ in range(8):  # two windows: what was taken is granted again
                    ours.push(bytes(65_536))
                    await ours.drained()
                ours.finish()
            assert bytes(got) == b"put back, " + bytes(8 * 65_536)


async def test_a_reset_ends_the_pouring() -> None:
    with trio.fail_after(PATIENCE_S):
        async with running_wire() as wire:
            ours, theirs = await two(wire)
            ours.reset()
            with pytest.raises(trio.BrokenResourceError):
                await theirs.pour(lambda data: None)


async def test_what_is_raised_where_bytes_are_poured_is_raised_where_they_were_asked_for() -> None:
    def refuse(data: bytes) -> None:
        calls.append(data)
        raise BadMessage("no")

    calls: list[bytes] = []
    with trio.fail_after(PATIENCE_S):
        async with running_wire() as wire:
            ours, theirs = await two(wire)
            ours.push(b"first")
            with pytest.raises(BadMessage):
                await theirs.pour(refuse)
            ours.push(b"second")
            assert await theirs.read() == b"second"
    assert calls == [b"first"]


async def test_a_stream_that_is_over_is_freed_at_once() -> None:
    """Without Python's collector."""
    gc.disable()
    try:
        with trio.fail_after(PATIENCE_S):
            async with running_wire() as wire:
                ours, theirs = await two(wire)
                ours.finish()
                theirs.finish()
                assert (await ours.read(), await theirs.read()) == (b"", b"")
                watched = ref(ours)
                del ours, theirs
                assert watched() is None
    finally:
        gc.enable()
