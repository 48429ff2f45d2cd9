"""Private swarms: every connection is encrypted once more, with a key that only the swarm's peers have.

libp2p's pnet ("Private-Networks-PSK-V1" in its specs): each side sends a random nonce of 24 bytes, then everything
under XSalsa20 with the swarm's key and that nonce, from the first byte of multistream on. Noise inside proves who the
other side is; this keeps those out who have another key, or none. What they see are random bytes, and a connection that
is closed as soon as what they sent makes no sense: nothing says which protocol runs here.

Connections through a relay are protected end to end in the same way, inside of the protected connections to the relay,
as go- and js-libp2p do.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..network_key import NetworkKey
from .pipe import Pipe
from .xsalsa20 import NONCE_BYTES, xsalsa20

Cipher = Callable[[bytes], bytes]


class ProtectedPipe(Pipe):
    """A connection between two peers of a private swarm, over `pipe`.

    The side that dialled sends its nonce with its first bytes, the other one when it has the first's: whoever connects
    and says nothing hears nothing.
    """

    def __init__(self, pipe: Pipe, key: NetworkKey) -> None:
        self.is_initiator = pipe.is_initiator
        self.local, self.shares_port = pipe.local, pipe.shares_port
        self.relay, self.limit = pipe.relay, pipe.limit
        self._pipe, self._key = pipe, key
        self._kept = b""  # decrypted, and put back
        self._nonce = b""  # the other side's, as far as it has come
        self._encrypt: Cipher | None = None
        self._decrypt: Cipher | None = None

    @property
    def unsent(self) -> int:
        """How many bytes wait."""
        return self._pipe.unsent

    def push(self, data: bytes) -> None:
        """Send what can be sent now and keep the rest."""
        if self._encrypt is None:
            nonce = os.urandom(NONCE_BYTES)
            self._encrypt = xsalsa20(self._key.secret, nonce)
            self._pipe.push(nonce + self._encrypt(data))
        else:
            self._pipe.push(self._encrypt(data))

    async def drain(self) -> None:
        """Send what waits, until nothing does or the connection is closed."""
        await self._pipe.drain()

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end, however it came."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        while True:
            data = await self._pipe.receive()
            if self._decrypt is None and data:
                data = self._begin(data)
                if not data:
                    continue
            return self._decrypt(data) if self._decrypt is not None else b""

    def _begin(self, data: bytes) -> bytes:
        """Take the other side's nonce; returns what came behind it, still encrypted."""
        data = self._nonce + data
        self._nonce = data[:NONCE_BYTES]
        if len(self._nonce) < NONCE_BYTES:
            return b""
        self._decrypt = xsalsa20(self._key.secret, self._nonce)
        if self._encrypt is None:
            self.push(b"")  # the nonce alone: js-libp2p waits for it before it says more
        return data[NONCE_BYTES:]

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        self._kept = data + self._kept

    def shut(self) -> None:
        """Close the connection; what waits is lost."""
        self._pipe.shut()

    def get_remote_address(self) -> tuple[str, int]:
        """(ip, port) of the other side; of the relay where there is one."""
        return self._pipe.get_remote_address()
