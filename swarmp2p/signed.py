"""Signed payloads: canonical msgpack maps under a domain-separation prefix.

A service record or a lease message is `msgpack([payload, signature])`, where `payload` is a msgpack map with
sorted string keys and the signature covers `"swarmp2p:" + domain + "\\0" + payload`. The domain makes a
signature given for one purpose useless for another. Payloads carry their own sequence and absolute expiry
where they need one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from .errors import BadMessage
from .identity import PeerId

Sign = Callable[[bytes], bytes]
"""Identity.sign, or a cheap stand-in in simulations."""

Verify = Callable[[PeerId, bytes, bytes], bool]
"""identity.verify, or a cheap stand-in in simulations."""

_PREFIX: Final = b"swarmp2p:"
_TEXT: Final[frozenset[type]] = frozenset({str})


def _signing_bytes(domain: str, payload: bytes) -> bytes:
    return _PREFIX + domain.encode() + b"\0" + payload


def pack(value: Any) -> bytes:
    """msgpack with shortest encodings, text and bytes kept apart."""
    packed: Any = msgpack.packb(value, use_bin_type=True)  # its stubs say that it may be None
    return bytes(packed)


def pack_map(fields: Mapping[str, Any]) -> bytes:
    """The canonical msgpack form of a flat map: keys sorted, shortest encodings."""
    return pack({key: fields[key] for key in sorted(fields)})


def unpack_map(data: bytes, max_bytes: int) -> dict[str, Any]:
    """Decode a msgpack map with string keys; raises BadMessage for anything else, or above `max_bytes`."""
    if len(data) > max_bytes:
        raise BadMessage(f"{len(data)} bytes where at most {max_bytes} are allowed")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as problem:
        raise BadMessage(f"not msgpack: {type(problem).__name__}") from None
    if not isinstance(value, dict) or not set(map(type, value)) <= _TEXT:
        raise BadMessage("not a msgpack map with string keys")
    return value


def sign_map(domain: str, fields: Mapping[str, Any], sign: Sign) -> bytes:
    """Sign a map; returns the envelope `msgpack([payload, signature])`, about 70 bytes longer than the map."""
    payload = pack_map(fields)
    return pack([payload, sign(_signing_bytes(domain, payload))])


def split_signed(envelope: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    """(payload, signature) of an envelope, not yet verified; raises BadMessage when it is none."""
    if len(envelope) > max_bytes:
        raise BadMessage(f"{len(envelope)} bytes where at most {max_bytes} are allowed")
    try:
        parts = msgpack.unpackb(envelope, raw=False)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as problem:
        raise BadMessage(f"not msgpack: {type(problem).__name__}") from None
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, bytes) for part in parts):
        raise BadMessage("not a signed payload: expected [payload, signature]")
    return parts[0], parts[1]


def verify_payload(domain: str, payload: bytes, signature: bytes, signer: PeerId, verify: Verify) -> bool:
    """Whether `signer` signed `payload` for this domain."""
    return verify(signer, _signing_bytes(domain, payload), signature)


def open_signed(
    domain: str, envelope: bytes, signer: PeerId, verify: Verify, max_bytes: int
) -> dict[str, Any]:
    """The map inside an envelope that `signer` signed; raises BadMessage when it is malformed or forged."""
    payload, signature = split_signed(envelope, max_bytes)
    if not verify_payload(domain, payload, signature, signer, verify):
        raise BadMessage(f"the signature is not {signer.short}'s")
    return unpack_map(payload, max_bytes)
