"""Signed provider records: a provider's own, expiring statement that it provides one key.

A plain provider record of kad-dht is believed because its provider itself sends it. One that carries such a statement
can be handed on by others (handover.py), and tells how old it is. It is an envelope of signed.py in the domain
"provider-record" over the flat map

    expires   when it stops being true, seconds since the epoch
    key       what is provided: a multihash
    seq       grows with each statement of this provider

of some 155 bytes, and rides where service records do. Who announces a service signs that instead (records.py).
Providers of other implementations sign neither: their records cannot be handed on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..errors import BadMessage
from ..identity import PeerId
from ..signed import Sign, Verify, sign_map, split_signed, unpack_map, verify_payload
from .keys import peer_key, service_key
from .records import DOMAIN as SERVICE_DOMAIN
from .records import MAX_ENVELOPE_BYTES, RecordClaim, read_claim
from .shards import INDEXED_BYTES, MAX_DEPTH, attribute_key, prefix, shard_key

DOMAIN: Final = "provider-record"


@dataclass(frozen=True, slots=True)
class ProviderClaim:
    """What an envelope says, not verified."""

    key: bytes
    sequence: int
    expires: float

    withdrawn = False

    def is_valid(self, now: float, clock_error_s: float) -> bool:
        """Whether it would hold now, were it genuine."""
        return now <= self.expires + clock_error_s


Claim = RecordClaim | ProviderClaim


def make_statement(key: bytes, sequence: int, expires: float, sign: Sign) -> bytes:
    """A signed provider record."""
    return sign_map(DOMAIN, {"expires": float(expires), "key": key, "seq": sequence}, sign)


def read_any_claim(envelope: bytes) -> Claim | None:
    """What the envelope that came with a provider says, of either kind; None when it says nothing. Costs 4 µs."""
    if not envelope:
        return None
    try:
        payload, _ = split_signed(envelope, MAX_ENVELOPE_BYTES)
        fields = unpack_map(payload, MAX_ENVELOPE_BYTES)
        if "service" in fields:
            return read_claim(envelope)
    except BadMessage:
        return None
    key, sequence, expires = fields.get("key"), fields.get("seq"), fields.get("expires")
    if not isinstance(key, bytes) or type(sequence) is not int or not 0 <= sequence < 1 << 63:
        return None
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 < expires < math.inf:
        return None
    return ProviderClaim(key, sequence, float(expires))


def belongs(claim: Claim, provider: PeerId, key: bytes) -> bool:
    """Whether the provider would have what it states stored under a key: that key itself; that of its service, or of
    an attribute, at a depth up to one more than it says (shards.py)."""
    if isinstance(claim, ProviderClaim):
        return claim.key == key
    roots = {"": service_key(claim.service)}
    for name, value in claim.attributes.items():
        if isinstance(value, str) and len(value.encode(errors="replace")) <= INDEXED_BYTES:
            roots[name] = attribute_key(claim.service, name, value)
    id = peer_key(provider)
    return any(
        shard_key(root, depth, prefix(id, depth)) == key
        for name, root in roots.items()
        for depth in range(min(claim.depths.get(name, 0) + 1, MAX_DEPTH) + 1)
    )


def is_genuine(claim: Claim, provider: PeerId, envelope: bytes, verify: Verify) -> bool:
    """Whether the provider signed it. Costs one signature check (54 µs)."""
    domain = DOMAIN if isinstance(claim, ProviderClaim) else SERVICE_DOMAIN
    payload, signature = split_signed(envelope, MAX_ENVELOPE_BYTES)
    return verify_payload(domain, payload, signature, provider, verify)
