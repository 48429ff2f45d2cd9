"""Which connections to close when there are too many. Pure.

Above the high mark, the least useful are closed until the low mark is reached, as in go-libp2p's connection manager.
Kept whatever happens: those that an engine protects, those with streams of an embedder or requests under way, and
those of the last seconds, which had no chance to be useful yet. What others ask of us does not make them useful to
us: otherwise a flood of strangers that ask could push out the peers that we ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..identity import PeerId


@dataclass(frozen=True, slots=True)
class Held:
    """A connected peer. since: when the connection was made. useful_at: when it last answered us, or we sent it
    something, in s as `since`. inbound: it dialled us. kept: not to be closed."""

    peer: PeerId
    since: float
    useful_at: float
    inbound: bool
    kept: bool


def least_useful(held: Sequence[Held], count: int, high: int, low: int, before: float) -> list[PeerId]:
    """Whom to disconnect, least useful first. count: connections that there are. before: younger ones stay."""
    if count <= high:
        return []
    closable = [one for one in held if not one.kept and one.since <= before]
    closable.sort(key=lambda one: (one.useful_at, not one.inbound, one.since))
    return [one.peer for one in closable[: count - low]]
