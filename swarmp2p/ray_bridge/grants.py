"""Grants: signed permissions to lease, which whoever holds one can narrow and pass on without asking anybody.

    owner --link 0--> Alice --link 1, narrower--> Bob --link 2, narrower still--> Carol        at most 8 links

Each link is a map signed (signed.py) under "lease-grant-link" by the key in "by", and given to the key in "to". The
first is signed by an *owner*: a key that lenders were told to trust (`lend(grantors=...)`). Each further one is signed
by whom the one before was given to, names its digest ("up"), and may only narrow it (grant_terms.py): one that would
widen anything makes the whole chain void, it is not merely ignored. The last link's terms are what counts.

Why a chain that somebody else got hold of is worth nothing to them. A lease request carries the chain, and the lender
takes it only from the peer that the last link was given to. The connection says who that is, and the proof of the
lease (auth.py) signs the request with the chain in it. To pass a chain on takes the holder's key.

A *ticket* is a grant for whoever has it, in an invite for instance. Its last link is given to a key made for this,
and the secret half of that key travels with the chain: who has it passes the chain on to their own key (`redeem`), and
shows lenders the longer chain only. So tickets stay secret from lenders, too, who could use them otherwise.

The digest that names a link ("up", revocations.py) covers the signed payload: bytes around it that somebody changed
change no name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import base58
import msgpack

from ..errors import BadMessage, GrantError, UsageError
from ..fields import Fields
from ..identity import Identity, PeerId
from ..signed import Verify, pack, sign_map, split_signed, unpack_map, verify_payload
from .grant_terms import MAX_GRANT_S, MAX_LEASES, MAX_LENDERS, Terms
from .messages import MAX_COUNT, MAX_MEMORY_BYTES

MAX_LINKS: Final = 8
MAX_LINK_BYTES: Final = 1024
"""Longest link; one with 16 lenders and every other field takes 835 bytes, one without lenders 280."""

LINK_ID_BYTES: Final = 32
_DOMAIN: Final = "lease-grant-link"
_KEY_BYTES: Final = 32
_PLAIN, _SECRET = "grant1_", "grant1secret_"
_SUM_BYTES: Final = 4
_MAX_CHARS: Final = 12_000  # base58 of eight of the longest links
_AGAIN: Final = "copy it again, whole"
_ANOTHER: Final = "ask for another one"


@dataclass(frozen=True, slots=True)
class Link:
    """One signed step of a grant. issuer: whose signature it has. issued: absolute seconds, by the issuer's clock.
    id: the sha-256 of what was signed. parent: id of the link before; empty for the first."""

    id: bytes
    parent: bytes
    issuer: PeerId
    holder: PeerId
    issued: float
    terms: Terms


@dataclass(frozen=True, slots=True)
class Grant:
    """A chain of links whose form and narrowing are sound; whether its signatures are is what `verify` says.

    links, envelopes: the same steps, read and as signed; the owner's first. secret: of a ticket, the 32-byte seed of
    the key that it was given to; empty otherwise.
    """

    links: tuple[Link, ...]
    envelopes: tuple[bytes, ...] = field(repr=False)
    secret: bytes = field(default=b"", repr=False)

    @property
    def id(self) -> bytes:
        """The last link's: what to name when this grant, and all that was made of it, is to be revoked."""
        return self.links[-1].id

    @property
    def owner(self) -> PeerId:
        """Whose permission it is."""
        return self.links[0].issuer

    @property
    def holder(self) -> PeerId:
        """Who may use it, or pass it on."""
        return self.links[-1].holder

    @property
    def terms(self) -> Terms:
        """What it allows."""
        return self.links[-1].terms

    @property
    def is_ticket(self) -> bool:
        """Whether it is for whoever has it."""
        return bool(self.secret)

    # Making -------------------------------------------------------------------------------------------------

    @classmethod
    def issue(cls, owner: Identity, holder: PeerId, terms: Terms, issued: float) -> Grant:
        """A new grant under the owner's key. Raises UsageError."""
        if terms.expires - issued > MAX_GRANT_S:
            raise UsageError(f"a grant lives for {MAX_GRANT_S / 86_400:.0f} days at most")
        return cls((), ())._with(owner, holder, terms, issued)

    def narrow(self, by: Identity, holder: PeerId, terms: Terms, issued: float) -> Grant:
        """Pass it on to `holder`, on these terms (`self.terms.within(...)`). by: the key that holds it; of a ticket
        nobody's is needed, `redeem` uses its own. Raises UsageError for terms that are wider, and for another key."""
        if by.peer_id != self.holder:
            raise UsageError(
                f"only {self.holder} can pass this grant on, and {by.peer_id} is another key. Nothing was signed"
            )
        if len(self.links) >= MAX_LINKS:
            raise UsageError(
                f"this grant was passed on {MAX_LINKS - 1} times, which is the most; ask its owner, {self.owner}, "
                "for a new one"
            )
        wider = terms.widening(self.terms)
        if wider is not None:
            raise UsageError(f"a grant can only be narrowed: {wider}. Nothing was signed")
        return self._with(by, holder, terms, issued)

    def redeem(self, holder: PeerId, issued: float) -> Grant:
        """The same permission for one key alone: what to do with a ticket before it can be used. A grant that is no
        ticket is returned as it is."""
        if not self.secret:
            return self
        return self.narrow(Identity(self.secret), holder, self.terms, issued)

    def as_ticket(self, secret: bytes) -> Grant:
        """The same grant with the secret of the key that it was given to."""
        if Identity(secret).peer_id != self.holder:
            raise UsageError("this is not the secret of the key that the grant was given to")
        return Grant(self.links, self.envelopes, secret)

    def _with(self, by: Identity, holder: PeerId, terms: Terms, issued: float) -> Grant:
        terms.check()
        fields = _link_fields(by.peer_id, holder, terms, issued, self.links[-1].id if self.links else b"")
        envelope = sign_map(_DOMAIN, fields, by.sign)
        # read back as a lender will read it: what it would not take shows here
        try:
            return read_grant([*self.envelopes, envelope])
        except BadMessage as problem:
            raise UsageError(f"this grant cannot be made: {problem}. Nothing was given") from None

    # Passing on ---------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """All of it, with a ticket's secret."""
        return pack([list(self.envelopes), self.secret])

    @classmethod
    def from_bytes(cls, data: bytes, verify: Verify) -> Grant:
        """The inverse, with its signatures verified; raises BadMessage."""
        try:
            value = cast(object, msgpack.unpackb(data))
        except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
            raise BadMessage("these bytes are no grant") from None
        match value:
            case [list() as envelopes, bytes(secret)] if len(secret) in (0, 32):
                grant = read_grant(cast("list[object]", envelopes))
            case _:
                raise BadMessage("these bytes are no grant")
        if not grant.verify(verify):
            raise BadMessage("a signature in it is not genuine: somebody has altered it")
        if not secret:
            return grant
        try:
            return grant.as_ticket(secret)
        except UsageError as problem:
            raise BadMessage(str(problem)) from None

    @property
    def text(self) -> str:
        """To be pasted. Begins with grant1_, or with grant1secret_ where whoever reads it may use it."""
        prefix = _SECRET if self.secret else _PLAIN
        raw = self.to_bytes()
        return prefix + base58.b58encode(raw + _checksum(prefix, raw)).decode()

    @classmethod
    def parse(cls, text: str, verify: Verify) -> Grant:
        """Read a grant's text; raises GrantError when it is none, cut off, mistyped or forged. Whether it has expired
        is not looked at."""
        body = "".join(text.split())
        prefix = next((each for each in (_PLAIN, _SECRET) if body.startswith(each)), "")
        if not prefix or len(body) > _MAX_CHARS:
            raise GrantError(f"it does not begin with {_PLAIN} or {_SECRET}, or is too long", _AGAIN)
        try:
            raw = base58.b58decode(body[len(prefix) :])
        except ValueError:
            raise GrantError("it has characters that stand in none", _AGAIN) from None
        raw, said = raw[:-_SUM_BYTES], raw[-_SUM_BYTES:]
        if said != _checksum(prefix, raw):
            raise GrantError("characters are missing, too many or wrong", _AGAIN)
        try:
            return cls.from_bytes(raw, verify)
        except BadMessage as problem:
            raise GrantError(f"what it says cannot be used ({problem})", _ANOTHER) from None

    # Checking -----------------------------------------------------------------------------------------------

    def verify(self, verify: Verify, known: Mapping[bytes, bytes] | None = None) -> bool:
        """Whether every signature is genuine. known: envelopes by link id that were found genuine before; one that
        is in there byte for byte is not checked again. 54 µs a signature."""
        for link, envelope in zip(self.links, self.envelopes, strict=True):
            if known is not None and known.get(link.id) == envelope:
                continue
            payload, signature = split_signed(envelope, MAX_LINK_BYTES)
            if not verify_payload(_DOMAIN, payload, signature, link.issuer, verify):
                return False
        return True


