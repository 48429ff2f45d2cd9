"""Multiaddrs as the transport needs them: what can be dialled, where one can be dialled."""

from __future__ import annotations

import ipaddress
from typing import Final

from multiaddr.multiaddr import Multiaddr

from ..engine import Address, PeerInfo
from ..errors import AddressError, UsageError
from ..identity import PeerId

_P2P: Final = 0x01A5
_HOSTS: Final = ("ip4", "ip6", "dns", "dns4", "dns6")
_CIRCUIT: Final = ["p2p", "p2p-circuit"]
# Codes of the multiaddr table (multiformats/multiaddr, protocols.csv), as varints.
_P2P_CODE: Final = b"\xa5\x03"
_CIRCUIT_CODE: Final = b"\xa2\x02"
MAX_ADDRESS_BYTES: Final = 256
_PARSING: Final = (ValueError, LookupError, TypeError, OverflowError)
"""What multiaddr raises for what it cannot take. The last for a part that says it has 2^63 bytes."""


def split_address(address: Multiaddr | str) -> tuple[PeerId, Address]:
    """(peer, transport address) of a multiaddr that ends in /p2p/<id>; raises AddressError."""
    text = str(address)
    _parse(text)
    transport, mark, peer = text.rstrip("/").rpartition("/p2p/")
    if not mark or "/" in peer:
        raise AddressError(text, "it does not say which peer is there: /p2p/<peer id> is missing at its end")
    if not transport:
        raise AddressError(text, "it does not say where the peer is")
    try:
        return PeerId.from_text(peer), dialable(_parse(transport), text).to_bytes()
    except UsageError as problem:
        if isinstance(problem, AddressError):
            raise
        raise AddressError(text, str(problem)) from None


def peer_info(address: Multiaddr | str) -> PeerInfo:
    """The peer at an address that ends in /p2p/<id>, as GossipConfig.direct_peers names it. Raises AddressError."""
    peer, transport = split_address(address)
    return PeerInfo(peer, (transport,))


def listen_address(address: Multiaddr | str) -> Multiaddr:
    """A multiaddr that can be listened on; raises AddressError for others than /ip4 or /ip6 with /tcp."""
    parsed = _parse(str(address))
    names = [protocol.name for protocol in parsed.protocols()]
    if len(names) != 2 or names[0] not in ("ip4", "ip6") or names[1] != "tcp":
        raise AddressError(
            str(address), "only /ip4/<address>/tcp/<port> and /ip6/<address>/tcp/<port> can be bound"
        )
    return parsed


def dialable(address: Multiaddr, text: str = "") -> Multiaddr:
    """The address itself when it is one that can be dialled: a host and a TCP port, or those of a relay with
    /p2p/<relay>/p2p-circuit. Raises AddressError."""
    names = [protocol.name for protocol in address.protocols()]
    if names[2:] not in ([], _CIRCUIT) or names[1:2] != ["tcp"] or names[0] not in _HOSTS:
        raise AddressError(
            text or str(address),
            "only TCP addresses can be dialled, such as /ip4/192.0.2.1/tcp/4001, and those of relays with"
            " /p2p/<relay>/p2p-circuit behind them",
        )
    return address


def parse_transport(raw: Address) -> Multiaddr | None:
    """The multiaddr of what some peer said, or None when it cannot be dialled. A /p2p part at its end is cut off."""
    if not raw or len(raw) > MAX_ADDRESS_BYTES:
        return None
    try:
        address = Multiaddr(raw)
        if [protocol.code for protocol in address.protocols()][-1:] == [_P2P]:
            address = address.decapsulate_code(_P2P)
        dialable(address)
        host_and_port(address)
        if is_relayed(address.to_bytes()):
            split_circuit(address.to_bytes())
    except _PARSING:  # bytes from a peer
        return None
    return address


def parse_direct(raw: Address) -> Multiaddr | None:
    """As `parse_transport`, and None for an address at a relay, too."""
    address = parse_transport(raw)
    return None if address is None or is_relayed(address.to_bytes()) else address


def is_relayed(address: Address) -> bool:
    """Whether a dialable address is one at a relay: more comes behind the host and the port."""
    if not address.endswith(_CIRCUIT_CODE):  # nearly all; a port may look like it
        return False
    return len([*Multiaddr(address).protocols()]) > 2


def with_peer(transport: Address, peer: PeerId) -> Address:
    """The address with /p2p/<peer> at its end."""
    return b"".join((transport, _P2P_CODE, bytes((len(peer),)), peer))


def circuit_address(relay: PeerId, transport: Address) -> Address:
    """Where somebody is dialled through a relay. transport: where the relay is."""
    return with_peer(transport, relay) + _CIRCUIT_CODE


def split_circuit(address: Address) -> tuple[PeerId, Address]:
    """(relay, where the relay is) of a relayed address. Raises ValueError, UsageError."""
    parsed = Multiaddr(address)
    relay = str(parsed.value_for_protocol("p2p"))
    return PeerId.from_text(relay), parsed.decapsulate_code(_P2P).to_bytes()


def host_and_port(address: Multiaddr) -> tuple[str, int]:
    """(IP address or name, port) of a dialable or bindable address."""
    name = next(protocol.name for protocol in address.protocols())
    return str(address.value_for_protocol(name)), int(str(address.value_for_protocol("tcp")))


def to_multiaddr(host: str, port: int) -> Address:
    """Binary /ip4 or /ip6 with /tcp. host: an IP address."""
    ip = ipaddress.ip_address(host)
    return (b"\x04" if ip.version == 4 else b"\x29") + ip.packed + b"\x06" + port.to_bytes(2, "big")


def _parse(text: str) -> Multiaddr:
    try:
        parsed = Multiaddr(text)
        parsed.to_bytes()
    except _PARSING as problem:
        raise AddressError(text, str(problem) or "it is no multiaddr") from None
    return parsed
