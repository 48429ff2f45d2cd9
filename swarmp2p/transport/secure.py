"""A TCP connection made secure: py-libp2p's Noise handshake, then encrypted packets in both directions.

The handshake (noise/README.md in libp2p's specs; pattern XX, identities signed) and the ciphers are py-libp2p's.
Only the packets in between are cut and joined here, in plain functions: py-libp2p reads each in two reads under
locks, which costs more than the cipher.
"""

from __future__ import annotations

from typing import Final

from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.secure_session import SecureSession

from ..errors import SwarmError
from ..identity import PeerId
from .multistream import choose, propose
from .tcp import TcpPipe

_MAX_PLAINTEXT: Final = 65_535 - 16  # a Noise message less its authentication tag
_LENGTH_BYTES: Final = 2


class HandshakeFailed(SwarmError):
    """No secure connection came about."""


class WrongPeer(HandshakeFailed):
    """The other side proved to be another peer than was dialled."""


class SecureChannel:
    """An encrypted, authenticated connection to `peer`. Ends for good when a packet was tampered with."""

    def __init__(self, pipe: TcpPipe, session: SecureSession) -> None:
        self.pipe = pipe
        self.peer = PeerId.from_bytes(session.get_remote_peer().to_bytes())
        self._cipher = session.conn
        self._packets = bytearray()
        self._kept = b""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side to read."""
        return self.pipe.unsent

    def push(self, data: bytes) -> None:
        """Encrypt and send, or keep what cannot be sent now."""
        packets = bytearray()
        for start in range(0, len(data), _MAX_PLAINTEXT):
            packet = self._cipher.encrypt(data[start : start + _MAX_PLAINTEXT])
            packets += len(packet).to_bytes(_LENGTH_BYTES, "big")
            packets += packet
        self.pipe.push(bytes(packets))

    async def read(self) -> bytes:
        """What has arrived; b"" at the end, also when a packet was not what the other side sent."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        plain = b""
        while not plain:
            chunk = await self.pipe.receive()
            if not chunk:
                return b""
            self._packets += chunk
            try:
                plain = self._decrypt()
            except Exception:  # noqa: BLE001 - whatever the cipher raises, the connection cannot be trusted
                self.pipe.shut()
                return b""
        return plain

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        self._kept = data + self._kept

    def _decrypt(self) -> bytes:
        packets, start, parts = self._packets, 0, list[bytes]()
        while len(packets) - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            end = body + int.from_bytes(packets[start:body], "big")
            if end > len(packets):
                break
            parts.append(self._cipher.decrypt(bytes(packets[body:end])))
            start = end
        del packets[:start]
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def secure(pipe: TcpPipe, noise: Noise, peer: PeerId | None) -> SecureChannel:
    """Agree on Noise and shake hands. peer: who must be there; None on the side that was dialled.

    Raises HandshakeFailed, WrongPeer; the pipe is left to the caller to close.
    """
    try:
        if peer is None:
            await choose(pipe, NOISE_ID.__eq__)
            session = await noise.secure_inbound(pipe)
        else:
            await propose(pipe, [NOISE_ID])
            session = await noise.secure_outbound(pipe, ID(bytes(peer)))
        assert isinstance(session, SecureSession)
        return SecureChannel(pipe, session)
    except PeerIDMismatchesPubkey:
        raise WrongPeer("another peer answers there") from None
    except Exception as problem:
        raise HandshakeFailed(f"no secure connection: {problem or type(problem).__name__}") from problem
