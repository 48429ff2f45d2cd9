"""Validators that an application brings, kept from ending its peer.

What a validator looks at comes from anybody, and an engine takes for granted that it never raises. One that does, or
that chooses a value that is not there, is a bug which any peer could otherwise use to end this one. So here the value
counts as invalid (or the first as best), and the first such case of each namespace goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from .dht.validators import Validator
from .node import NodeConfig

_log = logging.getLogger(__name__)


def guarded(config: NodeConfig) -> NodeConfig:
    """The same settings with guarded validators."""
    validators = {name: Guarded(name, validator) for name, validator in config.dht.validators.items()}
    return replace(config, dht=replace(config.dht, validators=validators))


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
