"""Sybils: peers that one attacker runs against gossip, and what they may do.

They obey the transport and nothing else. All of them subscribe, GRAFT whoever they are connected to, accept each GRAFT,
and come back when a PRUNE's backoff is over: that is how they get into meshes. What they do there is their `Plan`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from swarmp2p.engine import Engine, NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Send
from swarmp2p.gossip.events import GossipCommand, GossipMessage, GossipOutput
from swarmp2p.gossip.messages import IHave, Prune, Rpc
from swarmp2p.identity import PeerId

_BEAT_S = 1.0
_REMEMBERED = 256  # messages, to pass each on once and to ask for
_FORGED_SEQNO = 1 << 62


@dataclass(frozen=True, slots=True)
class Plan:
    """What a Sybil does.

    strike_s: the time from which it attacks; until then it passes messages on like anybody else.
    censored: whose messages it drops then; None: everybody's.
    impatient: it GRAFTs again each second, in backoff or not.
    storm: it sends each peer PRUNE and GRAFT each second, so that meshes never come to rest.
    lies: made-up ids that it advertises to all peers each second. It answers no IWANT anyway.
    forged: invalid messages that it sends each peer each second.
    asks: times that it asks each peer for each of the last messages, each second.
    """

    strike_s: float = 0.0
    censored: tuple[PeerId, ...] | None = None
    impatient: bool = False
    storm: bool = False
    lies: int = 0
    forged: int = 0
    asks: int = 0


class Sybil(Engine[GossipCommand, GossipOutput]):
    """One of them. rng: of its own choices and phase."""

    def __init__(self, peer: PeerId, topic: str, plan: Plan, rng: Random) -> None:
        self._peer, self._topic, self._plan, self._rng = peer, topic, plan, rng
        self._victims: dict[PeerId, float] = {}  # when to GRAFT each again; math.inf: in the mesh
        self._seen: dict[bytes, None] = {}
        self._beat_at = math.inf
        self._made_up = 0
        self.sent = 0
        """RPCs."""

    def deadline(self) -> float:
        return self._beat_at

    def handle(
        self, event: NetworkEvent | GossipCommand, now: float
    ) -> Sequence[NetworkOutput | GossipOutput]:
        match event:
            case Received(sender, Rpc() as rpc):
                out = self._received(sender, rpc, now)
            case PeerUp(peer):
                if self._beat_at == math.inf:
                    self._beat_at = now + _BEAT_S * self._rng.random()
                self._victims[peer] = math.inf
                out = [Send(peer, Rpc(subscriptions=((self._topic, True),), graft=(self._topic,)))]
            case PeerDown(peer):
                self._victims.pop(peer, None)
                out = []
            case _:
                out = self._beat(now) if now >= self._beat_at else []
        self.sent += len(out)
        return out

    def _received(self, sender: PeerId, rpc: Rpc, now: float) -> list[Send]:
        if sender not in self._victims:
            return []
        for prune in rpc.prune:
            self._victims[sender] = now + max(prune.backoff_s, 1) + _BEAT_S
        if rpc.graft:
            self._victims[sender] = math.inf
        out: list[Send] = []
        for message in rpc.publish:
            if message.id in self._seen:
                continue
            if len(self._seen) >= _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[message.id] = None
            if now < self._plan.strike_s or not self._drops(message.source):
                passed_on = Rpc(publish=(message,))
                out += [
                    Send(peer, passed_on)
                    for peer, until in self._victims.items()
                    if until == math.inf and peer not in (sender, message.source)
                ]
        return out

    def _drops(self, source: PeerId) -> bool:
        return self._plan.censored is None or source in self._plan.censored

    def _beat(self, now: float) -> list[Send]:
        self._beat_at = now + _BEAT_S
        plan, striking, topics = self._plan, now >= self._plan.strike_s, (self._topic,)
        again = [
            peer for peer, until in self._victims.items() if until <= now or (striking and plan.impatient)
        ]
        self._victims.update(dict.fromkeys(again, math.inf))
        out = [Send(peer, Rpc(graft=topics)) for peer in again]
        if not striking:
            return out
        asked = tuple(self._seen) * plan.asks
        lies = tuple(self._rng.randbytes(20) for _ in range(plan.lies))
        for peer in self._victims:
            if plan.storm:
                out.append(Send(peer, Rpc(prune=(Prune(self._topic, 1),))))
                out.append(Send(peer, Rpc(graft=topics)))
            if lies:
                out.append(Send(peer, Rpc(ihave=(IHave(self._topic, lies),))))
            if plan.forged:
                out.append(Send(peer, Rpc(publish=tuple(self._forged(peer) for _ in range(plan.forged)))))
            if asked:
                out.append(Send(peer, Rpc(iwant=asked)))
        return out

    def _forged(self, victim: PeerId) -> GossipMessage:
        """In the name of another victim."""
        self._made_up += 1
        others = [peer for peer in self._victims if peer != victim] or [self._peer]
        seqno = (_FORGED_SEQNO + self._made_up).to_bytes(8, "big")
        return GossipMessage(self._rng.choice(others), seqno, self._topic, bytes(8), b"forged")
