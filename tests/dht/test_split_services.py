"""Services that grow until their key is split, in a small network: who is found, and by whom."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, FindService, ServiceFound, Withdraw
from swarmp2p.dht.keys import key_id, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, GetProviders, Provider, Split
from swarmp2p.dht.records import Attribute, make_record
from swarmp2p.dht.shards import MAX_DEPTH, attribute_key
from swarmp2p.dht.splits import tree_of
from swarmp2p.engine import Received
from swarmp2p.identity import PeerId

from .network import Node, TestNetwork, address, fake_sign, grown, peer_id

CONFIG = DhtConfig(k=4, split_above=8, merge_below=3, record_ttl_s=360.0, announce_interval_s=120.0)
KEY = service_key("svc")
Where = tuple[tuple[str, Attribute], ...]


def announce(network: TestNetwork, node: Node, **attributes: Attribute) -> None:
    items = tuple(sorted(attributes.items()))
    assert network.ask(node, lambda query: Announce(query, "svc", items)).stored > 0


def found(network: TestNetwork, node: Node, where: Where = (), limit: int = 0) -> list[PeerId]:
    """The providers that a find brings, each once."""
    before = len(node.outputs)
    network.ask(node, lambda query: FindService(query, "svc", where, limit))
    records = [output.record for output in node.outputs[before:] if isinstance(output, ServiceFound)]
    return list(dict.fromkeys(record.provider for record in records))


def depths(nodes: list[Node]) -> list[int]:
    publications = [node.engine._publisher.get(KEY) for node in nodes]  # pyright: ignore[reportPrivateUsage]
    return [publication.depths.get("", 0) for publication in publications if publication is not None]


@pytest.fixture(scope="module")
def large() -> tuple[TestNetwork, list[Node], list[Node]]:
    """A network in which 40 of 60 peers provide a service that was split; a tenth have a rare GPU."""
    network, nodes = grown(60, config=CONFIG)
    providers = nodes[:40]
    for number, node in enumerate(providers):
        announce(
            network, node, gpu="h100" if number % 10 == 0 else "a100", region="eu" if number % 2 else "us"
        )
    network.run(700.0)  # a refresh: everybody has heard of it
    return network, nodes, providers


def test_everybody_stays_findable_while_a_service_grows_and_shrinks() -> None:
    network, nodes = grown(40, config=CONFIG)
    rng = Random(3)
    offering: dict[PeerId, Node] = {}
    deepest = 0
    for node in rng.sample(nodes[1:], 30):
        announce(network, node)
        offering[node.id] = node
        network.run(15.0)
        deepest = max(deepest, *depths(nodes))
        assert set(found(network, rng.choice(nodes))) >= set(offering)
    network.run(240.0)
    assert deepest >= 2
    assert min(depths(nodes)) >= 1
    for node in list(offering.values())[:28]:
        network.ask(node, lambda query: Withdraw(query, "svc"))
        del offering[node.id]
        network.run(30.0)
        assert set(found(network, rng.choice(nodes))) == set(offering)
    network.run(900.0)
    assert set(found(network, nodes[0])) == set(offering)
    assert max(depths(nodes)) <= 1


def test_the_records_of_a_large_service_are_spread(large: tuple[TestNetwork, list[Node], list[Node]]) -> None:
    _, nodes, _ = large
    stores = [node.engine._providers for node in nodes]  # pyright: ignore[reportPrivateUsage]
    assert max(store.count(KEY) for store in stores) <= 30
    assert min(len(store) for store in stores) > 0


def test_a_finder_asks_the_shards_and_not_the_root(large: tuple[TestNetwork, list[Node], list[Node]]) -> None:
    network, nodes, providers = large
    finder = nodes[50]
    assert finder.engine._splits.believed(KEY, network.now) is not None  # pyright: ignore[reportPrivateUsage]
    before = len(network.sent)
    assert len(found(network, finder, limit=5)) == 5
    asked = [message.key for _, _, _, message in network.sent[before:] if isinstance(message, GetProviders)]
    assert asked
    assert KEY not in asked
    assert len(found(network, nodes[51], limit=5)) == 5
    assert set(found(network, nodes[52])) == {node.id for node in providers}


def test_a_find_by_attributes_follows_the_rarest(large: tuple[TestNetwork, list[Node], list[Node]]) -> None:
    network, nodes, providers = large
    where: Where = (("gpu", "h100"), ("region", "us"))
    before = len(network.sent)
    assert set(found(network, nodes[55], where, limit=3)) < {node.id for node in providers[::10]}
    asked = {message.key for _, _, _, message in network.sent[before:] if isinstance(message, GetProviders)}
    assert attribute_key("svc", "gpu", "h100") in asked
    assert set(found(network, nodes[55], where)) == {node.id for node in providers[::10]}
    again = len(network.sent)
    assert len(found(network, nodes[55], where, limit=3)) == 3
    later = {message.key for _, _, _, message in network.sent[again:] if isinstance(message, GetProviders)}
    assert later == {attribute_key("svc", "gpu", "h100")}


def test_a_provider_that_is_not_under_the_attribute_s_key_is_found_all_the_same(
    large: tuple[TestNetwork, list[Node], list[Node]],
) -> None:
    network, nodes, _ = large
    odd = nodes[45]
    network.ask(odd, lambda query: Announce(query, "svc", (("gpu", "tpu"), ("region", "eu")), index=()))
    where: Where = (("gpu", "tpu"),)
    assert found(network, nodes[56], where, limit=1) == [odd.id]
    assert found(network, nodes[57], where) == [odd.id]
    network.ask(odd, lambda query: Withdraw(query, "svc"))
    assert found(network, nodes[58], where) == []


def test_a_small_service_costs_one_lookup_and_one_record_at_each_holder() -> None:
    network, nodes = grown(40, config=CONFIG)
    before = len(network.sent)
    announce(network, nodes[3], gpu="h100", region="eu")
    stored = [m.key for _, _, _, m in network.sent[before:] if isinstance(m, AddProvider)]
    assert stored == [KEY] * 4
    before = len(network.sent)
    assert found(network, nodes[5], (("gpu", "h100"),)) == [nodes[3].id]
    asked = [m.key for _, _, _, m in network.sent[before:] if isinstance(m, GetProviders)]
    assert set(asked) == {KEY}


def test_lies_about_depths_cost_a_detour_and_nothing_else(
    large: tuple[TestNetwork, list[Node], list[Node]],
) -> None:
    network, nodes, providers = large
    finder = nodes[53]
    splits = finder.engine._splits  # pyright: ignore[reportPrivateUsage]
    for limit, depth in ((5, 20), (0, 20), (0, MAX_DEPTH)):
        lie = (Split(tree_of(KEY), depth, 1 << 30),)
        splits.wrong(KEY)
        for liar in range(4):
            splits.told(peer_id(900 + liar), lie, network.now)
        before = len(network.sent)
        got = set(found(network, finder, limit=limit))
        assert got <= {node.id for node in providers}
        assert len(got) == (limit or len(providers))
        assert len(network.sent) - before < 4000
    for depth in (20, *[MAX_DEPTH] * 8):
        quiet = f"nobody offers {network.now}"
        for liar in range(4):
            splits.told(peer_id(900 + liar), (Split(tree_of(service_key(quiet)), depth, 9),), network.now)
        assert network.ask(finder, partial(FindService, service=quiet)).asked < 200


def test_a_provider_of_an_earlier_version_is_found_by_who_looks_for_all(
    large: tuple[TestNetwork, list[Node], list[Node]],
) -> None:
    """Its record says nothing of depths, and is at the root only; so is one that a foreign peer stores for another."""
    network, nodes, providers = large
    old = peer_id(800)
    record = make_record(old, "svc", {"gpu": "old"}, 1, network.now + 300.0, fake_sign(old))
    add = AddProvider(1, KEY, Provider(old, (address(800),), record.envelope))
    for node in sorted(nodes, key=lambda node: peer_key(node.id) ^ key_id(KEY))[:4]:
        network.post(node, Received(old, add))
    assert set(found(network, nodes[52])) == {old, *(node.id for node in providers)}
    assert found(network, nodes[54], (("gpu", "old"),)) == [old]
    assert found(network, nodes[59], (("gpu", "old"),), limit=1) == [old]
