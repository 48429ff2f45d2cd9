"""IDONTWANT: what a peer has already need not be sent to it (gossipsub 1.2).

A message of some size is announced to the mesh as soon as its first copy has come and proved genuine, before anybody
judges it: the mesh's other copies, which are on their way or about to leave, are then spared. The spec would have it
announced even before the signature is checked. But sources count their sequence numbers up, so that a forger knows the
next ids; whoever spoke too soon for a forged copy would be left without the real one.

Ids that others announce are remembered for a few heartbeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..engine import Send
from ..identity import PeerId
from .config import GossipConfig, GossipStats
from .id_forms import read_ids, write_ids
from .messages import Rpc
from .outbox import Outbox
from .peers import Peers, PeerState

_WITHOUT: Final = ("/meshsub/1.1.0", "/meshsub/1.0.0", "/floodsub/1.0.0")
"""Protocols that know no IDONTWANT."""


class Unwanted:
    """What others do not want from us, at most `max_unwanted` ids a peer: further ones are ignored until some are
    forgotten; and telling them what we do not want."""

    __slots__ = ("_beat", "_config", "_holders", "_outbox", "_peers", "_stats")

    def __init__(self, peers: Peers, outbox: Outbox, config: GossipConfig, stats: GossipStats) -> None:
        self._peers, self._outbox, self._config, self._stats = peers, outbox, config, stats
        self._holders: dict[PeerId, PeerState] = {}  # those who announced something
        self._beat = 0

    def agreed(self, peer: PeerId, protocol: str) -> None:
        """The network says which protocol is spoken with a peer; empty for the newest."""
        state = self._peers.get(peer)
        if state is not None:
            state.takes_idontwant = protocol not in _WITHOUT

    def heard(self, state: PeerState, ids: tuple[bytes, ...]) -> None:
        """IDONTWANT: not to be sent to this peer, nor kept for it."""
        unwanted = state.unwanted
        for message_id in read_ids(state, ids):
            if message_id in unwanted:
                continue
            if len(unwanted) >= self._config.max_unwanted:
                self._stats.over_limit += 1
                break
            unwanted[message_id] = self._beat
            self._outbox.cancel(state.peer, message_id)
        if unwanted:
            self._holders[state.peer] = state

    def tell(self, ids: tuple[bytes, ...], members: Mapping[PeerId, PeerState], sender: PeerId) -> list[Send]:
        """Announce messages to a topic's mesh, but not to who sent them. At once: these do not wait for a flush."""
        rpc = Rpc(idontwant=ids)
        return [
            Send(peer, Rpc(idontwant=write_ids(state, ids)) if state.short_ids else rpc)
            for peer, state in members.items()
            if peer != sender and state.takes_idontwant and not self._outbox.congested(peer)
        ]

    def beat(self, idle: bool) -> None:
        """Heartbeat: forget what was announced some heartbeats ago; everything when it is the last one."""
        self._beat += 1
        before = self._beat - self._config.unwanted_beats
        for peer, state in list(self._holders.items()):
            unwanted = state.unwanted
            while unwanted and (idle or next(iter(unwanted.values())) <= before):
                del unwanted[next(iter(unwanted))]
            if not unwanted:
                del self._holders[peer]

    def gone(self, peer: PeerId) -> None:
        """A peer's connection closed."""
        self._holders.pop(peer, None)
