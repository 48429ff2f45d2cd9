"""Peer exchange: who is pruned is told of others in the topic (gossipsub 1.1, "PRUNE Backoff and Peer Exchange").

*Offering*, a setting that is off by default as in go: a PRUNE because a mesh is full, or left, names random peers of
the topic, with the signed records that identify brought. Neither to peers with a score below 0, nor of them.

*Following*: whoever is named waits here until a heartbeat finds the topic's mesh too small although it grafted whom it
could. Then some are dialled; the connection's usual greetings do the rest.

    PRUNE --score? record genuine?--> candidate --mesh too small--> dialled --PeerUp--> connected
                                          +---- 60 s ----> forgotten   +--PeerDown, 30 s--> forgotten

What a liar gains: it may have us dial peers of its choosing, 8 at a time and only while a mesh is short; it may not
have us dial a peer at addresses that this peer did not sign. It can sign for peers that it makes up: so of each three
addresses count, no names, and from the public internet no private ones (hearsay.py). A peer without a record is dialled
only where the network knows an address of it already, as in go; the rest of its dial costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from random import Random
from typing import Final

from ..engine import Address, Introduce, NetworkOutput, Send
from ..errors import BadMessage
from ..hearsay import believable
from ..identity import PeerId
from ..peer_record import MAX_RECORD_BYTES, open_record
from ..signed import Verify
from .config import GossipConfig, GossipStats
from .messages import Exchanged, Rpc
from .peers import Peers, PeerState

_MAX_OFFER_BYTES: Final = 16_384
"""Of the records in one PRUNE. Usual ones have 150 to 300 bytes."""

_DIAL_TIMEOUT_S: Final = 30.0
"""After which a dial under way counts no more. go-libp2p-pubsub: GossipSubConnectionTimeout."""

_CANDIDATE_S: Final = 60.0
"""For which a peer that was named may be dialled; the usual backoff after a PRUNE. Our choice."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    topic: str
    addresses: tuple[Address, ...]
    until: float


