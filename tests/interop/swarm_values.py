"""The rules of namespace "swarm" in interop tests, the same as in js/node.mjs."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FORM = re.compile(rb"([0-9]{1,15}):")


class SwarmValues:
    """A value is `<number>:<text>`; the highest number is best."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return _FORM.match(value) is not None

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return max(range(len(values)), key=lambda index: int(values[index].split(b":")[0]))
