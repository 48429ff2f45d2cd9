"""Tuning of the mesh engine. All times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """Settings of both roles.

    retry_s: what is not answered is said again after this, then after twice as long, up to `max_retry_s`.
    join_timeout_s: how long a member may take to join, and to agree on a secret with the head, before its lease is
        given up. A lender starts a network namespace and a process meanwhile: 0.2 s, or seconds on a busy machine.
    pairing_life_s: until when a pairing's statements are valid; an offer is made anew after half of it.
    clock_error_s: difference of two machines' clocks that is forgiven.
    pairings_per_s, pairings_burst: statements of one member that are looked at; a check costs 60 µs, an answer 0.2 ms.
    relayed_per_s, relayed_burst: statements of one worker that a head passes on: at most one burst for each other
        member, all at once when it joins.
    joins_per_s: facts of one worker that has not joined yet that are looked at, each second.
    changes_per_s, changes_burst: new facts of one that has: every other member hears of them, and plans anew. What is
        passed over is said again.
    updates_per_s, updates_burst: of one head's Updates that are looked at: one costs 15 ms in a cluster of 256. Taking
        in all of these takes 11. What is passed over is said again.
    max_attended: clusters that this peer works for at a time, leases waiting included; more are refused.
    max_clusters: clusters of its own; opening more is refused.
    max_members: of one cluster, the head included; more are refused.
    max_departed: members that left and that some worker has not heard of; whoever is farthest behind is given up then.
    max_permits: leases that stand, both roles; more are refused.
    """

    retry_s: float = 0.5
    max_retry_s: float = 4.0
    join_timeout_s: float = 30.0
    pairing_life_s: float = 30.0
    clock_error_s: float = 30.0
    pairings_per_s: float = 4.0
    pairings_burst: int = 16
    relayed_per_s: float = 64.0
    relayed_burst: int = 512
    joins_per_s: float = 2.0
    changes_per_s: float = 0.2
    changes_burst: int = 4
    updates_per_s: float = 5.0
    updates_burst: int = 32
    max_attended: int = 64
    max_clusters: int = 16
    max_members: int = 256
    max_departed: int = 256
    max_permits: int = 1024
