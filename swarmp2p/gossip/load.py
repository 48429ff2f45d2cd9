r"""LoadBoard: the engine that keeps the load table.

Theory of operation. A provider posts SetLoad as often as it likes; when it is time for a signal (load_sender.py),
the board numbers and dates it and outputs a gossip Publish, which the node hands to its GossipRouter, as it does
with Subscribe and Unsubscribe. Messages that the router delivers on a load topic come back as Delivered, already
verified, and go into the table. A newcomer asks for others' tables (load_snapshots.py); what a snapshot brings is
verified like any message, a few at a time, so that no call takes long.

While providers are few there is one topic; many are spread over shards (load_shards.py). Which of them this node
publishes in and follows is reviewed every few seconds (load_interest.py), and where it has too few neighbours in one,
it looks for more (load_members.py).

Providers that fall silent are asked before they are suspected: see doubts.py and suspicion.py. Those that one is about
to choose can be asked how loaded they are now (load_probing.py).

    SetLoad -----> sender --due--> Publish in own shard          Delivered --judge--> table --LoadUpdated-->
    FollowLoads -> following \                                       LoadsReply --verify--^        |
                              review <--------- depths of the providers in the table <------------+
                                 |--> Subscribe, Unsubscribe; LoadsRequest; FindMembers, OfferMembership
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, assert_never

from ..engine import (
    Certified,
    Congested,
    Engine,
    Introduce,
    Located,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerInfo,
    PeerUp,
    Reachable,
    Received,
    Send,
    Speaks,
    Tick,
    Undeliverable,
)
from ..errors import BadMessage
from ..identity import PeerId
from ..rates import Rates
from ..settings import check_settings
from ..signed import Sign, Verify
from .doubts import OWN_ONLY, ConfirmConfig, Doubts
from .events import Acceptance, Delivered, GossipMessage, Publish, Subscribe, Unsubscribe
from .load_events import (
    AskLoads,
    FindMembers,
    FollowLoads,
    LoadCommand,
    LoadOutput,
    LoadSuspected,
    LoadTold,
    LoadUpdated,
    MemberFound,
    OfferMembership,
    PublishLoad,
    SetLoad,
    UnfollowLoads,
)
from .load_interest import Following, Publishing, ShardConfig, known_places, median_depth
from .load_members import MemberConfig, Members, Neighbours
from .load_own import OwnLoad
from .load_probing import Probing
from .load_sender import LoadSender, SenderConfig
from .load_shards import belongs, place_of, shard_of, shard_topic, topic_shard, within
from .load_signal import LOAD_TOPIC, LoadSignal, decode_signal, encode_signal
from .load_snapshots import Asking, Serving, SnapshotConfig
from .load_table import LoadEntry, LoadTable, TableConfig
from .load_wire import MAX_SNAPSHOT, LoadsReply, LoadsRequest, loads_protocol
from .messages import MessageForm, Verdict
from .wire import StrictSign

__all__ = [
    "LOAD_TOPIC",
    "AskLoads",
    "FindMembers",
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
    "LoadTold",
    "LoadUpdated",
    "LoadsReply",
    "LoadsRequest",
    "MemberConfig",
    "MemberFound",
    "OfferMembership",
    "PublishLoad",
    "SenderConfig",
    "SetLoad",
    "ShardConfig",
    "SnapshotConfig",
    "TableConfig",
    "UnfollowLoads",
    "decode_signal",
    "encode_signal",
    "loads_protocol",
]

_MAX_MESSAGE_BYTES: Final = 1024
"""A signal's message has under 350; the rest is for fields that we do not know."""

