"""One test for each main clause of libp2p's kad-dht specification (libp2p/specs, kad-dht/README.md).

Clauses that a single unit shows better are tested there: keys (Distance), wire (RPC messages), validators (Entry
validation). "Client and server mode" and the 48 h and 22 h are of revision 1 and later.
"""

from __future__ import annotations

from swarmp2p.dht import messages
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import FindClosest, GetValue, Provide, PutValue
from swarmp2p.dht.keys import bucket_index, key_id, multihash_key, peer_key
from swarmp2p.dht.lookup import LookupConfig
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundValue,
    GetProviders,
    Ping,
    Pong,
    Provider,
    ValueStored,
)
from swarmp2p.dht.wire import decode, encode

from .network import address, grown, peer_id
from .single import Single, ended, infos, only, receivers, requests

KEY = multihash_key(b"key")


def test_replication_parameter() -> None:
    """ "The default value for k is 20." """
    assert DhtConfig().k == LookupConfig().k == 20
    network, nodes = grown(30)
    assert network.ask(nodes[3], lambda query: Provide(query, KEY)).stored == 20


def test_alpha_concurrency_parameter() -> None:
    """ "The concurrency of node and value lookups are limited by parameter α", 10 since revision 1."""
    assert DhtConfig().alpha == LookupConfig().alpha == 10
    single = Single()
    single.meet(*range(1, 16))
    assert len(receivers(single.post(FindClosest(1, b"x")))) == 10


def test_distance() -> None:
    """ "In all cases, the distance between two keys is XOR(sha256(key1), sha256(key2))." """
    single = Single()
    single.meet(*range(1, 10))
    for key in (bytes(peer_id(77)), KEY, b"/ns/value"):
        order = sorted(range(1, 10), key=lambda n: peer_key(peer_id(n)) ^ key_id(key))
        assert only(single.hear(50, FindNode(1, key)), FoundNodes).closer == infos(*order)


def test_kademlia_routing_table() -> None:
    """ "try to maintain k peers with shared key prefix of length L, for every L" """
    network, nodes = grown(100, config=DhtConfig(k=4))
    network.run(3 * 3600.0)
    for node in nodes:
        own = peer_key(node.id)
        for bits in range(4):
            existing = sum(bucket_index(own, peer_key(n.id)) == bits for n in nodes if n is not node)
            held = sum(entry.bucket == bits for entry in node.engine.table.snapshot())
            assert held == min(4, existing)
    assert network.events > 1000


def test_client_and_server_mode() -> None:
    """Peers are added to the routing table if and only if they operate in server mode."""
    single = Single()
    probe = only(single.up(1), FindNode)
    assert len(single.engine.table) == 0
    single.hear(1, FoundNodes(probe.id, ()))
    assert len(single.engine.table) == 1
    single.up(2)  # a client: it has no handler for the protocol, and never answers
    single.hear(2, FindNode(1, KEY))
    single.wait(20.0)
    assert peer_id(2) not in single.engine.table


def test_peer_routing_terminates_when_the_k_closest_seen_have_answered() -> None:
    """ "The lookup terminates when the initiator has queried and gotten responses from the k closest nodes it has
    seen." And early when all known nodes were queried and are fewer than k."""
    network, nodes = grown(30)
    done = network.ask(nodes[3], lambda query: FindClosest(query, b"x"))
    order = sorted((n.id for n in nodes if n is not nodes[3]), key=lambda peer: peer_key(peer) ^ key_id(b"x"))
    assert [info.peer for info in done.closest] == order[:20]
    network, nodes = grown(5)
    assert len(network.ask(nodes[3], lambda query: FindClosest(query, b"x")).closest) == 4


def test_peer_routing_discards_errors_and_time_outs() -> None:
    """ "If an error or timeout occurs, discard it." """
    single = Single()
    single.meet(1, 2)
    (first, _), (_, request) = requests(single.post(FindClosest(1, b"x")), FindNode)
    single.down(1 if first == peer_id(1) else 2)
    (done,) = ended(single.hear(2 if first == peer_id(1) else 1, FoundNodes(request.id, ())))
    assert len(done.closest) == 1


def test_putting_values() -> None:
    """ "finds k or less closest peers to the key using the FIND_NODE RPC, and then sends a PUT_VALUE RPC message with
    the record value to each of the peers." """
    single = Single()
    single.meet(1)
    find = only(single.post(PutValue(1, b"k", b"v")), FindNode)
    put = only(single.hear(1, FoundNodes(find.id, ())), messages.PutValue)
    assert (find.key, put.key, put.value) == (b"k", b"k", b"v")


