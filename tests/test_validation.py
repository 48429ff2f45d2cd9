"""A validator with a bug does not end the peer, whatever others send."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from swarmp2p import DhtConfig, NodeConfig
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
