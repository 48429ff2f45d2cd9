"""Shards of the load topic: their names, and which providers belong to them.

While providers are few there is one topic. When they are many they are spread over 2^depth topics by the first bits
of a hash of their ids: the shard of the bits 0110 has the topic "swarm/load/1/0110". load_interest.py decides about
depths.

Hashes are uniform, so a shard is an unbiased sample of all providers, and so are several that are chosen without
looking at them. A follower takes the shards at random points, one in each of as many equal parts of the space of
hashes: every provider is equally likely to be in its sample, and at any depth the points lie in different shards
while there are enough (stratified sampling). Points at equal distances would be as fair, but whoever shared one shard
would share all: borrowers and shards would fall into groups between which no load can be balanced, and the busiest
provider of simulations/load_spread.py would have twice the mean load.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Final

from ..identity import PeerId
from .load_signal import LOAD_TOPIC, MAX_DEPTH

PLACE_BITS: Final = 64
_PREFIX: Final = LOAD_TOPIC + "/"


@lru_cache(maxsize=1 << 16)  # asked for every provider of a table, every few seconds
def place_of(provider: PeerId) -> int:
    """Where a provider stands among 2^64 places. Not its place in the DHT: who crowds a key there is spread here."""
    return int.from_bytes(sha256(b"swarm load place" + provider).digest()[:8], "big")


def shard_of(place: int, depth: int) -> str:
    """The shard of a place: its first `depth` bits, as a text of 0 and 1."""
    return format(place >> (PLACE_BITS - depth), f"0{depth}b") if depth else ""


def within(place: int, shard: str) -> bool:
    """Whether a place belongs to a shard."""
    return not shard or place >> (PLACE_BITS - len(shard)) == int(shard, 2)


def belongs(provider: PeerId, shard: str) -> bool:
    """Whether a provider belongs to a shard."""
    return not shard or within(place_of(provider), shard)


def shard_topic(shard: str) -> str:
    """The topic of a shard; "" is that of all providers."""
    return _PREFIX + shard if shard else LOAD_TOPIC


@lru_cache(maxsize=1024)
def topic_shard(topic: str) -> str | None:
    """The shard of a topic; None when it is no load topic."""
    if topic == LOAD_TOPIC:
        return ""
    return topic[len(_PREFIX) :] if topic.startswith(_PREFIX) and is_shard(topic[len(_PREFIX) :]) else None


def is_shard(name: str) -> bool:
    """Whether a text names a shard other than that of all."""
    return 0 < len(name) <= MAX_DEPTH and not name.strip("01")


def points(rng: Random, count: int) -> tuple[int, ...]:
    """`count` places, a random one in each of as many equal parts of the space."""
    step = (1 << PLACE_BITS) // count
    return tuple(number * step + int(rng.random() * step) for number in range(count))
