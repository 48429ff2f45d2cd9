"""The grants of one peer: those that it gives, those that it holds, and what it knows to be revoked."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from .arguments import peer_argument, seconds_argument
from .errors import GrantError, StateFileError, UsageError
from .grant_file import MAX_HELD, GrantFile, Kept
from .identity import Identity, PeerId, verify
from .ray_bridge.events import LearnRevocations, LeaseCommand, RequestLease
from .ray_bridge.grant_terms import Terms
from .ray_bridge.grants import Grant, is_grant
from .ray_bridge.presenting import chain_for
from .ray_bridge.revocations import MAX_ENTRIES, RevocationList, revoke, union
from .revoking import Following, looked_up, stored, tell
from .scopes import background_nursery

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger(__name__)

GRANT_S: Final = 30 * 86_400.0
"""Usual life of a grant, in seconds. A guess: long enough to be forgotten about, short enough to be asked for again."""

_LOOK_EVERY_S: Final = 1.0  # how soon a lender notices what `swarmp2p revoke` wrote into its file


@dataclass(frozen=True, slots=True)
class Revocation:
    """What came of revoking. sequence: of the list. told: lenders that it was sent to at once; others that are
    connected to those follow within seconds. stored: peers that keep it for lenders that come later."""

    owner: PeerId
    sequence: int
    told: int
    stored: int


class Granting:
    """One peer's. file: where grants and lists are kept; None for nowhere. kept: what it held at the start."""

    def __init__(
        self,
        peer: Peer,
        post: Callable[[LeaseCommand], None],
        file: GrantFile | None = None,
        kept: Kept | None = None,
    ) -> None:
        kept = kept or Kept()
        self._peer, self._post, self._file = peer, post, file
        self.held: dict[bytes, Grant] = {grant.id: grant for grant in kept.held}
        self._lists = {one.owner: one for one in kept.lists}
        self._rng = random.Random(os.urandom(16))
        self._unsaved: dict[PeerId, RevocationList] = {}
        self._news = trio.Event()
        self.on_list: Callable[[RevocationList], None] | None = None

    # Giving -------------------------------------------------------------------------------------------------

    def grant(
        self,
        to: PeerId | str | None,
        under: Grant | str | None,
        expires_in_s: float | None,
        terms: Terms,
        by: Identity,
    ) -> Grant:
        """See Peer.grant. terms: bounds alone; its expiry is not looked at."""
        return make_grant(by, to, under, expires_in_s, terms, self._peer.now())

    # Holding ------------------------------------------------------------------------------------------------

    async def hold(self, grant: Grant | str) -> Grant:
        """See Peer.hold."""
        mine = grant_argument(grant).redeem(self._peer.id, self._peer.now())
        if mine.holder != self._peer.id:
            raise GrantError(
                f"it was given to {mine.holder}, and this peer is {self._peer.id}",
                "ask for one for this peer, or open the peer that it was given to",
            )
        if mine.terms.expires <= self._peer.now():
            raise GrantError("it has expired", "ask for another one")
        self.held[mine.id] = mine
        while len(self.held) > MAX_HELD:
            del self.held[min(self.held, key=lambda id: self.held[id].terms.expires)]
        await self._save(held=[mine])
        return mine

    def showing(
        self,
        grants: Iterable[Grant | str] | Grant | None,
        owners: Callable[[PeerId], str],
        post: Callable[[LeaseCommand], None],
    ) -> Callable[[LeaseCommand], None]:
        """`post`, with the grant that may count at its provider in each request. grants: the only ones to show; None
        for all that are held. owners: what a provider's record says of whose grants count there."""
        own = None if grants is None else [self._mine(grant) for grant in _several(grants)]

        def post_with_grant(command: LeaseCommand) -> None:
            if isinstance(command, RequestLease) and not command.grants:
                usable = own if own is not None else list(self.held.values())
                links = chain_for(
                    usable, command.provider, owners(command.provider), command.need, self._peer.now()
                )
                command = replace(command, grants=links)
            post(command)

        return post_with_grant

    def _mine(self, grant: Grant | str) -> Grant:
        mine = grant_argument(grant).redeem(self._peer.id, self._peer.now())
        if mine.holder != self._peer.id:
            raise UsageError(
                f"the grant was given to {mine.holder}, and only that peer can use it; this one is {self._peer.id}"
            )
        return mine

    # Revoking -----------------------------------------------------------------------------------------------

    async def revoke(
        self, what: Iterable[Grant | PeerId | str], everything: bool, owner: Identity
    ) -> Revocation:
        """See Peer.revoke."""
        grants, peers = _named(what, owner.peer_id)
        if not grants and not peers and not everything:
            raise UsageError("nothing is named to be revoked: name grants or peers, or say everything=True")
        # first what ends workers; what else the swarm may know of this owner comes after it
        known = self._lists.get(owner.peer_id)
        told = await self._next(owner, known, grants, peers, everything)
        heard = await tell(self._peer, told)
        earlier = await looked_up(self._peer, owner.peer_id)
        both = union(told, earlier)
        more = both is not None and (both.since, both.entries) != (told.since, told.entries)
        if both is not None and more and len(both.entries) <= MAX_ENTRIES:
            told = await self._next(owner, both)
            heard = max(heard, await tell(self._peer, told))
        return Revocation(told.owner, told.sequence, heard, await stored(self._peer, told))

    async def _next(
        self,
        owner: Identity,
        known: RevocationList | None,
        grants: Iterable[bytes] = (),
        peers: Iterable[PeerId] = (),
        everything: bool = False,
    ) -> RevocationList:
        told = revoke(owner, known, self._peer.now(), grants=grants, peers=peers, everything=everything)
        self.learn(told)
        await self._save(lists=[told])
        return told

    def learn(self, told: RevocationList) -> None:
        """Take in a list that its owner signed."""
        known = self._lists.get(told.owner)
        if known is not None and known.sequence >= told.sequence:
            return
        self._lists[told.owner] = self._unsaved[told.owner] = told
        self._post(LearnRevocations(told.owner, told.envelope))
        if self.on_list is not None:
            self.on_list(told)
        self._news.set()

    @asynccontextmanager
    async def heeding(
        self, grantors: Iterable[PeerId], on_list: Callable[[RevocationList], None]
    ) -> AsyncGenerator[None, None]:
        """Heed the lists of these owners, and the own, while the context is open. on_list: called with each that is
        news."""
        owners = dict.fromkeys((self._peer.id, *grantors))
        for one in self._lists.values():
            if one.owner in owners:
                self._post(LearnRevocations(one.owner, one.envelope))
        self.on_list = on_list
        following = Following(self._peer, self.learn, self._lists.get, self._rng)
        try:
            async with background_nursery() as nursery:
                nursery.start_soon(following.run, [owner for owner in owners if owner != self._peer.id])
                if self._file is not None:
                    nursery.start_soon(self._keep_saving)
                    nursery.start_soon(self._follow_file, self._file)
                yield
        finally:
            self.on_list = None

    # Keeping ------------------------------------------------------------------------------------------------

    async def _save(self, held: Iterable[Grant] = (), lists: Iterable[RevocationList] = ()) -> None:
        if self._file is None:
            return
        await trio.to_thread.run_sync(self._file.add, self._peer.now(), tuple(held), tuple(lists))

    async def _keep_saving(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            unsaved, self._unsaved = self._unsaved, {}
            try:
                await self._save(lists=unsaved.values())
            except StateFileError as problem:
                _log.warning("revocations are known, but not kept: %s", problem)

    async def _follow_file(self, file: GrantFile) -> None:
        """Take in what another process with the same key adds."""
        stamp = file.stamp()
        while True:
            await trio.sleep(_LOOK_EVERY_S)
            now = file.stamp()
            if now == stamp:
                continue
            stamp = now
            try:
                kept = await trio.to_thread.run_sync(file.read)
            except StateFileError as problem:
                _log.warning("what was added there is not known here: %s", problem)
                continue
            for one in kept.lists:
                self.learn(one)


def make_grant(
    by: Identity,
    to: PeerId | str | None,
    under: Grant | str | None,
    expires_in_s: float | None,
    terms: Terms,
    now: float,
) -> Grant:
    """See Peer.grant. by: who gives it, or passes it on. terms: bounds alone; its expiry is not looked at."""
    lives_s = GRANT_S if expires_in_s is None else seconds_argument(expires_in_s, "expires_in_s")
    secret = os.urandom(32) if to is None else b""
    holder = Identity(secret).peer_id if to is None else peer_argument(to)
    if under is None:
        made = Grant.issue(by, holder, replace(terms, expires=now + lives_s), now)
    else:
        parent = grant_argument(under).redeem(by.peer_id, now)
        narrowed = parent.terms.within(
            expires=parent.terms.expires if expires_in_s is None else now + lives_s,
            cpus=terms.cpus,
            gpus=terms.gpus,
            memory_bytes=terms.memory_bytes,
            leases=terms.leases,
            lease_s=terms.lease_s,
            lenders=terms.lenders,
        )
        made = parent.narrow(by, holder, narrowed, now)
    return made.as_ticket(secret) if secret else made


def grant_argument(value: object) -> Grant:
    """A grant, or its text."""
    if isinstance(value, Grant):
        return value
    if isinstance(value, str):
        return Grant.parse(value, verify)
    raise UsageError(f"a grant, or its text like grant1_..., is needed, not {value!r}")


def _several(value: object) -> Iterable[Grant | str]:
    if isinstance(value, Grant | str):
        return (value,)
    if not isinstance(value, Iterable):
        raise UsageError(f"grants come as a list, not {value!r}")
    return value


def _named(what: Iterable[Grant | PeerId | str], owner: PeerId) -> tuple[list[bytes], list[PeerId]]:
    """Ids of grants, and peers, that are to be revoked."""
    grants, peers = list[bytes](), list[PeerId]()
    for one in what:
        if isinstance(one, Grant) or is_grant(one):
            grant = grant_argument(one)
            if grant.owner != owner:
                raise UsageError(
                    f"this grant is {grant.owner}'s, and only its owner can revoke it; the key here is {owner}. "
                    "Nothing was revoked"
                )
            grants.append(grant.id)
        else:
            peers.append(peer_argument(one))
    return grants, peers
