"""Frames: what the control part of a record says, one after the other.

    type 1  integers big-endian
    OPEN    1  channel 4  port 2      a new channel to this port of the other member; the sender numbers it
    DATA    2  channel 4  length 2  bytes
    BODY    3  channel 4              the record's body is the channel's next bytes; at most one a record
    CREDIT  4  channel 4  bytes 4     the channel may send so many bytes more
    FINISH  5  channel 4              the sender sends no more on the channel
    RESET   6  channel 4              the channel is gone
    HEART   7  sent 8  echoed 8  held 8   microseconds; in records of their own that are not counted

The initiator's channels are odd, the responder's even; each side's rise by two. A channel begins with
`first_window_bytes` of credit each way, so data follows its OPEN at once.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .faults import Broken

OPEN, DATA, BODY, CREDIT, FINISH, RESET, HEART = range(1, 8)

_OPEN = struct.Struct(">BIH")
_DATA = struct.Struct(">BIH")
_CREDIT = struct.Struct(">BII")
_CHANNEL = struct.Struct(">BI")
_HEART = struct.Struct(">BQQQ")

DATA_HEAD_BYTES = _DATA.size
HEART_BYTES = _HEART.size


class Frame(NamedTuple):
    """number: an OPEN's port, a CREDIT's bytes. data: of DATA and BODY."""

    kind: int
    channel: int
    number: int = 0
    data: bytes = b""


class Heart(NamedTuple):
    """A heartbeat. sent: its sender's clock; echoed: `sent` of the last one it got, 0 before the first; held:
    for how long it has had that one. All in microseconds."""

    sent: int
    echoed: int
    held: int


def open_frame(channel: int, port: int) -> bytes:
    return _OPEN.pack(OPEN, channel, port)


def data_head(channel: int, length: int) -> bytes:
    return _DATA.pack(DATA, channel, length)


def body_frame(channel: int) -> bytes:
    return _CHANNEL.pack(BODY, channel)


def credit_frame(channel: int, credit_bytes: int) -> bytes:
    return _CREDIT.pack(CREDIT, channel, credit_bytes)


def finish_frame(channel: int) -> bytes:
    return _CHANNEL.pack(FINISH, channel)


def reset_frame(channel: int) -> bytes:
    return _CHANNEL.pack(RESET, channel)


def heart_frame(heart: Heart) -> bytes:
    return _HEART.pack(HEART, *heart)


def parse_heart(control: bytes, at: int) -> Heart | None:
    """What a record that is not counted says: nothing or one heartbeat."""
    if at == len(control):
        return None
    if len(control) - at != HEART_BYTES or control[at] != HEART:
        raise Broken("a record that is not counted holds more than a heartbeat")
    return Heart(*_HEART.unpack_from(control, at)[1:])


def parse(control: bytes, at: int, body: bytes | None) -> list[Frame]:
    """The frames from `at` on. Raises Broken, with nothing done, unless every byte belongs to one."""
    frames = []
    size = len(control)
    try:
        while at < size:
            kind = control[at]
            if kind == DATA:
                _, channel, length = _DATA.unpack_from(control, at)
                at += DATA_HEAD_BYTES + length
                if at > size:
                    raise Broken("a DATA frame ends behind its record")
                frames.append(Frame(DATA, channel, 0, control[at - length : at]))
            elif kind == CREDIT:
                _, channel, number = _CREDIT.unpack_from(control, at)
                at += _CREDIT.size
                frames.append(Frame(CREDIT, channel, number))
            elif kind == OPEN:
                _, channel, number = _OPEN.unpack_from(control, at)
                at += _OPEN.size
                frames.append(Frame(OPEN, channel, number))
            elif FINISH <= kind <= RESET or (kind == BODY and body is not None):
                _, channel = _CHANNEL.unpack_from(control, at)
                at += _CHANNEL.size
                if kind == BODY:
                    assert body is not None
                    frames.append(Frame(DATA, channel, 0, body))
                    body = None
                else:
                    frames.append(Frame(kind, channel))
            else:
                raise Broken(f"there is no frame of type {kind} here")
    except struct.error:
        raise Broken("a frame ends behind its record") from None
    if body is not None:
        raise Broken("a record has a body that no frame speaks of")
    return frames
