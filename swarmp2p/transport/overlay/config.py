"""Bounds and times of an overlay session. Frame and record sizes are part of the protocol: `frames`, `records`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What one session may use, and when it gives up. Both sides may differ in all but `first_window_bytes`.

    aes: this machine has AES instructions; AES-256-GCM is used where both have (see `crypto`).
    heartbeat_s: a side that sends nothing else sends a heartbeat this often. At 150 ms round-trip time the
        silence limit is 1.95 s: it takes seven lost or late ones in a row to be wrong.
    silence_s, silence_rtts: a partner is silent after silence_s + silence_rtts x the measured round-trip time.
    establish_s: how long a new session waits for its first carrier connection.
    handshake_s: how long a carrier connection may take to prove itself.
    unproven_most: carrier connections that may be proving themselves at a time; the oldest goes for a new one.
    rekey_bytes, rekey_records, rekey_s: a direction changes its key after this much or this long, whichever
        comes first. AES-GCM with 2^26 blocks under a key is distinguishable with at most (2^26)^2 / 2^129 =
        2^-77; RFC 8446 section 5.5 lets 2^34.5 blocks through for 2^-57.
    first_window_bytes: what a channel may send before the other side said anything.
    window_most_bytes: what its window grows to while it is what limits it: 16 MiB carry 320 MB/s at 50 ms.
    growth_most_bytes: what all windows together may have grown by.
    held_most_bytes: what may lie at this side, received and not yet taken by local connections, before the
        channel that holds most of it is reset.
    unacknowledged_most_bytes: what is kept for a next carrier connection; with more, no more data is sent.
    queue_most_bytes: what one channel may have queued here.
    queues_most_bytes: what all channels may have queued; above, each may still queue `queue_least_bytes`.
    channels_most: channels open at a time, both sides' together.
    pending_most: control frames that wait to be sent; a partner that makes us queue more is broken.
    """

    aes: bool = True
    heartbeat_s: float = 0.25
    silence_s: float = 1.5
    silence_rtts: float = 3.0
    establish_s: float = 15.0
    handshake_s: float = 5.0
    unproven_most: int = 4
    rekey_bytes: int = 1 << 30
    rekey_records: int = 1 << 24
    rekey_s: float = 120.0
    first_window_bytes: int = 256 << 10
    window_most_bytes: int = 16 << 20
    growth_most_bytes: int = 128 << 20
    held_most_bytes: int = 256 << 20
    unacknowledged_most_bytes: int = 32 << 20
    queue_most_bytes: int = 512 << 10
    queue_least_bytes: int = 64 << 10
    queues_most_bytes: int = 32 << 20
    channels_most: int = 4096
    pending_most: int = 1 << 16
