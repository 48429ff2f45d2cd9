"""Queries that run others for them: results, ends, cancelling and time-outs."""

from __future__ import annotations

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.contacts import Contacts
from swarmp2p.dht.events import QueryDone
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.dht.queries import ClosestQuery, Query
from swarmp2p.dht.routing import RoutingTable
from swarmp2p.dht.timers import Timers
from swarmp2p.dht.traffic import Traffic
from swarmp2p.engine import NetworkOutput

from .network import peer_id, peer_info
from .single import Outputs, ended, requests

QUERY = 7


class Bench:
    """The traffic of peer 0, which knows peers 1 to 3; time by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers = Timers[object]()
        table = RoutingTable(peer_key(peer_id(0)))
        for number in (1, 2, 3):
            table.add(peer_info(number), self.now)
        self.traffic = Traffic(peer_id(0), table, Contacts(9), self.timers, DhtConfig())
        self.parent = ClosestQuery(QUERY, self.traffic.lookups.nearest(key_id(b"parent")), b"parent")
        self.child = ClosestQuery(QUERY, self.traffic.lookups.nearest(key_id(b"child")), b"child")

    def run(self, query: Query, parent: Query | None = None) -> Outputs:
        self.traffic.run(query, self.now, parent)
        return self.taken()

    def taken(self) -> Outputs:
        """The outputs since the last look."""
        out: list[NetworkOutput | QueryDone] = list(self.traffic.out)  # type: ignore[arg-type]
        self.traffic.out = []
        return out

    def answer(self, outputs: Outputs) -> Outputs:
        """All who are asked know nobody else."""
        for to, request in requests(outputs, FindNode):
            self.traffic.reply(to, FoundNodes(request.id, ()), self.now)
        return self.taken()


def test_a_parent_ends_after_its_child_and_counts_what_that_asked() -> None:
    bench = Bench()
    parents, children = bench.run(bench.parent), bench.run(bench.child, bench.parent)
    assert ended(bench.answer(parents)) == []
    (done,) = ended(bench.answer(children))
    assert (done.query, done.asked, done.failed) == (QUERY, 6, 0)
    assert bench.parent.children == []


def test_a_child_that_ends_first_ends_nothing_else() -> None:
    bench = Bench()
    parents, children = bench.run(bench.parent), bench.run(bench.child, bench.parent)
    assert ended(bench.answer(children)) == []
    assert [done.asked for done in ended(bench.answer(parents))] == [6]


def test_one_child_may_be_followed_by_another() -> None:
    bench = Bench()
    second = ClosestQuery(QUERY, bench.traffic.lookups.nearest(key_id(b"second")), b"second")
    bench.child.then = lambda query, now: bench.traffic.run(second, now, bench.parent)
    parents, children = bench.run(bench.parent), bench.run(bench.child, bench.parent)
    assert ended(bench.answer(parents)) == []
    seconds = bench.answer(children)
    assert ended(seconds) == []
    assert [done.asked for done in ended(bench.answer(seconds))] == [9]


def test_cancelling_a_parent_stops_its_children() -> None:
    bench = Bench()
    asked = [*bench.run(bench.parent), *bench.run(bench.child, bench.parent)]
    bench.traffic.cancel(QUERY)
    assert bench.answer(asked) == []
    assert bench.child.closed
    assert bench.run(ClosestQuery(QUERY, bench.traffic.lookups.nearest(1), b"late"), bench.parent) == []


def test_a_parent_out_of_time_ends_with_its_children_and_starts_no_more() -> None:
    bench = Bench()
    bench.child.then = lambda query, now: bench.traffic.run(
        ClosestQuery(QUERY, bench.traffic.lookups.nearest(2), b"more"), now, bench.parent
    )
    bench.run(bench.parent)
    bench.run(bench.child, bench.parent)
    bench.traffic.due(bench.parent, bench.now + 60.0)
    outputs = bench.taken()
    assert [done.query for done in ended(outputs)] == [QUERY]
    assert requests(outputs, FindNode) == []
