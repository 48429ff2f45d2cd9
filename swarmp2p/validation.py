"""Validators that an application brings, kept from ending its peer.

What a validator looks at comes from anybody, and an engine takes for granted that it never raises. One that does, or
that chooses a value that is not there, is a bug which any peer could otherwise use to end this one. So here the value
counts as invalid (or the first as best), a message is ignored or gets the hash of its content as its id, and the
first such case of each namespace or topic goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from .dht.validators import Validator
from .errors import UsageError
from .gossip.config import TopicConfig
from .gossip.events import Acceptance, GossipMessage
from .gossip.topics import content_id
from .gossip.wire import MAX_ID_BYTES
from .node import NodeConfig

_log = logging.getLogger(__name__)


def guarded(config: NodeConfig) -> NodeConfig:
    """The same settings with guarded validators."""
    validators = {name: Guarded(name, validator) for name, validator in config.dht.validators.items()}
    topics = {name: _guarded_topic(name, topic) for name, topic in config.gossip.topics.items()}
    return replace(
        config,
        dht=replace(config.dht, validators=validators),
        gossip=replace(config.gossip, topics=topics),
    )


def _guarded_topic(name: str, topic: TopicConfig) -> TopicConfig:
    guard = GuardedTopic(name, topic)
    return replace(
        topic,
        message_id=guard.message_id if topic.message_id is not None else None,
        validator=guard.validate if topic.validator is not None else None,
    )


class GuardedTopic:
    """One topic's functions behind a guard."""

    def __init__(self, name: str, topic: TopicConfig) -> None:
        self._name, self._topic, self._told = name, topic, False

    def validate(self, message: GossipMessage, now: float) -> Acceptance:
        """As the validator says; IGNORE when it raises or says something else."""
        assert self._topic.validator is not None
        try:
            return Acceptance(self._topic.validator(message, now))
        except Exception:  # noqa: BLE001 - somebody else's code
            self._tell("validator", "the message is ignored")
            return Acceptance.IGNORE

    def message_id(self, message: GossipMessage) -> bytes:
        """As the function says; the SHA-256 of the data when it raises, or says nothing that can be an id."""
        assert self._topic.message_id is not None
        try:
            made = cast(object, self._topic.message_id(message))
            if isinstance(made, bytes) and 1 <= len(made) <= MAX_ID_BYTES:
                return made
            raise UsageError(f"a message id is 1 to {MAX_ID_BYTES} bytes, not {made!r}")
        except Exception:  # noqa: BLE001 - somebody else's code
            self._tell("message_id", "the message gets the hash of its data as its id")
            return content_id(message)

    def _tell(self, function: str, instead: str) -> None:
        if not self._told:
            self._told = True
            _log.exception(
                "the %s of the topic %r failed, and %s; it must not raise, whatever the message. Later failures on "
                "this topic are not reported",
                function,
                self._name,
                instead,
            )


class Guarded:
    """One validator behind a guard."""

    def __init__(self, namespace: str, validator: Validator) -> None:
        self._namespace, self._validator, self._told = namespace, validator, False

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        """As the validator says; False when it raises."""
        try:
            return bool(self._validator.validate(key, value, now))
        except Exception:  # noqa: BLE001 - somebody else's code
            self._tell("the value counts as invalid")
            return False

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """As the validator says; 0, whoever holds one now, when it raises or says nothing usable."""
        try:
            return range(len(values))[self._validator.select(key, values)]
        except Exception:  # noqa: BLE001 - somebody else's code
            self._tell("the first value counts as the best")
            return 0

    def _tell(self, instead: str) -> None:
        if not self._told:
            self._told = True
            _log.exception(
                "the validator of the namespace %r failed, and %s; it must not raise, whatever the bytes. "
                "Later failures of it are not reported",
                self._namespace,
                instead,
            )
