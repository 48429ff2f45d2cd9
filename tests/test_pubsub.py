"""Topics through the public API: validators, anonymous topics, counters; over the in-memory network."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from swarmp2p import Acceptance, GossipConfig, GossipMessage, NodeConfig, TopicConfig
from swarmp2p.errors import PeerClosed, UsageError
from swarmp2p.judging import MAX_AT_ONCE, Judge
from swarmp2p.opening import open_peer
from swarmp2p.scopes import background_nursery, cancel_scope
from swarmp2p.subscription import Subscription
from tests.test_peer import Swarm


async def unread(subscription: Subscription) -> list[bytes]:
    """The data of what there is within a second."""
    found: list[bytes] = []
    with trio.move_on_after(1):
        async for message in subscription:
            found.append(message.data)
    return found


def only_good(message: GossipMessage) -> Acceptance:
    return Acceptance.ACCEPT if message.data.startswith(b"good") else Acceptance.IGNORE


async def slowly(message: GossipMessage) -> Acceptance:
    await trio.sleep(0.5)
    return only_good(message)


@pytest.mark.parametrize("validator", [only_good, slowly])
async def test_what_a_validator_accepts_is_delivered(autojump_clock: MockClock, validator: Any) -> None:
    async with (
        Swarm().of(2) as (alice, bob),
        bob.subscribe("news") as news,
        bob.validate("news", validator),
    ):
        await trio.sleep(2)
        for data in (b"bad", b"good 1", b"bad too", b"good 2"):
            await alice.publish("news", data)
        assert sorted(await unread(news)) == [b"good 1", b"good 2"]
        assert bob.stats["gossip"]["ignored"] == 2


async def test_other_topics_do_not_wait(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (alice, bob):
        async with (
            bob.subscribe("slow") as slow,
            bob.subscribe("quick") as quick,
            bob.validate("slow", slowly),
        ):
            await trio.sleep(2)
            await alice.publish("slow", b"good")
            await alice.publish("quick", b"now")
            with trio.fail_after(0.3):
                assert (await anext(quick)).data == b"now"
            assert (await anext(slow)).data == b"good"


async def test_without_an_answer_in_time_a_message_is_ignored(autojump_clock: MockClock) -> None:
    finished: list[bytes] = []

    async def never(message: GossipMessage) -> Acceptance:
        await trio.sleep(100)
        finished.append(message.data)
        return Acceptance.ACCEPT

    async with Swarm().of(2) as (alice, bob):
        async with bob.subscribe("news") as news, bob.validate("news", never, timeout_s=2):
            await trio.sleep(2)
            await alice.publish("news", b"good")
            await trio.sleep(5)
            assert await unread(news) == []
            assert bob.stats["gossip"]["ignored"] == 1
            await trio.sleep(200)
    assert finished == [], "it was cancelled"


async def test_a_validator_that_fails_ignores_and_says_so_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = None

    def failing(message: GossipMessage) -> Acceptance:
        if message.data == b"raise":
            raise ZeroDivisionError
        said: Acceptance = nothing if message.data == b"nothing" else Acceptance.ACCEPT
        return said

    async with Swarm().of(2) as (alice, bob):
        async with bob.subscribe("news") as news, bob.validate("news", failing):
            await trio.sleep(2)
            with caplog.at_level(logging.ERROR):
                for data in (b"raise", b"nothing", b"good"):
                    await alice.publish("news", data)
                assert await unread(news) == [b"good"]
    assert len(caplog.messages) == 1
    assert "'news'" in caplog.messages[0]


async def test_a_topic_has_one_validator_until_its_context_ends(autojump_clock: MockClock) -> None:
    wrong: Any = 5
    async with Swarm().of(2) as (alice, bob), bob.subscribe("news") as news:
        async with bob.validate("news", only_good):
            with pytest.raises(UsageError, match="has a validator already"):
                async with bob.validate("news", only_good):
                    pass
        for context in (
            bob.validate("", only_good),
            bob.validate("news", wrong),
            bob.validate("news", only_good, timeout_s=0),
            bob.validate("news", only_good, timeout_s=float("inf")),
        ):
            with pytest.raises(UsageError):
                async with context:
                    pass
        await trio.sleep(2)
        await alice.publish("news", b"bad")
        assert await unread(news) == [b"bad"], "nobody judges any more"
    with pytest.raises(PeerClosed):
        async with bob.validate("news", only_good):
            pass


async def test_few_are_judged_at_once_and_those_too_late_not_at_all(autojump_clock: MockClock) -> None:
    running = most = 0
    judged: list[int] = []

    async def busy(message: GossipMessage) -> Acceptance:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return Acceptance.ACCEPT

    async with Swarm().of(1) as (peer,), background_nursery() as nursery:
        judge = Judge("news", busy, 1.5, nursery, lambda answer: judged.append(len(judged)))
        for number in range(3 * MAX_AT_ONCE):
            judge.take(GossipMessage(peer.id, number.to_bytes(8, "big"), "news", b""))
        await trio.sleep(10)
        assert most == MAX_AT_ONCE
        assert len(judged) == 2 * MAX_AT_ONCE, "the second half of them ignored, the rest not begun"


async def test_what_waits_for_a_validator_that_hangs_is_bounded(autojump_clock: MockClock) -> None:
    hanging = trio.Event()

    async def stuck(message: GossipMessage) -> Acceptance:
        with cancel_scope(shield=True):
            await hanging.wait()
        return Acceptance.ACCEPT

    async with Swarm().of(1) as (peer,), background_nursery() as nursery:
        judge = Judge("news", stuck, 1.0, nursery, lambda answer: None)
        for number in range(MAX_AT_ONCE + 100):
            judge.take(GossipMessage(peer.id, number.to_bytes(8, "big"), "news", b""))
            await trio.sleep(0.1)
        waiting = judge.waiting
        hanging.set()
    assert 0 < waiting <= 10


async def test_an_anonymous_topic(autojump_clock: MockClock) -> None:
    swarm = Swarm()
    config = NodeConfig(gossip=GossipConfig(topics={"secret/*": TopicConfig(anonymous=True)}))
    alice, bob = swarm.identity(1), swarm.identity(2)
    async with (
        open_peer(identity=alice, network=swarm.switch.join(alice.peer_id), config=config) as one,
        open_peer(
            identity=bob,
            network=swarm.switch.join(bob.peer_id),
            config=config,
            bootstrap=[str(one.addresses[0])],
        ) as other,
        other.subscribe("secret/a") as secrets,
    ):
        await trio.sleep(2)
        await one.publish("secret/a", b"whisper")
        message = await anext(secrets)
        assert (message.data, bool(message.source), message.seqno) == (b"whisper", False, b"")


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_peer_that_restarts_is_meshed_within_two_heartbeats(
    autojump_clock: MockClock, noticed: bool
) -> None:
    swarm = Swarm()
    async with swarm.peer(0) as alice, alice.subscribe("news") as at_alice:
        address = (str(alice.addresses[0]),)
        async with AsyncExitStack() as former:
            bob = await former.enter_async_context(swarm.peer(1, address))
            await former.enter_async_context(bob.subscribe("news"))
            await trio.sleep(5)
            if not noticed:
                swarm.partition.split({alice.id: 0, bob.id: 1})
        swarm.partition.heal()
        async with swarm.peer(1, address) as bob, bob.subscribe("news") as at_bob:
            await trio.sleep(2)
            await alice.publish("news", b"to bob")
            await bob.publish("news", b"to alice")
            assert await unread(at_bob) == [b"to bob"]
            assert await unread(at_alice) == [b"to alice"]


async def test_counters_are_numbers_by_name(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (alice, bob), bob.subscribe("news"):
        await trio.sleep(2)
        await alice.publish("news", b"one")
        await trio.sleep(1)
        assert alice.stats["gossip"]["published"] == 1
        assert bob.stats["gossip"]["delivered"] == 1
        assert set(bob.stats) == {"gossip", "loads", "network"}
        assert all(isinstance(number, int) for counted in bob.stats.values() for number in counted.values())


async def test_who_subscribes_and_what_is_thought_of_them(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (alice, bob), bob.subscribe("news"):
        assert alice.subscribers("news") == ()
        await trio.sleep(2)
        assert alice.subscribers("news") == (bob.id,)
        assert alice.score(bob.id) == 0
        await alice.set_app_score(str(bob.id), -5)
        await trio.sleep(0.1)
        assert alice.score(bob.id) == -5
        for wrong in ("bad", None, float("nan"), True):
            with pytest.raises(UsageError, match="finite number"):
                await alice.set_app_score(bob.id, wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            await alice.set_app_score("bob", 1)


async def test_who_has_too_low_a_score_is_not_listened_to(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (alice, bob), bob.subscribe("news") as news:
        await trio.sleep(2)
        await bob.set_app_score(alice.id, -5000)
        await alice.publish("news", b"heard by nobody")
        assert await unread(news) == []
        await bob.set_app_score(alice.id, 0)
        await trio.sleep(2)
        await alice.publish("news", b"heard again")
        assert b"heard again" in await unread(news)
