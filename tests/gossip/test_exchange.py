"""Peer exchange, by the clauses of gossipsub 1.1 ("PRUNE Backoff and Peer Exchange", "Score Thresholds")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from swarmp2p.engine import Certified, Introduce, PeerDown, PeerUp, Received, Send
from swarmp2p.errors import UsageError
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import Exchanged, Prune, Rpc
from swarmp2p.gossip.score_config import ScoreConfig
from swarmp2p.identity import PeerId
from swarmp2p.peer_record import seal_record
from swarmp2p.transport.sim_peers import sim_address

from .harness import Scripted
from .network import message, peer_id, stub_sign

OFFERS = GossipConfig(peer_exchange=True, mesh_degree=2, mesh_low=1, mesh_high=2, mesh_outbound=0)


def record(number: int) -> bytes:
    """A peer's own record."""
    return seal_record(peer_id(number), (sim_address(number),), 1, stub_sign)


def forged(number: int) -> bytes:
    return seal_record(peer_id(number), (sim_address(666),), 1, lambda _: b"false")


def named(*numbers: int) -> tuple[Exchanged, ...]:
    return tuple(Exchanged(peer_id(number), record(number)) for number in numbers)


class Watched(Scripted):
    """Keeps whom it dials: who is introduced, and sent something without being connected."""

    def __init__(self, config: GossipConfig | None = None, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.dialled: dict[PeerId, tuple[bytes, ...]] = {}
        self.connected: set[PeerId] = set()

    def handle(self, event: Any) -> dict[PeerId, Rpc]:
        if isinstance(event, PeerUp):
            self.connected.add(event.peer)
        elif isinstance(event, PeerDown):
            self.connected.discard(event.peer)
        answer = super().handle(event)
        where: dict[PeerId, tuple[bytes, ...]] = {}
        for output in self.outputs:
            if isinstance(output, Introduce):
                where[output.peer] = output.addresses
            elif isinstance(output, Send) and output.to not in self.connected:
                self.dialled[output.to] = where.get(output.to, ())
        return answer

    def dials(self) -> set[PeerId]:
        """Whom the next heartbeat dials."""
        self.dialled.clear()
        self.heartbeat()
        return set(self.dialled)


def full(numbers: Iterable[int] = (1, 2), config: GossipConfig = OFFERS) -> Watched:
    """A router whose mesh of "t" is full."""
    node = Watched(config)
    node.subscribe()
    for number in numbers:
        node.handle(PeerUp(peer_id(number), record=record(number)))
        node.receive(number, Rpc(graft=("t",)))
    assert node.mesh() == {1, 2}
    return node


def short(config: GossipConfig | None = None) -> Watched:
    """A router in whose mesh is one peer, who prunes it."""
    node = Watched(config)
    node.subscribe()
    node.up(1)
    assert node.mesh() == {1}
    return node


def refused(node: Watched, number: int) -> Prune:
    """What a further peer is told that wants into the mesh."""
    node.handle(PeerUp(peer_id(number), record=record(number)))
    (prune,) = node.receive(number, Rpc(graft=("t",)))[peer_id(number)].prune
    return prune


# Offering ---------------------------------------------------------------------------------------------------


def test_who_is_refused_because_the_mesh_is_full_is_told_of_others() -> None:
    """ "Instead of simply telling the pruned peer to go away, the pruning peer may provide a set of other peers"."""
    prune = refused(full(), 3)
    assert set(prune.peers) == set(named(1, 2))
    assert prune.backoff_s == 60


def test_nobody_is_told_by_default() -> None:
    node = full(config=GossipConfig(mesh_degree=2, mesh_low=1, mesh_high=2, mesh_outbound=0))
    assert refused(node, 3).peers == ()
    assert node.router.sizes()["records"] == 0, "records are not kept for nothing"


def test_who_is_left_behind_is_told_of_others() -> None:
    """go-libp2p-pubsub exchanges peers when it leaves a topic, too."""
    prunes = full().unsubscribe()
    assert prunes[peer_id(1)].prune == (Prune("t", 10, named(2)),)
    assert prunes[peer_id(2)].prune == (Prune("t", 10, named(1)),)


def test_who_is_cut_off_is_told_of_others() -> None:
    """ "when pruning a mesh because of oversubscription"."""
    config = GossipConfig(
        peer_exchange=True, mesh_degree=1, mesh_low=1, mesh_high=2, mesh_outbound=0, mesh_score=0
    )
    node = Watched(config)
    node.subscribe()
    for number in (1, 2):
        node.handle(PeerUp(peer_id(number), record=record(number)))
        node.receive(number, Rpc(subscriptions=(("t", True),), graft=("t",)))
    ((_, rpc),) = [(to, rpc) for to, rpc in node.heartbeat().items() if rpc.prune]
    (prune,) = rpc.prune
    (kept,) = node.mesh()
    assert prune.peers == named(kept)


def test_a_peer_without_a_record_is_named_without() -> None:
    """ "the emitting peer is allowed to omit the signed peer record if it doesn't have one"."""
    node = Watched(OFFERS)
    node.subscribe()
    node.up(1, 2)
    node.receive(2, Rpc(graft=("t",)))
    assert set(refused(node, 3).peers) == {Exchanged(peer_id(1)), Exchanged(peer_id(2))}


def test_a_record_that_comes_later_counts() -> None:
    node = Watched(OFFERS)
    node.subscribe()
    node.up(1, 2)
    node.receive(2, Rpc(graft=("t",)))
    node.handle(Certified(peer_id(1), record(1)))
    node.handle(Certified(peer_id(77), record(77)))  # who is not connected
    assert set(refused(node, 3).peers) == {*named(1), Exchanged(peer_id(2))}
    assert node.router.sizes()["records"] == 2


def test_forged_records_are_not_handed_on() -> None:
    node = full()
    node.handle(Certified(peer_id(1), forged(1)))
    node.handle(Certified(peer_id(2), record(1)))
    assert set(refused(node, 3).peers) == {Exchanged(peer_id(1)), Exchanged(peer_id(2))}


def test_who_comes_back_too_early_is_told_of_nobody() -> None:
    node = full()
    assert refused(node, 3).peers
    (again,) = node.receive(3, Rpc(graft=("t",)))[peer_id(3)].prune
    assert again.peers == ()


def test_neither_to_nor_of_peers_with_a_negative_score() -> None:
    """ "no PX information is emitted towards those peers"; "only peers with non-negative scores are exchanged"."""
    node = full()
    node.receive(1, Rpc(publish=(message(9, 1, signature=b"false"),)))
    assert node.score(1) < 0
    assert set(refused(node, 3).peers) == set(named(2))
    node.handle(PeerUp(peer_id(4), record=record(4)))
    node.receive(4, Rpc(publish=(message(9, 1, signature=b"false"),)))
    (prune,) = node.receive(4, Rpc(graft=("t",)))[peer_id(4)].prune
    assert prune.peers == ()


def test_a_prune_names_at_most_16_peers_and_16_kib_of_records() -> None:
    node = full()
    many = tuple(bytes([number]) * 100 for number in range(1, 17))
    for number in range(10, 60):
        long = seal_record(peer_id(number), many, 1, stub_sign)
        node.handle(PeerUp(peer_id(number), record=long))
        node.receive(number, Rpc(subscriptions=(("t", True),)))
    peers = refused(node, 3).peers
    assert len(peers) == 16
    assert 8000 < sum(len(one.record) for one in peers) <= 16_384


def test_settings_beyond_what_others_read_are_refused() -> None:
    with pytest.raises(UsageError, match="exchange_peers"):
        GossipConfig(exchange_peers=17)


# Following --------------------------------------------------------------------------------------------------


def test_who_is_pruned_dials_those_named_at_the_addresses_that_they_signed() -> None:
    """ "a set of other peers where the pruned peer can connect to reform its mesh"."""
    node = short()
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2, 3)),)))
    assert node.dials() == {peer_id(2), peer_id(3)}
    assert node.dialled == {peer_id(2): (sim_address(2),), peer_id(3): (sim_address(3),)}
    node.handle(PeerUp(peer_id(2)))
    node.receive(2, Rpc(subscriptions=(("t", True),)))
    assert node.mesh() == {2}, "grafted as soon as it says what it follows"
    assert not node.dials()


