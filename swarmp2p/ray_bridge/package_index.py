"""A borrower's package index, as its workers may use it: which of what pip is configured with there they are told of,
and which hosts that opens to them. Pure; `_pip.py` asks pip, `index_door.py` lets workers reach it.

pip merges what it finds at all of its indexes, so one that is left out changes what is found. Left out are

    files and directories of the borrower's machine     workers see none of them; said to nobody, for pip says it there
    addresses with a user or a password                 lenders would read them; said, and given all the same to
                                                        workers when the borrower names the address itself (index=...)

What is open by pip's configuration alone is so where it has a public address; what is in the borrower's own network
has to be named, for whoever is there need no password, and lenders would be as if there (`is_public`).

If all of them are left out, there is no index: pip's own default does not take the place of one that is configured.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from ..errors import UsageError

MAX_URLS: Final = 16
MAX_HOSTS: Final = 64
MAX_URL_CHARS: Final = 2048
MAX_CERTIFICATES_BYTES: Final = 1 << 20
"""Of a bundle of certificates: the web's usual one has 0.2 MiB. A larger one is not passed on."""

Endpoint = tuple[str, int]
"""A host, in lower case and ASCII, an IPv6 address without brackets; and a port."""

_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_IPV6: Final = re.compile(r"[0-9a-f:.]{2,45}")
_SECTIONS: Final = ("global", "install", ":env:")  # of pip's configuration; the later ones count
_OWN_NETWORKS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
        *("::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/9", "ff00::/8"),
    )
)
"""Of RFC 6890's, those that networks use for themselves, and multicast."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""What gateways translate to the IPv4 address in its last bits (RFC 6052)."""

_TRUE: Final = ("y", "yes", "t", "true", "on", "1")  # as pip reads them


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What pip says on the borrower's machine. default: address of its own index; "" where there is no pip. files: the
    host that this one's files come from. config: as `pip config list` has it, such as "global.index-url".
    certificates: that it trusts, as PEM; "" for its own."""

    default: str = ""
    files: str = ""
    config: Mapping[str, str] | None = None
    certificates: str = ""

    def option(self, name: str) -> str:
        """What counts for `pip install`; "" where nothing does."""
        found = ""
        for section in _SECTIONS:
            found = (self.config or {}).get(f"{section}.{name}", "").strip() or found
        return found


@dataclass(frozen=True, slots=True)
class IndexWanted:
    """What a borrower names itself; made by `index_wanted`. urls: of indexes; None for those that pip knows, () for
    none. hosts: that their files come from, besides theirs."""

    urls: tuple[str, ...] | None = None
    hosts: tuple[Endpoint, ...] = ()


DEFAULT_INDEX: Final = IndexWanted()
"""What pip is configured with."""


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """What workers are told and may reach. urls: the index, then further ones. trusted: pip's trusted hosts.
    certificates: PEM, "" for the worker's own. open: all that can be connected to, sorted; named: of these, what the
    borrower has named, wherever it is; plain: those that are asked without TLS, for which pip has no tunnel. left_out:
    what there is besides, and why not, in words for the borrower."""

    urls: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    certificates: str = ""
    open: tuple[Endpoint, ...] = ()
    named: tuple[Endpoint, ...] = ()
    plain: tuple[Endpoint, ...] = ()
    left_out: tuple[str, ...] = ()


def package_index(pip: PipSettings, wanted: IndexWanted) -> PackageIndex:
    """What workers may use."""
    left_out = list[str]()
    urls = wanted.urls
    if urls is None:
        urls = _configured(pip, left_out)
    if not urls:
        return PackageIndex(left_out=tuple(left_out))
    named = {*map(endpoint, wanted.urls or ()), *wanted.hosts}
    of_any_kind = {*wanted.hosts, *(endpoint(url) for url in urls if urlsplit(url).scheme == "https")}
    if pip.files:  # where mirrors' pages often point to
        of_any_kind.add((pip.files, _PORTS["https"]))
    opened = named | of_any_kind | set(map(endpoint, urls))
    return PackageIndex(
        urls=urls,
        trusted=tuple(pip.option("trusted-host").split())[:MAX_HOSTS],
        certificates=pip.certificates,
        open=tuple(sorted(opened)),
        named=tuple(sorted(named)),
        plain=tuple(sorted(opened - of_any_kind)),
        left_out=tuple(left_out),
    )


def _configured(pip: PipSettings, left_out: list[str]) -> tuple[str, ...]:
    """Those that pip says and that workers can be told; the others into `left_out`."""
    if pip.option("no-index").lower() in _TRUE:
        return ()
    main = pip.option("index-url") or pip.default
    if not main:
        left_out.append(
            "this Python has no pip that says where packages come from: name it, borrow(index=...) or --index"
        )
        return ()
    found = dict[str, None]()
    for url in (main, *pip.option("extra-index-url").split()):
        try:
            endpoint(url)
        except ValueError:
            continue
        if "@" in urlsplit(url).netloc:
            left_out.append(
                f"the package index at {bare(url)} takes a password, which lenders would read: name it with one that "
                "they may know, borrow(index=...) or --index"
            )
        elif len(found) < MAX_URLS:
            found[url] = None
    return tuple(found)


def endpoint(url: str) -> Endpoint:
    """What an http or https address connects to. Raises ValueError, whatever the text is."""
    if len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("it is too long, or has characters that no address has")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("it does not begin with https:// or http://")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return host_name(parts.hostname or ""), checked_port(port)


def bare(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def host_name(text: str) -> str:
    """A host's name or address as it is compared: lower case, ASCII. Raises ValueError."""
    name = text.lower() if text.isascii() else text.encode("idna").decode().lower()
    if _NAME.fullmatch(name) is None and not (":" in name and _IPV6.fullmatch(name)):
        raise ValueError(f"{text[:100]!r} is no host's name")
    return name


