"""Signed service records: a provider's own, expiring statement that it offers a named service.

A record is an envelope of signed.py in the domain "service-record" over the flat map

    attrs     attribute names to str, int, float or bool
    depths    where there are so many providers that they are spread over shards: at which depth (shards.py) this one
              publishes, by the attribute's name, "" for the service itself; what is missing is 0
    expires   when it stops being true, seconds since the epoch; 0 in a withdrawal
    seq       grows with each record of this provider; the newest wins
    service   the name

The signer is the provider: who it is stands outside, in the provider message that carries the record. Unknown
fields are ignored, so that later versions may add some. An envelope stays under 512 bytes: 20 of them fit
into the 16 KiB of a reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ..errors import BadMessage, UsageError
from ..identity import PeerId
from ..signed import Sign, Verify, open_signed, sign_map, split_signed, unpack_map
from .shards import MAX_DEPTH

Attribute = str | int | float | bool

Depths = Mapping[str, int]
"""Attribute names to depths; "" stands for the service."""

DOMAIN: Final = "service-record"
MAX_ENVELOPE_BYTES: Final = 511
MAX_SERVICE_BYTES: Final = 64
_MAX_ATTRIBUTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_NO_DEPTHS: Final[Depths] = {}


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A verified record.

    expires: seconds as `now`; 0 in a withdrawal. sequence: the newest record of a provider is the one that
    counts. envelope: the signed bytes, to be handed on as they are. depths: as in the module's docstring.
    """

    provider: PeerId
    service: str
    attributes: Mapping[str, Attribute] = field(hash=False)
    sequence: int
    expires: float
    envelope: bytes = field(repr=False)
    depths: Depths = field(default_factory=dict[str, int], hash=False, repr=False)

    def is_valid(self, now: float, clock_error_s: float) -> bool:
        """Whether the provider stands by it: neither withdrawn nor past its expiry."""
        return _is_valid(self.expires, now, clock_error_s)


@dataclass(frozen=True, slots=True)
class RecordClaim:
    """What an envelope says, not verified: enough to decide whether it is worth verifying or keeping.

    attributes: at most 32, with values of any kind."""

    service: str
    sequence: int
    expires: float
    depths: Depths = field(default_factory=dict[str, int])
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def withdrawn(self) -> bool:
        """Whether it takes earlier records back."""
        return self.expires <= 0

    def is_valid(self, now: float, clock_error_s: float) -> bool:
        """Whether it would hold now, were it genuine."""
        return _is_valid(self.expires, now, clock_error_s)


def _is_valid(expires: float, now: float, clock_error_s: float) -> bool:
    return expires > 0 and now <= expires + clock_error_s


def make_record(
    provider: PeerId,
    service: str,
    attributes: Mapping[str, Attribute],
    sequence: int,
    expires: float,
    sign: Sign,
    depths: Depths = _NO_DEPTHS,
) -> ServiceRecord:
    """Sign a record; `expires` of 0 makes a withdrawal. Check the attributes with `check_attributes`
    first."""
    kept = {name: attributes[name] for name in sorted(attributes)}
    fields: dict[str, object] = {
        "attrs": kept,
        "expires": float(expires),
        "seq": sequence,
        "service": service,
    }
    split = {name: depths[name] for name in sorted(depths) if depths[name]}
    if split:
        fields["depths"] = split
    envelope = sign_map(DOMAIN, fields, sign)
    return ServiceRecord(provider, service, kept, sequence, float(expires), envelope, split)


def open_record(provider: PeerId, envelope: bytes, verify: Verify) -> ServiceRecord:
    """The record inside an envelope that `provider` signed; raises BadMessage when it is malformed or forged.

    Costs one signature check (54 µs): look at `read_claim` first where that may save it.
    """
    fields = open_signed(DOMAIN, envelope, provider, verify, MAX_ENVELOPE_BYTES)
    claim = _claim(fields)
    attributes = fields.get("attrs")
    if not isinstance(attributes, dict) or len(attributes) > _MAX_ATTRIBUTES:
        raise BadMessage("a service record without a map of attributes")
    if not all(isinstance(name, str) and _is_attribute(value) for name, value in attributes.items()):
        raise BadMessage("a service record with attributes other than text, numbers and truth values")
    return ServiceRecord(
        provider, claim.service, attributes, claim.sequence, claim.expires, envelope, claim.depths
    )


def read_claim(envelope: bytes) -> RecordClaim:
    """What an envelope says, without checking who signed it (4 µs); raises BadMessage when it says
    nothing."""
    payload, _ = split_signed(envelope, MAX_ENVELOPE_BYTES)
    return _claim(unpack_map(payload, MAX_ENVELOPE_BYTES))


