"""Validators: what they accept goes on, what they refuse costs its senders, and nobody waits for them.

gossipsub 1.1, "Extended validators"; pubsub spec, "Message signing" for anonymous topics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from swarmp2p.engine import Tick
from swarmp2p.gossip import rpc_pb2 as pb
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import (
    ANONYMOUS,
    Acceptance,
    GossipMessage,
    StartValidating,
    StopValidating,
    Validate,
    Validated,
)
from swarmp2p.gossip.messages import IHave, Rpc
from swarmp2p.gossip.wire import StrictNoSign, parse_message
from swarmp2p.identity import verify

from .harness import Scripted
from .network import message, peer_id, stub_sign

ACCEPT, REJECT, IGNORE = Acceptance.ACCEPT, Acceptance.REJECT, Acceptance.IGNORE


def one_topic(**settings: Any) -> GossipConfig:
    return GossipConfig(topics={"t": TopicConfig(**settings)})


def listening(config: GossipConfig | None = None, neighbours: Sequence[int] = (1, 2, 3)) -> Scripted:
    """A subscriber with a mesh of some neighbours."""
    node = Scripted(config)
    node.subscribe()
    node.up(*neighbours)
    for number in neighbours:
        node.receive(number, Rpc(graft=("t",)))
    assert node.mesh() == set(neighbours)
    return node


def validating(config: GossipConfig | None = None, timeout_s: float = 5.0) -> Scripted:
    node = listening(config)
    node.handle(StartValidating("t", timeout_s))
    return node


def asked(node: Scripted, number: int, *sent: GossipMessage) -> list[GossipMessage]:
    """What the application is asked about when a neighbour sends messages."""
    node.receive(number, Rpc(publish=sent))
    return [output.message for output in node.outputs if isinstance(output, Validate)]


# In the engine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [ACCEPT, REJECT, IGNORE])
def test_a_topics_own_validator(said: Acceptance) -> None:
    """Accept: delivered and forwarded. Reject: neither, and P4. Ignore: neither, and no P4."""
    seen: list[tuple[bytes, float]] = []

    def validator(sent: GossipMessage, now: float) -> Acceptance:
        seen.append((sent.data, now))
        return said

    node = listening(one_topic(validator=validator))
    node.now = 0.05
    sent = node.receive(1, Rpc(publish=(message(9, 1),)))
    assert seen == [(b"data", 0.05)]
    assert (len(node.delivered), set(sent)) == (
        (1, {peer_id(2), peer_id(3)}) if said is ACCEPT else (0, set())
    )
    assert (node.score(1) < 0) == (said is REJECT)
    node.receive(2, Rpc(publish=(message(9, 1),)))
    assert len(seen) == 1, "judged once"
    assert (node.score(2) < 0) == (said is REJECT), "who sends it later should have known, too"
    assert (node.router.stats.rejected, node.router.stats.ignored) == (said is REJECT, said is IGNORE)


def test_forged_messages_are_not_judged() -> None:
    def validator(sent: GossipMessage, now: float) -> Acceptance:
        raise AssertionError(f"asked about {sent} at {now}")

    node = listening(one_topic(validator=validator))
    node.receive(1, Rpc(publish=(message(9, 1, signature=b"false"),)))
    assert node.score(1) < 0


# By the application -----------------------------------------------------------------------------------------


def test_what_is_accepted_goes_on() -> None:
    node = validating()
    assert asked(node, 1, message(9, 1)) == [message(9, 1)]
    assert node.delivered == []
    answer = node.handle(Validated(message(9, 1).id, ACCEPT))
    assert node.delivered == [message(9, 1)]
    assert set(answer) == {peer_id(2), peer_id(3)}
    assert node.handle(Validated(message(9, 1).id, ACCEPT)) == {}, "once"


def test_what_waits_is_neither_cached_nor_asked_for() -> None:
    node = validating()
    asked(node, 1, message(9, 1))
    message_id = message(9, 1).id
    assert node.receive(2, Rpc(iwant=(message_id,))) == {}
    assert node.receive(2, Rpc(ihave=(IHave("t", (message_id,)),))) == {}


def test_nobody_waits_for_a_validator() -> None:
    node = validating()
    node.subscribe("u")
    asked(node, 1, message(9, 1))
    assert asked(node, 1, message(9, 2), message(9, 3, topic="u"))[0].id == message(9, 2).id
    assert [sent.topic for sent in node.delivered] == ["u"]
    node.handle(Validated(message(9, 2).id, ACCEPT))
    assert node.delivered[-1] == message(9, 2)


def test_those_who_sent_it_meanwhile_do_not_get_it() -> None:
    node = validating()
    asked(node, 1, message(9, 1))
    node.receive(2, Rpc(publish=(message(9, 1),)))
    assert set(node.handle(Validated(message(9, 1).id, ACCEPT))) == {peer_id(3)}


def test_a_rejection_is_paid_by_all_who_sent_it() -> None:
    """P4, whether the copy came before or after the verdict."""
    node = validating()
    asked(node, 1, message(9, 1))
    node.receive(2, Rpc(publish=(message(9, 1),)))
    node.handle(Validated(message(9, 1).id, REJECT))
    node.receive(3, Rpc(publish=(message(9, 1),)))
    assert node.score(1) == node.score(2) == node.score(3) < 0
    assert node.delivered == []


def test_without_an_answer_it_is_ignored() -> None:
    node = validating(timeout_s=0.5)
    asked(node, 1, message(9, 1))
    node.now = 0.5
    assert node.router.deadline() <= 0.5
    node.handle(Tick())
    assert node.router.deadline() > 0.5
    assert (node.router.stats.timed_out, node.router.stats.ignored) == (1, 1)
    assert node.handle(Validated(message(9, 1).id, ACCEPT)) == {}
    assert asked(node, 2, message(9, 1)) == [], "it was seen"
    assert node.delivered == []
    assert node.score(1) == 0


def test_the_end_of_validation_ignores_what_waits() -> None:
    node = validating()
    asked(node, 1, message(9, 1))
    node.handle(StopValidating("t"))
    assert node.router.stats.ignored == 1
    node.receive(1, Rpc(publish=(message(9, 2),)))
    assert node.delivered == [message(9, 2)], "not asked any more"


def test_leaving_the_topic_ignores_what_waits() -> None:
    node = validating()
    asked(node, 1, message(9, 1))
    node.unsubscribe()
    assert node.router.sizes()["validating"] == 0
    assert node.handle(Validated(message(9, 1).id, ACCEPT)) == {}
    assert node.delivered == []


def test_one_peer_cannot_fill_the_waiting_room() -> None:
    """A quarter each; what finds no room may come again."""
    node = validating(replace(GossipConfig(), max_validating=8))
    asked(node, 1, *(message(9, number) for number in range(5)))
    assert node.router.sizes()["validating"] == 2
    assert node.router.stats.validation_full == 3
    assert asked(node, 2, message(8, 1)) == [message(8, 1)]
    node.handle(Validated(message(9, 0).id, ACCEPT))
    assert asked(node, 1, message(9, 4)) == [message(9, 4)]


def test_what_waits_is_bounded_in_bytes() -> None:
    node = validating(replace(GossipConfig(), max_validating_bytes=4000))
    asked(node, 1, message(9, 1, data=bytes(900)), message(9, 2, data=bytes(900)))
    asked(node, 2, message(9, 3, data=bytes(900)))
    assert node.router.sizes()["validating_bytes"] == 1800


def test_what_outlasts_the_seen_cache_waits_once() -> None:
    """Neither a copy that comes then nor another message of the same id takes any room for good."""
    node = validating(replace(GossipConfig(), seen_ttl_s=10.0, max_validating=8), timeout_s=1000.0)
    assert asked(node, 1, message(9, 1)) == [message(9, 1)]
    node.now = 20.0
    assert asked(node, 1, message(9, 1)) == asked(node, 2, message(9, 1)) == []
    node.now = 40.0
    assert asked(node, 1, message(9, 1, data=b"other")) == []
    assert set(node.handle(Validated(message(9, 1).id, ACCEPT))) == {peer_id(3)}
    assert node.router.sizes()["validating_bytes"] == 0
    room = [message(9, number) for number in (2, 3)]
    assert asked(node, 1, *room) == room, "all of its quarter is free again"


def test_a_peer_that_left_is_not_remembered_twice() -> None:
    node = validating()
    asked(node, 1, message(9, 1))
    node.receive(2, Rpc(publish=(message(9, 1),)))
    node.down(1)
    node.down(2)
    node.handle(Validated(message(9, 1).id, REJECT))
    assert node.router.sizes()["validating"] == 0


# Ids and anonymous topics -----------------------------------------------------------------------------------


def test_a_topic_may_name_its_messages() -> None:
    """pubsub spec, "Message identification": a topic may use another function; each message is named once."""
    named: list[bytes] = []

    def by_content(sent: GossipMessage) -> bytes:
        named.append(sent.data)
        return b"#" + sent.data

    node = listening(one_topic(message_id=by_content))
    node.receive(1, Rpc(publish=(message(9, 1, data=b"x"),)))
    assert node.delivered[0].id == b"#x"
    assert node.receive(2, Rpc(publish=(message(8, 5, data=b"x"),))) == {}, "the same by its content"
    assert named == [b"x", b"x"]
    asked_again = node.receive(3, Rpc(iwant=(b"#x",)))
    assert [sent.data for sent in asked_again[peer_id(3)].publish] == [b"x"]
    assert node.publish(data=b"x") == {}, "it has been said"
    assert node.publish(data=b"y")[peer_id(1)].publish[0].id == b"#y"


def test_anonymous_messages_name_nobody() -> None:
    """pubsub spec, "Message signing": under StrictNoSign the fields are absent, and ids come from the content."""
    made = StrictNoSign().make(peer_id(1), "t", b"data", bytes(8), stub_sign)
    fields = pb.Message.FromString(made.raw)
    assert not any(map(fields.HasField, ("from", "seqno", "signature", "key")))
    assert (made.source, made.seqno, bool(made.source)) == (ANONYMOUS, b"", False)
    node = listening(one_topic(anonymous=True))
    (sent,) = node.publish()[peer_id(1)].publish
    assert sent.raw == made.raw
    assert sent.id == hashlib.sha256(b"data").digest()
    assert node.publish() == {}, "the same data is the same message"
    other = parse_message(StrictNoSign().make(peer_id(1), "t", b"other", bytes(8), stub_sign).raw)
    assert set(node.receive(1, Rpc(publish=(other,)))) == {peer_id(2), peer_id(3)}
    assert [(d.source, d.data) for d in node.delivered] == [(ANONYMOUS, b"other")]


@pytest.mark.parametrize("field", ["from", "seqno", "signature", "key"])
@pytest.mark.parametrize("value", [b"", b"value"])
def test_anonymous_topics_refuse_messages_with_an_author(field: str, value: bytes) -> None:
    """StrictNoSign: a message in which one of the fields is present is rejected, also an empty one."""
    fields = pb.Message(data=b"data", topic="t")
    setattr(fields, field, value)
    node = listening(one_topic(anonymous=True))
    node.receive(1, Rpc(publish=(parse_message(fields.SerializeToString()),)))
    assert node.delivered == []
    assert node.score(1) < 0
    assert StrictNoSign().check(parse_message(fields.SerializeToString()), verify).value == "forged"


def test_signed_topics_refuse_anonymous_messages() -> None:
    """StrictSign: a message without a signature is rejected."""
    node = listening()
    node.receive(1, Rpc(publish=(StrictNoSign().make(peer_id(1), "t", b"data", bytes(8), stub_sign),)))
    assert node.delivered == []
    assert node.score(1) < 0


def test_nothing_can_be_added_to_an_anonymous_message_on_its_way() -> None:
    """Nobody signed it: a relay could have made it as long as it likes."""
    node = listening(one_topic(anonymous=True))
    raw = pb.Message(data=b"data", topic="t").SerializeToString()
    answer = node.receive(1, Rpc(publish=(parse_message(raw + b"\xca\x3e\x7f" + bytes(127)),)))
    assert [sent.raw for rpc in answer.values() for sent in rpc.publish] == [raw, raw]
    assert node.router.sizes()["cached_bytes"] == len(raw)
