"""Asking others for their load tables, and answering: how a newcomer gets a full view in one round trip.

A newcomer asks the first peers that come up for their tables, one after the other, until `ask_peers` of them had
something to say. Of a shard that it begins to follow it asks peers in the shard's topic, at once.

    PeerUp, member of a shard -> candidate --LoadsRequest--> asked --LoadsReply with messages--> answered
                                              |----empty, PeerDown, time-out--> next candidate
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from ..engine import Send
from ..identity import PeerId
from ..rates import Rates
from ..settings import check_settings
from .doubts import OWN_ONLY
from .events import GossipMessage
from .load_shards import place_of, within
from .load_wire import MAX_REPLY_BYTES, LoadsReply, LoadsRequest

_MAX_HELLOS: Final = 64


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """Tuning.

    ask_peers: snapshots that a newcomer wants, of all or of a shard; 0 for a node that follows no loads.
    ask_timeout_s: seconds to wait for one. max_asks: requests for one, when answers are empty or missing.
    serve_every_s: a peer gets a snapshot that often, and empty ones in between. max_served: peers for which that is
        remembered; beyond, all are forgotten. serve_per_s, serve_burst: snapshots for all together: a request of 20
        bytes is answered by up to a megabyte, and identities cost nothing. probes_per_s: questions of a peer for the
        own signal that are answered in a second, as many at once; further ones get empty answers.
    """

    ask_peers: int = 3
    ask_timeout_s: float = 5.0
    max_asks: int = 10
    serve_every_s: float = 5.0
    max_served: int = 10_000
    serve_per_s: float = 10.0
    serve_burst: int = 100
    probes_per_s: int = 20

    def __post_init__(self) -> None:
        check_settings(self, ("ask_timeout_s", "serve_per_s", "serve_burst", "probes_per_s"))


class _Questions:
    """About one shard."""

    __slots__ = ("answers", "asked", "asks", "candidates")

    def __init__(self) -> None:
        self.candidates: dict[PeerId, None] = {}
        self.asked: dict[int, tuple[PeerId, float]] = {}  # by request id: whom, and when to give up
        self.asks = self.answers = 0


class Asking:
    """What this node asks."""

    __slots__ = ("_config", "_hellos", "_new_id", "_shards")

    def __init__(self, config: SnapshotConfig, new_id: Callable[[], int]) -> None:
        self._config, self._new_id = config, new_id
        self._hellos: dict[int, PeerId] = {}  # by request id; the oldest goes
        self._shards = {"": _Questions()}

    def want(self, shards: Iterable[str]) -> list[str]:
        """Ask about these, and about the whole swarm once; returns those that are new."""
        wanted = dict.fromkeys(("", *shards))
        new = [shard for shard in wanted if shard not in self._shards]
        self._shards = {shard: self._shards.get(shard) or _Questions() for shard in wanted}
        return new

    def candidate(self, peer: PeerId, shard: str = "") -> None:
        """A peer that can be asked about a shard."""
        questions = self._shards.get(shard)
        if questions is not None and len(questions.candidates) < self._config.max_asks:
            questions.candidates[peer] = None

    def again(self, shard: str) -> None:
        """There are better candidates than those that had nothing to say."""
        questions = self._shards.get(shard)
        if questions is not None:
            questions.asks = 0

    def enough(self, shard: str) -> bool:
        """Whether nobody has to be asked about a shard."""
        questions = self._shards.get(shard)
        return questions is None or questions.answers + len(questions.asked) >= self._config.ask_peers

    def hello(self, peer: PeerId, shard: str) -> Send:
        """A request for its own signal alone: it is asked for the connection that it makes."""
        number = self._new_id()
        if len(self._hellos) >= _MAX_HELLOS:
            del self._hellos[next(iter(self._hellos))]
        self._hellos[number] = peer
        return Send(peer, LoadsRequest(number, OWN_ONLY, shard))

    def gone(self, peer: PeerId) -> None:
        """A peer went down."""
        for questions in self._shards.values():
            questions.candidates.pop(peer, None)
            questions.asked = {number: asked for number, asked in questions.asked.items() if asked[0] != peer}

    def failed(self, numbers: Iterable[int]) -> None:
        """Requests that nobody will answer."""
        for questions in self._shards.values():
            for number in numbers:
                questions.asked.pop(number, None)

    def answered(self, sender: PeerId, reply: LoadsReply) -> bool:
        """Whether that was asked of the sender."""
        for questions in self._shards.values():
            asked = questions.asked.get(reply.id)
            if asked is not None and asked[0] == sender:
                del questions.asked[reply.id]
                questions.answers += bool(reply.messages)
                return True
        return self._hellos.pop(reply.id, None) == sender

    def due(self, now: float) -> list[Send]:
        """Requests to be sent now."""
        out: list[Send] = []
        config = self._config
        for shard, questions in self._shards.items():
            if questions.asked and now >= min(until for _, until in questions.asked.values()):
                questions.asked = {n: asked for n, asked in questions.asked.items() if now < asked[1]}
            parallel = config.ask_peers if shard else 1
            while questions.candidates and len(questions.asked) < parallel:
                if questions.answers >= config.ask_peers or questions.asks >= config.max_asks:
                    questions.candidates.clear()
                    break
                if questions.answers + len(questions.asked) >= config.ask_peers:
                    break
                peer = next(iter(questions.candidates))
                del questions.candidates[peer]
                questions.asks += 1
                number = self._new_id()
                questions.asked[number] = (peer, now + config.ask_timeout_s)
                out.append(Send(peer, LoadsRequest(number, shard=shard)))
        return out

    def deadline(self) -> float:
        """When `due` is next wanted, unless something happens."""
        return min(
            (until for questions in self._shards.values() for _, until in questions.asked.values()),
            default=math.inf,
        )


class Serving:
    """What this node answers."""

    __slots__ = ("_all", "_config", "_probed", "_rng", "_served")

    def __init__(self, rng: Random, config: SnapshotConfig) -> None:
        self._rng, self._config = rng, config
        self._served: dict[PeerId, float] = {}
        self._all = Rates[None](config.serve_per_s, config.serve_burst, 1)
        self._probed = Rates[PeerId](config.probes_per_s, config.probes_per_s, config.max_served)

    def gone(self, peer: PeerId) -> None:
        """A peer went down."""
        self._served.pop(peer, None)

    def refuses(self, peer: PeerId, now: float) -> bool:
        """Whether a peer asks too often, or all together do; else it counts as served."""
        if now < self._served.get(peer, -math.inf) + self._config.serve_every_s:
            return True
        if not self._all.admits(None, now):
            return True
        if len(self._served) >= self._config.max_served:
            self._served.clear()
        self._served[peer] = now
        return False

    def refuses_probe(self, peer: PeerId, now: float) -> bool:
        """Whether a peer asks for the own signal too often; else it counts as answered."""
        return not self._probed.admits(peer, now)

    def reply(self, request: LoadsRequest, messages: Sequence[GossipMessage]) -> LoadsReply:
        """Of these messages, those of the shard that was asked for: all, or a sample."""
        if request.shard:
            messages = [message for message in messages if within(place_of(message.source), request.shard)]
        if len(messages) > request.most:
            messages = self._rng.sample(messages, request.most)
        room = MAX_REPLY_BYTES
        kept: list[GossipMessage] = []
        for message in messages:
            room -= 8 + message.sent_bytes
            if room < 8:
                break
            kept.append(message)
        return LoadsReply(request.id, tuple(kept))
