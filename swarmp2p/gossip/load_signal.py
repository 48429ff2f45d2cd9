"""LoadSignal: what a provider says of how busy it is.

On the wire it is a canonical msgpack map with one-letter keys (signed.py), at most 200 bytes, and rides as
the data of a signed pubsub message on a load topic (load_shards.py): the message's source is the provider, and its
signature covers the signal. Keys that we do not know are skipped, so that later versions may add some; those that
earlier versions do not know are optional, and left out while they say nothing.

    c cpus_free   m memory_free_bytes   g gpus_free   f in_flight   l leases   t latency_s   k kind   r region
    s sequence    e expires             v coordinate  p speed       d served   h heartbeat_s  b depth

Numbers that are not whole are single-precision floats, expires is rounded up to whole seconds, and the kinds of
providers.py have codes of two bytes. The longest signal has 184 bytes, a usual one about 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgpack

from ..errors import BadMessage, UsageError
from ..settings import check_types
from ..signed import unpack_map

LOAD_TOPIC: Final = "swarm/load/1"
"""The pubsub topic of load signals while providers are few; the topics of shards begin with it."""

MAX_SIGNAL_BYTES: Final = 200
MAX_DEPTH: Final = 16
"""Most bits in a shard's name: 65,536 shards, for 10 million providers."""

_MAX_KIND_BYTES: Final = 24
_MAX_REGION_BYTES: Final = 32
_MAX_COORDINATE_BYTES: Final = 24
_MAX_COUNT: Final = 1 << 32
_MAX_AMOUNT: Final = float(1 << 32)
_MAX_TIME_S: Final = float(1 << 40)
_MAX_SEQUENCE: Final = 1 << 63
_MAX_MEMORY_BYTES: Final = 1 << 60

_CODES: Final[Mapping[str, str]] = {
    "individual": "#0",
    "data-centre": "#1",
    "edge-provider": "#2",
    "gaming-pc": "#3",
    "workstation": "#4",
    "gpu-cluster": "#5",
    "storage-centre": "#6",
    "edge-location": "#7",
    "regional-hub": "#8",
}
"""Kinds on the wire. Never changed; a further kind gets the next number, or goes as it is."""

_KINDS: Final[Mapping[str, str]] = {code: kind for kind, code in _CODES.items()}
_NEEDED: Final = ("c", "m", "g", "f", "l", "t", "k", "r", "s", "e")
_single: Final = msgpack.Packer(use_bin_type=True, use_single_float=True)


