"""Parameters of the peer score (gossipsub 1.1, "Peer Scoring"), with published defaults, and checks that they make
sense.

Where nothing else is said a default is Filecoin's: the thresholds, P5 to P7 as the Lotus node sets them for all of
its topics, and P1 and P2 as for its blocks. They belong together: rewards of a topic reach some 50, one forged message
costs 300, and below -500 a peer begins to be cut off.

Counters decay with time. Publications give the factor by which one shrinks each interval; here it is the seconds
until a count of 1 has shrunk to `decay_to_zero` and is forgotten, which does not depend on the interval. `decay_s`
turns the one into the other.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, replace
from typing import Final, cast

from ..errors import UsageError
from ..settings import check_types

_HOUR: Final = 3600.0
_MEAN_LIVES: Final = math.log(100)
"""What it takes to decay to a hundredth, in mean lives."""
_LEAST_PER_S: Final = 4 / 60
"""With fewer messages silence takes half an hour to be found."""


def decay_s(factor: float, interval_s: float = 1.0, decay_to_zero: float = 0.01) -> float:
    """Seconds until a count of 1 is forgotten that is multiplied by `factor` every `interval_s` seconds. Raises
    UsageError for factors outside 0 to 1, which would not decay."""
    if not 0 < factor < 1:
        raise UsageError(
            f"a decay factor is above 0 and below 1, not {factor}; 0.99 keeps 99 % each interval"
        )
    return interval_s * math.log(decay_to_zero) / math.log(factor)


@dataclass(frozen=True, slots=True)
class TopicScoreConfig:
    """What a peer earns, or pays for, in one topic. A weight of 0 turns its part off.

    topic_weight: of the topic among all; not negative.
    P1, time in the mesh: `mesh_time_weight` times the quanta of `mesh_time_quantum_s` since it was grafted, of which
        `mesh_time_cap` count. Reaches 1 after an hour.
    P2, first deliveries: `first_weight` times the valid messages that it was the first to bring, decaying within
        `first_decay_s`, of which `first_cap` count.
    P3, deficit of deliveries: a mesh peer is expected to have brought, first or within `delivery_window_s` after the
        first, `delivery_threshold` messages, decaying within `delivery_decay_s`, of which `delivery_cap` count;
        what it is short of that, squared, times `delivery_weight`, once it has been in the mesh for
        `delivery_activation_s`. Off by default, as for Filecoin: what may be expected depends on the topic's traffic.
        The window is at most ten seconds: a peer that returns to us what we sent it must not count.
    P3b, failures: the squared deficit with which a peer left the mesh, times `failure_weight`, decaying within
        `failure_decay_s`, so that it is not forgiven by being pruned.
    P4, invalid messages: the square of those that it sent, times `invalid_weight`, decaying within `invalid_decay_s`.
    """

    topic_weight: float = 0.1
    mesh_time_weight: float = 1 / _HOUR
    mesh_time_quantum_s: float = 1.0
    mesh_time_cap: float = _HOUR
    first_weight: float = 5.0
    first_decay_s: float = _HOUR
    first_cap: float = 100.0
    delivery_weight: float = 0.0
    delivery_decay_s: float = 600.0
    delivery_cap: float = 100.0
    delivery_threshold: float = 10.0
    delivery_window_s: float = 2.0
    delivery_activation_s: float = 600.0
    failure_weight: float = 0.0
    failure_decay_s: float = 600.0
    invalid_weight: float = -3000.0
    invalid_decay_s: float = _HOUR

    @property
    def counts_deliveries(self) -> bool:
        """Whether it matters who brings copies: for P3 or P3b."""
        return bool(self.delivery_weight or self.failure_weight)

    @classmethod
    def for_rate(
        cls, messages_per_s: float, mesh_degree: int = 6, least_per_s: float = 0.0
    ) -> TopicScoreConfig:
        """Parameters for a topic by its traffic, to be used with the default ScoreConfig.

        messages_per_s: of all publishers together, on average. mesh_degree: D. least_per_s: at the quietest of times.
        When there is less, honest peers are blamed for it: below four a minute, or 0 as by default, nobody is (no P3).

        Ours; simulations.gossip_attack shows what they do. A peer of the mesh that brings its part of first deliveries
        earns 20, at most 40, and up to 10 for its time. Deliveries are remembered for some 50 messages. Of these a mesh
        peer brings about half, since the others it gets from us; less than 5 is silence. It is found after the time of
        120 messages, and costs 20 more than can be earned: a place in meshes, not the gossip.
        """
        if not (0 < messages_per_s < math.inf and 0 <= least_per_s <= messages_per_s):
            raise UsageError(
                f"a topic has more than 0 messages a second, and at its quietest as many at most, "
                f"not {messages_per_s} and {least_per_s}"
            )
        if mesh_degree < 1:
            raise UsageError(
                f"a mesh has at least one peer, not {mesh_degree}; pass GossipConfig.mesh_degree"
            )
        first = 250.0 / mesh_degree  # of each peer, on average, among so many messages
        plain = cls(
            topic_weight=1.0,
            mesh_time_weight=10 / _HOUR,
            first_weight=20.0 / first,
            first_decay_s=250.0 / messages_per_s * _MEAN_LIVES,
            first_cap=2 * first,
            invalid_weight=-300.0,
        )
        if least_per_s < _LEAST_PER_S:
            return plain
        memory_s, threshold = 50.0 / least_per_s, 5.0
        weight = -70.0 / threshold**2
        return replace(
            plain,
            delivery_weight=weight,
            delivery_decay_s=memory_s * _MEAN_LIVES,
            delivery_cap=50.0,
            delivery_threshold=threshold,
            delivery_activation_s=max(2 * memory_s, 10.0),
            failure_weight=weight,
        )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("topic_weight", "mesh_time_weight", "first_weight"):
            _at_least(self, name, 0.0, "it is a reward; 0 turns it off")
        for name in ("delivery_weight", "failure_weight", "invalid_weight"):
            _penalty(self, name)
        for name in ("first_decay_s", "delivery_decay_s", "failure_decay_s", "invalid_decay_s"):
            _above_zero(self, name)
        for name in (
            "mesh_time_quantum_s",
            "mesh_time_cap",
            "first_cap",
            "delivery_cap",
            "delivery_threshold",
        ):
            _above_zero(self, name)
        _at_least(self, "delivery_window_s", 0.0, "0 counts first deliveries alone")
        if self.delivery_window_s > 10:
            raise _wrong(
                self, "delivery_window_s", "at most 10: longer, and what we sent to a peer counts for it"
            )
        _at_least(self, "delivery_activation_s", 1.0, "a peer must have had the time to deliver something")
        if self.counts_deliveries and self.delivery_cap < self.delivery_threshold:
            raise _wrong(self, "delivery_cap", "at least delivery_threshold, which nobody could reach")


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """What counts whatever the topic, and what a score entails.

    topic_score_cap: most that all topics together may earn a peer; 0 for no cap. Ours: below what one forged message
        costs.
    P4 outside of scored topics: `invalid_weight` times the square of the forged or refused messages. Ours: one costs
        a peer its place in meshes, three its voice.
    P5, the application's own: `app_weight` times what SetAppScore said; 0 for who was not named.
    P6, colocation: the square of the peers beyond `colocation_threshold` that are connected from one host (an IPv4
        address or an IPv6 /64), times `colocation_weight`, for each of them. Loopback is not counted, nor are the
        networks in `colocation_whitelist`, such as "10.0.0.0/8": name there what many peers of one owner share. The
        threshold is Ethereum's; Filecoin's is 5, and our host takes 8 connections from one public address.
    P7, behaviour: GRAFT during backoff, IHAVE beyond the caps, and promises broken; the square of what exceeds
        `behaviour_tolerance`, times `behaviour_weight`. kept_excuses: broken promises that one kept promise makes up
        for; ours, see score.py.
    decay_s: until one misdeed of P4 and P7 is forgotten. Ours, and a sixth of Filecoin's: what honest peers are
        blamed for, after a stall or on a bad link, should not last.
    decay_interval_s: counters lag behind by at most that. decay_to_zero: a count below it is 0.
    retain_score_s: for so long what counts against a peer that left is kept; what counts for it is not. It decays
        meanwhile.
    gossip_threshold, publish_threshold, graylist_threshold: below them, no gossip is exchanged, own messages
        are not sent, everything is ignored. Must fall in that order, below 0. Below 0, a peer is in no mesh.
    accept_px_threshold: from there on, peers that a peer names in PRUNE are dialled. Ours: anybody may name some to
        whom nothing is to be held against; what follows from it is bounded (gossipsub 1.1, "Peer Exchange").
    opportunistic_graft_threshold: when the median score in a mesh is below it, better peers are grafted. Without
        scored topics nobody is better.
    """

    topic_score_cap: float = 100.0
    invalid_weight: float = -300.0
    app_weight: float = 1.0
    colocation_weight: float = -100.0
    colocation_threshold: int = 10
    colocation_whitelist: tuple[str, ...] = ()
    behaviour_weight: float = -10.0
    behaviour_tolerance: float = 6.0
    kept_excuses: float = 3.0
    decay_s: float = 600.0
    decay_interval_s: float = 1.0
    decay_to_zero: float = 0.01
    retain_score_s: float = 6 * _HOUR
    gossip_threshold: float = -500.0
    publish_threshold: float = -1000.0
    graylist_threshold: float = -2500.0
    accept_px_threshold: float = 0.0
    opportunistic_graft_threshold: float = 3.5

    def __post_init__(self) -> None:
        check_types(self)
        _at_least(self, "topic_score_cap", 0.0, "0 sets no cap")
        for name in ("invalid_weight", "colocation_weight", "behaviour_weight"):
            _penalty(self, name)
        _at_least(self, "app_weight", 0.0, "to turn it round, let SetAppScore say negative scores")
        _at_least(self, "colocation_threshold", 1, "one peer on a host is no crowd")
        for name in ("behaviour_tolerance", "kept_excuses", "decay_interval_s", "retain_score_s"):
            _at_least(self, name, 0.0, "it cannot be less")
        _above_zero(self, "decay_s")
        if not 0 < self.decay_to_zero < 1:
            raise _wrong(self, "decay_to_zero", "above 0 and below 1: at 1 a single misdeed would not count")
        thresholds = (self.gossip_threshold, self.publish_threshold, self.graylist_threshold)
        if not 0 > thresholds[0] >= thresholds[1] >= thresholds[2] > -math.inf:
            raise UsageError(
                f"score thresholds must fall: 0 > gossip_threshold >= publish_threshold >= graylist_threshold, "
                f"not {thresholds}; who may publish to us must be allowed to gossip"
            )
        for name in ("accept_px_threshold", "opportunistic_graft_threshold"):
            _at_least(self, name, 0.0, "who has a negative score is not trusted with that")
        if not isinstance(cast(object, self.colocation_whitelist), tuple):
            raise _wrong(self, "colocation_whitelist", "a tuple of networks, such as ('10.0.0.0/8',)")
        for network in self.colocation_whitelist:
            try:
                ipaddress.ip_network(network)
            except ValueError as problem:
                raise UsageError(
                    f"score: colocation_whitelist has {network!r}: {problem}; write networks as '192.0.2.0/24'"
                ) from None


def _wrong(config: TopicScoreConfig | ScoreConfig, name: str, rule: str) -> UsageError:
    value: object = getattr(config, name)
    return UsageError(f"score: {name} is {value}; it must be {rule}")


def _at_least(config: TopicScoreConfig | ScoreConfig, name: str, least: float, why: str) -> None:
    if not least <= float(getattr(config, name)) < math.inf:  # nor a NaN
        raise _wrong(config, name, f"a number of at least {least:g}: {why}")


def _above_zero(config: TopicScoreConfig | ScoreConfig, name: str) -> None:
    if not 0 < float(getattr(config, name)) < math.inf:
        raise _wrong(config, name, "a number above 0")


def _penalty(config: TopicScoreConfig | ScoreConfig, name: str) -> None:
    if not -math.inf < float(getattr(config, name)) <= 0:
        raise _wrong(config, name, "a number of at most 0: it is a penalty; 0 turns it off")