def read_grant(envelopes: Sequence[object]) -> Grant:
    """A chain as it came, read and found sound in form and narrowing; raises BadMessage. No signature is verified."""
    if not 0 < len(envelopes) <= MAX_LINKS:
        raise BadMessage(f"a grant has 1 to {MAX_LINKS} links, not {len(envelopes)}")
    links: list[Link] = []
    kept: list[bytes] = []
    for envelope in envelopes:
        if not isinstance(envelope, bytes):
            raise BadMessage("a link of the grant is no bytes")
        link = _read_link(envelope)
        if not links:
            if link.parent:
                raise BadMessage("the grant lacks its beginning")
            if link.terms.expires - link.issued > MAX_GRANT_S:
                raise BadMessage("the grant lives for too long")
        else:
            before = links[-1]
            if link.parent != before.id or link.issuer != before.holder:
                raise BadMessage(f"link {len(links)} of the grant does not follow from the one before")
            wider = link.terms.widening(before.terms)
            if wider is not None:
                raise BadMessage(f"link {len(links)} of the grant widens it: {wider}")
        links.append(link)
        kept.append(envelope)
    return Grant(tuple(links), tuple(kept))


def _link_fields(
    issuer: PeerId, holder: PeerId, terms: Terms, issued: float, parent: bytes
) -> dict[str, Any]:
    """What stands in no field sets no bound: absent is shorter than nil."""
    fields: dict[str, Any] = {
        "by": _key(issuer),
        "to": _key(holder),
        "at": float(issued),
        "end": float(terms.expires),
    }
    optional = {
        "up": parent or None,
        "from": None if terms.not_before == -math.inf else float(terms.not_before),
        "cpus": None if terms.cpus is None else float(terms.cpus),
        "gpus": None if terms.gpus is None else float(terms.gpus),
        "mem": terms.memory_bytes,
        "n": terms.leases,
        "for_s": None if terms.lease_s is None else float(terms.lease_s),
        "lenders": [_key(lender) for lender in terms.lenders] or None,
    }
    return fields | {name: value for name, value in optional.items() if value is not None}


