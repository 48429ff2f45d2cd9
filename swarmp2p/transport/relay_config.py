"""Settings of relaying: for others, and being relayed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Limits and times of circuit relay v2. Where no source is named, the value is a guess that worked.

    serve: relay for others, as long as they can dial this peer.
    reservations: peers that may be reached through this one at a time (go-libp2p: 128). per_ip, per_subnet: of them, at
        one public IP address, and in one /24 (IPv4) or /48 (IPv6) (go: 8 an address, 32 an operator).
        reservation_s: how long one holds before it is renewed (go: 1 h).
    circuits: connections through this peer at a time; circuits_per_peer: of them, from one peer or to it (go: 16).
        connects_per_s, connects_burst: that one peer may ask for.
    circuit_s, circuit_bytes: how long one may last, and what it may carry in each direction; 0 for no limit. go's
        2 minutes and 128 KiB are for meeting, not for work: a cluster's traffic between two peers neither of whom
        can be dialled has no other way. A carrier goes on over the next circuit when one is at its end.
    bytes_per_s: of all circuits together, 0 for no limit: what the owner of a relay gives away at most.
    wanted: relays that a peer reserves with when nobody can dial it; 0 for none. candidates: peers that are tried for
        that before it pauses. retry_s: after which a peer that refused is asked again.
    punch: try to get from a connection through a relay to a direct one (DCUtR). punches: tries (3 in its spec).
        punch_timeout_s: for one of them to connect (go: 5 s).
    """

    serve: bool = True
    reservations: int = 128
    per_ip: int = 8
    per_subnet: int = 32
    reservation_s: float = 3600.0
    circuits: int = 256
    circuits_per_peer: int = 16
    connects_per_s: float = 1.0
    connects_burst: int = 32
    circuit_s: int = 3600
    circuit_bytes: int = 4 << 30
    bytes_per_s: float = 16e6
    wanted: int = 3
    candidates: int = 16
    retry_s: float = 120.0
    punch: bool = True
    punches: int = 3
    punch_timeout_s: float = 5.0
