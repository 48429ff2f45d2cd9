"""What the peer's process and its plane say to each other.

Over a Unix SOCK_SEQPACKET socket, one JSON object a packet (the plane's process has nothing but the standard library
and `cryptography`); members and secrets are in hex. Each request has an id that its answer repeats:

    -> {"id": 7, "do": "listen", "target": "ab..", "address": "127.64.0.3", "ports": [20000, 20001]}
    <- {"id": 7}                            done
    <- {"id": 7, "error": "why"}            refused, and nothing changed
    <- {"event": "carrier_up", "target": "ab..", "kind": "tcp"}

`carry` comes with a descriptor. Both ends trust each other: they are one program in two processes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, cast

MAX_PACKET_BYTES: Final = 131_072
"""Largest packet; below the 208 KiB that a Unix socket takes by default."""
MAX_PORTS: Final = 8192
"""Ports in one request; 6 bytes each, so that it stays within a packet."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class CarrierUp:
    """A carrier to a member stands, and the other side has proved itself on it. kind: "tcp" or "stream"."""

    target: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class CarrierLost:
    """The carrier broke. Nothing is lost yet: the plane dials again, until Silent."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing was heard of a member for the session's limit: the pair's connections were reset, and new ones are
    refused until `session` is called with a new secret."""

    target: bytes


@dataclass(frozen=True, slots=True)
class NeedStream:
    """No endpoint of a member can be dialled: give `carry` a libp2p stream. Comes again, ever more rarely, until
    there is a carrier. Only the initiator asks."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The plane's process has ended by itself, and all connections with it. reason: why, in one line."""

    reason: str


PlaneEvent = CarrierUp | CarrierLost | Silent | NeedStream | Ended

_NAMES: Final[dict[type[PlaneEvent], str]] = {
    CarrierUp: "carrier_up",
    CarrierLost: "carrier_lost",
    Silent: "silent",
    NeedStream: "need_stream",
    Ended: "ended",
}


def encode(message: Json) -> bytes:
    """One packet."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode(packet: bytes) -> Json:
    """The object in a packet. Raises ValueError."""
    message = json.loads(packet)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return cast(Json, message)


def event_to_json(event: PlaneEvent) -> Json:
    """An event as it goes into a packet."""
    name = _NAMES[type(event)]
    if isinstance(event, Ended):
        return {"event": name, "reason": event.reason}
    if isinstance(event, CarrierUp):
        return {"event": name, "target": event.target.hex(), "kind": event.kind}
    return {"event": name, "target": event.target.hex()}


def event_from_json(message: Json) -> PlaneEvent | None:
    """The event in a packet; None when it is none that we know."""
    name = message.get("event")
    if name == "ended":
        return Ended(str(message.get("reason", "")))
    target = bytes.fromhex(str(message.get("target", "")))
    if name == "carrier_up":
        return CarrierUp(target, str(message.get("kind", "")))
    if name == "carrier_lost":
        return CarrierLost(target)
    if name == "silent":
        return Silent(target)
    if name == "need_stream":
        return NeedStream(target)
    return None
