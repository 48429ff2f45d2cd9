"""What callers pass in, checked where it comes in.

An engine trusts its commands: something of a wrong type in one would end the whole peer far from the call that
was wrong. So everything that the public API takes goes through here first, and a wrong value raises UsageError
before anything has changed. Where a text or a single value is as clear as the real thing, it is taken.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, cast

from multiaddr.multiaddr import Multiaddr

from .errors import AddressError, UsageError
from .identity import PeerId

_MAX_PROTOCOL_CHARS: Final = 255  # long ones are refused by most multistream implementations


def peer_argument(value: object) -> PeerId:
    """A peer id; its text and its bytes will do."""
    if isinstance(value, PeerId):
        return value
    if isinstance(value, str):
        return PeerId.from_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return PeerId.from_bytes(bytes(value))
    raise UsageError(f"a peer id, or its text like 12D3KooW..., is needed, not {value!r}")


def bytes_argument(value: object, what: str) -> bytes:
    """Bytes, whatever holds them; text is refused, as only the caller knows its encoding."""
    if isinstance(value, str):
        raise UsageError(f"{what} is bytes, not text: encode it first, as in {value[:20]!r}.encode()")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UsageError(f"{what} is bytes, not {value!r}")
    return bytes(value)


def text_argument(value: object, what: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is text, not {value!r}")
    return value


def many_argument(value: object, what: str) -> Iterable[object]:
    """Several of something; a text or bytes is one of it."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return (value,)
    if not isinstance(value, Iterable):
        raise UsageError(f"{what} come as a list or another iterable, not {value!r}")
    return cast(Iterable[object], value)


def count_argument(value: object, what: str) -> int:
    """How many at most; 0 and None mean that there is no limit."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{what} is a count, 0 for no limit; not {value!r}")
    return value


def seconds_argument(value: object, what: str) -> float:
    """A time to wait: above 0, and not for ever."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UsageError(f"{what} is a number of seconds above 0, not {value!r}")
    return float(value)


def protocol_argument(value: object) -> str:
    """A protocol id as multistream-select carries it: one line of printable text."""
    text = text_argument(value, "a protocol id")
    if not 0 < len(text) <= _MAX_PROTOCOL_CHARS or not text.isascii() or not text.isprintable():
        raise UsageError(
            f"{text[:80]!r} cannot be a protocol id: it is one line of 1 to {_MAX_PROTOCOL_CHARS} ASCII characters "
            "such as /chat/1.0.0"
        )
    return text


def mapping_argument(value: object, what: str) -> Mapping[str, object]:
    """A mapping; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is a mapping of names to values such as {{'region': 'eu'}}, not {value!r}")
    return cast(Mapping[str, object], value)


def folder_argument(value: str | os.PathLike[str] | None, what: str) -> Path | None:
    """A folder that need not be there; None stays None."""
    try:
        return None if value is None else Path(value)
    except TypeError:
        raise UsageError(f"{what} is a folder's name, not {value!r}") from None


def log_folder(value: str | os.PathLike[str] | None) -> Path | None:
    """A folder that logs can be written to, made when it is missing; None stays None."""
    if value is None:
        return None
    try:
        folder = Path(value)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, TypeError, ValueError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else problem
        raise UsageError(
            f"logs cannot be kept in {str(value)!r}: {told}; name a folder that can be written to"
        ) from None


def addresses_argument(value: object) -> list[Multiaddr | str]:
    """Multiaddrs or their texts, many or a single one; None for none at all. What they say is not checked here."""
    if value is None:
        return []
    if isinstance(value, str | Multiaddr):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes | bytearray):
        raise AddressError(str(value), "a multiaddr, its text or a list of these is needed")
    found: list[Multiaddr | str] = []
    for item in cast(Iterable[object], value):
        if not isinstance(item, str | Multiaddr):
            raise AddressError(str(item), f"it is no multiaddr or text but of type {type(item).__name__}")
        found.append(item)
    return found
