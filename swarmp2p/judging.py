"""A topic's validator as the application writes it, run so that nobody waits for it."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, cast

import trio

from .gossip.events import Acceptance, GossipMessage, Validated

_log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 64
"""Messages of one topic that are judged at once. The others wait in the order they came, their time running."""

MessageValidator = Callable[[GossipMessage], Acceptance | Awaitable[Acceptance]]
"""Says whether a message is accepted (delivered and passed on), rejected (whoever sent it pays for that) or ignored.
An async function may take its time; a plain one keeps the whole peer waiting."""


class Judge:
    """Runs one topic's validator in `nursery`, and tells the engine by `post`.

    A message whose validator raises, says something else than an Acceptance or takes longer than `timeout_s` is
    ignored. The first failure goes to the log.
    """

    def __init__(
        self,
        topic: str,
        validator: MessageValidator,
        timeout_s: float,
        nursery: trio.Nursery,
        post: Callable[[Validated], None],
    ) -> None:
        self._topic, self._validator, self._timeout_s = topic, validator, timeout_s
        self._nursery, self._post = nursery, post
        self._waiting: deque[tuple[GossipMessage, float]] = deque()  # the engine bounds it
        self._running = 0
        self._told = False

    @property
    def waiting(self) -> int:
        """Messages that wait for others to be judged."""
        return len(self._waiting)

    def take(self, message: GossipMessage) -> None:
        """Have a message judged."""
        now = trio.current_time()
        late_at = now + self._timeout_s
        while self._waiting and self._waiting[0][1] <= now:  # also where no validator ever returns
            self._waiting.popleft()
        if self._running >= MAX_AT_ONCE:
            self._waiting.append((message, late_at))
            return
        self._running += 1
        self._nursery.start_soon(self._run, message, late_at)

    async def _run(self, message: GossipMessage, late_at: float) -> None:
        """Judge a message, and then those that wait."""
        while True:
            if trio.current_time() < late_at:
                await self._judge(message, late_at)
            if not self._waiting:
                break
            message, late_at = self._waiting.popleft()
        self._running -= 1

    async def _judge(self, message: GossipMessage, late_at: float) -> None:
        acceptance = Acceptance.IGNORE
        with trio.move_on_at(late_at):
            try:
                said = self._validator(message)
                if inspect.isawaitable(said):
                    said = await said
                acceptance = Acceptance(cast(object, said))
            except Exception:  # noqa: BLE001 - somebody else's code
                self._tell()
        self._post(Validated(message.id, acceptance))
        await trio.lowlevel.checkpoint()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.exception(
                "the validator of the topic %r failed, and the message is ignored; it returns an Acceptance and must "
                "not raise, whatever the message. Later failures of it are not reported",
                self._topic,
            )
