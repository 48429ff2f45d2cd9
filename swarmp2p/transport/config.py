"""Settings and counters of a Host."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ..identity import PeerId

_MAX_OFFENDERS: Final = 1024


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Limits and times of a Host. Where no source is named, the value is a guess that worked.

    agent: what identify says we are.
    max_connections: in both directions together; more are refused. The last quarter is for those that we dial.
    max_connections_per_peer: two peers that dial each other at the same moment end up with two, and keep them.
    max_streams: that one connection's other side may have open. py-libp2p allows 12, rust and js 32.
    handshakes: connections being made, in each direction; more wait, those that come in for 1 s a place.
    dial_timeout_s: for one address, from its SYN to the agreement on a multiplexer.
    dial_stagger_s: after which the next address is tried too. 250 ms in RFC 8305 and go-libp2p.
    negotiate_timeout_s: to agree on a stream's protocol. 10 s in py-libp2p.
    identify_timeout_s: how long PeerUp of a peer that dialled us waits for the addresses it listens on.
    queue_messages, queue_bytes: that wait for one peer in one protocol; more are dropped and counted.
    request_streams: to one peer in one protocol. stall_s: how long the oldest request of every open one has
        waited when another is opened.
    unanswered: requests of one inbound stream that the engine has not answered; reading stops there.
    reply_timeout_s: after which a stream that still waits for a reply, in either direction, is given up.
    idle_s: after which request streams are closed. go closes them after 60 s.
    probe_s: a connection that was silent for this long is asked for a sign of life, and closed after as long
        again. 30 s in go-yamux.
    sweep_s: between looks at what is idle, late or silent.
    duplicate_s: after which a second connection to a peer is closed when it has no streams.
    max_pushes: times within sweep_s that a peer may say what has changed of itself; more are bad messages.
    bad_messages: that one peer may send before it is disconnected, and again after each reconnection.
    known_peers, known_addresses: peers whose addresses are remembered, and how many of each.
    """

    agent: str = "swarmp2p/0.1.0"
    max_connections: int = 1024
    max_connections_per_peer: int = 4
    max_streams: int = 64
    handshakes: int = 64
    dial_timeout_s: float = 10.0
    dial_stagger_s: float = 0.25
    negotiate_timeout_s: float = 10.0
    identify_timeout_s: float = 2.0
    queue_messages: int = 1024
    queue_bytes: int = 4 << 20
    request_streams: int = 3
    stall_s: float = 0.25
    unanswered: int = 64
    reply_timeout_s: float = 30.0
    idle_s: float = 45.0
    probe_s: float = 15.0
    sweep_s: float = 5.0
    duplicate_s: float = 10.0
    max_pushes: int = 16
    bad_messages: int = 16
    known_peers: int = 8192
    known_addresses: int = 8


@dataclass(slots=True)
class HostStats:
    """What a Host has counted since it was made.

    dropped: messages lost on this side, by cause. bad: malformed messages by sender, of the 1,024 latest.
    sent, received: messages. dials, failed_dials: connections that were tried.
    """

    sent: int = 0
    received: int = 0
    dials: int = 0
    failed_dials: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    bad: OrderedDict[PeerId, int] = field(default_factory=OrderedDict[PeerId, int])

    def offence(self, peer: PeerId) -> int:
        """Count a malformed message; returns how many there are of this peer."""
        self.bad[peer] = self.bad.get(peer, 0) + 1
        self.bad.move_to_end(peer)
        if len(self.bad) > _MAX_OFFENDERS:
            self.bad.popitem(last=False)
        return self.bad[peer]
