"""The one place where a protocol's decoder meets bytes that a peer sent."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..engine import Message
from ..errors import BadMessage
from ..identity import PeerId

_log = logging.getLogger(__name__)


def decoded(
    decode: Callable[[PeerId, bytes, int], Message], sender: PeerId, body: bytes, number: int
) -> Message:
    """The message in a frame; raises BadMessage, and nothing else even where the decoder has a bug: no peer may
    end another one with a few bytes."""
    try:
        return decode(sender, body, number)
    except BadMessage:
        raise
    except Exception as bug:  # whatever it is
        _log.exception(
            "a decoder raised something else than BadMessage on %d bytes from %s", len(body), sender
        )
        raise BadMessage(f"the decoder failed: {type(bug).__name__}") from bug
