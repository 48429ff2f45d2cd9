"""A connection made secure: py-libp2p's Noise handshake, then encrypted packets in both directions.

The handshake (noise/README.md in libp2p's specs; pattern XX, identities signed) and the ciphers are py-libp2p's.
Only the packets in between are cut, joined and ciphered here, in plain functions: py-libp2p reads each in two reads
under locks, which costs more than the cipher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, cast

from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.secure_session import SecureSession

from ..errors import SwarmError
from ..identity import PeerId
from ..network_key import NetworkKey
from .multistream import choose, propose
from .pipe import Pipe
from .private import ProtectedPipe

_MAX_PLAINTEXT: Final = 65_535 - 16  # a Noise message less its authentication tag
_LENGTH_BYTES: Final = 2
# Of a connection's n-th packet in one direction (Noise specification, "Cipher functions": 32 bits of zeros, then 64
# bits, little endian). 2⁶⁴ packets are never sent.
_nonce: Final = Struct("<4xQ").pack


class HandshakeFailed(SwarmError):
    """No secure connection came about."""


class WrongPeer(HandshakeFailed):
    """The other side proved to be another peer than was dialled."""


class SecureChannel:
    """An encrypted, authenticated connection to `peer`. Ends for good when a packet was tampered with."""

    def __init__(self, pipe: Pipe, session: SecureSession) -> None:
        self.pipe = pipe
        self.peer = PeerId.from_bytes(session.get_remote_peer().to_bytes())
        # Of the handshake, only the two keys and nonces are kept: the rest is 4 kB a connection.
        noise: Any = cast(Any, session.conn).noise_state.noise_protocol
        sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        self._encrypt: Callable[[bytes, bytes, None], bytes] = sending.cipher.cipher.encrypt
        self._decrypt_one: Callable[[bytes, bytes, None], bytes] = receiving.cipher.cipher.decrypt
        self._sent, self._received = int(sending.n), int(receiving.n)
        self._packets = b""  # the last one, as far as it has come
        self._kept = b""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side to read."""
        return self.pipe.unsent

    def push(self, data: bytes) -> None:
        """Encrypt and send, or keep what cannot be sent now."""
        parts: list[bytes] = []
        for start in range(0, len(data), _MAX_PLAINTEXT):
            packet = self._encrypt(_nonce(self._sent), data[start : start + _MAX_PLAINTEXT], None)
            self._sent += 1
            parts += (len(packet).to_bytes(_LENGTH_BYTES, "big"), packet)
        self.pipe.push(b"".join(parts))

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
            try:
                plain = self._decrypt(self._packets + chunk if self._packets else chunk)
            except Exception:  # noqa: BLE001 - whatever the cipher raises, the connection cannot be trusted
                self.pipe.shut()
                return b""
        return plain

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        self._kept = data + self._kept

    def _decrypt(self, packets: bytes) -> bytes:
        start, size, parts = 0, len(packets), list[bytes]()
        while size - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            end = body + int.from_bytes(packets[start:body], "big")
            if end > size:
                break
            parts.append(self._decrypt_one(_nonce(self._received), packets[body:end], None))
            self._received += 1
            start = end
        self._packets = packets[start:]
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class Security:
    """What makes a host's connections secure. network_key: of its private swarm; None in an open one."""

    noise: Noise
    network_key: NetworkKey | None = None


async def secure(pipe: Pipe, security: Security, peer: PeerId | None) -> SecureChannel:
    """Agree on Noise and shake hands, in a private swarm under its key. peer: who must be there; None on the side that
    was dialled.

    Raises HandshakeFailed, WrongPeer; the pipe is left to the caller to close.
    """
    key, noise = security.network_key, security.noise
    over = pipe if key is None else ProtectedPipe(pipe, key)
    try:
        if peer is None:
            await choose(over, NOISE_ID.__eq__)
            session = await noise.secure_inbound(over)
        else:
            await propose(over, [NOISE_ID])
            session = await noise.secure_outbound(over, ID(bytes(peer)))
        assert isinstance(session, SecureSession)
        return SecureChannel(over, session)
    except PeerIDMismatchesPubkey:
        raise WrongPeer("another peer answers there") from None
    except Exception as problem:
        told = f"no secure connection: {problem or type(problem).__name__}"
        raise HandshakeFailed(
            told if key is None else f"{told}; it may have another network key, or none"
        ) from problem
