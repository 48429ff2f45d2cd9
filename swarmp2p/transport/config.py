"""Settings and counters of a Host."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ..identity import PeerId
from .relay_config import RelayConfig

_MAX_OFFENDERS: Final = 1024


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Limits and times of a Host. Where no source is named, the value is a guess that worked.

    agent: what identify says we are.
    max_connections: in both directions together; more are refused. The last quarter is for those that we dial.
    high_connections, low_connections, grace_s: above the high mark the least useful ones are closed until the low
        mark is reached, but none that is younger than grace_s (go-libp2p: 192, 160, 20 s).
    max_per_ip, max_per_subnet: connections from one public IP address, and from one /24 (IPv4) or /48 (IPv6), that
        came in or are being made (go-libp2p: 8 an address). subnet_per_s, subnet_burst: new ones of a subnet.
    max_connections_per_peer: two peers that dial each other at the same moment end up with two, and keep them.
    max_streams: that one connection's other side may have open. py-libp2p allows 12, rust and js 32.
    handshakes: connections being made that come in; more wait, for 1 s a place. Of those that we make, four times as
        many, since a liar can make us dial where nobody answers.
    control_per_s, control_burst: Yamux frames without data that one connection may send us: streams opened and reset,
        pings, windows. Whoever sends 100 MB/s needs 800 windows a second. Each costs about 6 us.
    messages_per_s, messages_burst: that are no requests, of one peer. However short, each costs 10 us or more; the
        stream of who sends more is reset, which counts as a bad message. Honest peers put what they have to say at
        one time into one.
    dial_timeout_s: for one address, from its SYN to the agreement on a multiplexer.
    dial_addresses: of a peer, that are tried. dials_before_backoff: dials of a peer that may fail, one after the
        other, before the next one waits dial_backoff_s, and twice as long each time up to max_backoff_s (go-libp2p:
        5 s to 5 min). What an application dials by address is not held back.
    dial_stagger_s: after which the next address is tried too. 250 ms in RFC 8305 and go-libp2p.
    negotiate_timeout_s: to agree on a stream's protocol. 10 s in py-libp2p.
    ask_records: peers that we dialled are asked who they are, too, after their PeerUp, for their signed peer records
        (gossip.config.GossipConfig.peer_exchange), and newer ones are passed on; those of peers that dialled us come
        with their addresses anyway.
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
    relay: relaying for others, and being reached through relays. upnp: whether the router is asked for ports.
    known_peers, known_addresses: peers whose addresses are remembered, and how many of each.
    """

    agent: str = "swarmp2p/0.1.0"
    max_connections: int = 1024
    high_connections: int = 192
    low_connections: int = 160
    grace_s: float = 20.0
    max_per_ip: int = 8
    max_per_subnet: int = 32
    subnet_per_s: float = 2.0
    subnet_burst: int = 32
    max_connections_per_peer: int = 4
    max_streams: int = 64
    handshakes: int = 64
    control_per_s: float = 2000.0
    control_burst: int = 10_000
    messages_per_s: float = 5000.0
    messages_burst: int = 20_000
    dial_timeout_s: float = 10.0
    dial_addresses: int = 3
    dials_before_backoff: int = 3
    dial_backoff_s: float = 5.0
    max_backoff_s: float = 300.0
    dial_stagger_s: float = 0.25
    negotiate_timeout_s: float = 10.0
    ask_records: bool = False
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
    relay: RelayConfig = field(default_factory=RelayConfig)
    upnp: bool = False


@dataclass(slots=True)
class HostStats:
    """What a Host has counted since it was made.

    dropped: messages lost on this side, by cause. bad: malformed messages by sender, of the 1,024 latest.
    sent, received: messages. dials, failed_dials: connections that were tried. refused: that came in and were one too
    many of their source. trimmed: closed because there were too many. relay: reservations and circuits given, and
    reservations that we hold, and what was refused and relayed.
    """

    sent: int = 0
    received: int = 0
    dials: int = 0
    failed_dials: int = 0
    refused: int = 0
    trimmed: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    relay: Counter[str] = field(default_factory=Counter[str])
    bad: OrderedDict[PeerId, int] = field(default_factory=OrderedDict[PeerId, int])

    def counters(self) -> dict[str, int]:
        """All of it as numbers."""
        plain = ("sent", "received", "dials", "failed_dials", "refused", "trimmed")
        counted = {name: int(getattr(self, name)) for name in plain}
        counted["bad"] = sum(self.bad.values())
        relayed = {f"relay: {what}": number for what, number in self.relay.items()}
        return counted | relayed | {f"dropped: {cause}": number for cause, number in self.dropped.items()}

    def offence(self, peer: PeerId) -> int:
        """Count a malformed message; returns how many there are of this peer."""
        self.bad[peer] = self.bad.get(peer, 0) + 1
        self.bad.move_to_end(peer)
        if len(self.bad) > _MAX_OFFENDERS:
            self.bad.popitem(last=False)
        return self.bad[peer]
