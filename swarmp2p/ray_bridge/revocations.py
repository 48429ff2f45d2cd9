"""Revocations: what an owner takes back of the grants that it gave, as one signed list that spreads by itself. Pure.

A list names grants and peers, and may say that everything issued up to a moment is void:

- a *grant* that is named is void, and so is every grant that was made of it;
- a *peer* that is named may use no grant of this owner, and pass none on, that the owner issued before: one issued
  later counts again. The time that counts is that of the owner's own link: what a holder wrote later does not;
- *since*: everything that the owner issued until then is void.

So nothing is ever taken off a list, and of two lists of an owner the later one says more. Whoever keeps lists adds
them up (`Revoked`): an owner that lost its list, or has two machines, forgets nothing that others know. A grant lives
for MAX_GRANT_S at most, and an entry that is older than that is left out of the next list: what it was about is over.

A name is 16 bytes of a hash, so that 256 entries fit into a DHT value (8 KiB). An owner that needs more says `since`,
which takes the place of all entries before it, and grants anew.

Lists are signed (signed.py) under "revocations" and carry a sequence number, which grows. They go by gossip, in a
topic for each owner, and lie in the DHT under a key for each owner (`RevocationRules` lets holders keep the newest).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ..errors import BadMessage, UsageError
from ..fields import Fields
from ..identity import Identity, PeerId
from ..signed import Verify, open_signed, sign_map
from .grant_terms import MAX_GRANT_S
from .grants import Grant

MAX_ENTRIES: Final = 256
MAX_LIST_BYTES: Final = 8 * 1024
MAX_OWNERS: Final = 256
"""Owners whose lists one peer keeps. A lender has its grantors' and its own; those are never dropped for others."""

MAX_VOID: Final = 4 * MAX_ENTRIES
NAMESPACE: Final = "swarm-revoked"
_TOPIC: Final = "swarmp2p/revoked/"
_DOMAIN: Final = "revocations"
_NAME_BYTES: Final = 16
_NEVER: Final = -1e12


def grant_name(grant: bytes) -> bytes:
    """How a list names a grant, given its id."""
    return hashlib.sha256(b"grant\0" + grant).digest()[:_NAME_BYTES]


def peer_name(peer: PeerId) -> bytes:
    """How a list names a peer."""
    return hashlib.sha256(b"peer\0" + peer).digest()[:_NAME_BYTES]


def revocation_topic(owner: PeerId) -> str:
    """The gossip topic of an owner's lists."""
    return f"{_TOPIC}{owner}"


def revocation_key(owner: PeerId) -> bytes:
    """The DHT key of an owner's newest list."""
    return b"/" + NAMESPACE.encode() + b"/" + bytes(owner)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list, as its owner signed it. since, entries' times: absolute seconds by the owner's clock. entries: (name,
    when), oldest first. envelope: the signed bytes."""

    owner: PeerId
    sequence: int
    since: float = -math.inf
    entries: tuple[tuple[bytes, float], ...] = ()
    envelope: bytes = field(default=b"", repr=False, compare=False)


def revoke(
    owner: Identity,
    known: RevocationList | None,
    now: float,
    *,
    grants: Iterable[bytes] = (),
    peers: Iterable[PeerId] = (),
    everything: bool = False,
) -> RevocationList:
    """The owner's next list: what `known` says, and what is revoked now. grants: ids. Raises UsageError when full."""
    since = -math.inf if known is None else known.since
    entries = {} if known is None else dict(known.entries)
    if everything:
        since, entries = max(since, now), {}
    for name in (*map(grant_name, grants), *map(peer_name, peers)):
        entries[name] = now
    kept = {name: when for name, when in entries.items() if since < when and now - when <= MAX_GRANT_S}
    if len(kept) > MAX_ENTRIES:
        raise UsageError(
            f"a list of revocations has at most {MAX_ENTRIES} entries: revoke everything that was issued so far "
            "(everything=True, --everything), and grant anew what is to stay. Nothing was revoked now"
        )
    # milliseconds: an owner that lost its list still says something newer
    sequence = max(0 if known is None else known.sequence + 1, int(max(now, 0.0) * 1000))
    ordered = sorted(kept.items(), key=lambda entry: (entry[1], entry[0]))
    fields = {
        "owner": owner.peer_id,
        "sequence": sequence,
        "since": _NEVER if since == -math.inf else since,
        "void": [[name, when] for name, when in ordered],
    }
    envelope = sign_map(_DOMAIN, fields, owner.sign)
    return RevocationList(owner.peer_id, sequence, since, tuple(ordered), envelope)


def union(one: RevocationList | None, other: RevocationList | None) -> RevocationList | None:
    """All that two lists of one owner say, as what an owner `revoke`s next may build on; signed by nobody."""
    if one is None or other is None:
        return one or other
    entries = dict(one.entries)
    for name, when in other.entries:
        entries[name] = max(when, entries.get(name, when))
    sequence, since = max(one.sequence, other.sequence), max(one.since, other.since)
    kept = [entry for entry in entries.items() if entry[1] > since]
    ordered = sorted(kept, key=lambda entry: (entry[1], entry[0]))
    return RevocationList(one.owner, sequence, since, tuple(ordered))


