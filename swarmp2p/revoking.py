"""How an owner's list of revocations gets to the lenders that heed it, and stays known.

    owner    -- publishes the list in its topic, at once to whom it is connected; finds more lenders that follow it
                (they provide the topic's key) and dials some; then puts the list into the DHT
    lenders  -- subscribe to the topics of their grantors; a list that is news ends leases at once (LearnRevocations),
                is kept on disk, and is put into the DHT again as long as they run, also when its owner is gone
    late ones - look the list up in the DHT when they start to lend, and every two minutes after that

In a topic only lists that its owner signed are passed on, and each only while it is news: nobody can flood it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from .errors import BadMessage, SwarmError
from .gossip.events import Acceptance, GossipMessage
from .identity import PeerId, verify
from .node import topic_key
from .ray_bridge.revocations import (
    RevocationList,
    read_revocations,
    revocation_key,
    revocation_topic,
)
from .scopes import background_nursery

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 120.0
_STEP_S: Final = 10.0  # for one search or store in the DHT
_MEMBERS: Final = 16  # of a topic that are looked for
_LINKS: Final = 4  # members that a lender is connected to, so that lists reach it: half of a gossip mesh
_TELL: Final = 8  # members that an owner dials
_TELL_S: Final = 2.0  # how long that may take; those connected already are told at once
_HELLO_S: Final = (
    0.5  # from a connection to the other side's word on what it subscribes to: a slow round trip
)


class Following:
    """Follows the lists of some owners. learn: takes one that is genuine. known: the newest of an owner."""

    def __init__(
        self,
        peer: Peer,
        learn: Callable[[RevocationList], None],
        known: Callable[[PeerId], RevocationList | None],
        rng: random.Random,
    ) -> None:
        self._peer, self._learn, self._known, self._rng = peer, learn, known, rng

    async def run(self, owners: Iterable[PeerId]) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            for owner in owners:
                nursery.start_soon(self._follow, owner)

    async def _follow(self, owner: PeerId) -> None:
        topic = revocation_topic(owner)
        judge = partial(self._judge, owner)
        async with (
            self._peer.validate(topic, judge),
            self._peer.subscribe(topic) as news,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._look, owner)
            async for message in news:
                self._take(owner, message.data)

    def _judge(self, owner: PeerId, message: GossipMessage) -> Acceptance:
        try:
            told = read_revocations(message.data, owner, verify)
        except BadMessage:
            return Acceptance.REJECT
        known = self._known(owner)
        return Acceptance.ACCEPT if known is None or known.sequence < told.sequence else Acceptance.IGNORE

    def _take(self, owner: PeerId, envelope: bytes) -> None:
        try:
            self._learn(read_revocations(envelope, owner, verify))
        except BadMessage:
            pass

    async def _look(self, owner: PeerId) -> None:
        """Look the list up, keep it stored, and stay near others that follow it."""
        while True:
            found = await looked_up(self._peer, owner)
            if found is not None:
                self._learn(found)
            known = self._known(owner)
            if known is not None and known != found:
                await stored(self._peer, known)
            await self._meet(revocation_topic(owner))
            await trio.sleep(_LOOK_EVERY_S * (0.8 + 0.4 * self._rng.random()))

    async def _meet(self, topic: str) -> None:
        with trio.move_on_after(_STEP_S):
            try:
                await self._peer.dht.provide(topic_key(topic))
            except SwarmError:
                pass  # nobody is there; the next look tries again
            if len(self._peer.subscribers(topic)) < _LINKS:
                await _dial_members(self._peer, topic, _LINKS)


async def tell(peer: Peer, told: RevocationList) -> int:
    """Tell whoever follows an owner of its list; best effort, two seconds at most. Returns how many were told here:
    they tell the others."""
    topic = revocation_topic(told.owner)
    heard: dict[PeerId, None] = {}

    async def say() -> None:
        new = [one for one in peer.subscribers(topic) if one not in heard]
        if new:
            heard.update(dict.fromkeys(new))
            await peer.publish(topic, told.envelope)

    await say()
    with trio.move_on_after(_TELL_S):
        async with background_nursery() as saying:
            saying.start_soon(_again, say)
            await _dial_members(peer, topic, _TELL)
            await trio.sleep(_HELLO_S)
    return len(heard)


async def looked_up(peer: Peer, owner: PeerId) -> RevocationList | None:
    """The newest list of an owner that the swarm keeps."""
    with trio.move_on_after(_STEP_S):
        try:
            return read_revocations(await peer.dht.get(revocation_key(owner)), owner, verify)
        except SwarmError:
            pass  # there is none, or nobody to ask
    return None


async def stored(peer: Peer, told: RevocationList) -> int:
    """Have the swarm keep a list; returns how many peers do."""
    with trio.move_on_after(_STEP_S):
        try:
            return await peer.dht.put(revocation_key(told.owner), told.envelope)
        except SwarmError as problem:
            _log.debug("a list of revocations was not stored: %s", problem)
    return 0


async def _again(say: Callable[[], Awaitable[None]]) -> None:
    """A connection says within a round trip what the other side subscribes to."""
    while True:
        await trio.sleep(0.1)
        await say()


async def _dial_members(peer: Peer, topic: str, most: int) -> None:
    """Connect to some of those that follow a topic."""

    async def dial(addresses: Iterable[str]) -> None:
        for address in addresses:
            try:
                await peer.connect(address)
                return
            except SwarmError:
                continue

    async with trio.open_nursery() as nursery:
        dialled = 0
        try:
            async with peer.dht.find_providers(topic_key(topic), _MEMBERS) as found:
                async for member in found:
                    if member.id == peer.id or member.id in peer.connected:
                        continue
                    nursery.start_soon(dial, [str(address) for address in member.addresses])
                    dialled += 1
                    if dialled >= most:
                        break
        except SwarmError:
            pass