@dataclass(frozen=True, slots=True)
class LoadSignal:
    """One provider's load at one moment. Raises UsageError when a value is out of range.

    cpus_free, gpus_free: what a further lease could get, in Ray's units, below 2^32. memory_free_bytes: the same.
    in_flight: requests being served. leases: given at present. latency_s: the provider's estimate of how long
    a request takes now, in seconds; 0 for unknown. kind: a provider kind, at most 24 bytes. region: free
    text, at most 32 bytes. sequence: grows with each signal of a provider. expires: absolute, in seconds as
    `now`; both are filled in when the signal is published.

    coordinate: where the provider is, as encode_coordinate makes it (coordinates.py); b"" for unknown. speed: how
    fast it works beside others, such as the number of its CPUs; 0 for unknown. served: requests served since it
    started, modulo 2^32. heartbeat_s: its next signal comes within that many seconds; 0: it does not say. depth:
    bits in the name of the shard that it publishes in (load_shards.py). The last two are filled in when it is
    published by itself (SetLoad).
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
    coordinate: bytes = b""
    speed: float = 0.0
    served: int = 0
    heartbeat_s: float = 0.0
    depth: int = 0

    def __post_init__(self) -> None:
        # One chain for the usual case: signals are decoded by the thousand.
        try:
            good = (
                0 <= self.cpus_free < _MAX_AMOUNT
                and 0 <= self.gpus_free < _MAX_AMOUNT
                and 0 <= self.latency_s < _MAX_AMOUNT
                and 0 <= self.expires < _MAX_TIME_S
                and 0 <= self.in_flight < _MAX_COUNT
                and 0 <= self.leases < _MAX_COUNT
                and 0 <= self.memory_free_bytes < _MAX_MEMORY_BYTES
                and 0 <= self.sequence < _MAX_SEQUENCE
                and 0 <= self.speed < _MAX_AMOUNT
                and 0 <= self.served < _MAX_COUNT
                and 0 <= self.heartbeat_s < _MAX_AMOUNT
                and 0 <= self.depth <= MAX_DEPTH
                and len(self.coordinate) <= _MAX_COORDINATE_BYTES
                and self.kind not in _KINDS
                and _utf8_bytes(self.kind) <= _MAX_KIND_BYTES
                and _utf8_bytes(self.region) <= _MAX_REGION_BYTES
            )
        except (TypeError, AttributeError):  # a text for a number, or the other way round
            check_types(self)
            raise UsageError(f"a load signal's coordinate is bytes, not {self.coordinate!r}") from None
        if not good:
            raise UsageError(self._problem())

    def _problem(self) -> str:
        """Which value is out of range."""
        for name, limit in (
            ("in_flight", _MAX_COUNT),
            ("leases", _MAX_COUNT),
            ("served", _MAX_COUNT),
            ("memory_free_bytes", _MAX_MEMORY_BYTES),
            ("sequence", _MAX_SEQUENCE),
            ("depth", MAX_DEPTH + 1),
            ("cpus_free", _MAX_AMOUNT),
            ("gpus_free", _MAX_AMOUNT),
            ("latency_s", _MAX_AMOUNT),
            ("speed", _MAX_AMOUNT),
            ("heartbeat_s", _MAX_AMOUNT),
        ):
            value = getattr(self, name)
            if not 0 <= value < limit:
                return f"a load signal's {name} is at least 0 and below {limit:.0f}, not {value!r}"
        for name, limit in (("kind", _MAX_KIND_BYTES), ("region", _MAX_REGION_BYTES)):
            if _utf8_bytes(getattr(self, name)) > limit:
                return f"a load signal's {name} has at most {limit} bytes in UTF-8"
        if len(self.coordinate) > _MAX_COORDINATE_BYTES:
            return f"a load signal's coordinate has at most {_MAX_COORDINATE_BYTES} bytes"
        if self.kind in _KINDS:
            return f"a load signal's kind cannot be {self.kind!r}, which stands for {_KINDS[self.kind]}"
        return f"a load signal's expires is a time of at least 0, not {self.expires!r}"


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def encode_signal(signal: LoadSignal) -> bytes:
    """At most MAX_SIGNAL_BYTES; raises UsageError for text that is not valid Unicode."""
    fields: dict[str, object] = {  # keys sorted, which is what makes the form canonical
        "b": signal.depth,
        "c": _short(signal.cpus_free),
        "d": signal.served,
        "e": math.ceil(signal.expires),
        "f": signal.in_flight,
        "g": _short(signal.gpus_free),
        "h": _short(signal.heartbeat_s),
        "k": _CODES.get(signal.kind, signal.kind),
        "l": signal.leases,
        "m": signal.memory_free_bytes,
        "p": _short(signal.speed),
        "r": signal.region,
        "s": signal.sequence,
        "t": _short(signal.latency_s),
        "v": signal.coordinate,
    }
    for key in "bdhpv":
        if not fields[key]:
            del fields[key]
    try:
        data = bytes(_single.pack(fields))
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
        c, m, g, f, l, t, k, r, s, e = [fields[key] for key in _NEEDED]  # noqa: E741
    except KeyError as problem:
        raise BadMessage(f"not a load signal: {problem} is missing") from None
    optional: Any = fields.get
    v, p, d, h, b = optional("v", b""), optional("p", 0), optional("d", 0), optional("h", 0), optional("b", 0)
    # Exact types: a bool is an int to Python, and a text subclass cannot come out of msgpack.
    if not (
        {type(c), type(g), type(t), type(e), type(p), type(h)} <= {int, float}
        and type(m) is type(f) is type(l) is type(s) is type(d) is type(b) is int
    ):
        raise BadMessage("not a load signal: a number is none")
    if not (type(k) is str and type(r) is str and type(v) is bytes):
        raise BadMessage("not a load signal: a text is none")
    try:
        return LoadSignal(
            float(c),
            m,
            float(g),
            f,
            l,
            float(t),
            _KINDS.get(k, k),
            r,
            s,
            float(e),
            v,
            float(p),
            d,
            float(h),
            b,
        )
    except (UsageError, OverflowError) as problem:
        raise BadMessage(f"not a load signal: {problem}") from None


def _short(value: float) -> float:
    """Whole numbers take fewer bytes as integers."""
    whole = int(value)
    return whole if value == whole else float(value)
