"""Who a peer is: one Ed25519 key, and the PeerId made from it.

The same key is the libp2p identity, the signing key and, converted to X25519, the key that sealed boxes are
made for. A PeerId is libp2p's: the identity multihash of the protobuf-encoded public key (libp2p peer-ids
spec, "Ed25519 keys"), so the public key can be read back out of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, cast, overload

import base58
import nacl.bindings
import nacl.exceptions
import nacl.public
import nacl.signing

from .descriptors import remedy
from .errors import IdentityFileError, SealedBoxError, UsageError
from .private_file import prepare_private, publish_private, read_private

# identity multihash (0x00), 36 bytes (0x24), PublicKey{Type: Ed25519 (1), Data: 32 bytes}
_ED25519_PREFIX: Final = bytes.fromhex("002408011220")
_PEER_ID_BYTES: Final = len(_ED25519_PREFIX) + 32
_MAX_PEER_ID_BYTES: Final = 64
# A key file: this line, the seed in hex, the peer id. The first names the format, the last tells a damaged seed,
# which would be another key, from a sound one.
_FILE_HEADER: Final = "swarmp2p-ed25519-seed-v1"


class PeerId(bytes):
    """A libp2p peer id: its multihash bytes. Prints as base58btc text, as other implementations do."""

    __slots__ = ()

    @classmethod
    def from_public_key(cls, public_key: bytes) -> PeerId:
        """The id of a 32-byte Ed25519 public key."""
        if len(public_key) != 32:
            raise UsageError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
        return cls(_ED25519_PREFIX + public_key)

    @classmethod
    def from_text(cls, text: str) -> PeerId:
        """Parse base58btc text ("12D3KooW..." or "Qm..."); raises UsageError for anything else."""
        if not isinstance(cast(object, text), str):
            raise UsageError(f"{text!r} is no text of a peer id; one is base58 text like 12D3KooW...")
        try:
            return cls.from_bytes(base58.b58decode(text.strip()))
        except ValueError:  # UsageError is one
            raise UsageError(f"{text!r} is no peer id; one is base58 text like 12D3KooW...") from None

    @classmethod
    def from_bytes(cls, raw: bytes) -> PeerId:
        """Check that raw is a multihash of plausible shape; raises UsageError otherwise."""
        if not 4 <= len(raw) <= _MAX_PEER_ID_BYTES or raw[1] != len(raw) - 2 or raw[0] not in (0x00, 0x12):
            raise UsageError("these bytes are no peer id: not an identity or sha2-256 multihash")
        return cls(raw)

    @property
    def public_key(self) -> bytes | None:
        """The 32-byte Ed25519 key inside the id, or None when the id only holds a hash of its key."""
        if len(self) == _PEER_ID_BYTES and self.startswith(_ED25519_PREFIX):
            return bytes(self[len(_ED25519_PREFIX) :])
        return None

    @property
    def short(self) -> str:
        """The last eight characters, for messages to people: the beginnings are all alike."""
        return str(self)[-8:]

    def __str__(self) -> str:
        return base58.b58encode(bytes(self)).decode()

    def __repr__(self) -> str:
        return f"PeerId({self})"


def verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is that peer's Ed25519 signature of `data`. Never raises, whatever the bytes.

    Costs 54 µs with libsodium on the machines this was built on: call it for what is used, not for all
    that arrives.
    """
    key = peer.public_key
    if key is None or len(signature) != 64:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + data, key)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError, ValueError):
        return False
    return True


def seal_to(peer: PeerId, data: bytes) -> bytes:
    """Encrypt `data` so that only `peer` can read it (libsodium's sealed box: X25519, XSalsa20-Poly1305).

    The box says nothing about who made it: sign it where that matters. 48 bytes longer than `data`.
    Raises UsageError when the peer id does not contain an Ed25519 key that X25519 can use.
    """
    key = peer.public_key
    if key is None:
        raise UsageError(
            f"cannot seal to {peer}: its id holds only the hash of a key; ask for an Ed25519 peer"
        )
    try:
        target = nacl.public.PublicKey(nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(key))
    except (nacl.exceptions.CryptoError, RuntimeError):
        raise UsageError(f"cannot seal to {peer}: its key is no point of the curve") from None
    return bytes(nacl.public.SealedBox(target).encrypt(data))


