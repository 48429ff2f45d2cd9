"""Providers that lie about themselves: too many signals, made-up providers, depths where nobody is."""

from __future__ import annotations

from random import Random

import pytest

from swarmp2p.engine import Received, Send
from swarmp2p.errors import UsageError
from swarmp2p.gossip.events import Acceptance, GossipMessage
from swarmp2p.gossip.load import LOAD_TOPIC, LoadConfig, LoadsReply, LoadsRequest, SnapshotConfig
from swarmp2p.gossip.load_interest import Following, Publishing, ShardConfig
from swarmp2p.gossip.load_shards import PLACE_BITS, place_of, shard_of, shard_topic

from .network import peer_id
from .test_load import board, delivered, load_message

SPACE = 1 << PLACE_BITS
CONFIG = ShardConfig(split_above=32, merge_below=8, followed=4)


def test_a_provider_that_floods_is_not_relayed() -> None:
    """Each of its signals is newer than the last and signed; everybody would pass them on."""
    node = board()
    verdicts = [node.judge(load_message(1, number), 1.0) for number in range(1000)]
    assert verdicts.count(Acceptance.ACCEPT) == LoadConfig().most_burst
    assert verdicts.count(Acceptance.REJECT) == 0, "who passed it on is not to be blamed"
    assert node.stats.frequent == 1000 - LoadConfig().most_burst
    assert node.judge(load_message(2, 1), 1.0) is Acceptance.ACCEPT, "nobody else is held up"
    assert node.judge(load_message(1, 2000), 60.0) is Acceptance.ACCEPT


def test_who_relays_what_is_no_signal_is_not_to_be_blamed() -> None:
    """A js-libp2p node in a load topic passes on whatever is signed; so may a later version of ours."""
    node = board()
    made_up = GossipMessage(peer_id(1), bytes(8), LOAD_TOPIC, b"no signal")
    assert node.judge(made_up, 1.0) is Acceptance.IGNORE
    assert node.judge(load_message(1, 1, topic=elsewhere(1)), 1.0) is Acceptance.IGNORE
    assert node.stats.malformed == 2


def elsewhere(number: int) -> str:
    """The topic of a shard that a provider is not in."""
    return shard_topic(shard_of(place_of(peer_id(number)) ^ (SPACE >> 1), 1))


@pytest.mark.parametrize("change", [{"most_per_s": 0.0}, {"most_burst": 0}])
def test_rates_at_which_nobody_could_signal_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        LoadConfig(**change)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_snapshots_are_limited_for_all_together() -> None:
    """A request of 20 bytes is answered by up to a megabyte, and identities are for free."""
    node = board(config=LoadConfig(snapshots=SnapshotConfig(serve_per_s=2.0, serve_burst=3)))
    node.handle(delivered(1, 1), 0.0)

    def asked(number: int, now: float) -> int:
        (answer,) = node.handle(Received(peer_id(number), LoadsRequest(number)), now)
        assert isinstance(answer, Send)
        assert isinstance(answer.message, LoadsReply)
        return len(answer.message.messages)

    assert [asked(number, 1.0) for number in range(100, 106)] == [1, 1, 1, 0, 0, 0]
    assert [asked(number, 1.5) for number in range(110, 112)] == [1, 0]


# Depths -----------------------------------------------------------------------------------------------------


def spread(count: int, depth: int) -> list[tuple[int, int]]:
    return [(number * (SPACE // count) + 1, depth) for number in range(count)]


def test_few_liars_do_not_send_providers_into_empty_shards() -> None:
    """In a small swarm, a handful of signals would be the majority: alone in a shard of 65,536, nobody is heard."""
    it = Publishing(0, CONFIG)
    it.review(spread(3, 0) + spread(4, 16), 0.0)
    it.review(spread(3, 0) + spread(4, 16), 100.0)
    assert it.depth == 0
    follower = Following(Random(1), CONFIG)
    follower.review(spread(3, 0) + spread(4, 16), 0.0)
    assert follower.shards == ("",)


def test_many_liars_lead_those_who_have_been_there_one_step_at_a_time() -> None:
    """And there, half as many of them are left: each step takes twice as many identities."""
    liars = spread(16, 16)
    it = Publishing(0, CONFIG)
    it.review(spread(5, 0), 0.0)
    for minute in range(1, 20):
        it.review(spread(5, 0) + liars, 61.0 * minute)
        assert it.depth <= 2
    follower = Following(Random(1), CONFIG)
    follower.review(spread(5, 0), 0.0)
    for number in range(20):
        follower.review(spread(5, 0) + liars, 61.0 + 5.0 * number)
    assert follower.depth <= 2


def test_a_newcomer_still_goes_where_most_are() -> None:
    it, follower = Publishing(0, CONFIG), Following(Random(1), CONFIG)
    it.review([], 0.0)
    follower.review([], 0.0)
    it.review(spread(64, 9), 5.0)
    follower.review(spread(64, 9), 5.0)
    assert (it.depth, follower.depth) == (9, 9)
