"""libp2p's kad-dht specification, revision 2, clause by clause (libp2p/specs, kad-dht/README.md); quotes are its words.

Tested where their unit is:
    RPC messages, "unsigned variable length integer", "conform to the following protobuf", what each MessageType
    carries, timeReceived as RFC 3339: test_wire.py.
    "opening a new stream", "choose to re-use streams", "must handle additional RPC request messages on an incoming
    stream", "On any error, the stream is reset": tests/transport/test_host_streams.py, tests/interop.
    "advertise the libp2p Kademlia protocol identifier via the identify protocol", and clients do not: tests/transport,
    tests/test_joining.py.

Not ours, as the text allows:
    "may use any data structure": k-buckets. "Implementations may diverge from this base algorithm" (peer routing, value
    retrieval, bootstrap): lookups begin with 2 k peers instead of k, and have no rounds; a value is asked of all the k
    nearest instead of Q, so the local one never ends a search; a bucket is looked up once an hour (Kademlia §2.3), not
    each time. "QueryTimeout (default: 10 seconds)" is 60 s, since a lookup that is late still teaches the table.
    "may choose to not store the addresses of the providing peer": they are stored, and die with the record.
    clusterLevelRaw, ConnectionType: "NOT USED" the first, not relied upon the second. "/pk": first revision only;
    a validator for it can be given. "which factors classify clients and servers" is left to networks.
"""

from __future__ import annotations

from swarmp2p.dht import messages
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    FindClosest,
    FindProviders,
    GetValue,
    Join,
    Provide,
    PutValue,
    QueryDone,
)
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
from .single import Outputs, Single, ended, infos, introduced, only, receivers, requests
from .test_validators import Largest

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
    assert (find.key, add.key) == (KEY, KEY)
    assert add.provider is not None
    assert (add.provider.peer, add.provider.addresses) == (peer_id(0), (address(0),))


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


def test_ping_is_never_sent() -> None:
    """ "Implementations must not actively send PING requests." """
    network, nodes = grown(30)
    network.ask(nodes[1], lambda query: Announce(query, "service"))
    network.crash(nodes[9])
    network.run(4000.0)
    assert len(network.sent) > 1000
    assert not any(isinstance(message, Ping) for _, _, _, message in network.sent)


def test_the_own_key_is_not_in_the_table() -> None:
    """ "The local node shares a prefix length of 256 with its own key only." """
    single = Single()
    single.up(0)
    single.meet(1)
    (probe,) = (request for _, request in requests(single.up(2), FindNode))
    single.hear(2, FoundNodes(probe.id, infos(0)))
    assert peer_id(0) not in {entry.peer for entry in single.engine.table.snapshot()}
    assert all(entry.bucket < 256 for entry in single.engine.table.snapshot())


def test_no_more_than_alpha_requests_are_in_flight_at_any_time() -> None:
    """ "each lookup process can perform no more than 10 inflight requests, at any given time." """
    single = Single()
    single.meet(*range(1, 31))
    waiting = requests(single.post(FindClosest(1, b"x")), FindNode)
    asked = 0
    while waiting:
        assert len(waiting) <= 10
        to, request = waiting.pop()
        asked += 1
        number = next(n for n in range(1, 60) if peer_id(n) == to)
        waiting += requests(single.hear(number, FoundNodes(request.id, infos(*range(1, 60)))), FindNode)
    assert asked >= 20


def test_peer_routing_begins_with_the_closest_peers_and_asks_nobody_twice() -> None:
    """ "seeded with the k peers from our routing table we know are closest to Key"; "Add them to the candidate list Pn,
    except for those that have already been queried." """
    single = Single(DhtConfig(alpha=3))
    single.meet(*range(1, 16))
    outputs = single.post(FindClosest(1, b"x"))
    order = sorted(range(1, 16), key=lambda n: peer_key(peer_id(n)) ^ key_id(b"x"))
    assert receivers(outputs) == [peer_id(number) for number in order[:3]]
    asked: dict[bytes, None] = {}
    waiting = requests(outputs, FindNode)
    while waiting:
        to, request = waiting.pop(0)
        assert to not in asked
        asked[to] = None
        number = next(n for n in order if peer_id(n) == to)
        waiting += requests(single.hear(number, FoundNodes(request.id, infos(*order))), FindNode)
    assert len(asked) == 15


def test_a_response_has_the_k_closest_nodes_that_the_peer_knows() -> None:
    """ "the response will contain the k closest nodes the peer knows to the key Key"; FIND_NODE: "closerPeers is set to
    the k closest Peers." """
    single = Single(DhtConfig(k=4))
    for number in range(1, 21):
        for _, probe in requests(single.up(number), FindNode):
            single.hear(number, FoundNodes(probe.id, ()))
    known = [entry.peer for entry in single.engine.table.snapshot()]
    for name in (b"one", b"two", b"three"):
        nearest = sorted(known, key=lambda peer: peer_key(peer) ^ key_id(name))[:4]
        reply = only(single.hear(50, FindNode(1, name)), FoundNodes)
        assert [info.peer for info in reply.closer] == nearest


