"""What a snapshot is: files in a box that its borrower alone can open, under a header that its borrower signed. Pure.

    header   signed map: sequence, size and SHA-256 of the box, expiry; the borrower is who signed it
    box      sealed to the borrower's own key: zlib of a msgpack map with the files

Anybody can seal something to a key, so that a box counts only by the header's digest. A holder sees the header, which
says nothing of the cluster; the box is padded, so that its size says little.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from ..errors import BadMessage, SealedBoxError, UsageError
from ..fields import Fields
from ..identity import Identity, PeerId
from ..signed import Verify, open_signed, pack, sign_map

MAX_HEADER_BYTES: Final = 256
MAX_BOX_BYTES: Final = 64 * 2**20
"""Of a box. A cluster of 100 detached actors has 100 KB; large are only packages of runtime environments, which Ray
keeps in GCS."""

MAX_CONTENT_BYTES: Final = 256 * 2**20
"""Of all files together: what opening a box may cost in memory."""

MAX_FILES: Final = 4096
MAX_SEQUENCE: Final = 2**63 - 1
SEAL_BYTES: Final = 48
_FORM: Final = 1
_DOMAIN: Final = "snapshot"
_PAD_BYTES: Final = 4096
_LENGTH_BYTES: Final = 8
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){0,3}")


@dataclass(frozen=True, slots=True)
class Header:
    """What a holder knows of a snapshot. sequence: a later one has a higher. size, digest: of the box. expires:
    seconds, as a peer's clock. envelope: as signed."""

    borrower: PeerId
    sequence: int
    size: int
    digest: bytes
    expires: float
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One, whole."""

    header: Header
    box: bytes


def make_snapshot(identity: Identity, files: Mapping[str, bytes], sequence: int, expires: float) -> Snapshot:
    """Seal files and sign for them. files: by name, at most four parts with slashes between. Raises UsageError when
    they are too many or too much, or have other names."""
    if len(files) > MAX_FILES or not all(_NAME.fullmatch(name) for name in files):
        raise UsageError(f"a snapshot holds at most {MAX_FILES} files with plain names")
    content = sum(map(len, files.values()))
    if content > MAX_CONTENT_BYTES:
        raise UsageError(f"{content} bytes are too much for a snapshot, which holds {MAX_CONTENT_BYTES}")
    packed = zlib.compress(pack({"form": _FORM, "files": dict(sorted(files.items()))}), 6)
    padding = -(len(packed) + _LENGTH_BYTES) % _PAD_BYTES
    box = identity.seal_to(identity.peer_id, len(packed).to_bytes(_LENGTH_BYTES) + packed + bytes(padding))
    if len(box) > MAX_BOX_BYTES:
        raise UsageError(f"a snapshot has at most {MAX_BOX_BYTES} bytes, and this one has {len(box)}")
    said = {
        "digest": hashlib.sha256(box).digest(),
        "expires": expires,
        "sequence": sequence,
        "size": len(box),
    }
    return Snapshot(_header(identity.peer_id, said, sign_map(_DOMAIN, said, identity.sign)), box)


def read_header(borrower: PeerId, envelope: bytes, verify: Verify) -> Header:
    """A header that this borrower signed. Raises BadMessage for anything else."""
    return _header(borrower, open_signed(_DOMAIN, envelope, borrower, verify, MAX_HEADER_BYTES), envelope)


def _header(borrower: PeerId, said: dict[str, Any], envelope: bytes) -> Header:
    fields = Fields(said)
    header = Header(
        borrower=borrower,
        sequence=fields.integer("sequence", 1, MAX_SEQUENCE),
        size=fields.integer("size", SEAL_BYTES, MAX_BOX_BYTES),
        digest=fields.data("digest", 32, 32),
        expires=fields.time("expires"),
        envelope=envelope,
    )
    fields.done()
    return header


def is_box_of(header: Header, box: bytes) -> bool:
    """Whether this is what the header was signed for."""
    return len(box) == header.size and hashlib.sha256(box).digest() == header.digest


def open_snapshot(identity: Identity, header: Header, box: bytes) -> dict[str, bytes]:
    """The files, by name. Raises BadMessage for a box that is not the header's, or that this identity has not made."""
    if header.borrower != identity.peer_id or not is_box_of(header, box):
        raise BadMessage("it is not what its header was signed for")
    try:
        plain = identity.open_sealed(box)
        length = int.from_bytes(plain[:_LENGTH_BYTES])
        unpacking = zlib.decompressobj()
        packed = unpacking.decompress(
            plain[_LENGTH_BYTES : _LENGTH_BYTES + length], MAX_CONTENT_BYTES + MAX_FILES * 300
        )
        if not unpacking.eof:
            raise BadMessage("it is cut off, or larger than a snapshot may be")
        said: Any = msgpack.unpackb(packed, raw=False, strict_map_key=True)
    except (SealedBoxError, zlib.error, ValueError, TypeError, msgpack.exceptions.UnpackException) as problem:
        raise BadMessage(f"it cannot be opened: {type(problem).__name__}") from None
    if not isinstance(said, dict) or said.get("form") != _FORM:
        raise BadMessage("it was made by another version of swarmp2p")
    files: Any = said.get("files")
    if not isinstance(files, dict) or not all(_is_file(name, data) for name, data in files.items()):
        raise BadMessage("it holds something else than files")
    return files


def _is_file(name: object, data: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and isinstance(data, bytes)
