"""Reads the fields of a decoded msgpack map, strictly: what a peer sent is checked here and nowhere else.

Every method raises BadMessage, and nothing else, when a field is missing, of another type or out of range.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Collection
from typing import Any

from .errors import BadMessage, UsageError
from .identity import PeerId


def is_ip(text: str) -> bool:
    """Whether a text is an IP address, without zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class Fields:
    """Takes the fields of one map by name; `done` refuses whatever was not taken."""

    __slots__ = ("_rest",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._rest = dict(fields)

    def has(self, key: str) -> bool:
        """Whether a field that may be absent is there, and was not taken."""
        return key in self._rest

    def data(self, key: str, low: int, high: int) -> bytes:
        """Bytes of `low` to `high` length."""
        value = self._take(key)
        if type(value) is not bytes or not low <= len(value) <= high:
            raise BadMessage(f"{key} is not {low} to {high} bytes")
        return value

    def text(self, key: str, high: int) -> str:
        """At most `high` printable characters: it may end up on a terminal or in a log."""
        value = self._take(key)
        if type(value) is not str or len(value) > high or not value.isprintable():
            raise BadMessage(f"{key} is not printable text of at most {high} characters")
        return value

    def choice(self, key: str, values: Collection[str]) -> str:
        """One of these texts."""
        value = self._take(key)
        if type(value) is not str or value not in values:
            raise BadMessage(f"{key} is not one of {', '.join(values)}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self._take(key)
        # a huge integer would overflow in float(); comparing first keeps it out
        if type(value) not in (int, float) or not low <= value <= high:
            raise BadMessage(f"{key} is not a number from {low:g} to {high:g}")
        return float(value)

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """The same, or nil."""
        if key in self._rest and self._rest[key] is None:
            del self._rest[key]
            return None
        return self.number(key, low, high)

    def time(self, key: str) -> float:
        """Absolute seconds, as an engine's `now`."""
        value = self.number(key, -1e12, 1e12)
        assert math.isfinite(value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            raise BadMessage(f"{key} is not an integer from {low} to {high}")
        return value

    def items(self, key: str, high: int) -> list[Any]:
        """A list of at most `high` values, whatever they are."""
        value = self._take(key)
        if type(value) is not list or len(value) > high:
            raise BadMessage(f"{key} is not a list of at most {high}")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if type(value) is not bool:
            raise BadMessage(f"{key} is neither true nor false")
        return value

    def peer(self, key: str) -> PeerId:
        """A peer id."""
        try:
            return PeerId.from_bytes(self.data(key, 1, 64))
        except UsageError:
            raise BadMessage(f"{key} is no peer id") from None

    def done(self) -> None:
        """Nothing may be left over: what we do not understand must not seem agreed upon."""
        if self._rest:
            raise BadMessage(f"{len(self._rest)} unknown fields")

    def _take(self, key: str) -> Any:
        try:
            return self._rest.pop(key)
        except KeyError:
            raise BadMessage(f"{key} is missing") from None
