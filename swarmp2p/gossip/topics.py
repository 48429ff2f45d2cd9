"""How messages of a topic are made, named and checked: its TopicConfig, made ready for use."""

from __future__ import annotations

import hashlib

from .config import GossipConfig, TopicConfig
from .events import GossipMessage
from .messages import MessageForm
from .wire import StrictNoSign

_MAX_RULES = 1024
"""Topics whose rules are remembered; at it all are forgotten, and made anew when needed. Only topics that this peer
uses itself get any."""


def content_id(message: GossipMessage) -> bytes:
    """SHA-256 of the data: the id of messages on anonymous topics, as in js-libp2p. The same data is the same
    message, also on another topic of this kind."""
    return hashlib.sha256(message.data).digest()


class Rules:
    """What holds for one topic. identify: how its messages get their ids; None for source and sequence number, which
    every message has from the start. interval_s: what leaves within it to one peer leaves together."""

    __slots__ = (
        "anonymous",
        "form",
        "identify",
        "interval_s",
        "latest_only",
        "sequenced",
        "validator",
    )

    def __init__(self, config: TopicConfig, form: MessageForm, interval_s: float) -> None:
        self.anonymous = config.anonymous
        self.form: MessageForm = StrictNoSign() if config.anonymous else form
        self.identify = config.message_id or (content_id if config.anonymous else None)
        self.validator = config.validator
        self.latest_only = config.latest_only and not config.anonymous
        self.sequenced = (config.latest_only or config.no_replays) and not config.anonymous
        self.interval_s = interval_s if config.flush_interval_s is None else config.flush_interval_s


class Topics:
    """The rules of all topics. form: of messages that are not anonymous."""

    __slots__ = ("_config", "_form", "_rules")

    def __init__(self, config: GossipConfig, form: MessageForm) -> None:
        self._config, self._form = config, form
        self._rules: dict[str, Rules] = {}

    def rules(self, topic: str) -> Rules:
        """What holds for a topic that this peer subscribes to or publishes on."""
        rules = self._rules.get(topic)
        if rules is None:
            if len(self._rules) >= _MAX_RULES:
                self._rules.clear()
            config = self._config
            rules = self._rules[topic] = Rules(config.topic(topic), self._form, config.flush_interval_s)
        return rules
