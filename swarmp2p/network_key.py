"""The key of a private swarm: 32 random bytes that all of its peers have, and nobody else.

Files have the form that go-libp2p, js-libp2p and IPFS read and write (pnet, "Private-Networks-PSK-V1" in libp2p's
specs): a line that names the kind of key, a line that names the encoding, the key.

    /key/swarm/psk/1.0.0/
    /base16/
    64 hexadecimal digits
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Final, cast

from .descriptors import remedy
from .errors import NetworkKeyError
from .private_file import prepare_private, publish_private, read_private

KEY_BYTES: Final = 32
_HEADER: Final = b"/key/swarm/psk/1.0.0/"
_MAX_FILE_BYTES: Final = 4096
_HOW: Final = "make one with: swarmp2p network-key FILE"


class NetworkKey:
    """A private swarm's key. It is never printed, pickled or compared; `name` tells two of them apart."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """secret: 32 bytes. Raises NetworkKeyError for others."""
        if not isinstance(cast(object, secret), bytes) or len(secret) != KEY_BYTES:
            raise NetworkKeyError("", f"a network key has {KEY_BYTES} bytes", _HOW)
        self._secret = secret

    @classmethod
    def generate(cls) -> NetworkKey:
        """A new one, from the system's random source; kept nowhere until `save` is called."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, value: NetworkKey | bytes | str | os.PathLike[str]) -> NetworkKey:
        """From whatever holds one: its 32 bytes, the contents of its file, or the path of its file.

        Raises NetworkKeyError.
        """
        raw = cast(object, value)
        if isinstance(raw, NetworkKey):
            return raw
        if isinstance(raw, bytes):
            return cls(raw) if len(raw) == KEY_BYTES else cls.parse(raw)
        if isinstance(raw, str) and raw.encode(errors="replace").startswith(_HEADER):
            return cls.parse(raw.encode())
        if isinstance(raw, str | os.PathLike):
            return cls.load(cast("str | os.PathLike[str]", raw))
        raise NetworkKeyError("", f"a {type(raw).__name__} holds none", _HOW)

    @classmethod
    def parse(cls, contents: bytes, path: str = "") -> NetworkKey:
        """The key in a file's contents; raises NetworkKeyError, which does not repeat any of them."""
        header, _, rest = contents.lstrip().partition(b"\n")
        if header.rstrip() != _HEADER:
            raise NetworkKeyError(path, f"its first line is not {_HEADER.decode()}", _HOW)
        encoding, _, body = rest.partition(b"\n")
        try:
            match encoding.rstrip():
                case b"/base16/":
                    secret = bytes.fromhex(body.decode("ascii").strip())
                case b"/base64/":
                    secret = base64.b64decode(body.strip(), validate=True)
                case b"/bin/":
                    secret = body[:KEY_BYTES]
                case _:
                    raise NetworkKeyError(path, "its second line is none of /base16/, /base64/, /bin/", _HOW)
        except ValueError:
            raise NetworkKeyError(path, "its third line is not encoded as the second says", _HOW) from None
        if len(secret) != KEY_BYTES:
            raise NetworkKeyError(path, f"the key in it has {len(secret)} bytes, not {KEY_BYTES}", _HOW)
        return cls(secret)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NetworkKey:
        """Read the key at `path`. Raises NetworkKeyError when the file is missing, may be read or written by others
        than its owner, or holds no key."""
        name = os.fspath(path)
        try:
            found = read_private(name, _MAX_FILE_BYTES)
        except (OSError, ValueError) as problem:
            told = (problem.strerror or str(problem)) if isinstance(problem, OSError) else "that is no path"
            advice = remedy(problem, "check the path, or " + _HOW) if isinstance(problem, OSError) else _HOW
            raise NetworkKeyError(repr(name) if "\0" in name else name, told.lower(), advice) from None
        if found is None:
            raise NetworkKeyError(name, "it is not a regular file", "name a file")
        contents, mode = found
        if mode & 0o077:
            raise NetworkKeyError(
                name,
                f"its mode is {mode:04o}, so that others than its owner may have the key",
                f"if you trust that nobody read it: chmod 600 {name}; otherwise give the swarm a new key",
            )
        return cls.parse(contents, name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file with mode 0600. Raises NetworkKeyError when there is one already, which is kept,
        or when it cannot be written."""
        target = Path(path)
        try:
            publish_private(prepare_private(target), target, self.text.encode())
        except FileExistsError:
            raise NetworkKeyError(str(target), "there is such a file already", "name another one") from None
        except OSError as problem:
            advice = remedy(problem, "choose a folder that you may write to")
            raise NetworkKeyError(str(target), (problem.strerror or str(problem)).lower(), advice) from None

    @property
    def text(self) -> str:
        """The contents of its file. Whoever has them is in the swarm."""
        return f"{_HEADER.decode()}\n/base16/\n{self._secret.hex()}\n"

    @property
    def secret(self) -> bytes:
        """The 32 bytes. Keep them to the swarm's peers."""
        return self._secret

    @property
    def name(self) -> str:
        """Eight characters that are the same for peers with the same key, and say nothing of it: to compare."""
        return hashlib.sha256(b"swarmp2p:network-key-name\0" + self._secret).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"NetworkKey({self.name})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a NetworkKey is a secret and is not pickled; pass the path of its file instead")