def test_only_a_record_that_the_peer_itself_signed_is_believed() -> None:
    node = short()
    stranger = Exchanged(peer_id(5), record(6))
    node.receive(1, Rpc(prune=(Prune("t", 60, (Exchanged(peer_id(2), forged(2)), stranger, *named(3))),)))
    assert node.dials() == {peer_id(3)}
    assert node.router.stats.bad_records == 2


def test_a_peer_without_a_record_is_dialled_only_where_the_network_knows_it() -> None:
    """ "the pruned peer will have to rely on the ambient peer discovery service"."""
    node = short()
    node.receive(1, Rpc(prune=(Prune("t", 60, (Exchanged(peer_id(2)),)),)))
    assert node.dials() == {peer_id(2)}
    assert node.dialled[peer_id(2)] == (), "introduced by nobody"


@pytest.mark.parametrize(("threshold", "followed"), [(0.0, True), (1.0, False)])
def test_only_peers_above_the_threshold_are_followed(threshold: float, followed: bool) -> None:
    """AcceptPXThreshold: "we only accept it if the originating peer's score exceeds this threshold"."""
    node = short(GossipConfig(score=ScoreConfig(accept_px_threshold=threshold)))
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2)),)))
    assert bool(node.dials()) == followed


def test_peers_with_a_negative_score_are_not_followed() -> None:
    """ "PX is ignored from them"."""
    node = short()
    node.receive(1, Rpc(publish=(message(9, 1, signature=b"false"),)))
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2)),)))
    assert not node.dials()