def _read_link(envelope: bytes) -> Link:
    payload, _ = split_signed(envelope, MAX_LINK_BYTES)
    raw = unpack_map(payload, MAX_LINK_BYTES)
    fields = Fields(raw)
    issued = fields.time("at")
    lenders = tuple(_peer(one) for one in fields.items("lenders", MAX_LENDERS)) if "lenders" in raw else ()
    if "lenders" in raw and not lenders:
        raise BadMessage("a grant for no lender at all")
    terms = Terms(
        expires=fields.time("end"),
        not_before=fields.time("from") if "from" in raw else -math.inf,
        cpus=fields.number("cpus", 0, MAX_COUNT) if "cpus" in raw else None,
        gpus=fields.number("gpus", 0, MAX_COUNT) if "gpus" in raw else None,
        memory_bytes=fields.integer("mem", 0, MAX_MEMORY_BYTES) if "mem" in raw else None,
        leases=fields.integer("n", 0, MAX_LEASES) if "n" in raw else None,
        lease_s=fields.number("for_s", 0, MAX_GRANT_S) if "for_s" in raw else None,
        lenders=lenders,
    )
    link = Link(
        id=hashlib.sha256(payload).digest(),
        parent=fields.data("up", LINK_ID_BYTES, LINK_ID_BYTES) if "up" in raw else b"",
        issuer=_peer(fields.data("by", _KEY_BYTES, _KEY_BYTES)),
        holder=_peer(fields.data("to", _KEY_BYTES, _KEY_BYTES)),
        issued=issued,
        terms=terms,
    )
    # What we do not understand might be a bound: a link with more in it is refused.
    fields.done()
    return link


def _key(peer: PeerId) -> bytes:
    key = peer.public_key
    if key is None:
        raise UsageError(f"a grant names Ed25519 keys, and the id {peer} holds only the hash of a key")
    return key


def _peer(key: object) -> PeerId:
    if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
        raise BadMessage("a key in the grant is not 32 bytes")
    return PeerId.from_public_key(key)


def _checksum(prefix: str, raw: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + raw).digest()[:_SUM_BYTES]


def is_grant(value: object) -> bool:
    """Whether a text is meant to be a grant."""
    return isinstance(value, str) and value.strip().startswith((_PLAIN, _SECRET))
