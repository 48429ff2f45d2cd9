"""XSalsa20: Salsa20 with nonces of 24 bytes, so that random ones never meet.

"Extending the Salsa20 nonce" (D. J. Bernstein, 2011): HSalsa20 makes a key of its own out of the key and the nonce's
first 16 bytes, and Salsa20 goes on with that and the last 8. libsodium has both, but PyNaCl offers neither; the stream
itself, which is all that has to be fast, is PyCryptodome's (1 GB/s).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from Crypto.Cipher import Salsa20

NONCE_BYTES: Final = 24
_words: Final = Struct("<16I")
_result: Final = Struct("<8I").pack
_CONSTANTS: Final = b"expand 32-byte k"
_MASK: Final = 0xFFFFFFFF
# Quarter-rounds on a 4 x 4 matrix of words: its columns, each from the diagonal on, then its rows.
_COLUMNS: Final = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS: Final = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))
_SHIFTS: Final = (7, 9, 13, 18)


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """32 bytes out of a key of 32 and a nonce of 16. Takes 0.1 ms: once for each direction of a connection."""
    fixed = [_CONSTANTS[at : at + 4] for at in range(0, 16, 4)]
    block = fixed[0] + key[:16] + fixed[1] + nonce + fixed[2] + key[16:] + fixed[3]
    state = list(_words.unpack(block))
    for _ in range(10):
        for quarter in (*_COLUMNS, *_ROWS):
            for step, shift in enumerate(_SHIFTS):
                target = quarter[(step + 1) % 4]
                total = state[quarter[step]] + state[quarter[(step + 3) % 4]] & _MASK
                state[target] ^= (total << shift | total >> 32 - shift) & _MASK
    return _result(*(state[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))


def xsalsa20(key: bytes, nonce: bytes) -> Callable[[bytes], bytes]:
    """A stream cipher from its beginning: each call goes on where the one before ended; it en- and decrypts alike.

    It hides, and proves nothing: altered bytes come out altered.
    """
    return Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:]).encrypt
