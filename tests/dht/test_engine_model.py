"""The whole engine beside a plain model: events in any order, the invariants after each of them.

The model knows which queries are open, what was asked of whom and not answered yet, and who answered ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmp2p.dht import messages
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    Cancel,
    DhtCommand,
    FindClosest,
    FindPeer,
    FindProviders,
    FindService,
    GetValue,
    Join,
    Provide,
    ProviderFound,
    PutValue,
    QueryDone,
    Refresh,
    ServiceFound,
)
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    Ping,
    Provider,
    ValueStored,
)
from swarmp2p.engine import Introduce, PeerInfo, Protect, Reply, Request, Send, Tick
from swarmp2p.identity import PeerId

from .network import address, peer_id
from .single import Outputs, Single, infos

CONFIG = DhtConfig(
    server=True,
    k=3,
    alpha=2,
    max_asked=12,
    max_probes=4,
    max_queries=6,
    query_timeout_s=30.0,
    refresh_interval_s=60.0,
)
PEERS = st.integers(1, 25)
KEYS = st.sampled_from([b"a", b"b", b"\x12\x20" + bytes(32)])
NAMED = st.lists(PEERS, max_size=4).map(lambda numbers: infos(*numbers))
_NUMBERS = {peer_id(number): number for number in range(1, 26)}


class Engine(RuleBasedStateMachine):
    """One engine, the network round it played by rules."""

    @initialize()
    def start(self) -> None:
        """A fresh engine, and an empty model."""
        self.single = Single(CONFIG)
        self.queries = 0
        self.open: dict[int, None] = {}
        self.asked: dict[tuple[PeerId, int], Request] = {}
        self.answered: dict[PeerId, None] = {}

    def take(self, outputs: Outputs) -> None:
        """Hold every output against the model."""
        for output in outputs:
            match output:
                case Send(to, message):
                    assert to != peer_id(0)
                    if isinstance(message, Request) and message.expects_reply:
                        assert (to, message.id) not in self.asked
                        self.asked[to, message.id] = message
                case Introduce(peer, addresses):
                    assert peer != peer_id(0)
                    assert addresses
                case QueryDone(query):
                    assert query in self.open  # once, and not after a Cancel
                    del self.open[query]
                    assert len(output.closest) <= CONFIG.k
                    assert all(info.peer in self.answered for info in output.closest)
                case ProviderFound(query) | ServiceFound(query):
                    assert query in self.open
                case Protect(peer):
                    assert peer in self.answered
                case _:
                    raise AssertionError(output)

    # What happens -------------------------------------------------------------------------------------------

    @rule(number=PEERS)
    def up(self, number: int) -> None:
        self.take(self.single.up(number))

    @rule(number=PEERS)
    def down(self, number: int) -> None:
        self.asked = {key: request for key, request in self.asked.items() if key[0] != peer_id(number)}
        self.take(self.single.down(number))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.take(self.single.wait(seconds))

    @precondition(lambda self: bool(self.asked))
    @rule(data=st.data(), named=NAMED, late=st.booleans())
    def answer(self, data: st.DataObject, named: tuple[PeerInfo, ...], late: bool) -> None:
        """A peer answers one of the questions, which the engine perhaps waits for no more."""
        waiting = list(self.asked)
        place = data.draw(st.integers(0, len(waiting) - 1)) if late else len(waiting) - 1
        peer, id = waiting[place]
        request = self.asked.pop((peer, id))
        self.answered[peer] = None
        self.take(self.single.hear(_NUMBERS[peer], self.reply(request, named)))

    def reply(self, request: Request, named: tuple[PeerInfo, ...]) -> Reply:
        """A right answer."""
        match request:
            case FindNode(id):
                return FoundNodes(id, named)
            case GetProviders(id, key):
                providers: Sequence[Provider] = [Provider(info.peer, info.addresses) for info in named[:1]]
                return FoundProviders(id, key, tuple(providers), named)
            case messages.GetValue(id, key):
                return FoundValue(id, key, b"v" if named else None, 0.0, named)
            case messages.PutValue(id, key, value):
                return ValueStored(id, key, value)
            case GetRecord(id):
                return FoundRecord(id, b"")
            case _:
                raise AssertionError(request)

    @rule(number=PEERS, key=KEYS, kind=st.integers(0, 4))
    def question(self, number: int, key: bytes, kind: int) -> None:
        """A peer asks."""
        provider = Provider(peer_id(number), (address(number),))
        asked: list[Request] = [
            FindNode(1, key),
            GetProviders(1, key),
            messages.GetValue(1, key),
            AddProvider(1, key, provider),
            Ping(1),
        ]
        self.take(self.single.hear(number, asked[kind]))

    @rule(key=KEYS, kind=st.integers(0, 8), limit=st.integers(0, 2), number=PEERS)
    def command(self, key: bytes, kind: int, limit: int, number: int) -> None:
        """The application wants something."""
        self.queries += 1
        query = self.queries
        commands: list[DhtCommand] = [
            FindClosest(query, key),
            FindPeer(query, peer_id(number)),
            FindProviders(query, key, limit),
            FindService(query, "svc", limit=limit),
            GetValue(query, key),
            PutValue(query, key, b"v"),
            Provide(query, key),
            Announce(query, "svc"),
            Refresh(query),
        ]
        self.open[query] = None
        self.take(self.single.post(commands[kind]))

    @rule(number=PEERS)
    def join(self, number: int) -> None:
        self.queries += 1
        self.open[self.queries] = None
        self.take(self.single.post(Join(self.queries, infos(number, 0))))

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A query is not wanted any more: nothing more is heard of it."""
        query = data.draw(st.sampled_from(list(self.open)))
        del self.open[query]
        self.take(self.single.post(Cancel(query)))

    # What always holds --------------------------------------------------------------------------------------

    @invariant()
    def tables_hold_whom_they_may(self) -> None:
        entries = self.single.engine.table.snapshot()
        assert len(entries) == len({entry.peer for entry in entries}) == len(self.single.engine.table)
        for entry in entries:
            assert entry.peer in self.answered
            assert entry.addresses
        buckets = [entry.bucket for entry in entries]
        assert all(buckets.count(bucket) <= CONFIG.k for bucket in buckets)

    @invariant()
    def an_early_tick_does_nothing(self) -> None:
        due = self.single.engine.deadline()
        if due > self.single.now:
            assert self.single.post(Tick()) == []
            assert self.single.engine.deadline() == due

    def teardown(self) -> None:
        """Left alone, every query ends."""
        self.take(self.single.wait(4 * CONFIG.query_timeout_s))
        assert not self.open


TestEngineModel = Engine.TestCase
TestEngineModel.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
