"""A pool keeps what was asked for last ready, makes it in the background, and ends all of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from swarmp2p.ray_bridge.pool import AGAIN_S, KEEP_S, PATIENCE_S, REST_S, Pool, Sizes
from swarmp2p.scopes import background_nursery, cancel_scope, start


@dataclass(slots=True, eq=False)
class Thing:
    """Ends when told to."""

    key: str
    end: trio.Event = field(default_factory=trio.Event)

    async def died(self) -> str:
        await self.end.wait()
        return "it ended"


class Factory:
    """Makes a thing a second; counts those that are there."""

    def __init__(self) -> None:
        self.there: list[Thing] = []
        self.made = self.most = self.at_once = self.making = 0
        self.fails = False
        self.takes_s = 1.0
        self.tries: list[float] = []

    @asynccontextmanager
    async def make(self, key: str) -> AsyncGenerator[Thing, None]:
        self.tries.append(trio.current_time())
        self.making += 1
        self.at_once = max(self.at_once, self.making)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.making -= 1
        if self.fails:
            raise OSError("no room")
        thing = Thing(key)
        self.there.append(thing)
        self.made += 1
        self.most = max(self.most, len(self.there))
        try:
            yield thing
        finally:
            with cancel_scope(shield=True):
                await trio.sleep(0.5)
            self.there.remove(thing)


@asynccontextmanager
async def open_pool(
    size: int = 2, most: int = 0, total: int = 8
) -> AsyncGenerator[tuple[Pool[str, Thing], Factory], None]:
    factory = Factory()
    pool = Pool[str, Thing](Sizes(size, most or size, total), factory.make, "a")
    async with background_nursery() as nursery:
        await start(nursery, pool.run)
        yield pool, factory
    assert factory.there == []


async def test_it_is_filled_one_at_a_time_and_gives_what_is_ready(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool() as (pool, factory):
        assert trio.current_time() == 0
        async with pool.take("a") as early:
            assert trio.current_time() == 1
            assert early is not None, "it was being made"
        await pool.until_ready(2)
        assert factory.made == 3
        async with pool.take("a") as one, pool.take("a") as two:
            assert one is not None
            assert two is not None
            assert one is not two
            assert pool.ready == 0
            then = trio.current_time()
            await pool.until_ready(1)
            assert trio.current_time() - then == pytest.approx(REST_S + 1)  # not while they are busy
            await pool.until_ready(2)
        assert one not in factory.there
        assert pool.ready == 2
        await trio.sleep(100)
        assert factory.made == 5
        assert factory.at_once == 1


async def test_whoever_finds_none_has_one_made_before_others_are_made_ahead(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_pool(size=1) as (pool, factory), trio.open_nursery() as nursery:
        await pool.until_ready()
        began, got = trio.current_time(), list[float]()

        async def use() -> None:
            async with pool.take("a") as thing:
                assert thing is not None
                got.append(trio.current_time() - began)
                await trio.sleep(10)

        for _ in range(4):
            nursery.start_soon(use)
        await trio.sleep(0.5)
        assert factory.making == 3
        await pool.until_ready()
        assert got == [0, 1, 1, 1]
        assert trio.current_time() - began == 1 + REST_S + 1


async def test_after_many_at_a_time_more_are_kept_for_a_while(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool(size=1, most=3, total=5) as (pool, factory), trio.open_nursery() as nursery:

        async def use(held_s: float) -> None:
            async with pool.take("a") as thing:
                assert thing is not None
                await trio.sleep(held_s)

        for held_s in (2.0, 200.0, 200.0, 200.0):
            nursery.start_soon(use, held_s)
        await trio.sleep(100)
        assert pool.ready == 2, "five in all"
        await trio.sleep(105)
        assert pool.ready == 3
        for _ in range(4):
            await use(10.0)  # one after the other
            assert pool.ready == 3
        await trio.sleep(KEEP_S)
        assert pool.ready == 1
        assert factory.there != []


async def test_it_follows_what_is_asked_for(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool() as (pool, factory):
        await pool.until_ready(2)
        async with pool.take("b") as thing:
            assert thing is not None
            assert thing.key == "b"
        await trio.sleep(REST_S + 3)
        assert sorted(each.key for each in factory.there) == ["a", "b"]
        async with pool.take("b") as thing:
            assert thing is not None
            assert thing.key == "b"
        await trio.sleep(REST_S + 3)
        assert [each.key for each in factory.there] == ["b", "b"]
        assert factory.most <= 3


async def test_what_ends_by_itself_is_replaced_but_not_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool(size=1) as (pool, factory):
        await pool.until_ready()
        factory.there[0].end.set()
        await trio.sleep(0.1)
        assert (pool.ready, pool.problem) == (0, "it ended")
        async with pool.take("a") as none:
            assert none is None
        then = trio.current_time()
        await pool.until_ready()
        assert trio.current_time() - then == pytest.approx(AGAIN_S + 0.9)
        assert pool.problem is None
        async with pool.take("a") as thing:
            assert thing is not None
            thing.end.set()
            await trio.sleep(50)
            assert thing in factory.there  # it is ended by whoever has it


async def test_what_cannot_be_made_is_tried_less_and_less(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool(size=1) as (pool, factory):
        factory.fails = True
        await trio.sleep(2000)
        waits = [round(after - before - 1) for before, after in itertools.pairwise(factory.tries)]
        assert waits[:5] == [AGAIN_S * 2**i for i in range(5)]
        assert set(waits[7:]) == {300}
        assert pool.problem == "no room"
        factory.fails = False
        await pool.until_ready()
        assert pool.problem is None


async def test_what_takes_too_long_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool(size=1) as (pool, factory):
        await pool.until_ready()
        factory.takes_s = 100.0
        async with pool.take("a"):
            then = trio.current_time()
            async with pool.take("a") as none:
                assert none is None
                assert trio.current_time() - then == PATIENCE_S


async def test_nothing_is_kept_ready_where_nothing_is_wanted(autojump_clock: trio.abc.Clock) -> None:
    async with open_pool(size=0) as (pool, factory):
        async with pool.take("a") as none:
            assert none is None
        await trio.sleep(100)
        assert factory.made == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 6), st.floats(0, 6)), max_size=20))
def test_it_never_holds_more_than_its_size_and_what_is_taken(steps: list[tuple[str, float, float]]) -> None:
    async def run() -> None:
        async with open_pool() as (pool, factory), trio.open_nursery() as nursery:

            async def use(key: str, held_s: float) -> None:
                async with pool.take(key) as thing:
                    assert thing is not None
                    assert thing.key == key
                    assert thing in factory.there
                    await trio.sleep(held_s)

            for key, before_s, held_s in steps:
                await trio.sleep(before_s)
                assert pool.ready <= 2
                nursery.start_soon(use, key, held_s)
            await trio.sleep(REST_S + 20)
            assert pool.ready == 2
            assert len(factory.there) == 2
            last = ["a", "a", *(key for key, _, _ in steps)][-2:]
            assert sorted(each.key for each in factory.there) == sorted(last)

    trio.run(run, clock=MockClock(autojump_threshold=0))
