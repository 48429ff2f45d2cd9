"""The topics of one peer: who reads them, who judges them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

from .arguments import bytes_argument, seconds_argument, text_argument
from .errors import UsageError
from .gossip.events import (
    Delivered,
    GossipCommand,
    Publish,
    StartValidating,
    StopValidating,
    Subscribe,
    Unsubscribe,
    Validate,
)
from .gossip.messages import check_publish, check_topic
from .judging import Judge, MessageValidator
from .scopes import background_nursery
from .subscription import Subscription


class Pubsub:
    """What `Peer` has of gossip. check_open: raises when the peer is closed. post: to the engine."""

    def __init__(self, check_open: Callable[[], None], post: Callable[[GossipCommand], None]) -> None:
        self._check_open, self._post = check_open, post
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._judges: dict[str, Judge] = {}

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncGenerator[Subscription, None]:
        """See Peer.subscribe."""
        check_topic(text_argument(topic, "a topic"))
        self._check_open()
        subscription = Subscription(topic)
        self._subscriptions.setdefault(topic, []).append(subscription)
        self._post(Subscribe(topic))
        try:
            await trio.lowlevel.checkpoint()
            yield subscription
        finally:
            self._subscriptions[topic].remove(subscription)
            if not self._subscriptions[topic]:
                del self._subscriptions[topic]
            self._post(Unsubscribe(topic))

    @asynccontextmanager
    async def validate(
        self, topic: str, validator: MessageValidator, timeout_s: float
    ) -> AsyncGenerator[None, None]:
        """See Peer.validate."""
        check_topic(text_argument(topic, "a topic"))
        limit_s = seconds_argument(timeout_s, "timeout_s")
        if not callable(validator):
            raise UsageError(f"the validator of {topic!r} is a function of a message, not {validator!r}")
        self._check_open()
        if topic in self._judges:
            raise UsageError(
                f"{topic!r} has a validator already; have that one call both. Nothing was changed"
            )
        async with background_nursery() as nursery:
            self._judges[topic] = Judge(topic, validator, limit_s, nursery, self._post)
            self._post(StartValidating(topic, limit_s))
            try:
                await trio.lowlevel.checkpoint()
                yield
            finally:
                del self._judges[topic]
                self._post(StopValidating(topic))

    async def publish(self, topic: str, data: bytes) -> None:
        """See Peer.publish."""
        message = Publish(text_argument(topic, "a topic"), bytes_argument(data, "a message's data"))
        check_publish(message.topic, message.data)
        self._check_open()
        self._post(message)
        await trio.lowlevel.checkpoint()

    def output(self, output: Delivered | Validate) -> None:
        """The engine has a message for a topic's readers, or for its judge."""
        if isinstance(output, Delivered):
            for subscription in self._subscriptions.get(output.message.topic, ()):
                subscription.deliver(output.message)
            return
        judge = self._judges.get(output.message.topic)
        if judge is not None:  # else StopValidating is on its way
            judge.take(output.message)

    def close(self) -> None:
        """The peer was closed: wake its readers."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()
