"""Entries of a DHT's state as rows of a table, each with a checksum.

A row is (kind, key, peer, body, checksum). body: canonical msgpack of what the id does not say. checksum: eight
bytes of BLAKE2b over all the rest, so that a bit that flipped on the disk costs this row and nothing else.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any, Final, assert_never, cast

import msgpack

from ..dht.messages import Provider
from ..dht.state import Entry, EntryId, HeldProvider, HeldValue, OwnSequence, RememberedPeer
from ..identity import PeerId
from ..signed import pack

Row = tuple[str, bytes, bytes, bytes, bytes]
OWNER: Final = "owner"
"""Kind of the row that says whose state this is."""
_CHECKSUM_BYTES: Final = 8


class BadRow(Exception):
    """A row is not what was written."""


def encode(entry: Entry) -> Row:
    """An entry as a row."""
    match entry:
        case HeldProvider(_, provider, expires, sequence, hidden):
            body = pack([list(provider.addresses), provider.record, expires, sequence, hidden])
        case HeldValue(_, value, received):
            body = pack([value, received])
        case RememberedPeer(_, addresses, seen):
            body = pack([list(addresses), seen])
        case OwnSequence(sequence):
            body = pack([sequence])
        case _:
            assert_never(entry)
    kind, key, peer = entry.id
    return kind, key, bytes(peer), body, _checksum(entry.id, body)


def decode(row: tuple[object, ...]) -> Entry:
    """The entry of a row; raises BadRow for one that is damaged, or that no version of this code wrote."""
    id, body = _checked(row)
    try:
        return _entry(id, cast(object, msgpack.unpackb(body)))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        raise BadRow from None


def owner_row(owner: PeerId) -> Row:
    """The row that says whose state this is."""
    return OWNER, b"", bytes(owner), b"", _checksum((OWNER, b"", owner), b"")


def read_owner(row: tuple[object, ...]) -> PeerId:
    """Whose state this is; raises BadRow."""
    (_, _, peer), _ = _checked(row)
    return PeerId(peer)


def _checked(row: tuple[object, ...]) -> tuple[EntryId, bytes]:
    kind, key, peer, body, checksum = row
    if (
        not isinstance(kind, str)
        or not isinstance(key, bytes)
        or not isinstance(peer, bytes)
        or not isinstance(body, bytes)
        or checksum != _checksum((kind, key, peer), body)
    ):
        raise BadRow
    return (kind, key, peer), body


def _entry(id: EntryId, fields: object) -> Entry:
    """The engine trusts what it is given: all is checked here, even behind the checksum."""
    match id, fields:
        case ("provider", key, peer), [
            list() as found,
            bytes(record),
            float(expires),
            int(sequence),
            bool(hidden),
        ]:
            provider = Provider(PeerId.from_bytes(peer), _addresses(found), record)
            return HeldProvider(key, provider, _finite(expires), sequence, hidden)
        case ("value", key, b""), [bytes(value), float(received)]:
            return HeldValue(key, value, _finite(received))
        case ("peer", b"", peer), [list() as found, float(seen)]:
            return RememberedPeer(PeerId.from_bytes(peer), _addresses(found), _finite(seen))
        case ("sequence", b"", b""), [int(sequence)] if 0 <= sequence < 1 << 62:
            return OwnSequence(sequence)
        case _:
            raise BadRow


def _addresses(found: list[Any]) -> tuple[bytes, ...]:
    if not all(isinstance(address, bytes) for address in found):
        raise BadRow
    return tuple(found)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise BadRow
    return value


def _checksum(id: EntryId, body: bytes) -> bytes:
    kind, key, peer = id
    # Lengths, so that no two ids are the same bytes.
    head = pack([kind, key, bytes(peer), len(body)])
    return blake2b(head + body, digest_size=_CHECKSUM_BYTES).digest()
