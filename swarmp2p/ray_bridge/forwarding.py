"""What a worker asks of its borrower's door to the package index, and the answers. Pure: bytes to decisions.

A request is the head of an HTTP/1.1 request to a proxy (RFC 9110 and 9112), as pip sends it:

    CONNECT host:443 HTTP/1.1            a tunnel, in which pip and the index speak TLS with each other
    GET http://host/simple/six/ HTTP/1.1  of an index without TLS
    GET / HTTP/1.1                       of the door itself: what pip is to be told

Each names the cluster's key; the host and port must be open. Whatever else comes is refused: what the sender says is
never passed on as it is, but for the path and for header fields of sound form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .package_index import Endpoint, PackageIndex, endpoint, endpoint_text, read_endpoint

MAX_HEAD_BYTES: Final = 16384
"""pip's are below 1 kB."""

_MAX_FIELDS: Final = 64
_USER: Final = b"worker"
_METHODS: Final = ("GET", "HEAD")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([ -~\t]*)")
_LINE: Final = re.compile(r"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.[01]")
_NOT_PASSED: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"proxy-authorization", "proxy-connection", "proxy-authenticate", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Connect there, and pass on what both sides send."""

    to: Endpoint


@dataclass(frozen=True, slots=True)
class Fetch:
    """Connect there, send this, and pass the answer on."""

    to: Endpoint
    head: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Answer with `settings`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer with `refusal`. status: of HTTP. reason: for who uses pip, printable ASCII."""

    status: int
    reason: str


def door_key(token: str) -> str:
    """What the members of a cluster show at its door: 32 hex digits, that say nothing of the token. `_ray_node.py` has
    the same, where nothing of swarmp2p is imported."""
    return hmac.new(token.encode(), b"swarmp2p package index", hashlib.sha256).hexdigest()[:32]


def read_request(head: bytes, index: PackageIndex, key: str) -> Tunnel | Fetch | Tell | Refused:
    """What to do for who sent that, up to and with the empty line. Never raises."""
    try:
        line, *rest = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError:
        return Refused(400, "this is no request to a proxy")
    found = _LINE.fullmatch(line)
    fields = [
        _FIELD.fullmatch(each) for each in rest[: _MAX_FIELDS + 1]
    ]  # of the others none is worth a look
    sound = [(each[1].lower(), each[2].strip(), each[0]) for each in fields if each is not None]
    if found is None or len(sound) < len(fields) or len(fields) > _MAX_FIELDS or len(head) > MAX_HEAD_BYTES:
        return Refused(400, "this is no request to a proxy")
    if not _knows(key, [value for name, value, _ in sound if name == "proxy-authorization"]):
        return Refused(407, "this door is for the workers of one cluster")
    method, target = found[1], found[2]
    if method == "CONNECT":
        try:
            where = read_endpoint(target)
        except ValueError:
            return Refused(400, "CONNECT takes host:port")
        if where in index.plain:  # in a tunnel, members could do there whatever the borrower can
            return Refused(405, f"{endpoint_text(where)} is an index without TLS: it takes GET and HEAD here")
        return Tunnel(where) if where in index.open else _closed(where, index)
    if method not in _METHODS:
        return Refused(405, "packages are fetched, nothing else is done here")
    if any(
        name == "transfer-encoding" or (name == "content-length" and value != "0") for name, value, _ in sound
    ):
        return Refused(400, "a request here has no content")
    if target == "/":
        return Tell()
    return _fetch(method, target, sound, index)


def _fetch(
    method: str, target: str, fields: list[tuple[str, str, str]], index: PackageIndex
) -> Fetch | Refused:
    try:
        where = endpoint(target)
        parts = urlsplit(target)
    except ValueError:
        return Refused(400, "this is no address of a package index")
    if parts.scheme != "http" or "@" in parts.netloc:
        return Refused(400, "a proxy is asked for http://host/path, and for CONNECT host:port")
    if where not in index.open:
        return _closed(where, index)
    named = {
        each.strip().lower() for name, value, _ in fields if name == "connection" for each in value.split(",")
    }
    kept = [text for name, _, text in fields if name not in _NOT_PASSED and name not in named]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = endpoint_text(where).removesuffix(":80")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *kept, "Connection: close", "", ""]
    return Fetch(where, "\r\n".join(lines).encode())


def _knows(key: str, shown: list[str]) -> bool:
    if len(shown) != 1 or not shown[0].lower().startswith("basic "):
        return False
    try:
        said = base64.b64decode(shown[0][6:].strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(said, b"%s:%s" % (_USER, key.encode()))


def _closed(where: Endpoint, index: PackageIndex) -> Refused:
    if not index.open:
        return Refused(
            403, "the borrower of this cluster offers no package index; borrow(index=...), --index names one"
        )
    return Refused(
        403,
        f"{endpoint_text(where)} is no host of the package index; borrow(index_hosts=...), --index-host add it",
    )


def settings(index: PackageIndex) -> bytes:
    """What `Tell` is answered with, head and all."""
    said = {
        "index": list(index.urls),
        "trusted": list(index.trusted),
        "certificates": index.certificates,
    }
    body = json.dumps(said).encode()
    return _answer(200, "OK", "application/json", body)


def refusal(refused: Refused) -> bytes:
    """An answer whose first line says why: pip shows it."""
    return _answer(refused.status, refused.reason, "text/plain", f"{refused.reason}\n".encode())


CONNECTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


def _answer(status: int, reason: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body
