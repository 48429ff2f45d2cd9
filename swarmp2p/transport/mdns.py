"""Peers of the local network, found by multicast DNS (libp2p's discovery/mdns specification).

Each peer answers queries for `_p2p._udp.local` with a random name and TXT strings `dnsaddr=<multiaddr>/p2p/<id>`. Go,
Rust and JavaScript nodes do the same, so that they find us and we them.

zeroconf is used by itself, and not through py-libp2p's discovery.mdns, which does not fit: it reports what it finds
to handlers that all peers of a process share, sends on every interface whatever the peer listens on, asks the kernel
for a route to a public address, sleeps in zeroconf's thread, and ends in a system task that nobody waits for.

Whoever is in the local network can answer anything. So what is found is only an address to try: the dial proves the
id, addresses are parsed as a peer's always are, and what waits to be tried is bounded; the rest is dropped.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from multiaddr.multiaddr import Multiaddr

from ..engine import Address, PeerInfo
from ..errors import AddressError, MdnsError
from ..identity import PeerId
from ..scopes import cancel_scope
from .addresses import host_and_port, is_relayed, split_address

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf

SERVICE: Final = "_p2p._udp.local."
_KEY: Final = b"dnsaddr="
_MAX_ADDRESSES: Final = 8
_MAX_TXT_BYTES: Final = 4096
_MAX_WAITING: Final = 64
_ASK_MS: Final = 3000  # for the TXT strings of a name that came without them


def announced(peer: PeerId, addresses: Sequence[Address]) -> tuple[list[str], list[str]]:
    """(multiaddrs to announce, addresses of the interfaces to announce them on): those that others can reach; the
    loopback ones only when there are no others."""
    parsed = [
        (Multiaddr(address), host_and_port(Multiaddr(address))[0])
        for address in addresses
        if not is_relayed(address)
    ]
    reachable = [(addr, host) for addr, host in parsed if not ipaddress.ip_address(host).is_loopback]
    chosen = (reachable or parsed)[:_MAX_ADDRESSES]
    return [f"{addr}/p2p/{peer}" for addr, _ in chosen], list(dict.fromkeys(host for _, host in chosen))


def encode_txt(addresses: Sequence[str]) -> bytes:
    """A TXT record: length-prefixed strings, one for each address."""
    strings = [_KEY + address.encode() for address in addresses]
    return b"".join(bytes([len(string)]) + string for string in strings if len(string) < 256)


def decode_txt(data: bytes) -> PeerInfo | None:
    """The peer that a TXT record speaks of; None when it names none, or several."""
    found: dict[PeerId, list[Address]] = {}
    position, end = 0, min(len(data), _MAX_TXT_BYTES)
    while position < end:
        string = data[position + 1 : position + 1 + data[position]]
        position += 1 + data[position]
        if string.startswith(_KEY):
            try:
                peer, address = split_address(string.removeprefix(_KEY).decode())
            except (AddressError, UnicodeDecodeError):
                continue  # another transport, perhaps
            found.setdefault(peer, []).append(address)
    if len(found) != 1:
        return None
    ((peer, addresses),) = found.items()
    return PeerInfo(peer, tuple(addresses[:_MAX_ADDRESSES]))


class _Listener:
    """Hands what zeroconf's thread hears to trio."""

    def __init__(self, own: str, peer: PeerId, send: trio.MemorySendChannel[PeerInfo]) -> None:
        self._own, self._peer, self._send = own, peer, send
        self._token = trio.lowlevel.current_trio_token()

    def __call__(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        from zeroconf import ServiceInfo, ServiceStateChange

        if name == self._own or state_change is ServiceStateChange.Removed:
            return
        info = ServiceInfo(service_type, name)
        if not info.request(zeroconf, _ASK_MS) or not info.text:
            return
        found = decode_txt(info.text)
        if found is not None and found.peer != self._peer:
            try:
                self._token.run_sync_soon(self._pass_on, found)
            except trio.RunFinishedError:
                pass

    def _pass_on(self, found: PeerInfo) -> None:
        try:
            self._send.send_nowait(found)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # others are tried first; its next announcement comes


@asynccontextmanager
async def local_peers(
    peer: PeerId, addresses: Sequence[Address]
) -> AsyncGenerator[trio.MemoryReceiveChannel[PeerInfo], None]:
    """Announce a peer in the local network and find others while the context is open; zeroconf's threads have ended
    when it is left.

    addresses: where the peer listens; one that listens nowhere finds others all the same. Yields a channel of what
    is found, at most 64 waiting. Raises MdnsError when the network cannot be listened to.
    """
    from zeroconf import Error as ZeroconfError
    from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, ServiceInfo, Zeroconf

    send, receive = trio.open_memory_channel[PeerInfo](_MAX_WAITING)
    texts, hosts = announced(peer, addresses)
    name = f"{secrets.token_hex(20)}.{SERVICE}"
    listener = _Listener(name, peer, send)

    def begin() -> tuple[Zeroconf, ServiceBrowser]:
        versions = {ipaddress.ip_address(host).version for host in hosts} or {4}
        zeroconf = Zeroconf(
            interfaces=hosts or InterfaceChoice.Default,
            ip_version=IPVersion.All
            if len(versions) == 2
            else IPVersion.V6Only
            if 6 in versions
            else IPVersion.V4Only,
        )
        try:
            if texts:
                port = host_and_port(Multiaddr(addresses[0]))[1]
                info = ServiceInfo(SERVICE, name, port, properties=encode_txt(texts), parsed_addresses=hosts)
                zeroconf.register_service(info)
            return zeroconf, ServiceBrowser(zeroconf, SERVICE, handlers=[listener])
        except BaseException:
            zeroconf.close()
            raise

    try:
        zeroconf, browser = await trio.to_thread.run_sync(begin)
    except (OSError, ZeroconfError, RuntimeError) as problem:
        raise MdnsError(str(problem) or type(problem).__name__) from None

    def end() -> None:
        browser.cancel()  # joins its thread
        zeroconf.close()  # says goodbye, and joins its thread

    try:
        yield receive
    finally:
        with cancel_scope(shield=True):
            await trio.to_thread.run_sync(end)
        send.close()
        receive.close()
