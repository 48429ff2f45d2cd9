"""LoadBoard: the engine that keeps the load table.

Theory of operation. A provider posts SetLoad as often as it likes; when it is time for a signal (load_sender.py),
the board numbers and dates it and outputs a gossip Publish, which the node hands to its GossipRouter, as it does
with Subscribe and Unsubscribe. Messages that the router delivers on LOAD_TOPIC come back as Delivered, already
verified, and go into the table. A newcomer asks the first peers that come up for their
tables, one after the other, until `ask_peers` of them had something to say:

    PeerUp -> candidate --LoadsRequest--> asked --LoadsReply with messages--> answered
                                            |----empty, PeerDown, time-out--> next candidate

What a snapshot brings is verified like any message, a few at a time, so that no call takes long.

Providers that fall silent are asked before they are suspected: see doubts.py and suspicion.py.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import assert_never

from ..engine import (
    Certified,
    Congested,
    Engine,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Send,
    Speaks,
    Tick,
    Undeliverable,
)
from ..errors import BadMessage, UsageError
from ..identity import PeerId
from ..signed import Sign, Verify
from .doubts import OWN_ONLY, ConfirmConfig, Doubts
from .events import Delivered, GossipMessage, Publish, Subscribe, Unsubscribe
from .load_events import (
    FollowLoads,
    LoadCommand,
    LoadOutput,
    LoadSuspected,
    LoadUpdated,
    PublishLoad,
    SetLoad,
    UnfollowLoads,
)
from .load_sender import LoadSender, SenderConfig
from .load_signal import LOAD_TOPIC, LoadSignal, decode_signal, encode_signal
from .load_table import LoadEntry, LoadTable, TableConfig
from .load_wire import MAX_REPLY_BYTES, LoadsReply, LoadsRequest, loads_protocol
from .messages import MessageForm, Verdict
from .wire import StrictSign

__all__ = [
    "LOAD_TOPIC",
    "FollowLoads",
    "LoadBoard",
    "LoadCommand",
    "LoadConfig",
    "LoadEntry",
    "LoadOutput",
    "LoadSignal",
    "LoadStats",
    "LoadSuspected",
    "LoadTable",
    "LoadUpdated",
    "LoadsReply",
    "LoadsRequest",
    "PublishLoad",
    "SenderConfig",
    "SetLoad",
    "TableConfig",
    "UnfollowLoads",
    "decode_signal",
    "encode_signal",
    "loads_protocol",
]

_MAX_MESSAGE_BYTES = 1024
"""A signal's message has under 350; the rest is for fields that we do not know."""