def _claim(fields: Mapping[str, Any]) -> RecordClaim:
    service, sequence, expires = fields.get("service"), fields.get("seq"), fields.get("expires")
    if not isinstance(service, str) or not is_service_name(service):
        raise BadMessage("a service record without a usable service name")
    if type(sequence) is not int or not 0 <= sequence < 1 << 63:
        raise BadMessage("a service record without a usable sequence number")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires < math.inf:
        raise BadMessage("a service record without a usable expiry")
    return RecordClaim(
        service,
        sequence,
        float(expires),
        _depths(fields.get("depths")),
        _named(fields.get("attrs")),
    )


def _named(value: object) -> Mapping[str, object]:
    """A record's map of attributes; what is none has none."""
    if not isinstance(value, dict):
        return {}
    attributes = cast(dict[object, object], value)
    # msgpack's own check of map keys lets bytes pass.
    if len(attributes) > _MAX_ATTRIBUTES or not all(isinstance(name, str) for name in attributes):
        raise BadMessage("a service record with attributes that are no map of names")
    return cast(dict[str, object], attributes)


def _depths(value: object) -> Depths:
    if value is None:
        return _NO_DEPTHS
    if not isinstance(value, dict) or len(value) > _MAX_ATTRIBUTES + 1:
        raise BadMessage("a service record with depths that are no map")
    depths = cast(dict[object, object], value)
    if not all(isinstance(name, str) and _is_depth(depth) for name, depth in depths.items()):
        raise BadMessage("a service record with depths that are none")
    return cast(dict[str, int], depths)


def _is_depth(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_DEPTH


def is_service_name(service: str) -> bool:
    """Whether this can be the name of a service: 1 to 64 bytes of UTF-8."""
    try:
        return 0 < len(service.encode()) <= MAX_SERVICE_BYTES
    except UnicodeEncodeError:  # lone surrogates
        return False


def check_attributes(service: str, attributes: Mapping[str, Attribute]) -> None:
    """Raise UsageError for a service that cannot be announced; to be called before Announce is posted.

    A service name has 1 to 64 bytes. There are at most 32 attributes; names are text, values are text, whole
    numbers of 64 bits, finite floats or truth values. The signed record stays under 512 bytes.
    """
    if not is_service_name(service):
        raise UsageError(
            f"{service!r} cannot name a service: a name has 1 to {MAX_SERVICE_BYTES} bytes of UTF-8"
        )
    if len(attributes) > _MAX_ATTRIBUTES:
        raise UsageError(
            f"service {service!r} has {len(attributes)} attributes; at most {_MAX_ATTRIBUTES} are allowed"
        )
    for item in attributes.items():
        name, value = cast(tuple[object, object], item)  # callers without a type checker pass anything
        if not isinstance(name, str) or not name or not _is_text(name):
            raise UsageError(f"attribute name {name!r} of service {service!r} is no text; use a str of UTF-8")
        if not _is_attribute(value):
            raise UsageError(
                f"attribute {name!r} of service {service!r} cannot be announced: {value!r} is neither text, "
                "a 64-bit whole number, a finite float nor a bool; convert it, for example with str()"
            )
    record = make_record(PeerId(), service, attributes, (1 << 63) - 1, 1e10, _unsigned)
    if len(record.envelope) > MAX_ENVELOPE_BYTES:
        raise UsageError(
            f"the record of service {service!r} would have {len(record.envelope)} bytes; at most "
            f"{MAX_ENVELOPE_BYTES} are allowed. Shorten the attributes, or put a link to the data into one"
        )


def _is_attribute(value: object) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and _is_text(value)


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _unsigned(data: bytes) -> bytes:
    return bytes(_SIGNATURE_BYTES)


class RecordReader:
    """Opens envelopes, and remembers those that were genuine: the same record comes from 20 holders, and
    again with each find.

    max_records: remembered; the one used longest ago is forgotten beyond.
    """

    def __init__(self, verify: Verify, max_records: int = 1_024) -> None:
        self._verify, self._max = verify, max_records
        self._opened: dict[tuple[PeerId, bytes], ServiceRecord] = {}

    def open(self, provider: PeerId, envelope: bytes) -> ServiceRecord:
        """As `open_record`."""
        record = self._opened.pop((provider, envelope), None)
        if record is None:
            record = open_record(provider, envelope, self._verify)
            if len(self._opened) >= self._max:
                del self._opened[next(iter(self._opened))]
        self._opened[provider, envelope] = record
        return record