def test_a_second_prune_within_the_backoff_names_nobody() -> None:
    node = short()
    node.receive(1, Rpc(prune=(Prune("t", 60),)))
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2)),)))
    assert not node.dials()


def test_topics_that_we_are_not_in_are_ignored() -> None:
    node = short()
    node.receive(1, Rpc(prune=(Prune("u", 60, named(2)),)))
    assert node.router.sizes()["candidates"] == 0


def test_nobody_is_dialled_while_the_mesh_is_large_enough() -> None:
    node = Watched(OFFERS)
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(prune=(Prune("t", 60, named(3, 4)),)))
    assert not node.dials()
    node.down(2)
    assert len(node.dials()) == 2


def test_peers_that_are_there_are_grafted_before_others_are_dialled() -> None:
    config = GossipConfig(mesh_degree=1, mesh_low=1, mesh_high=1, mesh_outbound=0)
    node = Watched(config)
    node.subscribe()
    node.up(1, 2)
    (member,) = node.mesh()
    node.receive(member, Rpc(prune=(Prune("t", 60, named(3)),)))
    assert not node.dials()
    assert node.mesh() == {3 - member}


def test_a_dial_that_fails_makes_room_for_another() -> None:
    node = short(GossipConfig(exchange_dials=1))
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2, 3)),)))
    (first,) = node.dials()
    assert not node.dials(), "one at a time"
    node.handle(PeerDown(first))
    (second,) = node.dials()
    assert {first, second} == {peer_id(2), peer_id(3)}
    for _ in range(31):
        node.heartbeat()
    assert node.router.sizes()["exchange_dials"] == 0, "a dial that nobody hears of is forgotten"


def test_which_of_those_named_is_dialled_is_left_to_chance() -> None:
    """Whoever names them should not choose by their order."""
    first: set[PeerId] = set()
    for seed in range(8):
        node = Watched(GossipConfig(exchange_dials=1), seed)
        node.subscribe()
        node.up(1)
        node.receive(1, Rpc(prune=(Prune("t", 60, named(2, 3, 4, 5)),)))
        first |= node.dials()
    assert len(first) > 1


def test_no_more_are_dialled_than_the_mesh_needs() -> None:
    node = short()
    node.receive(1, Rpc(prune=(Prune("t", 60, named(*range(2, 18))),)))
    assert len(node.dials()) == node.config.mesh_degree
    assert not node.dials()