class PeerExchange:
    """What is named to pruned peers, and what is made of those whom others name.

    Bounds: one record per connected peer, of at most 4 KiB; `max_candidates` peers that were named, further ones are
    ignored and counted; `exchange_dials` under way; twice `exchange_peers` signatures checked a heartbeat.
    """

    __slots__ = (
        "_candidates",
        "_checks",
        "_config",
        "_dials",
        "_peer",
        "_peers",
        "_records",
        "_rng",
        "_stats",
        "_verify",
    )

    def __init__(
        self,
        peer: PeerId,
        verify: Verify,
        peers: Peers,
        rng: Random,
        config: GossipConfig,
        stats: GossipStats,
    ) -> None:
        self._peer, self._verify, self._peers = peer, verify, peers
        self._rng, self._config, self._stats = rng, config, stats
        self._records: dict[PeerId, tuple[bytes, bool]] = {}  # and whether the signature was checked
        self._candidates: dict[PeerId, _Candidate] = {}
        self._dials: dict[PeerId, _Candidate] = {}
        self._checks = 0  # since the last heartbeat

    def sizes(self) -> dict[str, int]:
        """How many entries each table holds."""
        return {
            "records": len(self._records),
            "candidates": len(self._candidates),
            "exchange_dials": len(self._dials),
        }

    # Connections --------------------------------------------------------------------------------------------

    def connected(self, peer: PeerId, record: bytes) -> None:
        """A peer is connected, and nobody needs to name it any more. record: its own, or none."""
        self._dials.pop(peer, None)
        self._candidates.pop(peer, None)
        self.certified(peer, record)

    def certified(self, peer: PeerId, record: bytes) -> None:
        """A connected peer's own record, for others. It is checked before it is handed on."""
        if (
            self._config.peer_exchange
            and 0 < len(record) <= MAX_RECORD_BYTES
            and self._peers.get(peer) is not None
        ):
            self._records[peer] = record, False

    def gone(self, peer: PeerId) -> None:
        """A connection closed, or a dial failed."""
        self._dials.pop(peer, None)
        self._records.pop(peer, None)

    # Offering -----------------------------------------------------------------------------------------------

    def offer(self, state: PeerState, topic: str, now: float) -> tuple[Exchanged, ...]:
        """Whom to name to a peer that is pruned from a topic; those whose record we have come first."""
        config = self._config
        if not config.peer_exchange or state.score.value(now) < 0:
            return ()
        count = config.exchange_peers
        chosen = self._peers.sample(
            topic, count, self._rng, lambda s: s.peer in self._records and self._may_be_named(s, state, now)
        )
        if len(chosen) < count:
            chosen += self._peers.sample(
                topic,
                count - len(chosen),
                self._rng,
                lambda s: s.peer not in self._records and self._may_be_named(s, state, now),
            )
        room = _MAX_OFFER_BYTES
        offered: list[Exchanged] = []
        for one in chosen:
            record = self._genuine(one.peer)
            if len(record) > room:
                record = b""
            room -= len(record)
            offered.append(Exchanged(one.peer, record))
        return tuple(offered)

    @staticmethod
    def _may_be_named(state: PeerState, to: PeerState, now: float) -> bool:
        return state is not to and state.score.value(now) >= 0

    def _genuine(self, peer: PeerId) -> bytes:
        """A connected peer's record, checked once; empty when there is none, or no genuine one."""
        record, checked = self._records.get(peer, (b"", True))
        if not checked:
            try:
                open_record(record, self._verify, peer)
            except BadMessage:
                del self._records[peer]
                return b""
            self._records[peer] = record, True
        return record

    # Following ----------------------------------------------------------------------------------------------

    def named(self, topic: str, peers: Iterable[Exchanged], teller: Address, now: float) -> None:
        """A peer whom we may believe that much named others in a PRUNE. teller: where that peer is."""
        for one in peers:
            if one.peer == self._peer or self._peers.get(one.peer) is not None or one.peer in self._dials:
                continue
            before = self._candidates.get(one.peer)
            if before is not None and (before.addresses or not one.record):
                continue
            if before is None and len(self._candidates) >= self._config.max_candidates:
                self._stats.over_limit += 1
                continue
            addresses: tuple[Address, ...] = ()
            if one.record:
                if self._checks >= 2 * self._config.exchange_peers:
                    self._stats.over_limit += 1
                    continue
                self._checks += 1
                try:
                    info = open_record(one.record, self._verify, one.peer).info
                except BadMessage:
                    self._stats.bad_records += 1
                    continue
                for believed in believable((info,), (teller,)):
                    addresses = believed.addresses
            self._candidates[one.peer] = _Candidate(topic, addresses, now + _CANDIDATE_S)

    def beat(
        self, meshes: Mapping[str, Sized], subscriptions: Iterable[str], now: float
    ) -> list[NetworkOutput]:
        """Heartbeat, after meshes were tended to: dial some of those named where one is still too small.
        subscriptions: what a peer is greeted with, since a Send dials."""
        self._checks = 0
        if not self._candidates and not self._dials:
            return []
        for table in (self._candidates, self._dials):
            for peer in [peer for peer, candidate in table.items() if candidate.until <= now]:
                del table[peer]
        out: list[NetworkOutput] = []
        topics = dict.fromkeys(candidate.topic for candidate in self._candidates.values())
        short = {topic: self._wanted(topic, len(meshes[topic])) if topic in meshes else 0 for topic in topics}
        waiting = [peer for peer, candidate in self._candidates.items() if short[candidate.topic] > 0]
        self._rng.shuffle(waiting)
        waiting.sort(key=lambda peer: not self._candidates[peer].addresses)
        for peer in waiting:
            topic = self._candidates[peer].topic
            if len(self._dials) >= self._config.exchange_dials:
                break
            if short[topic] <= 0:
                continue
            short[topic] -= 1
            addresses = self._candidates.pop(peer).addresses
            self._dials[peer] = _Candidate(topic, addresses, now + _DIAL_TIMEOUT_S)
            self._stats.exchange_dials += 1
            if addresses:
                out.append(Introduce(peer, addresses))
            out.append(Send(peer, Rpc(subscriptions=tuple((name, True) for name in subscriptions))))
        return out

    def _wanted(self, topic: str, members: int) -> int:
        """How many more to dial for a topic."""
        if members >= self._config.mesh_low:
            return 0
        under_way = sum(dial.topic == topic for dial in self._dials.values())
        return self._config.mesh_degree - members - under_way