class Identity:
    """A peer's private key and what can be done with it.

    Make one with `generate()`, `load(path)` or `load_or_create(path)`. The private key is never printed,
    pickled or compared.
    """

    __slots__ = ("_signing_key", "peer_id")

    def __init__(self, seed: bytes) -> None:
        """seed: the 32 bytes of an Ed25519 private key (RFC 8032's)."""
        if len(seed) != 32:
            raise UsageError(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        self._signing_key = nacl.signing.SigningKey(seed)
        self.peer_id: PeerId = PeerId.from_public_key(bytes(self._signing_key.verify_key))

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the system's random source; kept nowhere until `save` is called."""
        return cls(bytes(nacl.signing.SigningKey.generate()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read the identity at `path`.

        Raises IdentityFileError when the file is missing, readable or writable by others (mode looser than
        0600), not a regular file, or damaged. The file is never changed, and no identity is made.
        """
        name = _path_text(path)
        try:
            found = read_private(name, 4096)
        except FileNotFoundError:
            raise IdentityFileError(
                name, "there is no such file", "check the path, or make a new identity with load_or_create()"
            ) from None
        except OSError as problem:
            raise IdentityFileError(
                name,
                problem.strerror or str(problem),
                remedy(problem, "run as the file's owner, or correct the path"),
            ) from None
        if found is None:
            raise IdentityFileError(name, "it is not a regular file", "name a file")
        text, mode = found
        if mode & 0o077:
            raise IdentityFileError(
                name,
                f"its mode is {mode:04o}, so that others than its owner may have the key",
                f"if you trust that nobody read it: chmod 600 {name}; otherwise use a new identity",
            )
        try:
            identity = cls(bytes.fromhex(text.decode("ascii").split("\n")[1]))
            if identity._file_text() != text:
                raise ValueError("not what save() wrote")
        except (ValueError, IndexError):
            raise IdentityFileError(
                name,
                "its contents are no swarmp2p key (damaged, or another kind of file)",
                "restore it from a backup, or move it away to get a new identity, which is a new peer to all others",
            ) from None
        return identity

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str]) -> Identity:
        """Read the identity at `path`, or make one there when nothing exists at that path.

        An existing file that cannot be used raises IdentityFileError as in `load`: it is never replaced.
        """
        if not os.path.lexists(_path_text(path)):
            identity = cls.generate()
            try:
                identity.save(path)
            except FileExistsError:
                pass  # another process was first: its key is the one to use
            else:
                return identity
        return cls.load(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file, atomically and with mode 0600.

        Raises FileExistsError when something is there already (it is kept), IdentityFileError when the
        folder cannot be written to.
        """
        target = Path(_path_text(path))
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            prepared = prepare_private(target)
        except OSError as problem:
            raise IdentityFileError(
                str(target),
                problem.strerror or str(problem),
                remedy(problem, "choose a folder that you may write to"),
            ) from None
        try:
            publish_private(prepared, target, self._file_text())
        except FileExistsError:
            raise
        except OSError as problem:
            raise IdentityFileError(
                str(target),
                problem.strerror or str(problem),
                remedy(problem, "choose a folder on another file system"),
            ) from None

    def _file_text(self) -> bytes:
        return f"{_FILE_HEADER}\n{bytes(self._signing_key).hex()}\n{self.peer_id}\n".encode()

    @property
    def seed(self) -> bytes:
        """The 32-byte private seed, for handing the key to a libp2p host. Keep it secret."""
        return bytes(self._signing_key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data`. Put a domain-separation prefix into `data` (see signed.py)."""
        return self._signing_key.sign(_octets(data)).signature

    @overload
    def verify(self: Identity | PeerId | str, data: bytes, signature: bytes, /) -> bool: ...

    @overload
    def verify(self, peer: PeerId | str, data: bytes, signature: bytes, /) -> bool: ...

    def verify(self: Identity | PeerId | str, *parts: PeerId | str | bytes) -> bool:
        """Whether a signature of some data is a peer's; see the module's `verify`.

        `Identity.verify(peer, data, signature)` asks about any peer, and so does an identity's own `verify`,
        which with (data, signature) alone asks about itself. Raises UsageError for what are no bytes.
        """
        signer, data, signature = parts if len(parts) == 3 else (self, *parts)
        return verify(
            signer.peer_id if isinstance(signer, Identity) else _peer(signer),
            _octets(data),
            _octets(signature),
        )

    @staticmethod
    def seal_to(peer: PeerId | str, data: bytes) -> bytes:
        """Encrypt `data` for `peer` alone; see the module's `seal_to`."""
        return seal_to(_peer(peer), _octets(data))

    def open_sealed(self, box: bytes) -> bytes:
        """Decrypt what `seal_to(self.peer_id, ...)` made; raises SealedBoxError for anything else."""
        key = nacl.public.PrivateKey(
            nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(
                bytes(self._signing_key) + bytes(self._signing_key.verify_key)
            )
        )
        try:
            return bytes(nacl.public.SealedBox(key).decrypt(box))
        except (nacl.exceptions.CryptoError, ValueError, TypeError):
            raise SealedBoxError(
                f"the sealed box cannot be opened: it was not made for {self.peer_id}, or it was altered; "
                "have it sealed again to this peer id"
            ) from None

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "an Identity holds a private key and is not pickled; pass the path of its file instead"
        )


def _peer(value: object) -> PeerId:
    if isinstance(value, str):
        return PeerId.from_text(value)
    if not isinstance(value, PeerId):
        raise UsageError(f"a peer id, or its text like 12D3KooW..., is needed, not {value!r}")
    return value


def _octets(value: object) -> bytes:
    """Bytes, without saying in an error what they are: it might be a secret."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UsageError(f"bytes are needed, not {type(value).__name__}; encode text first")
    return bytes(value)


def _path_text(path: object) -> str:
    """A file's path as text; raises IdentityFileError for what can be none."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise IdentityFileError(repr(path), "that is no path", "name the key's file with a str or a Path")
    return text