_MESSAGE_OVERHEAD_BYTES = 256
"""Source, signature and framing of a message that was never encoded (simulation)."""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Tuning of a LoadBoard.

    sender: when own signals are sent, and how long they live. ask_peers: snapshots that a newcomer wants; 0 for a
    node that follows no loads. ask_timeout_s: seconds to wait for one. max_asks: requests in all, when answers
    are empty or missing.
    serve_every_s: a peer gets a snapshot that often, and empty ones in between. verify_batch, verify_pause_s:
    messages of a snapshot verified in one call (about 5 ms of work), and seconds between calls.
    table: its bounds, and when silence is doubted. confirm: how doubts are looked into.
    """

    sender: SenderConfig = field(default_factory=SenderConfig)
    ask_peers: int = 3
    ask_timeout_s: float = 5.0
    max_asks: int = 10
    serve_every_s: float = 5.0
    verify_batch: int = 100
    verify_pause_s: float = 0.01
    table: TableConfig = field(default_factory=TableConfig)
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)


@dataclass(slots=True)
class LoadStats:
    """Counters. malformed: messages on the topic that hold no signal. forged: of a snapshot, not signed by
    their source. stale: signals no newer than what stands, or expired. unasked: replies to nothing."""

    published: int = 0
    updated: int = 0
    malformed: int = 0
    forged: int = 0
    stale: int = 0
    unasked: int = 0


class LoadBoard(Engine[LoadCommand, LoadOutput]):
    """Keeps `table`; the module's docstring says how."""

    def __init__(
        self,
        peer: PeerId,
        sign: Sign,
        verify: Verify,
        rng: Random,
        config: LoadConfig | None = None,
        form: MessageForm | None = None,
        coordinate: Callable[[], bytes] = lambda: b"",
    ) -> None:
        """Arguments as GossipRouter's; `form` must be the same as its. coordinate: where this peer is now, encoded;
        own signals that do not say so get it."""
        self._peer, self._sign, self._verify, self._rng = peer, sign, verify, rng
        self._config = config = config or LoadConfig()
        self._form: MessageForm = form or StrictSign()
        self.table = LoadTable(config.table)
        self.doubts = Doubts(self.table, config.table.suspicion, config.confirm)
        self.stats = LoadStats()
        self._coordinate = coordinate
        self._sender = LoadSender(rng, config.sender)
        self._followers = 0  # FollowLoads that stand
        self._subscribed = False
        self._sequence = 0
        self._own: LoadSignal | None = None
        self._own_message: GossipMessage | None = None  # made when first asked for
        self._candidates: dict[PeerId, None] = {}
        self._asks = self._answers = self._requests = 0
        self._asked: tuple[int, PeerId, float] | None = None  # request id, peer, when to give it up
        self._backlog: deque[GossipMessage] = deque()
        self._backlog_at = math.inf
        self._served: dict[PeerId, float] = {}

    def handle(self, event: NetworkEvent | LoadCommand, now: float) -> list[NetworkOutput | LoadOutput]:
        out: list[NetworkOutput | LoadOutput] = []
        match event:
            case Delivered(message, _):
                if message.topic == LOAD_TOPIC:
                    self._take(message, now, out, lambda: True)
            case Received(sender, message):
                if isinstance(message, LoadsRequest):
                    out.append(Send(sender, self._snapshot(sender, message, now)))
                elif isinstance(message, LoadsReply):
                    self._answered(sender, message, now)
            case Tick() | Certified() | Speaks() | Congested() | Reachable():
                pass
            case SetLoad(signal):
                self._sender.set(signal)
                self._subscribe(out)
            case PublishLoad(signal):
                self._publish(signal, now, out)
            case FollowLoads():
                self._followers += 1
                self._subscribe(out)
            case UnfollowLoads():
                self._followers = max(0, self._followers - 1)
                self._subscribe(out)
            case PeerUp(peer):
                self.doubts.up(peer)
                if len(self._candidates) < self._config.max_asks:
                    self._candidates[peer] = None
            case PeerDown(peer):
                self._candidates.pop(peer, None)
                self._served.pop(peer, None)
                out += self.doubts.down(peer)
                if self._asked is not None and self._asked[1] == peer:
                    self._asked = None
            case Undeliverable(peer, _, requests):
                out += self.doubts.failed(peer, requests)
                if self._asked is not None and self._asked[1] == peer and self._asked[0] in requests:
                    self._asked = None
            case _:
                assert_never(event)
        due = self._sender.due(now)
        if due is not None:
            self._publish(due, now, out)
        if now >= self._backlog_at:
            self._verify_some(now, out)
        if self._asked is None or now >= self._asked[2]:
            self._ask(now, out)
        if now >= self.doubts.deadline():
            out += self.doubts.tick(now, self._new_id)
        return out

    def deadline(self) -> float:
        give_up = self._asked[2] if self._asked is not None else math.inf
        return min(self.doubts.deadline(), give_up, self._backlog_at, self._sender.deadline())

    def _subscribe(self, out: list[NetworkOutput | LoadOutput]) -> None:
        """Be in the topic while signals are followed, or sent: senders relay, too."""
        wanted = self._followers > 0 or self._sender.active
        if wanted != self._subscribed:
            self._subscribed = wanted
            out.append(Subscribe(LOAD_TOPIC) if wanted else Unsubscribe(LOAD_TOPIC))

    # Own signals --------------------------------------------------------------------------------------------

    def _publish(self, signal: LoadSignal, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        # Milliseconds since the epoch to begin with, so that numbers grow over restarts.
        self._sequence = max(self._sequence + 1, int(now * 1000))
        try:
            self._own = replace(
                signal,
                sequence=self._sequence,
                expires=now + self._config.sender.ttl_s,
                coordinate=signal.coordinate or self._coordinate(),
            )
            data = encode_signal(self._own)
        except UsageError:
            return  # LoadSignal told the application; only text that is no Unicode gets here
        self._own_message = None
        self.stats.published += 1
        out.append(Publish(LOAD_TOPIC, data))

    def _own_signed(self, now: float) -> GossipMessage | None:
        """The newest own signal as a message. The router made another one with a number of its own; for the
        table both are the same, because the signal inside is."""
        if self._own is None or now >= self._own.expires:
            return None
        if self._own_message is None:
            seqno = self._own.sequence.to_bytes(8, "big")
            self._own_message = self._form.make(
                self._peer, LOAD_TOPIC, encode_signal(self._own), seqno, self._sign
            )
        return self._own_message

    # Others' signals ----------------------------------------------------------------------------------------

    def _take(
        self,
        message: GossipMessage,
        now: float,
        out: list[NetworkOutput | LoadOutput],
        genuine: Callable[[], bool],
    ) -> None:
        """Put a message's signal into the table; `genuine` is only asked for those that would change it."""
        if len(message.raw) > _MAX_MESSAGE_BYTES:  # the table keeps it whole
            self.stats.malformed += 1
            return
        try:
            signal = decode_signal(message.data)
        except BadMessage:
            self.stats.malformed += 1
            return
        if message.source == self._peer or not self.table.wants(message.source, signal, now):
            self.stats.stale += 1
        elif not genuine():
            self.stats.forged += 1
        elif self.table.offer(message.source, signal, now, message):
            self.stats.updated += 1
            self.doubts.signalled(message.source, now)
            out.append(LoadUpdated(message.source, signal))

    # Snapshots ----------------------------------------------------------------------------------------------

    def _snapshot(self, peer: PeerId, request: LoadsRequest, now: float) -> LoadsReply:
        own = self._own_signed(now)
        if request.most == OWN_ONLY:  # it wonders whether this peer lives
            return LoadsReply(request.id, (own,) if own is not None else ())
        last = self._served.get(peer, -math.inf)
        if now < last + self._config.serve_every_s:
            return LoadsReply(request.id)
        if len(self._served) >= self._config.table.max_providers:
            self._served.clear()
        self._served[peer] = now
        messages = [own] if own is not None else []
        messages.extend(e.message for e in self.table if e.message is not None and not e.suspected)
        if len(messages) > request.most:
            messages = self._rng.sample(messages, request.most)
        room = MAX_REPLY_BYTES
        kept: list[GossipMessage] = []
        for message in messages:
            room -= 8 + (len(message.raw) or len(message.data) + _MESSAGE_OVERHEAD_BYTES)
            if room < 8:
                break
            kept.append(message)
        return LoadsReply(request.id, tuple(kept))

    def _ask(self, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        """Ask the next candidate, unless enough have answered."""
        self._asked = None
        config = self._config
        if self._answers >= config.ask_peers or self._asks >= config.max_asks:
            self._candidates.clear()
            return
        for peer in self._candidates:
            del self._candidates[peer]
            self._asks += 1
            request = self._new_id()
            self._asked = (request, peer, now + config.ask_timeout_s)
            out.append(Send(peer, LoadsRequest(request)))
            return

    def _new_id(self) -> int:
        self._requests += 1
        return self._requests

    def _answered(self, sender: PeerId, reply: LoadsReply, now: float) -> None:
        if self.doubts.answered(sender, reply.id, now):
            self._backlog.extend(reply.messages[:1])
            self._backlog_at = now
            return
        if self._asked is None or self._asked[:2] != (reply.id, sender):
            self.stats.unasked += 1
            return
        self._asked = None
        if reply.messages:
            self._answers += 1
            self._backlog.extend(reply.messages)  # at most MAX_SNAPSHOT for each of ask_peers
            self._backlog_at = now

    def _verify_some(self, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        """Messages on other topics are no signals: a provider's signature on one says nothing about its
        load."""
        checks = self._config.verify_batch

        def genuine() -> bool:
            nonlocal checks
            checks -= 1
            return self._form.check(message, self._verify) is Verdict.GENUINE

        # Messages that need no check cost less, but not nothing.
        for _ in range(min(len(self._backlog), 10 * checks)):
            if checks <= 0:
                break
            message = self._backlog.popleft()
            if message.topic == LOAD_TOPIC:
                self._take(message, now, out, genuine)
            else:
                self.stats.malformed += 1
        self._backlog_at = now + self._config.verify_pause_s if self._backlog else math.inf
