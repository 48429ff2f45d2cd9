"""gossipsub 1.1, "Spam Protection Measures": what spam may cost us, and what it costs its sender.

go-libp2p-pubsub's cases of the same: test_go_spam_cases.py. Whoever is graylisted: test_gossipsub_1_1.py.
"""

from __future__ import annotations

import math
from random import Random

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import BareMessages, IHave, Prune, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId

from .harness import ME, Scripted
from .network import message, peer_id, stub_sign

FORGED = b"false"


def test_graft_right_after_prune_counts_twice() -> None:
    """Spam protection measures, GRAFT flood."""

    def score(wait_s: float) -> float:
        node = Scripted(GossipConfig(mesh_low=0, mesh_degree=0, mesh_high=0))
        node.subscribe()
        node.up(1)
        node.receive(1, Rpc(graft=("t",)))
        for _ in range(9):
            node.now += wait_s
            node.receive(1, Rpc(graft=("t",)))
        return node.score(1)

    assert score(9.0) < score(11.0) < 0


def test_graft_for_unknown_topics_is_ignored() -> None:
    """Spam protection measures, GRAFT for unknown topics: no PRUNE in answer, nothing remembered."""
    node = Scripted()
    node.up(1, topics=())
    sizes = node.router.sizes()
    for number in range(100):
        topic = f"unknown {number}"
        assert node.receive(1, Rpc(graft=(topic,), prune=(Prune(topic, 60),))) == {}
        assert node.router.subscribers(topic) == ()
    assert node.router.sizes() == sizes
    assert node.score(1) == 0


def test_ihave_rpcs_per_heartbeat_are_capped() -> None:
    """Spam protection measures, IHAVE: at most 10 messages a peer and heartbeat are looked at."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    answered = [bool(node.receive(1, Rpc(ihave=(IHave("t", (bytes([n]),)),)))) for n in range(15)]
    assert answered == [True] * 10 + [False] * 5
    node.heartbeat()
    assert node.receive(1, Rpc(ihave=(IHave("t", (b"later",)),)))
    assert node.score(1) == 0


def test_ids_asked_for_per_heartbeat_are_capped() -> None:
    """Spam protection measures, IHAVE: at most 5,000 ids a peer and heartbeat are asked for."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    asked: list[bytes] = []
    for start in range(0, 8000, 2000):
        ids = tuple(number.to_bytes(4, "big") for number in range(start, start + 2000))
        answer = node.receive(1, Rpc(ihave=(IHave("t", ids),)))
        asked.extend(answer[peer_id(1)].iwant if answer else ())
    assert len(asked) == len(set(asked)) == 5000


def test_endless_ihave_costs_a_peer_its_place() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    known = message(9, 1)
    node.receive(2, Rpc(publish=(known,)))
    for _ in range(10):
        for _ in range(12):
            assert node.receive(1, Rpc(ihave=(IHave("t", (known.id,)),))) == {}
        node.heartbeat()
    assert node.score(1) < 0
    assert node.mesh() == {2}


def test_a_message_is_sent_again_three_times() -> None:
    """Spam protection measures, IWANT: gossip_retransmission, 3."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    answers = [node.receive(2, Rpc(iwant=(sent.id,) * 1000)) for _ in range(5)]
    assert answers == [{peer_id(2): Rpc(publish=(sent,))}] * 3 + [{}] * 2
    assert node.receive(1, Rpc(iwant=(sent.id,)))


def test_cheap_questions_do_not_bring_large_answers_without_end() -> None:
    """Ours: beside the limit for each message, one for what a peer is sent between two heartbeats."""
    node = Scripted(GossipConfig(max_iwant_bytes=5000))
    node.subscribe()
    node.up(1, 2)
    sent = [message(9, number, data=bytes(1000)) for number in range(20)]
    node.receive(2, Rpc(publish=tuple(sent)))
    wanted = Rpc(iwant=tuple(each.id for each in sent))
    got = [node.receive(1, wanted) for _ in range(5)]
    assert sum(len(rpc.publish) for answer in got for rpc in answer.values()) == 5
    assert node.router.stats.over_limit == 5
    node.heartbeat()
    assert len(node.receive(1, wanted)[peer_id(1)].publish) == 5


def test_broken_promises_are_counted() -> None:
    """Spam protection measures, IHAVE: ids advertised and not delivered within 3 s count against the peer."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    for number in range(9):
        assert node.receive(1, Rpc(ihave=(IHave("t", (bytes([number]),)),)))
    while node.now < 3:
        node.heartbeat()
    node.heartbeat()
    assert node.router.stats.promises_broken == 9
    assert node.score(1) < 0


def test_the_id_that_is_watched_is_a_random_one() -> None:
    """Spam protection measures, IWANT in flight: who delivers the first of twenty each time is found out."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    for beat in range(10):
        real = message(9, beat)
        others = tuple(b"none %d %d" % (beat, number) for number in range(19))
        node.receive(1, Rpc(ihave=(IHave("t", (real.id, *others)),)))
        node.receive(1, Rpc(publish=(real,)))
        node.heartbeat()
    for _ in range(4):
        node.heartbeat()
    assert node.router.stats.promises_broken >= 8


def test_promises_kept_by_anybody_are_kept() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    for number in range(9):
        sent = message(9, number)
        node.receive(1, Rpc(ihave=(IHave("t", (sent.id,)),)))
        node.receive(2, Rpc(publish=(sent,)))
    while node.now < 5:
        node.heartbeat()
    assert node.router.stats.promises_kept == 9
    assert node.router.stats.promises_broken == 0
    assert node.score(1) == 0


def test_a_peer_that_left_broke_no_promise() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    for number in (1, 2):
        node.receive(number, Rpc(ihave=(IHave("t", (b"x",)),)))
    node.down(1)
    while node.now < 5:
        node.heartbeat()
    assert node.router.stats.promises_broken == 1
    node.unsubscribe()
    node.heartbeat()
    assert node.router.deadline() == math.inf, "nothing is waited for any more"


def test_a_forged_copy_does_not_keep_the_real_one_out() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(publish=(message(9, 1, data=b"fake", signature=FORGED),)))
    node.receive(2, Rpc(publish=(message(9, 1),)))
    assert [sent.data for sent in node.delivered] == [b"data"]


def test_signatures_are_checked_once() -> None:
    checks: list[bytes] = []

    def verify(_peer: PeerId, data: bytes, _signature: bytes) -> bool:
        checks.append(data)
        return True

    node = Scripted()
    node.router = GossipRouter(peer_id(ME), stub_sign, verify, Random(0), node.config, BareMessages())
    node.subscribe()
    node.up(1, 2, 3)
    for number in (1, 2, 3):
        node.receive(number, Rpc(publish=(message(9, 1),)))
    assert len(checks) == 1
