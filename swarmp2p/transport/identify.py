"""libp2p's identify: what we say of ourselves to whoever asks, and asking a peer that dialled us where it listens.
identify/push (push.py) says the same to those connected when it changes.

py-libp2p's own costs 6 ms a connection (a record signed for each answer, signatures checked for each question).
Here the answer is built once, and of others' answers only addresses and protocol ids are read; both are what the
peer says of itself, and no more is made of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify

from ..engine import Address
from ..errors import BadMessage, SwarmError
from ..identity import Identity
from ..peer_record import MAX_RECORD_BYTES, seal_record
from ..wire import Framing
from .addresses import MAX_ADDRESS_BYTES, parse_transport, to_multiaddr
from .framing import FrameBuffer, encode_frame
from .multistream import begin, conclude
from .muxer import MuxedConnection, MuxedStream

PROTOCOL_ID: Final = "/ipfs/id/1.0.0"
PUSH_ID: Final = "/ipfs/id/push/1.0.0"
_PROTOCOL_VERSION: Final = "ipfs/0.1.0"
_MAX_BYTES: Final = 16_384  # go-libp2p allows 8 KiB to the message and as much to the signed record
_MAX_ADDRESSES: Final = 16


@dataclass(frozen=True, slots=True)
class Identified:
    """What a peer says of itself. addresses: where it listens, those that can be dialled, at most 16. record: its
    signed peer record, unverified; empty when it has none, or one of more than 4 KiB. observed: where it sees us, as
    it came; at most 256 bytes."""

    addresses: tuple[Address, ...]
    protocols: frozenset[str]
    agent: str
    record: bytes = b""
    observed: Address = b""


class Introduction:
    """Our answer to identify. public_key: the libp2p protobuf of our key. record: our signed peer record."""

    def __init__(
        self,
        public_key: bytes,
        agent: str,
        addresses: Sequence[Address],
        protocols: Sequence[str],
        record: bytes,
    ) -> None:
        self._message = Identify(
            protocol_version=_PROTOCOL_VERSION,
            agent_version=agent,
            public_key=public_key,
            listen_addrs=list(addresses),
            protocols=list(protocols),
            signedPeerRecord=record,
        ).SerializeToString()

    def answer(self, stream: MuxedStream) -> None:
        """Send it, with the address that we see the other side at; through a relay we see none."""
        body = self._message
        if stream.connection.relay is None:
            observed = to_multiaddr(*stream.connection.remote)
            # Serialised protobuf messages are joined by putting one behind the other.
            body += Identify(observed_addr=observed).SerializeToString()
        stream.push(encode_frame(body, Framing.UVARINT))
        stream.finish()


async def identify(connection: MuxedConnection, timeout_s: float) -> Identified | None:
    """Ask the other side who it is; None when it does not say, or not in time."""
    stream = connection.open()
    try:
        with trio.fail_after(timeout_s):
            await conclude(stream, begin(stream, [PROTOCOL_ID]))
            stream.finish()
            return await hear(stream)
    except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
        return None  # it does not say
    finally:
        stream.reset()


async def hear(stream: MuxedStream) -> Identified | None:
    """What the other side says of itself, over a stream of either protocol; None when it says nothing.

    Raises BadMessage, trio.BrokenResourceError.
    """
    buffer = FrameBuffer(Framing.UVARINT, _MAX_BYTES)
    while chunk := await stream.read():
        bodies = buffer.feed(chunk)
        if bodies:
            return _parse(bodies[0])
    return None


def _parse(body: bytes) -> Identified:
    """Raises BadMessage."""
    message = Identify()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise BadMessage("identify: no such message") from None
    found = (parse_transport(raw) for raw in list(message.listen_addrs)[:_MAX_ADDRESSES])
    record = message.signedPeerRecord
    return Identified(
        tuple(address.to_bytes() for address in found if address is not None),
        frozenset(message.protocols),
        message.agent_version[:128],
        record if len(record) <= MAX_RECORD_BYTES else b"",
        message.observed_addr[:MAX_ADDRESS_BYTES],
    )


def own_record(identity: Identity, addresses: Sequence[Address]) -> bytes:
    """Our signed peer record. Its sequence number is the time, in nanoseconds as go-libp2p's, so that one made after a
    restart is newer."""
    return seal_record(identity.peer_id, addresses, time.time_ns(), identity.sign)