def test_those_named_are_forgotten_after_a_minute() -> None:
    node = Watched(GossipConfig(mesh_degree=1, mesh_low=1, mesh_high=1, mesh_outbound=0))
    node.subscribe()
    node.up(1, 2)
    (member,) = node.mesh()
    other = 3 - member
    node.receive(member, Rpc(prune=(Prune("t", 60, named(3)),)))
    for _ in range(61):
        node.heartbeat()
    assert node.mesh() == {other}
    assert node.router.sizes()["candidates"] == 0


def test_liars_that_name_many_cost_little() -> None:
    """Bounded: those who wait, signatures checked a heartbeat, dials."""
    node = Watched()
    node.subscribe()
    node.up(*range(1, 40))
    for number in range(1, 40):
        peers = tuple(Exchanged(peer_id(1000 * number + i), forged(1000 * number + i)) for i in range(16))
        node.receive(number, Rpc(prune=(Prune("t", 60, peers),)))
    assert node.router.stats.bad_records == 2 * node.config.exchange_peers
    node.heartbeat()
    for number in range(40, 80):
        node.up(number)
        peers = tuple(Exchanged(peer_id(1000 * number + i)) for i in range(16))
        node.receive(number, Rpc(prune=(Prune("t", 60, peers),)))
    assert node.router.sizes()["candidates"] <= node.config.max_candidates


def test_a_false_record_does_not_keep_the_genuine_one_out() -> None:
    node = Watched()
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(prune=(Prune("t", 60, (Exchanged(peer_id(3), forged(3)), Exchanged(peer_id(4)))),)))
    node.receive(2, Rpc(prune=(Prune("t", 60, named(3, 4)),)))
    assert node.dials() == {peer_id(3), peer_id(4)}
    assert node.dialled == {peer_id(3): (sim_address(3),), peer_id(4): (sim_address(4),)}


def test_neither_oneself_nor_those_connected_are_dialled() -> None:
    node = Watched()
    node.subscribe()
    node.up(1)
    node.up(2, topics=("u",))
    node.receive(1, Rpc(prune=(Prune("t", 60, named(2, 1000)),)))
    assert node.router.sizes()["candidates"] == 0


def test_a_prune_with_peers_goes_through_the_engine_that_gets_no_peer_up() -> None:
    node = Watched()
    node.subscribe()
    node.handle(Received(peer_id(1), Rpc(prune=(Prune("t", 60, named(2)),))))
    assert node.router.sizes()["candidates"] == 1


def ip4(text: str) -> bytes:
    """/ip4/.../tcp/4001."""
    return b"\x04" + bytes(int(part) for part in text.split(".")) + b"\x06\x0f\xa1"


@pytest.mark.parametrize(
    ("teller", "reached"), [("9.9.9.9", ["8.8.4.4"]), ("10.0.0.9", ["10.0.0.1", "8.8.4.4"])]
)
def test_liars_do_not_lead_dials_into_our_own_network(teller: str, reached: list[str]) -> None:
    """Who makes peers up can sign for them: many addresses, names, and those of machines in our own network."""
    node = Watched(GossipConfig())
    node.subscribe()
    node.handle(PeerUp(peer_id(1), remote=ip4(teller)))
    node.receive(1, Rpc(subscriptions=(("t", True),)))
    name = b"\x36\x0bexample.com\x06\x0f\xa1"
    many = [name, *map(ip4, ("10.0.0.1", "8.8.4.4"))]
    record = seal_record(peer_id(5), many, 1, stub_sign)
    crowd = seal_record(peer_id(6), [ip4(f"8.8.{number}.1") for number in range(16)], 1, stub_sign)
    named = (Exchanged(peer_id(5), record), Exchanged(peer_id(6), crowd))
    node.receive(1, Rpc(prune=(Prune("t", 60, named),)))
    node.heartbeat()
    assert node.dialled[peer_id(5)] == tuple(map(ip4, reached))
    assert len(node.dialled[peer_id(6)]) == 3
