"""LoadSignal: what a provider says of how busy it is.

On the wire it is a canonical msgpack map with one-letter keys (signed.py), at most 200 bytes, and rides as
the data of a signed pubsub message on LOAD_TOPIC: the message's source is the provider, and its signature
covers the signal. Keys that we do not know are skipped, so that later versions may add some.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..errors import BadMessage, UsageError
from ..signed import pack_map, unpack_map

LOAD_TOPIC: Final = "swarm/load/1"
"""The pubsub topic of load signals."""

MAX_SIGNAL_BYTES: Final = 200
_MAX_KIND_BYTES: Final = 24
_MAX_REGION_BYTES: Final = 32
_MAX_COUNT: Final = 1 << 32
_MAX_SEQUENCE: Final = 1 << 63
_MAX_MEMORY_BYTES: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class LoadSignal:
    """One provider's load at one moment. Raises UsageError when a value is out of range.

    cpus_free, gpus_free: what a further lease could get, in Ray's units. memory_free_bytes: the same.
    in_flight: requests being served. leases: given at present. latency_s: the provider's estimate of how long
    a request takes now, in seconds; 0 for unknown. kind: a provider kind, at most 24 bytes. region: free
    text, at most 32 bytes. sequence: grows with each signal of a provider. expires: absolute, in seconds as
    `now`; both are filled in when the signal is published.
    """

    cpus_free: float = 0.0
    memory_free_bytes: int = 0
    gpus_free: float = 0.0
    in_flight: int = 0
    leases: int = 0
    latency_s: float = 0.0
    kind: str = ""
    region: str = ""
    sequence: int = 0
    expires: float = 0.0

    def __post_init__(self) -> None:
        # One chain for the usual case: signals are decoded by the thousand.
        if not (
            0 <= self.cpus_free < math.inf
            and 0 <= self.gpus_free < math.inf
            and 0 <= self.latency_s < math.inf
            and 0 <= self.expires < math.inf
            and 0 <= self.in_flight < _MAX_COUNT
            and 0 <= self.leases < _MAX_COUNT
            and 0 <= self.memory_free_bytes < _MAX_MEMORY_BYTES
            and 0 <= self.sequence < _MAX_SEQUENCE
            and _utf8_bytes(self.kind) <= _MAX_KIND_BYTES
            and _utf8_bytes(self.region) <= _MAX_REGION_BYTES
        ):
            raise UsageError(self._problem())

    def _problem(self) -> str:
        """Which value is out of range."""
        for name, limit in (
            ("in_flight", _MAX_COUNT),
            ("leases", _MAX_COUNT),
            ("memory_free_bytes", _MAX_MEMORY_BYTES),
            ("sequence", _MAX_SEQUENCE),
        ):
            value = getattr(self, name)
            if not 0 <= value < limit:
                return f"a load signal's {name} is at least 0 and below {limit}, not {value!r}"
        for name, limit in (("kind", _MAX_KIND_BYTES), ("region", _MAX_REGION_BYTES)):
            if _utf8_bytes(getattr(self, name)) > limit:
                return f"a load signal's {name} has at most {limit} bytes in UTF-8"
        for name in ("cpus_free", "gpus_free", "latency_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                return f"a load signal's {name} is a number of at least 0, not {value!r}"
        return f"a load signal's expires is a time of at least 0, not {self.expires!r}"


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def encode_signal(signal: LoadSignal) -> bytes:
    """At most MAX_SIGNAL_BYTES; raises UsageError for text that is not valid Unicode."""
    try:
        data = pack_map(
            {
                "c": _short(signal.cpus_free),
                "m": signal.memory_free_bytes,
                "g": _short(signal.gpus_free),
                "f": signal.in_flight,
                "l": signal.leases,
                "t": _short(signal.latency_s),
                "k": signal.kind,
                "r": signal.region,
                "s": signal.sequence,
                "e": _short(signal.expires),
            }
        )
    except UnicodeEncodeError:
        raise UsageError("a load signal's kind and region must be valid Unicode text") from None
    assert len(data) <= MAX_SIGNAL_BYTES, "the limits of LoadSignal's fields no longer add up"
    return data


@lru_cache(maxsize=1024)  # where many peers share a process (simulations), each signal is decoded many times
def decode_signal(data: bytes) -> LoadSignal:
    """The signal in a message's data; raises BadMessage for anything that is none, or longer than 200
    bytes."""
    fields = unpack_map(data, MAX_SIGNAL_BYTES)
    try:
        numbers = [fields[key] for key in "cgte"]
        counts = [fields[key] for key in "mfls"]
        kind, region = fields["k"], fields["r"]
    except KeyError as problem:
        raise BadMessage(f"not a load signal: {problem} is missing") from None
    # Exact types: a bool is an int to Python, and a text subclass cannot come out of msgpack.
    if not ({*map(type, numbers)} <= {int, float} and {*map(type, counts)} == {int}):
        raise BadMessage("not a load signal: a number is none")
    if type(kind) is not str or type(region) is not str:
        raise BadMessage("not a load signal: a text is none")
    cpus_free, gpus_free, latency_s, expires = map(float, numbers)
    memory_free_bytes, in_flight, leases, sequence = counts
    try:
        return LoadSignal(
            cpus_free,
            memory_free_bytes,
            gpus_free,
            in_flight,
            leases,
            latency_s,
            kind,
            region,
            sequence,
            expires,
        )
    except UsageError as problem:
        raise BadMessage(f"not a load signal: {problem}") from None


def _short(value: float) -> float:
    """Whole numbers take fewer bytes as integers."""
    return int(value) if value == int(value) and value < _MAX_SEQUENCE else float(value)
