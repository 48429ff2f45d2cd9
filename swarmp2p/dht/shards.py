"""How the providers of one key are spread over many: the arithmetic of splitting, without any traffic.

    depth 0                      root                    the service's or attribute's own key
    depth 1             0                   1            one key for each first bit of a provider's id
    depth 2         00     01           10     11        ...

A provider publishes at the shard of its id's first bits, at the depth at which about 8 to 32 providers share one: its
*leaf*. It also publishes at some of the shards above: at the one above with probability 1/2, at the next with 1/4, and
so on up to the root, decided by bits of its id that its leaf does not depend on. So every shard above the leaves holds
a sample that is about as large as a leaf, the root too: whoever begins there, also a peer of another implementation,
finds somebody, and each provider costs the network two keys, however large the service is.

A record says at which depth its provider publishes (records.py), so that whoever reads one from a shard above is led to
the leaves by the providers themselves. Ids are hashes: leaves differ in size by chance only, and in depth by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from .keys import ID_BITS, MULTIHASH_PREFIX, key_id

MAX_DEPTH: Final = 24
"""2^24 leaves of 8 or more: 10^8 providers. Deeper claims are not believed."""

INDEXED_BYTES: Final = 32
"""Of an attribute's text at most, so that it has a key of its own."""

_SHARD_DOMAIN: Final = b"swarmp2p:shard\0"
_ATTRIBUTE_DOMAIN: Final = b"swarmp2p:attribute\0"


def attribute_key(service: str, name: str, value: str) -> bytes:
    """The root key of those providers of a service that have an attribute."""
    parts = [text.encode() for text in (service, name, value)]
    lengths = b"".join(len(part).to_bytes(2, "big") for part in parts)
    return MULTIHASH_PREFIX + sha256(_ATTRIBUTE_DOMAIN + lengths + b"".join(parts)).digest()


def prefix(id: int, depth: int) -> int:
    """The first `depth` bits of an id, as a number."""
    return id >> (ID_BITS - depth)


def shard_key(root: bytes, depth: int, place: int) -> bytes:
    """The multihash key of the shard of ids whose first `depth` bits are `place`; the root's own at depth 0."""
    if not depth:
        return root
    position = bytes((depth,)) + place.to_bytes((MAX_DEPTH + 7) // 8, "big")
    return MULTIHASH_PREFIX + sha256(_SHARD_DOMAIN + root + position).digest()


def height(root: bytes, id: int) -> int:
    """How many shards above its leaf a provider publishes at too: h with probability 2^-(h+1), other providers for
    each root."""
    mixed = id ^ key_id(root) | 1 << (ID_BITS - 1)
    return (mixed & -mixed).bit_length() - 1


def shards_of(root: bytes, id: int, depth: int) -> list[tuple[int, bytes]]:
    """Where a provider whose leaf is at `depth` publishes: depths and keys, its leaf first."""
    top = max(0, depth - height(root, id))
    return [(level, shard_key(root, level, prefix(id, level))) for level in range(depth, top - 1, -1)]


def next_depth(
    depth: int,
    counts: Sequence[int],
    told: Sequence[int],
    *,
    split_above: int,
    merge_below: int,
    may_merge: bool = True,
) -> int:
    """Where a provider goes that asked the holders of its shard at `depth`.

    counts: providers that they hold there, itself included. told: depths at which they say that the providers whom
    they hold there publish; where there are too few, they are on their way up. Medians of both count, so that fewer
    than half of the holders cannot mislead it. One step at a time, but for a shard whose providers say that their
    leaves are deeper.
    """
    count = _median(counts) if counts else split_above
    if told and count >= merge_below and (deeper := _median(told)) > depth:
        return min(deeper, MAX_DEPTH)
    if count > split_above and depth < MAX_DEPTH:
        return depth + 1
    return depth - 1 if may_merge and depth and count < merge_below else depth


def _median(values: Sequence[int]) -> int:
    """The lower one of two."""
    return sorted(values)[(len(values) - 1) // 2]