def test_a_client_answers_nothing() -> None:
    """Nodes in client mode "do not offer the Kademlia protocol identifier for incoming streams" and use the DHT all the
    same: "allows restricted nodes to utilize the DHT, i.e. query the DHT"."""
    single = Single(DhtConfig(server=False))
    single.meet(1)
    assert single.hear(2, FindNode(1, KEY)) == []
    find = only(single.post(FindProviders(7, KEY)), GetProviders)
    found = FoundProviders(find.id, KEY, (Provider(peer_id(3), (address(3),)),), ())
    assert [done.query for done in ended(single.hear(1, found))] == [7]


def test_values_of_several_peers_are_selected_from_and_invalid_ones_ignored() -> None:
    """ "Should the responses from different peers diverge, the implementation should use some validation mechanism to
    resolve the conflict and select the best result"; Validate is called "to validate values retrieved in a GET_VALUE
    query"."""
    single = Single(DhtConfig(validators={"ns": Largest()}))
    single.meet(1, 2, 3)
    given = {peer_id(1): b"v5", peer_id(2): b"v7", peer_id(3): b"bad"}
    done: list[QueryDone] = []
    outputs: Outputs = ()
    for to, request in requests(single.post(GetValue(7, b"/ns/k")), messages.GetValue):
        number = next(n for n in (1, 2, 3) if peer_id(n) == to)
        outputs = single.hear(number, FoundValue(request.id, b"/ns/k", given[to], 0.0, ()))
        done += ended(outputs)
    assert [output.value for output in done] == [b"v7"]
    corrected = {to: put.value for to, put in requests(outputs, messages.PutValue)}
    assert corrected == {
        peer_id(1): b"v7",
        peer_id(3): b"v7",
    }  # "nodes that returned worse records", and none


def test_values_are_validated_before_they_are_stored() -> None:
    """ "To validate values received in a PUT_VALUE query before storing them in the local data store." """
    single = Single(DhtConfig(validators={"ns": Largest()}))
    single.hear(1, messages.PutValue(5, b"/ns/k", b"bad", 0.0))
    assert only(single.hear(1, messages.GetValue(6, b"/ns/k")), FoundValue).value is None
    single.hear(1, messages.PutValue(7, b"/ns/k", b"v7", 0.0))
    assert only(single.hear(1, messages.GetValue(8, b"/ns/k")), FoundValue).value == b"v7"


def test_provider_keys_are_multihashes() -> None:
    """ "the keys for provider records are multihashes" """
    for key in (b"a name", KEY):
        single = Single()
        single.meet(1)
        find = only(single.post(Provide(1, key)), FindNode)
        add = only(single.hear(1, FoundNodes(find.id, ())), AddProvider)
        assert add.key == multihash_key(key)
        assert (len(add.key), add.key[:2]) == (34, b"\x12\x20")


def test_a_provider_is_stored_again_before_the_record_expires() -> None:
    """ "content providers republish the records they want to provide" """
    network, nodes = grown(5, config=DhtConfig(provide_interval_s=3600.0, refresh_interval_s=1e7))
    network.ask(nodes[1], lambda query: Provide(query, KEY))
    before = len(network.sent)
    network.run(4200.0)
    again = [m for _, _, _, m in network.sent[before:] if isinstance(m, AddProvider)]
    assert [message.key for message in again] == [KEY] * 4


def test_providers_are_found_as_values_are() -> None:
    """ "Getting the providers for a given key is done in the same way as getting a value for a given key except that
    instead of using the GET_VALUE RPC message the GET_PROVIDERS RPC message is used." """
    single = Single()
    single.meet(1)
    find = only(single.post(FindProviders(7, KEY, limit=0)), GetProviders)
    assert find.key == KEY
    more = single.hear(1, FoundProviders(find.id, KEY, (), infos(2)))
    assert receivers(more) == [peer_id(2)]


def test_the_bootstrap_process_runs_once_on_startup() -> None:
    """ "The process runs once on startup", and "implementations should include a lookup for their own peer ID." """
    single = Single()
    request = only(single.post(Join(7, infos(1))), FindNode)
    assert request.key == peer_id(0)


def test_peers_encountered_are_inserted_in_the_routing_table() -> None:
    """ "Peers encountered throughout the search are inserted in the routing table, as per usual business." """
    single = Single()
    single.meet(1)
    find = only(single.post(FindClosest(7, b"x")), FindNode)
    found = only(single.hear(1, FoundNodes(find.id, infos(2))), FindNode)
    assert peer_id(2) not in single.engine.table  # it may be a client
    single.hear(2, FoundNodes(found.id, ()))
    assert peer_id(2) in single.engine.table


def test_addresses_of_peers_encountered_are_kept_for_dialling() -> None:
    """ "Any time a relevant Peer record is encountered, the associated multiaddrs are stored in the node's
    peerbook." """
    single = Single()
    single.meet(1)
    find = only(single.post(FindClosest(7, b"x")), FindNode)
    assert introduced(single.hear(1, FoundNodes(find.id, infos(2)))) == list(infos(2))


def test_a_query_that_is_out_of_time_is_ended() -> None:
    """ "Every repetition is subject to a QueryTimeout, which upon firing, aborts the run." """
    single = Single(
        DhtConfig(query_timeout_s=5.0, request_timeout_s=100.0, first_timeout_s=50.0, max_timeout_s=50.0)
    )
    single.meet(1)
    single.post(FindClosest(7, b"x"))
    assert ended(single.wait(4.0)) == []
    assert [done.query for done in ended(single.wait(2.0))] == [7]
