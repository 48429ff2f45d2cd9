"""Keys of a session and of its carrier connections.

A session begins with a pair secret of 32 bytes, which both members made of signed ephemeral X25519 keys. All
keys come from it by HMAC-SHA256, written prf(key, label || data), with labels that say what for:

    tag        = prf(secret, "tag")[:16]                  names the session in the clear
    chain 0    = prf(secret, "chain")
    chain e    = prf(chain e-1, "next")                   one step for each carrier connection: its epoch
    proof      = prf(chain e, "hello" || first hello)     in the first hello
    carrier    = prf(chain e, "carrier" || X25519(fresh, fresh) || SHA-256(first hello || second hello))
    direction  = prf(carrier, "initiator") and prf(carrier, "responder")
    AEAD key   = prf(direction, "key")
    next one   = prf(direction, "rekey")                  after a record that says so

The pair secret is forgotten once chain 0 is made, chain e-1 once chain e is, a direction's key at each rekey;
so what was sent earlier stays closed to somebody who takes the memory of a process now. (Python frees such
bytes without overwriting them.) The fresh X25519 keys add that somebody who took a chain cannot read what
later carrier connections bring by listening alone.

The first hello offers ciphers, the second takes one. Both go into the carrier's keys: who changes either on
the way gets two sides whose first records do not open, and neither side believes anything before it has opened
one. AES-256-GCM is taken where both machines have AES instructions, else ChaCha20-Poly1305.

Nonces count records under a key and never repeat: see `records`. Rekeying keeps a key far below the limits of
its AEAD: see `SessionConfig.rekey_bytes`.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC

from .faults import Untrue

if TYPE_CHECKING:
    from random import Random

VERSION = 1
SECRET_BYTES = 32
TAG_BYTES = 16
PROOF_BYTES = 32
KEY_BYTES = 32
# Carrier connections that the initiator may have tried in vain since the responder saw the last one. A hello that
# names the last of them costs who checks it 0.35 ms, once: the next one 4 us.
EPOCHS_AHEAD_MOST = 256

_FIRST = struct.Struct(">16sBBI32s")
_SECOND = struct.Struct(">BB32s")
FIRST_BYTES = _FIRST.size + PROOF_BYTES
SECOND_BYTES = _SECOND.size


class Cipher(IntFlag):
    """Bits of the first hello's offer; the second hello has one of them."""

    CHACHA20_POLY1305 = 1
    AES_256_GCM = 2


def _prf(key: bytes, data: bytes) -> bytes:
    mac = HMAC(key, SHA256())
    mac.update(data)
    return mac.finalize()


