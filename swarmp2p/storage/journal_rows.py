"""What a peer's journal says, as rows of a table, each with a checksum.

A row is (kind, key, body, checksum). kind: "tree" or "lease". key: a tree's mark, a lease's id. body: msgpack.
checksum: eight bytes of BLAKE2b over all the rest, so that a bit that flipped on the disk costs this row alone.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, cast

import msgpack

from ..identity import PeerId
from ..ray_bridge.events import JournalRecord, LeaseId, Need, Role
from ..ray_bridge.ledger import Here, TreeEntry
from ..signed import pack
from .rows import BadRow

Row = tuple[str, bytes, bytes, bytes]
TREE: Final = "tree"
LEASE: Final = "lease"
_CHECKSUM_BYTES: Final = 8
_MOST_DIRECTORIES: Final = 64


def tree_row(entry: TreeEntry) -> Row:
    """A tree as a row."""
    body = pack(
        [
            entry.here.boot,
            entry.here.namespace,
            entry.owner,
            entry.owner_start,
            list(entry.directories),
            entry.pid,
            entry.start,
        ]
    )
    return _row(TREE, entry.mark.encode(), body)


def lease_row(record: JournalRecord) -> Row:
    """A lease as a row."""
    need = record.need
    body = pack(
        [
            record.role.value,
            bytes(record.peer),
            record.cluster,
            [need.cpus, need.gpus, need.memory_bytes, need.kind, need.region],
            [list(label) for label in need.labels],
            record.state,
            record.agreement,
            record.sequence,
            record.until,
            record.gang,
            record.request,
            record.proof,
        ]
    )
    return _row(LEASE, record.lease, body)


def read_row(row: tuple[object, ...]) -> TreeEntry | JournalRecord:
    """What a row says; raises BadRow for one that is damaged, or that no version of this code wrote."""
    kind, key, body, checksum = row
    if not isinstance(kind, str) or not isinstance(key, bytes) or not isinstance(body, bytes):
        raise BadRow
    if checksum != _checksum(kind, key, body):
        raise BadRow
    try:
        fields = cast(object, msgpack.unpackb(body))
        if kind == TREE:
            return _tree(key, fields)
        if kind == LEASE:
            return _lease(key, fields)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        raise BadRow from None
    raise BadRow


def _lease(lease: LeaseId, fields: object) -> JournalRecord:
    match fields:
        case [
            str(role),
            bytes(peer),
            str(cluster),
            [int() | float() as cpus, int() | float() as gpus, int(memory_bytes), str(kind), str(region)],
            list() as labels,
            str(state),
            bytes(agreement),
            int(sequence),
            int() | float() as until,
            bytes(gang),
            bytes(request),
            bytes(proof),
        ]:
            pairs = tuple(_label(label) for label in cast("list[object]", labels))
            need = Need(cpus, gpus, memory_bytes, kind, region, pairs)
            return JournalRecord(
                lease,
                Role(role),
                PeerId.from_bytes(peer),
                cluster,
                need,
                state,
                agreement,
                sequence,
                until,
                gang,
                request,
                proof,
            )
        case _:
            raise BadRow


def _label(label: object) -> tuple[str, str]:
    match label:
        case [str(name), str(value)]:
            return name, value
        case _:
            raise BadRow


def _tree(key: bytes, fields: object) -> TreeEntry:
    match fields:
        case [
            str(boot),
            int(namespace),
            int(owner),
            int(owner_start),
            list() as places,
            int(pid),
            int(start),
        ]:
            directories = tuple(str(place) for place in cast("list[object]", places)[:_MOST_DIRECTORIES])
            return TreeEntry(
                key.decode("ascii"), Here(boot, namespace), owner, owner_start, directories, pid, start
            )
        case _:
            raise BadRow


def _row(kind: str, key: bytes, body: bytes) -> Row:
    return kind, key, body, _checksum(kind, key, body)


def _checksum(kind: str, key: bytes, body: bytes) -> bytes:
    # Lengths, so that no two rows are the same bytes.
    head = pack([kind, key, len(body)])
    return blake2b(head + body, digest_size=_CHECKSUM_BYTES).digest()
