"""A validator with a bug does not end the peer, whatever others send."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from swarmp2p import Acceptance, DhtConfig, GossipConfig, GossipMessage, NodeConfig, TopicConfig
from swarmp2p.gossip.topics import content_id
from swarmp2p.identity import Identity
from swarmp2p.validation import guarded


class Buggy:
    """Raises for values that are no numbers; selects beyond the end for several."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return int(value) > 0

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return len(values) if len(values) > 1 else 0


def test_a_validator_that_fails_rejects_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    config = guarded(NodeConfig(dht=DhtConfig(validators={"n": Buggy()}, k=7)))
    assert config.dht.k == 7
    validator = config.dht.validators["n"]
    with caplog.at_level(logging.ERROR):
        assert validator.validate(b"/n/x", b"1", 0.0)
        assert not validator.validate(b"/n/x", b"0", 0.0)
        assert validator.select(b"/n/x", [b"1"]) == 0
        assert not caplog.messages
        assert not validator.validate(b"/n/x", b"no number", 0.0)
        assert not validator.validate(b"/n/x", b"neither", 0.0)
        assert validator.select(b"/n/x", [b"1", b"2"]) == 0
    assert len(caplog.messages) == 1
    assert "namespace 'n'" in caplog.messages[0]
    assert caplog.records[0].exc_info is not None


def number_of(message: GossipMessage) -> bytes:
    """An id that raises for what is no number, and is none for 0."""
    return b"#" * int(message.data)


def positive(message: GossipMessage, now: float) -> Acceptance:
    return Acceptance.ACCEPT if int(message.data) > 0 else Acceptance.REJECT


def about(data: bytes) -> GossipMessage:
    return GossipMessage(Identity(bytes(32)).peer_id, bytes(8), "t", data)


def test_a_topics_functions_that_fail_do_no_harm_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = GossipConfig(topics={"t": TopicConfig(message_id=number_of, validator=positive)}, max_peers=7)
    gossip = guarded(NodeConfig(gossip=settings)).gossip
    topic = gossip.topic("t")
    assert gossip.max_peers == 7
    assert topic.validator is not None
    assert topic.message_id is not None
    with caplog.at_level(logging.ERROR):
        assert topic.validator(about(b"1"), 0.0) is Acceptance.ACCEPT
        assert topic.validator(about(b"0"), 0.0) is Acceptance.REJECT
        assert topic.message_id(about(b"3")) == b"###"
        assert not caplog.messages
        assert topic.validator(about(b"x"), 0.0) is Acceptance.IGNORE
        for useless in (b"x", b"0", b"1000"):
            assert topic.message_id(about(useless)) == content_id(about(useless))
    assert len(caplog.messages) == 1
    assert "topic 't'" in caplog.messages[0]