def checked_port(port: int) -> int:
    """Raises ValueError for what is none."""
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    return port


def read_endpoint(text: str, port: int | None = None) -> Endpoint:
    """host:port, [IPv6 address]:port, or with a default for the port the host alone. Raises ValueError."""
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", text)
    if found is None or (found[3] is None and port is None):
        raise ValueError(f"{text[:100]!r} is not host:port")
    if found[1] is not None and ":" not in found[1]:
        raise ValueError(f"{text[:100]!r} has brackets around what is no IPv6 address")
    return host_name(found[1] or found[2]), checked_port(int(found[3] or port or 0))


def is_public(address: str) -> bool:
    """Whether an IP address is none that machines and sites give to what is theirs."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        meant += [ip.ipv4_mapped, ip.sixtofour]
        if ip in _NAT64:
            meant.append(ipaddress.IPv4Address(ip.packed[-4:]))
    return not any(each in network for each in meant if each is not None for network in _OWN_NETWORKS)


def endpoint_text(where: Endpoint) -> str:
    """As `read_endpoint` reads it."""
    host, port = where
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def index_wanted(urls: object, hosts: object) -> IndexWanted:
    """From borrow's arguments. Raises UsageError."""
    found = dict[str, None]()
    for url in () if urls is None else _many(urls, "index"):
        try:
            endpoint(url)
        except ValueError as problem:
            raise UsageError(
                f"{_shown(url)} is no package index that workers can reach: {problem}; write https://HOST/PATH, as for "
                "pip's --index-url. Nothing was started"
            ) from None
        found[url] = None
    opened = dict[Endpoint, None]()
    for host in _many(hosts, "index_hosts"):
        try:
            opened[read_endpoint(host, _PORTS["https"])] = None
        except ValueError:
            raise UsageError(
                f"{_shown(host)} is no host of a package index: write HOST or HOST:PORT (443 by default). Nothing was "
                "started"
            ) from None
    if len(found) > MAX_URLS or len(opened) > MAX_HOSTS:
        raise UsageError(
            f"{MAX_URLS} package indexes and {MAX_HOSTS} further hosts are the most. Nothing was started"
        )
    return IndexWanted(None if urls is None else tuple(found), tuple(opened))


def _many(value: object, what: str) -> list[str]:
    """One text or several."""
    several = [value] if isinstance(value, str) else value
    if isinstance(several, Iterable):
        texts = list(cast("Iterable[object]", several))
        if all(isinstance(text, str) for text in texts):
            return cast("list[str]", texts)
    raise UsageError(f"{what} is text, or several, not {value!r}. Nothing was started")


def _shown(given: str) -> str:
    """What was given, without a password in it."""
    return repr(re.sub(r"//[^/]*@", "//", given)[:200])