def test_put_value_is_echoed() -> None:
    """PUT_VALUE: "The target node validates record, and if it is valid, it stores it in the datastore and as a response
    echoes the request." """
    single = Single()
    assert only(single.hear(1, messages.PutValue(5, b"k", b"v", 0.0)), ValueStored) == ValueStored(
        5, b"k", b"v"
    )
    assert only(single.hear(1, messages.GetValue(6, b"k")), FoundValue).value == b"v"


def test_entry_correction() -> None:
    """ "Nodes that returned worse records are updated via a direct PUT_VALUE RPC call when the lookup completes." """
    network, nodes = grown(8)
    network.ask(nodes[1], lambda query: PutValue(query, b"k", b"v"))
    late = network.add(60)
    network.join(late, nodes[0])
    network.ask(nodes[2], lambda query: GetValue(query, b"k"))
    network.run(1.0)
    assert late.engine._values.get(b"k", network.now) is not None  # pyright: ignore[reportPrivateUsage]


def test_get_value_is_answered_with_the_value_and_the_closest_peers() -> None:
    """GET_VALUE: "record is set to the value for the given key (if found in the datastore) and closerPeers is set to
    the k closest peers." """
    single = Single()
    single.meet(1)
    single.hear(2, messages.PutValue(5, b"k", b"v", 0.0))
    reply = only(single.hear(2, messages.GetValue(6, b"k")), FoundValue)
    assert (reply.value, reply.closer) == (b"v", infos(1))


def test_content_routing() -> None:
    """ "finds the closest peers to the key using the FIND_NODE RPC, and then sends an ADD_PROVIDER RPC with its own
    PeerInfo to each of these peers." """
    single = Single()
    single.meet(1)
    find = only(single.post(Provide(1, KEY)), FindNode)
    add = only(single.hear(1, FoundNodes(find.id, ())), AddProvider)
    assert (find.key, add.key, add.provider) == (KEY, KEY, Provider(peer_id(0), (address(0),)))


def test_add_provider_takes_the_sender_only() -> None:
    """ "should validate that the received PeerInfo matches the sender's peerID" """
    single = Single()
    for sender, provider in ((1, 1), (2, 3)):
        message = AddProvider(5, KEY, Provider(peer_id(provider), (address(provider),)))
        # Once as an engine may say it in a simulation, once as bytes say it.
        single.hear(sender, message)
        single.hear(sender, decode(peer_id(sender), encode(message), 6))
    reply = only(single.hear(4, GetProviders(7, KEY)), FoundProviders)
    assert reply.providers == (Provider(peer_id(1), (address(1),)),)


def test_get_providers_is_answered_with_providers_and_closest_peers() -> None:
    """ "look up the requested key in its datastore, and respond with any corresponding records in its datastore, plus a
    list of closer peers in its routing table." """
    single = Single()
    single.meet(1)
    single.hear(2, AddProvider(5, KEY, Provider(peer_id(2), (address(2),))))
    reply = only(single.hear(3, GetProviders(6, KEY)), FoundProviders)
    assert ([provider.peer for provider in reply.providers], reply.closer) == ([peer_id(2)], infos(1))


def test_provider_advertisements_expire_and_are_republished() -> None:
    """Provider Record Expiration Interval 48 h, Provider Record Republish Interval 22 h."""
    config = DhtConfig()
    assert (config.provider_ttl_s, config.provide_interval_s) == (48 * 3600, 22 * 3600)
    single = Single(DhtConfig(refresh_interval_s=1e9))
    single.hear(2, AddProvider(5, KEY, Provider(peer_id(2), (address(2),))))
    single.wait(48 * 3600)
    assert only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers
    single.wait(1)
    assert not only(single.hear(3, GetProviders(6, KEY)), FoundProviders).providers


def test_bootstrap_process() -> None:
    """ "runs once on startup, then periodically with a configurable frequency", 10 minutes since revision 1: a
    lookup of the own id and of random ids."""
    assert DhtConfig().refresh_interval_s == 600
    network, nodes = grown(60, config=DhtConfig(k=4))
    before = len(network.sent)
    network.run(3 * 3600.0)  # one bucket at a time, each once an hour
    asked = {
        m.key
        for _, source, _, m in network.sent[before:]
        if isinstance(m, FindNode) and source == nodes[7].id
    }
    own = peer_key(nodes[7].id)
    assert bytes(nodes[7].id) in asked
    assert {bucket_index(own, key_id(key)) for key in asked if key != nodes[7].id} >= {0, 1, 2}


def test_find_node_carries_the_binary_peer_id() -> None:
    """FIND_NODE: "In the request key must be set to the binary PeerId of the node to be found." """
    assert encode(FindNode(1, bytes(peer_id(9)))) == b"\x08\x04\x12\x26" + peer_id(9)


def test_ping_is_answered() -> None:
    """ "PING: Target node responds with PING. Nodes should respond to this message" """
    assert only(Single().hear(1, Ping(3)), Pong) == Pong(3)