def _digest(data: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(data)
    return digest.finalize()


class Chain:
    """The secret that is ratcheted forward: one step for each carrier connection.

    epoch: of the last carrier connection; an epoch is used once, for one connection.
    """

    __slots__ = ("_ahead", "_secret", "epoch", "tag")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a pair secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self.tag = _prf(secret, b"tag")[:TAG_BYTES]
        self._secret = _prf(secret, b"chain")
        self._ahead: list[bytes] = []  # of the epochs that follow, as far as somebody has named them
        self.epoch = 0

    def at(self, epoch: int) -> bytes:
        """The secret of a later epoch; nothing changes."""
        if epoch <= self.epoch:
            return self._secret
        ahead = self._ahead
        while len(ahead) < epoch - self.epoch:
            ahead.append(_prf(ahead[-1] if ahead else self._secret, b"next"))
        return ahead[epoch - self.epoch - 1]

    def move(self, epoch: int, secret: bytes) -> None:
        """Forget the secrets of all earlier epochs."""
        self.epoch, self._secret, self._ahead = epoch, secret, []


class Direction:
    """The key of one direction of one carrier connection, and its successors."""

    __slots__ = ("_cipher", "_secret", "decrypt", "encrypt")

    def __init__(self, secret: bytes, cipher: Cipher) -> None:
        self._cipher = cipher
        self._secret = secret
        self._load()

    def _load(self) -> None:
        key = _prf(self._secret, b"key")
        aead = AESGCM(key) if self._cipher is Cipher.AES_256_GCM else ChaCha20Poly1305(key)
        self.encrypt = aead.encrypt
        self.decrypt = aead.decrypt

    def rekey(self) -> None:
        self._secret = _prf(self._secret, b"rekey")
        self._load()


def _directions(secret: bytes, shared: bytes, hellos: bytes, cipher: Cipher) -> tuple[Direction, Direction]:
    carrier = _prf(secret, b"carrier" + shared + _digest(hellos))
    return Direction(_prf(carrier, b"initiator"), cipher), Direction(_prf(carrier, b"responder"), cipher)


def _offer(aes: bool) -> Cipher:
    return Cipher.CHACHA20_POLY1305 | (Cipher.AES_256_GCM if aes else Cipher(0))


class Greeting:
    """The initiator's side of one carrier connection's beginning: takes the next epoch."""

    __slots__ = ("_chain_secret", "_private", "first", "offer")

    def __init__(self, chain: Chain, rng: Random, aes: bool) -> None:
        epoch = chain.epoch + 1
        self._chain_secret = chain.at(epoch)
        chain.move(epoch, self._chain_secret)
        self.offer = _offer(aes)
        self._private = X25519PrivateKey.from_private_bytes(rng.randbytes(32))
        public = self._private.public_key().public_bytes_raw()
        head = _FIRST.pack(chain.tag, VERSION, self.offer, epoch, public)
        self.first = head + _prf(self._chain_secret, b"hello" + head)

    def answered(self, second: bytes) -> tuple[Direction, Direction]:
        """Keys of the initiator's and the responder's direction; only a first record shows that they are right."""
        version, taken, public = _SECOND.unpack(second)
        if version != VERSION:
            raise Untrue(f"the second hello has version {version}, not {VERSION}")
        if taken not in (Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM) or not taken & self.offer:
            raise Untrue("the second hello takes a cipher that was not offered")
        return _directions(
            self._chain_secret, _exchange(self._private, public), self.first + second, Cipher(taken)
        )


def answer(chain: Chain, first: bytes, rng: Random, aes: bool) -> tuple[bytes, Direction, Direction]:
    """The second hello, and keys of the initiator's and the responder's direction. Moves the chain.

    Raises Untrue, with the chain unchanged, unless the partner made this first hello for this session, and none
    of this or a later epoch has been answered.
    """
    tag, version, offer, epoch, public = _FIRST.unpack_from(first)
    if tag != chain.tag:
        raise Untrue("the first hello is for another session")
    if version != VERSION:
        raise Untrue(f"the first hello has version {version}, not {VERSION}")
    if not chain.epoch < epoch <= chain.epoch + EPOCHS_AHEAD_MOST:
        raise Untrue(f"the first hello has epoch {epoch} after {chain.epoch}")
    secret = chain.at(epoch)
    mac = HMAC(secret, SHA256())
    mac.update(b"hello" + first[: _FIRST.size])
    try:
        mac.verify(first[_FIRST.size :])
    except InvalidSignature:
        raise Untrue("the first hello was not made with the pair's secret") from None
    both = _offer(aes) & offer
    if not both:
        raise Untrue("the first hello offers no cipher that we have")
    cipher = Cipher.AES_256_GCM if both & Cipher.AES_256_GCM else Cipher.CHACHA20_POLY1305
    private = X25519PrivateKey.from_private_bytes(rng.randbytes(32))
    shared = _exchange(private, public)
    chain.move(epoch, secret)
    second = _SECOND.pack(VERSION, cipher, private.public_key().public_bytes_raw())
    return (second, *_directions(secret, shared, first + second, cipher))


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Untrue("the hello's X25519 key is one of the few that give no secret") from None