def read_revocations(envelope: bytes, owner: PeerId, verify: Verify) -> RevocationList:
    """The list that `owner` signed; raises BadMessage."""
    fields = Fields(open_signed(_DOMAIN, envelope, owner, verify, MAX_LIST_BYTES))
    if fields.peer("owner") != owner:
        raise BadMessage("the list is of another owner")
    sequence, since = fields.integer("sequence", 0, 1 << 60), fields.time("since")
    entries = tuple(_entry(one) for one in fields.items("void", MAX_ENTRIES))
    fields.done()
    return RevocationList(owner, sequence, -math.inf if since <= _NEVER else since, entries, envelope)


def _entry(value: object) -> tuple[bytes, float]:
    match value:
        case [bytes(name), float(when)] if len(name) == _NAME_BYTES and abs(when) <= 1e12:
            return name, when
        case _:
            raise BadMessage("an entry of the list is not a name and a time")


class Revoked:
    """All lists that a peer knows, added up.

    Bounds: MAX_OWNERS owners, those that `keep` names never dropped, else the one whose list came first; MAX_VOID
    entries of an owner: beyond them the oldest half is replaced by a `since` of their last one, so that at the bound
    more is void rather than less.
    """

    def __init__(self) -> None:
        self._lists: dict[PeerId, RevocationList] = {}
        self._void: dict[PeerId, dict[bytes, float]] = {}
        self._since: dict[PeerId, float] = {}
        self._kept: dict[PeerId, None] = {}

    def keep(self, owners: Iterable[PeerId]) -> None:
        """These owners' lists stay, whatever else comes; at most MAX_OWNERS of them are heeded."""
        self._kept = dict.fromkeys(sorted(owners)[:MAX_OWNERS])

    def newest(self, owner: PeerId) -> RevocationList | None:
        """The newest list of an owner that is known."""
        return self._lists.get(owner)

    def add(self, told: RevocationList) -> bool:
        """Take a list in; whether it was news."""
        owner = told.owner
        known = self._lists.get(owner)
        if known is not None and known.sequence >= told.sequence:
            return False
        self._lists.pop(owner, None)
        self._lists[owner] = told
        self._since[owner] = max(told.since, self._since.get(owner, -math.inf))
        void = self._void.setdefault(owner, {})
        for name, when in told.entries:
            void[name] = max(when, void.get(name, -math.inf))
        if len(void) > MAX_VOID:
            oldest = sorted(void.items(), key=lambda entry: (entry[1], entry[0]))
            self._since[owner] = max(self._since[owner], oldest[MAX_VOID // 2][1])
        since = self._since[owner]
        self._void[owner] = {name: when for name, when in void.items() if when > since}
        self._drop()
        return True

    def problem(self, grant: Grant) -> str | None:
        """Why a grant is void; None when its owner has not revoked it, as far as is known here."""
        owner, issued = grant.owner, grant.links[0].issued
        if issued <= self._since.get(owner, -math.inf):
            return "its owner has revoked all grants of its time; ask for a new one"
        void = self._void.get(owner)
        if not void:
            return None
        for link in grant.links:
            if grant_name(link.id) in void:
                return "its owner has revoked the grant"
            if issued <= void.get(peer_name(link.holder), -math.inf):
                return f"its owner has revoked what peer {link.holder.short} holds"
        return None

    def names_peer(self, owner: PeerId, peer: PeerId) -> bool:
        """Whether an owner has revoked a peer, at whatever time."""
        return peer_name(peer) in self._void.get(owner, ())

    def sizes(self) -> tuple[int, int]:
        """Owners whose lists are kept, and most entries of one."""
        return len(self._lists), max(map(len, self._void.values()), default=0)

    def _drop(self) -> None:
        while len(self._lists) > MAX_OWNERS:
            owner = next(
                owner for owner in self._lists if owner not in self._kept or len(self._kept) > MAX_OWNERS
            )
            for table in cast("tuple[dict[PeerId, Any], ...]", (self._lists, self._void, self._since)):
                table.pop(owner, None)


class RevocationRules:
    """What the DHT's holders check of a list before they keep it: that its owner signed it, and that it is newer."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        """A list of the owner that the key names, signed by it."""
        return self._read(key, value) is not None

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The one with the highest sequence; of equal ones the greater bytes, so that all holders agree."""
        found = [self._read(key, value) for value in values]
        order = [(-1 if one is None else one.sequence, values[at]) for at, one in enumerate(found)]
        return max(range(len(values)), key=lambda at: order[at])

    def _read(self, key: bytes, value: bytes) -> RevocationList | None:
        try:
            owner = PeerId.from_bytes(key.split(b"/", 2)[2])
            return read_revocations(value, owner, self._verify)
        except (BadMessage, UsageError, IndexError):
            return None
