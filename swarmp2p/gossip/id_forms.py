"""Message ids as js-libp2p makes them, and how to talk with it about messages all the same.

The default id of the pubsub spec is a message's source followed by its sequence number, and go, rust, py and ours use
it. js-libp2p's takes the public key instead of the peer id: of an Ed25519 source, the same bytes without the first two.

    spec   00 24 08 01 12 20 <32 bytes of key> <8 of sequence number>
    js           08 01 12 20 <32 bytes of key> <8 of sequence number>

Taken as they are, the ids of one side mean nothing to the other: whatever one offers, the other asks for and gets
again, and finds the promise broken, since what comes has another name. So what a peer says in js's form is read in
ours, and from then on that peer is spoken to in its own.
"""

from __future__ import annotations

from typing import Final

from .messages import IHave
from .peers import PeerState

_LEFT_OUT: Final = bytes.fromhex("0024")
_KEY: Final = bytes.fromhex("08011220")
_SHORT_BYTES: Final = len(_KEY) + 32 + 8


def read_ids(state: PeerState, ids: tuple[bytes, ...], *, own: bool = True) -> tuple[bytes, ...]:
    """A peer's ids in our form. own: it named the messages, rather than repeat our names. The first id tells: one peer
    names all its messages in one form."""
    if ids and _is_short(ids[0]):
        state.short_ids = state.short_ids or own
        return tuple([_LEFT_OUT + one if _is_short(one) else one for one in ids])
    return ids


def read_offer(state: PeerState, offer: IHave) -> IHave:
    """An IHAVE with ids in our form."""
    ids = read_ids(state, offer.ids)
    return offer if ids is offer.ids else IHave(offer.topic, ids)


def write_ids(state: PeerState, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Our ids in the form that a peer understands."""
    if not state.short_ids:
        return ids
    return tuple([one[2:] if one[:2] == _LEFT_OUT and _is_short(one[2:]) else one for one in ids])


def write_offer(state: PeerState, offer: IHave) -> IHave:
    """An IHAVE with ids in the form that a peer understands."""
    return IHave(offer.topic, write_ids(state, offer.ids)) if state.short_ids else offer


def _is_short(message_id: bytes) -> bool:
    return len(message_id) == _SHORT_BYTES and message_id.startswith(_KEY)
