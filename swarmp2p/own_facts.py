"""What a peer can say of itself as a member of clusters: its addresses, its machine, what is free there."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from multiaddr.multiaddr import Multiaddr

from .identity import PeerId
from .transport.mesh.members import (
    HEAD_ADDRESS,
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    MAX_ENDPOINTS,
    Carrier,
    Endpoint,
    Facts,
    MemberId,
)

_IP_CODES: Final = (0x04, 0x29)
_RELAYED: Final = 0x0122
_TOGETHER: Final = 16  # ports that are reserved at a time: a head's block takes six descriptors


def own_facts(
    peer: Sequence[Multiaddr],
    *,
    reachable: bool,
    carriers: tuple[Carrier, ...],
    lacks: tuple[tuple[Carrier, str], ...],
    endpoints: Iterable[tuple[str, int]],
    machine: bytes,
    wireguard: tuple[bytes, int] | None,
) -> Facts:
    """The facts of a peer at these addresses. endpoints: of its plane. wireguard: key and port of its interface.

    Who cannot be reached from outside takes WireGuard's packets nowhere.
    """
    addresses = [_transport(address) for address in peer]
    key, port = wireguard or (b"", 0)
    udp = dict.fromkeys(own_ips(peer)) if wireguard is not None and reachable else {}
    return Facts(
        carriers=carriers,
        lacks=lacks,
        endpoints=tuple(Endpoint(ip, port) for ip, port in endpoints)[:MAX_ENDPOINTS],
        reachable=reachable,
        addresses=tuple(each for each in addresses if len(each) <= MAX_ADDRESS_BYTES)[:MAX_ADDRESSES],
        machine=machine,
        wireguard_key=key,
        wireguard_endpoints=tuple(Endpoint(ip, port) for ip in udp if not ip.startswith("127."))[
            :MAX_ENDPOINTS
        ],
    )


def listening(peer: Sequence[Multiaddr]) -> list[str]:
    """Where carrier connections are taken: at those of a peer's addresses that are this machine's, any port. Not where
    others see it, nor at its router's."""
    ips = [ip for ip in dict.fromkeys(own_ips(peer)) if is_own_ip(ip)]
    return ips[:MAX_ENDPOINTS] or ["127.0.0.1"]


def machine(cluster: MemberId, head: PeerId) -> bytes:
    """What members of one cluster compare to see whether they share the head's machine and network namespace; says
    nothing to others, and cannot be repeated by another head. Empty where it cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read().strip()
        namespace = os.stat("/proc/self/ns/net")
    except OSError:
        return b""
    said = b"%s|%s|%s|%d|%d" % (cluster, head, boot, namespace.st_dev, namespace.st_ino)
    return hashlib.sha256(said).digest()


def is_own_ip(ip: str) -> bool:
    """Whether an address is this machine's: nobody else's can be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return ip not in ("", "0.0.0.0", "::")


def free(address: str, port: int) -> bool:
    """Whether a port is nobody's on this machine, at any address: Ray's nodes listen at all of them."""
    del address
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


class Reserved:
    """Ports that one cluster's head has to itself, also those that nobody listens on yet: its block is chosen seconds
    before GCS listens, and most of it waits for drivers and for workers' processes.

    A UDP socket of 127.0.0.1, which nothing of Ray's wants, stands for each _TOGETHER ports; whoever else asks for one
    of those meets it there, in whatever process. It is gone with the process.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def free(self, address: str, port: int) -> bool:
        """Whether a port is nobody's on this machine (`free`), and of no other cluster's head. It is this one's then,
        where `address` is a head's."""
        if not free(address, port):
            return False
        return address != HEAD_ADDRESS or self.reserve(port)

    def reserve(self, port: int) -> bool:
        """Have a port and those around it, if nobody else has."""
        first = port - port % _TOGETHER
        if first not in self._held:
            mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                mark.bind((HEAD_ADDRESS, first))
            except OSError:
                mark.close()
                return False
            self._held[first] = mark
        return True

    def keep(self, ports: range) -> bool:
        """Have these, and let go of all others. False when some of them are another's."""
        wanted = range(ports.start - ports.start % _TOGETHER, ports.stop, _TOGETHER)
        for first in [each for each in self._held if each not in wanted]:
            self._held.pop(first).close()
        had = [self.reserve(first) for first in wanted]
        return all(had)

    def close(self) -> None:
        """Let go of all."""
        while self._held:
            self._held.popitem()[1].close()


def free_again(ports: Iterable[int]) -> bool:
    """Whether nobody listens at these ports. What is left of earlier connections is no matter."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def own_ips(addresses: Iterable[Multiaddr]) -> Iterable[str]:
    """The IP addresses among those that a peer is dialled at itself."""
    for address in addresses:
        codes = [protocol.code for protocol in address.protocols()]
        if _RELAYED not in codes and codes[0] in _IP_CODES:
            text = address.value_for_protocol(codes[0])
            if text and "%" not in text:
                yield text


def _transport(address: Multiaddr) -> bytes:
    return bytes(address.decapsulate_code(0x01A5).to_bytes())
