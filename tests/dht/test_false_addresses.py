"""A peer that names honest peers at addresses where they are not, so that they are lost to those who ask it."""

from __future__ import annotations

from functools import partial

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import FindClosest
from swarmp2p.dht.keys import key_id, multihash_key, peer_key
from swarmp2p.dht.lookup import Lookup, LookupConfig
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId

from .network import Node, TestNetwork, address, grown, peer_id, peer_info
from .single import Single, receivers, requests

CONFIG = DhtConfig(k=6)
AWAY = 90_000


def nearest(nodes: list[Node], target: int) -> list[Node]:
    return sorted(nodes, key=lambda node: peer_key(node.id) ^ target)[: CONFIG.k]


def mislead(liar: Node, nodes: list[Node]) -> None:
    """From now on it names the very nearest, each at an address where nobody is."""

    def closer(sender: PeerId, key: bytes) -> tuple[PeerInfo, ...]:
        others = [node for node in nodes if node.id not in (sender, liar.id)]
        return tuple(
            PeerInfo(node.id, (address(AWAY + node.number),)) for node in nearest(others, key_id(key))
        )

    server = liar.engine._server  # pyright: ignore[reportPrivateUsage]
    server._closer = server._find_node = closer  # type: ignore[method-assign]  # pyright: ignore


def disconnect(network: TestNetwork, node: Node) -> None:
    for peer in list(node.connected):
        network._lose(node, peer)  # pyright: ignore[reportPrivateUsage]
        network._lose(network.nodes[peer], node.id)  # pyright: ignore[reportPrivateUsage]


def test_liars_in_the_table_hide_nobody() -> None:
    """Without what the others say, one liar of 120 hides a quarter."""
    network, nodes = grown(120, config=CONFIG, seed=3)
    victim = network.add(500, CONFIG)
    network.join(victim, nodes[0])
    known = [node for node in nodes[1:] if node.id in victim.engine.table]
    for liar in known[:2]:
        mislead(liar, nodes)
    found = asked = 0
    for number in range(20):
        disconnect(network, victim)
        network.run(0.5)
        key = multihash_key(b"%d" % number)
        done = network.ask(victim, partial(FindClosest, key=key))
        found += len({node.id for node in nearest(nodes, key_id(key))} & {info.peer for info in done.closest})
        asked += done.asked
    assert found == 20 * CONFIG.k
    assert asked < 20 * 20


def lookup_of(*seeds: int) -> Lookup:
    return Lookup(peer_id(0), peer_key(peer_id(9)), map(peer_info, seeds), LookupConfig(k=3))


def at(*places: int) -> PeerInfo:
    """Peer 9, named at these addresses."""
    return PeerInfo(peer_id(9), tuple(map(address, places)))


def test_one_that_failed_is_asked_again_where_others_say_it_is() -> None:
    lookup = lookup_of(1, 2, 3)
    lookup.next()
    lookup.answered(peer_id(1), [at(100)])
    assert lookup.next() == [at(100)]
    lookup.failed(peer_id(9))
    assert lookup.answered(peer_id(2), [at(100)]) == []
    assert lookup.next() == []
    lookup.answered(peer_id(3), [at(9, 100)])
    assert lookup.next() == [at(9)]


def test_one_under_way_is_dialled_at_both_addresses() -> None:
    lookup = lookup_of(1, 2)
    lookup.next()
    lookup.answered(peer_id(1), [at(100, 101, 102)])
    lookup.next()
    assert lookup.answered(peer_id(2), [at(9)]) == [at(9, 100, 101, 102)]


def test_addresses_of_one_not_asked_yet_take_turns() -> None:
    lookup = lookup_of(1, 2)
    lookup.next()
    lookup.answered(peer_id(1), [at(100, 101, 102)])
    lookup.answered(peer_id(2), [at(9, 8)])
    assert lookup.next() == [at(9, 100, 8, 101, 102)]


def test_new_addresses_are_taken_up_a_few_times_only() -> None:
    lookup = lookup_of(*range(1, 9))
    asked = 0
    while not lookup.done:
        for info in lookup.next():
            if info.peer == peer_id(9):
                asked += 1
                lookup.failed(info.peer)
            else:
                lookup.answered(info.peer, [at(1_000 + lookup.asked)])
    assert asked <= 4


def test_peers_that_liars_name_do_not_take_all_the_probes() -> None:
    single = Single(DhtConfig(max_probes=40))
    probed = 0
    for liar in range(1, 5):
        ((_, probe),) = requests(single.up(liar), FindNode)
        made_up = tuple(map(peer_info, range(100 * liar, 100 * liar + 20)))
        probed += len(receivers(single.hear(liar, FoundNodes(probe.id, made_up))))
    assert probed == 10
    assert receivers(single.up(50)) == [peer_id(50)]
