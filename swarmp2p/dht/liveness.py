"""Keeping the routing table true: who is there, who serves the DHT, and who is gone.

    connected, or named as near to us ----> probe (probes.py) --answer--> into the table
    anything but what was asked for, or
    silence, from a peer of the table ----> suspect ---> asked again after a while, with a witness --> kept, or removed
    lost, or not heard of for long -------> probe

A peer enters the table only by answering, and leaves it only when others answer meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..engine import Address, PeerInfo, Reply, Speaks
from ..hearsay import believable
from ..identity import PeerId
from .config import DhtConfig
from .contacts import Contacts
from .keys import ID_BITS, peer_key
from .messages import FindNode, FoundNodes
from .probes import Probes
from .requests import Requests
from .routing import RoutingTable
from .timers import Timers

_HEARSAY: Final = 0.25
"""Of the room for probes, how much those may take who are only named: a liar must not keep others from being asked."""

_MAX_LOOKED: Final = 64  # the one asked longest ago is forgotten beyond
_WITNESSES: Final = 3  # neighbours that are asked who is near now when one has failed


@dataclass(frozen=True, slots=True)
class Recheck:
    """A suspect is to be asked again."""

    peer: PeerId


class Liveness:
    """What one peer knows of who is there.

    timers: the engine's; Rechecks in them come back through `due`. Their number is bounded by the table's.
    on_met: told when one more peer is in the table.
    """

    def __init__(
        self,
        peer: PeerId,
        table: RoutingTable,
        contacts: Contacts,
        requests: Requests,
        timers: Timers[object],
        config: DhtConfig,
    ) -> None:
        self._peer, self._table, self._contacts = peer, table, contacts
        self._requests, self._timers, self._config = requests, timers, config
        self._probes = Probes(table, config)
        self.on_met: Callable[[float], None] = lambda now: None
        self._rechecks: dict[PeerId, None] = {}  # suspects with a timer
        self._looked: dict[
            PeerId, tuple[float, float]
        ] = {}  # neighbours that closed: asked when, patience since

    # Connections --------------------------------------------------------------------------------------------

    def up(self, peer: PeerId, addresses: tuple[Address, ...], now: float) -> None:
        """A connection stands: see whether the peer serves the DHT, unless it is known or being asked
        already."""
        self._contacts.up(peer, addresses)
        self._table.pardon(peer)
        info = self._contacts.info(peer)
        if info is None:
            return
        self._table.learn_addresses(info)
        if not self._requests.has(peer) and (self._table.is_suspect(peer) or self._probes.wants(info, now)):
            self._probe_if_idle(info, now)

    def moved(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """A connected peer says where it can be dialled now; others are told so when they ask."""
        if peer in self._contacts:
            self._contacts.up(peer, addresses)
            self._table.learn_addresses(PeerInfo(peer, addresses))

    def down(self, peer: PeerId, now: float) -> None:
        """No connection stands any more, and nothing was under way. Nothing is wrong with that."""
        if self._table.is_near(peer) and self._may_look(peer, now):
            # Of a neighbour it matters whether it is gone: records are stored there.
            info = self._table.get(peer)
            if info is not None:
                self._probe_if_idle(info, now)
        else:
            self._table.doubt(peer)  # asked at the next refresh

    def _may_look(self, peer: PeerId, now: float) -> bool:
        """Whether a neighbour that closes its connection is asked at once. Half as often each time, down to once a
        refresh: one that has too many connections closes ours again and again, and would be dialled as often."""
        longest = self._config.refresh_interval_s
        looked, patience_s = self._looked.get(peer, (-longest, 0.0))
        if now - looked < patience_s or self._table.is_fresh(peer, now - self._config.recheck_s):
            return False
        again = now - looked < longest
        if self._looked.pop(peer, None) is None and len(self._looked) >= _MAX_LOOKED:
            del self._looked[next(iter(self._looked))]
        self._looked[peer] = now, min(2 * patience_s, longest) if again else 2 * self._config.recheck_s
        return True

    def speaks(self, event: Speaks, now: float) -> None:
        """A connected peer says whether it serves the DHT."""
        if event.protocol != FindNode.protocol:
            return
        if not event.serving:
            self.found_client(event.peer, now)
            return
        self._probes.pardon(event.peer)
        info = self._contacts.info(event.peer)
        if info is not None and self._table.wants(info):
            self._probe_if_idle(info, now)

    # What requests show -------------------------------------------------------------------------------------

    def asked_by(self, peer: PeerId, now: float) -> None:
        """A peer sent a request: it lives, whether it serves or not."""
        table = self._table
        if not table.lives(peer, now) and table.is_near(peer):
            # A neighbour that we have lost, perhaps over a connection that has stood all the time.
            info = self._contacts.info(peer)
            if info is not None and not self._probes.is_client(peer, now):
                self._probe_if_idle(info, now)

    def serves(self, info: PeerInfo, now: float) -> None:
        """A peer answered as only servers do."""
        if self._table.seen(info.peer, now):
            return
        before = len(self._table)
        oldest = self._table.add(self._contacts.info(info.peer) or info, now, self._probes.fresh_s)
        if len(self._table) > before:
            self.on_met(now)
        if oldest is not None:
            self._probe_if_idle(oldest, now)

    def found_client(self, peer: PeerId, now: float) -> None:
        """A peer does not serve the DHT: nobody is to be sent to it."""
        self._table.remove(peer)
        self._probes.client(peer, now)

    def blame(self, info: PeerInfo, sent: float, now: float) -> None:
        """A peer did not do its part. sent: when it was asked to, in seconds."""
        peer, table = info.peer, self._table
        if not table.is_suspect(peer) and table.is_near(peer):
            witnesses = [
                near for near in table.closest(peer_key(self._peer), _WITNESSES + 1) if near.peer != peer
            ]
            for witness in witnesses[:_WITNESSES]:
                self._probe_if_idle(witness, now)
        if table.failed(peer, now):
            if peer not in self._rechecks:
                self._rechecks[peer] = None
                self._timers.add(now + self._config.recheck_s, Recheck(peer))
        elif peer not in table and table.answered_at > sent:
            table.banish(info, now)

    def probed(self, info: PeerInfo, reply: Reply, now: float) -> None:
        """An answer came that nobody waited for."""
        self._probes.ended(info.peer)
        if isinstance(reply, FoundNodes):
            self._meet(believable(reply.closer, info.addresses), now)

    def probe_failed(self, peer: PeerId, now: float) -> None:
        """An answer did not come that nobody waited for. A connected peer that does not answer a probe is taken for
        a client, unless it has been a server."""
        if self._probes.ended(peer) and peer in self._contacts:
            self._probes.client(peer, now)

    # What others ask ----------------------------------------------------------------------------------------

    def worth_asking(self, named: Sequence[PeerInfo], now: float) -> Sequence[PeerInfo]:
        """Of peers that others name, those not known to be dead."""
        dead = [peer for peer in self._table.banished(named, now) if peer not in self._contacts]
        return [info for info in named if info.peer not in dead] if dead else named

    def is_there(self, peer: PeerId, now: float) -> bool:
        """Whether a peer is connected and was heard of not long ago, so that it need not be asked."""
        return peer in self._contacts and self._table.is_fresh(peer, now - self._config.stale_s)

    def check_table(self, now: float) -> None:
        """Ask the peers of the table that were not heard of for long whether they are still there. Those that are
        connected are only asked after four times as long: networks notice when the other side of a connection is
        gone."""
        table, stale_s = self._table, self._config.stale_s
        for info in table.not_seen_since(now - stale_s, self._config.k * ID_BITS):
            if info.peer not in self._contacts or not table.is_fresh(info.peer, now - 4 * stale_s):
                self._probe_if_idle(info, now)

    def due(self, item: Recheck, now: float) -> None:
        """Ask a suspect again; and somebody else too, because a failure only counts when others answer."""
        peer = item.peer
        del self._rechecks[peer]
        suspect = self._table.get(peer)
        if suspect is not None and self._table.is_suspect(peer):
            witnesses = self._table.closest(peer_key(peer), 1)
            for info in (suspect, *witnesses):
                if not self._requests.has(info.peer):
                    self._probe(info, now)

    def _meet(self, named: Sequence[PeerInfo], now: float) -> None:
        """Ask those that are named as near to us, and that we do not know, whether they are there."""
        table = self._table
        near = [
            info for info in named if table.is_near(info.peer) and info.peer not in table and info.addresses
        ]
        for info in self.worth_asking(near, now):
            if not self._probes.has_room(_HEARSAY):
                break
            if info.peer != self._peer and not self._probes.is_client(info.peer, now):
                self._probe_if_idle(info, now)

    def _probe(self, info: PeerInfo, now: float) -> None:
        self._probes.begin(info.peer)
        self._requests.ask(info, FindNode(self._requests.next_id(), bytes(self._peer)), now)

    def _probe_if_idle(self, info: PeerInfo, now: float) -> None:
        """Probe a peer, unless it is being asked anyway, or too many probes are under way."""
        if self._probes.has_room() and not self._requests.has(info.peer):
            self._probe(info, now)
