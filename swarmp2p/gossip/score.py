"""Peer score: what a peer's misdeeds cost it (gossipsub 1.1, "Peer scoring").

The first of the spec's parameters, those that see attacks rather than performance:

- P4, invalid messages: forged or malformed, counted against whoever sent them; weight times the square.
- P7, behaviour: GRAFT during backoff, IHAVE beyond the caps, and promises broken (ids advertised by IHAVE and
  not delivered when asked for); weight times the square of what exceeds a tolerance.

Unlike go-libp2p-pubsub, promises kept make up for promises broken: on a network that loses or drops messages
honest peers break some, and must not be shut out for it. Whoever breaks more than three of four does it on
purpose. All counters decay by time. The score is at most 0 here; the positive parameters (P1, P2) and the
topic's own (P3) come on top of `PeerScore.value`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """Weights, decay and thresholds of the peer score.

    invalid_weight, behaviour_weight: of P4 and P7; at most 0. Our choice: with the thresholds below, one
        forged message costs a peer its place in meshes, three its voice.
    behaviour_tolerance: misbehaviour that costs nothing, as 6 in Filecoin's and Ethereum's parameters.
    kept_excuses: broken promises that one kept promise makes up for.
    decay_s: seconds after which a counter has fallen to 1 %. Ethereum's P7 takes about as long.
    gossip_threshold, publish_threshold, graylist_threshold: below them, no gossip is exchanged, own messages
        are not sent, everything is ignored. Must fall in that order, below 0. Below 0, a peer is in no mesh.
    """

    invalid_weight: float = -10.0
    behaviour_weight: float = -10.0
    behaviour_tolerance: float = 6.0
    kept_excuses: float = 3.0
    decay_s: float = 600.0
    gossip_threshold: float = -20.0
    publish_threshold: float = -40.0
    graylist_threshold: float = -80.0

    def __post_init__(self) -> None:
        if max(self.invalid_weight, self.behaviour_weight) > 0 or self.decay_s <= 0:
            raise UsageError("score weights are at most 0, and decay_s is above 0")
        if not 0 > self.gossip_threshold >= self.publish_threshold >= self.graylist_threshold:
            raise UsageError("score thresholds must fall: 0 > gossip >= publish >= graylist")


class PeerScore:
    """One peer's counters. Most peers have none, and cost one attribute check."""

    __slots__ = ("_broken", "_config", "_invalid", "_kept", "_misbehaviour", "_updated", "clean")

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config
        self.clean = True
        """Nothing counts against the peer: its value is 0."""
        self._invalid = self._misbehaviour = self._broken = self._kept = 0.0
        self._updated = 0.0

    def invalid_message(self, now: float) -> None:
        """It sent a forged or malformed message."""
        self._decay(now)
        self.clean = False
        self._invalid += 1.0

    def misbehaved(self, now: float) -> None:
        """It broke a rule that honest peers keep."""
        self._decay(now)
        self.clean = False
        self._misbehaviour += 1.0

    def broke_promise(self, now: float) -> None:
        """It did not deliver what it had advertised and we asked for."""
        self._decay(now)
        self.clean = False
        self._broken += 1.0

    def kept_promise(self, now: float) -> None:
        """It delivered, or somebody else was faster."""
        self._decay(now)
        self._kept += 1.0

    def value(self, now: float) -> float:
        """The score: 0 or below."""
        if self.clean:
            return 0.0
        self._decay(now)
        config = self._config
        excess = (
            self._misbehaviour
            + max(0.0, self._broken - config.kept_excuses * self._kept)
            - config.behaviour_tolerance
        )
        return config.invalid_weight * self._invalid**2 + config.behaviour_weight * max(0.0, excess) ** 2

    def _decay(self, now: float) -> None:
        passed = now - self._updated
        if passed <= 0:
            return
        self._updated = now
        left = 0.01 ** (passed / self._config.decay_s)
        self._invalid *= left
        self._misbehaviour *= left
        self._broken *= left
        self._kept *= left
        # Below a hundredth of a count the past is forgotten, as go-libp2p-pubsub's DecayToZero has it.
        if self._invalid < 0.01:
            self._invalid = 0.0
            if self._misbehaviour + self._broken < 0.01:
                self._misbehaviour = self._broken = 0.0
                self.clean = True