_MAX_BACKLOG: Final = 4 * MAX_SNAPSHOT
"""Messages of snapshots that wait to be verified; of further ones the rest is dropped."""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Tuning of a LoadBoard.

    sender: when own signals are sent, and how long they live. shards: when topics are split, and how many are
    followed. snapshots, members: how tables and neighbours are found. verify_batch, verify_pause_s: messages of a
    snapshot verified in one call (about 5 ms of work), and seconds between calls. table: its bounds, and when
    silence is doubted. confirm: how doubts are looked into. most_per_s, most_burst: signals of one provider that are
    passed on; further ones are ignored. Five times what SenderConfig has a provider say at most, in each of two topics
    while it moves; but its signature is all that a flood would need.
    """

    sender: SenderConfig = field(default_factory=SenderConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    members: MemberConfig = field(default_factory=MemberConfig)
    verify_batch: int = 100
    verify_pause_s: float = 0.01
    table: TableConfig = field(default_factory=TableConfig)
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)
    most_per_s: float = 20.0
    most_burst: int = 40

    def __post_init__(self) -> None:
        check_settings(self, ("verify_batch", "most_per_s", "most_burst"))


@dataclass(slots=True)
class LoadStats:
    """Counters. malformed: messages on the topic that hold no signal. forged: of a snapshot, not signed by
    their source. stale: signals no newer than what stands, or expired. unasked: replies to nothing. frequent: signals
    of providers that send too many."""

    published: int = 0
    updated: int = 0
    malformed: int = 0
    forged: int = 0
    stale: int = 0
    unasked: int = 0
    frequent: int = 0


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
        neighbours: Neighbours = lambda _topic: (),
    ) -> None:
        """Arguments as GossipRouter's; `form` must be the same as its. coordinate: where this peer is now, encoded;
        own signals that do not say so get it. neighbours: connected peers in a topic, GossipRouter.subscribers."""
        self._peer, self._verify, self._rng = peer, verify, rng
        self._config = config = config or LoadConfig()
        self._form: MessageForm = form or StrictSign()
        self.table = LoadTable(config.table, rng)
        self._rates = Rates[PeerId](config.most_per_s, config.most_burst, config.table.max_providers)
        self.doubts = Doubts(self.table, config.table.suspicion, config.confirm)
        self.stats = LoadStats()
        self._neighbours = neighbours
        self._sender = LoadSender(rng, config.sender)
        self._publishing = Publishing(place_of(peer), config.shards)
        self._following: Following | None = None  # made when first wanted
        self._followers = 0  # FollowLoads that stand
        self._subscribed: dict[str, None] = {}  # shards
        self._review_at = math.inf
        self._asking = Asking(config.snapshots, self._new_id)
        self._serving = Serving(rng, config.snapshots)
        self._members = Members(rng, config.members, neighbours)
        self._own = OwnLoad(peer, sign, self._form, coordinate, config.sender.ttl_s)
        self._probing = Probing()
        self._requests = 0
        self._backlog: deque[GossipMessage] = deque()
        self._backlog_at = math.inf

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards of the load topic that this node is in now; "" is that of all providers."""
        return tuple(self._subscribed)

    @property
    def depth(self) -> int:
        """Bits in the name of the shard that this node publishes in."""
        return self._publishing.depth

    def judge(self, message: GossipMessage, now: float) -> Acceptance:
        """Whether a message on a load topic deserves to be passed on: a validator for those topics.

        Of two with the same number both do: in two topics, while a shard is split or merged. What is no signal to us is
        ignored rather than rejected: peers of other implementations and of later versions relay what its source signed,
        and three such messages would have us graylist them all.
        """
        shard, signal = topic_shard(message.topic), self._signal_in(message)
        if shard is None:
            return Acceptance.IGNORE  # of a later version
        if signal is None or not belongs(message.source, shard):
            self.stats.malformed += 1
            return Acceptance.IGNORE
        known = self.table.get(message.source)
        if known is not None and signal.sequence < known.signal.sequence:
            return Acceptance.IGNORE
        if not self.table.in_time(signal, now):
            return Acceptance.IGNORE
        if not self._rates.admits(message.source, now):
            self.stats.frequent += 1
            return Acceptance.IGNORE
        return Acceptance.ACCEPT

    def handle(self, event: NetworkEvent | LoadCommand, now: float) -> list[NetworkOutput | LoadOutput]:
        out: list[NetworkOutput | LoadOutput] = []
        match event:
            case Delivered(message, _):
                self._take(message, now, out)
                return out  # signals come by the thousand: what is due waits for its Tick
            case Received(sender, message):
                if isinstance(message, LoadsRequest):
                    out.append(Send(sender, self._snapshot(sender, message, now)))
                elif isinstance(message, LoadsReply):
                    self._answered(sender, message, now, out)
            case Tick() | Certified() | Speaks() | Congested() | Reachable() | Located():
                pass
            case SetLoad(signal):
                was = self._sender.active
                self._sender.set(signal)
                if signal is None:
                    self._own.forget()
                if self._sender.active != was:
                    self._settle(now, out)
            case PublishLoad(signal):
                self._publish_once(signal, now, out)
            case FollowLoads():
                self._followers += 1
                if self._followers == 1:
                    self._following = self._following or Following(self._rng, self._config.shards)
                    self._settle(now, out)
            case UnfollowLoads():
                self._followers = max(0, self._followers - 1)
                if not self._followers:
                    self._settle(now, out)
            case AskLoads():
                out += self._probing.ask(event, now, self._new_id)
            case MemberFound(topic, member):
                self._found(topic, member, out)
            case PeerUp(peer):
                self.doubts.up(peer)
                self._asking.candidate(peer)
            case PeerDown(peer):
                self._asking.gone(peer)
                self._serving.gone(peer)
                out += self.doubts.down(peer)
                out += self._probing.down(peer)
            case Undeliverable(peer, _, requests):
                out += self.doubts.failed(peer, requests)
                out += self._probing.failed(peer, requests)
                self._asking.failed(requests)
            case _:
                assert_never(event)
        if now >= self._review_at:
            self._review(now, out)
        due = self._sender.due(now)
        if due is not None:
            depth = self._publishing.depth
            self._publish(replace(due, depth=depth), self._publishing.targets(), now, out)
        if now >= self._backlog_at:
            self._verify_some(now, out)
        if now >= self._members.deadline():
            out.extend(self._members.due(now))
        out.extend(self._asking.due(now))
        out.extend(self._probing.due(now))
        if now >= self.doubts.deadline():
            out += self.doubts.tick(now, self._new_id)
        return out

    def deadline(self) -> float:
        return min(
            self.doubts.deadline(),
            self._asking.deadline(),
            self._backlog_at,
            self._sender.deadline(),
            self._review_at,
            self._members.deadline(),
            self._probing.deadline(),
        )

    # Shards -------------------------------------------------------------------------------------------------

    def _review(self, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        """Move to where the table says that the providers are."""
        known = known_places(self.table)
        if self._sender.active:
            self._publishing.review(known, now)
            self._sender.share(self._publishing.members)
        if self._followers and self._following is not None:
            self._following.review(known, now)
        self._settle(now, out)

    def _settle(self, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        """Be in the topics that this node publishes in, so as to relay there, and in those that it follows."""
        needed: list[str] = []
        wanted: list[str] = []
        own = self._publishing.shard if self._sender.active else None
        if own is not None:
            needed.append(own)
            wanted += self._publishing.wanted()
        if self._followers and self._following is not None:
            needed += self._following.shards
            wanted += self._following.wanted()
        before, self._subscribed = self._subscribed, dict.fromkeys(wanted)
        out.extend(Subscribe(shard_topic(shard)) for shard in self._subscribed if shard not in before)
        out.extend(Unsubscribe(shard_topic(shard)) for shard in before if shard not in self._subscribed)
        for shard in self._asking.want(needed):
            for peer in self._neighbours(shard_topic(shard)):
                self._asking.candidate(peer, shard)
        out.extend(self._members.want(needed, own, now))
        self._review_at = now + self._config.shards.review_s if needed else math.inf
        if wanted and "" not in needed:
            self._forget_unheard(needed)

    def _forget_unheard(self, needed: Iterable[str]) -> None:
        """The providers of shards that were left would seem to fall silent."""
        for entry in self.table:
            place = place_of(entry.provider)
            if shard_of(place, entry.signal.depth) not in self._subscribed and not any(
                within(place, shard) for shard in needed
            ):
                self.table.forget(entry.provider)

    def _found(self, topic: str, member: PeerInfo, out: list[NetworkOutput | LoadOutput]) -> None:
        """Connect to a member of a shard, and ask it for its table unless enough were asked."""
        shard, peer = topic_shard(topic), member.peer
        if shard is None or shard not in self._subscribed or peer == self._peer:
            return
        if peer in self._neighbours(topic):
            return
        out.append(Introduce(peer, member.addresses))
        if self._asking.enough(shard):
            out.append(self._asking.hello(peer, shard))
        else:
            self._asking.again(shard)
            self._asking.candidate(peer, shard)

    # Own signals --------------------------------------------------------------------------------------------

    def _publish_once(self, signal: LoadSignal, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
        """Where the own signals go or, when there are none, where the table says that they would."""
        if self._sender.active:
            depth, shards = self._publishing.depth, self._publishing.targets()
        else:
            depth = median_depth(known_places(self.table))
            shards = [shard_of(place_of(self._peer), depth)]
        self._publish(replace(signal, depth=depth), shards, now, out)

    def _publish(
        self, signal: LoadSignal, shards: Iterable[str], now: float, out: list[NetworkOutput | LoadOutput]
    ) -> None:
        data = self._own.number(signal, now)
        if data is not None:
            self.stats.published += 1
            out.extend(Publish(shard_topic(shard), data) for shard in shards)

    def _own_message(self, now: float) -> GossipMessage | None:
        """What this provider says of itself now."""
        current = self._sender.current()
        if current is not None:
            self._own.refresh(replace(current, depth=self._publishing.depth), now)
        return self._own.message(now)

    # Others' signals ----------------------------------------------------------------------------------------

    def _take(
        self,
        message: GossipMessage,
        now: float,
        out: list[NetworkOutput | LoadOutput],
        genuine: Callable[[], bool] | None = None,
    ) -> None:
        """Put a message's signal into the table; `genuine` is only asked for those that would change it, None means
        that they are.

        Messages on other topics are no signals: a provider's signature on one says nothing about its load.
        """
        shard, signal = topic_shard(message.topic), self._signal_in(message)
        if shard is None or signal is None or not belongs(message.source, shard):
            self.stats.malformed += 1
            return
        if message.source == self._peer or not self.table.wants(message.source, signal, now):
            self.stats.stale += 1
        elif genuine is not None and not genuine():
            self.stats.forged += 1
        elif self.table.put(message.source, signal, now, message):
            self.stats.updated += 1
            self.doubts.signalled(message.source, now)
            out.append(LoadUpdated(message.source, signal))

    # Snapshots ----------------------------------------------------------------------------------------------

    @staticmethod
    def _signal_in(message: GossipMessage) -> LoadSignal | None:
        if len(message.raw) > _MAX_MESSAGE_BYTES:  # the table keeps it whole
            return None
        try:
            return decode_signal(message.data)
        except BadMessage:
            return None

    def _snapshot(self, peer: PeerId, request: LoadsRequest, now: float) -> LoadsReply:
        if request.most == OWN_ONLY:  # it wonders whether this peer lives, or how loaded it is now
            own = None if self._serving.refuses_probe(peer, now) else self._own_message(now)
            return LoadsReply(request.id, (own,) if own is not None else ())
        if self._serving.refuses(peer, now):
            return LoadsReply(request.id)
        own = self._own_message(now)
        messages = [own] if own is not None else []
        messages.extend(e.message for e in self.table if e.message is not None and not e.suspected)
        return self._serving.reply(request, messages)

    def _new_id(self) -> int:
        self._requests += 1
        return self._requests

    def _told(
        self,
        query: int,
        provider: PeerId,
        reply: LoadsReply,
        now: float,
        out: list[NetworkOutput | LoadOutput],
    ) -> None:
        """A provider answered a probe. One signature is checked for each that was asked."""
        signal: LoadSignal | None = None
        for message in reply.messages[:1]:
            known = self.table.get(provider)
            found = self._signal_in(message)
            if message.source != provider or found is None or not self.table.in_time(found, now):
                self.stats.malformed += 1
            elif known is not None and found.sequence <= known.signal.sequence:
                signal = known.signal  # of an earlier version, or nothing has changed
            elif self._form.check(message, self._verify) is not Verdict.GENUINE:
                self.stats.forged += 1
            else:
                signal = found
                if known is not None:  # others are not followed: their silence would mean nothing
                    self._take(message, now, out, lambda: True)
        out.append(LoadTold(query, provider, signal, True))

    def _answered(
        self, sender: PeerId, reply: LoadsReply, now: float, out: list[NetworkOutput | LoadOutput]
    ) -> None:
        query = self._probing.answered(sender, reply.id)
        if query is not None:
            self._told(query, sender, reply, now, out)
            return
        if self.doubts.answered(sender, reply.id, now):
            self._backlog.extend(reply.messages[:1])
            self._backlog_at = now
            return
        if not self._asking.answered(sender, reply):
            self.stats.unasked += bool(reply.messages)
            return
        if reply.messages:
            room = _MAX_BACKLOG - len(self._backlog)
            self._backlog.extend(reply.messages[:room])
            self._backlog_at = now

    def _verify_some(self, now: float, out: list[NetworkOutput | LoadOutput]) -> None:
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
            self._take(message, now, out, genuine)
        if self._backlog:
            self._backlog_at = now + self._config.verify_pause_s
            return
        self._backlog_at = math.inf
        if self._review_at < math.inf:
            self._review(now, out)  # a newcomer knows now where to go
