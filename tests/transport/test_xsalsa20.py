"""XSalsa20 against its paper's example and libsodium's own."""

from __future__ import annotations

import nacl.bindings
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.xsalsa20 import hsalsa20, xsalsa20


def test_the_papers_example() -> None:
    """Bernstein, "Cryptography in NaCl", section 8: HSalsa20 of a shared key and a zero nonce, and of that with a
    nonce."""
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    first = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    second = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
    assert hsalsa20(shared, bytes(16)) == first
    assert hsalsa20(first, bytes.fromhex("69696ee955b62b73cd62bda875fc73d6")) == second


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=24, max_size=24),
    st.lists(st.binary(max_size=200), max_size=8),
)
def test_it_is_libsodiums_whatever_the_pieces(key: bytes, nonce: bytes, pieces: list[bytes]) -> None:
    stream = xsalsa20(key, nonce)
    stream(bytes(32))  # which secretbox uses for its authenticator
    together = b"".join(pieces)
    box = nacl.bindings.crypto_secretbox(together, nonce, key)
    assert b"".join(stream(piece) for piece in pieces) == box[nacl.bindings.crypto_secretbox_BOXZEROBYTES :]
