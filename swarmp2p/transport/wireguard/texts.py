"""A tunnel in the words of `wg` and `ip`: what goes to their standard input, and arguments. Pure.

Nothing here is given to a shell, and everything in it was checked to be an address, a number or a key
(`description.py`). Private keys are in `configuration` alone, which goes to standard input: command lines are seen by
every user of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .description import PeerChanges, TunnelPeer, TunnelPlace
from .keys import WireGuardKey, as_text


def configuration(key: WireGuardKey, listen_port: int) -> str:
    """For `wg setconf`: the interface without peers. Secret: it has the private key. listen_port: UDP; 0 for any."""
    port = f"ListenPort = {listen_port}\n" if listen_port else ""
    return f"[Interface]\nPrivateKey = {as_text(key.private)}\n{port}"


def peer_arguments(changes: PeerChanges) -> list[str]:
    """For `wg set INTERFACE`: peers that go, come, or move."""
    arguments = list[str]()
    for peer in changes.remove:
        arguments += ["peer", as_text(peer.key), "remove"]
    for peer in (*changes.add, *changes.update):
        arguments += ["peer", as_text(peer.key), "persistent-keepalive", str(peer.keepalive_s)]
        if peer.endpoint is not None:
            arguments += ["endpoint", _endpoint(peer.endpoint)]
        arguments += ["allowed-ips", f"{peer.address}/32"]
    return arguments


def bring_up(interface: str, mtu: int) -> str:
    """For `ip -batch -`: the interface up. It has no IPv6 address, which nobody here would use."""
    return f"link set dev {interface} mtu {mtu} addrgenmode none\nlink set dev {interface} up\n"


def add_address(place: TunnelPlace) -> str:
    """For `ip -batch -`: the address inside the tunnel."""
    return f"address add {place.address}/32 dev {place.interface}\n"


def add_routes(place: TunnelPlace, peers: Iterable[TunnelPeer]) -> str:
    """For `ip -batch -`: a route to each peer. Fails where another tunnel has one to the same address."""
    return "".join(
        f"route add {peer.address}/32 dev {place.interface} src {place.address}\n" for peer in peers
    )


def remove_routes(place: TunnelPlace, peers: Iterable[TunnelPeer]) -> str:
    """For `ip -batch -`: the routes of peers that are gone."""
    return "".join(f"route del {peer.address}/32 dev {place.interface}\n" for peer in peers)


def connections_with(peers: Iterable[TunnelPeer]) -> list[str]:
    """For `ss`: which connections are with these peers. What was accepted from them comes from their address inside."""
    hosts = [host for peer in peers for host in (peer.alias, peer.address)]
    return " or ".join(f"dst {host}" for host in hosts).split()


def handshakes(shown: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """From `wg show INTERFACE latest-handshakes`: for each of these keys, seconds since the epoch; 0 for never."""
    return _numbers(shown, keys)


def received(shown: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """From `wg show INTERFACE transfer`: for each of these keys, bytes that came from it."""
    return _numbers(shown, keys)


def _numbers(shown: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """The second column of a table of keys; 0 for those that are not in it."""
    names = {as_text(key): key for key in keys}
    found = dict.fromkeys(keys, 0)
    for line in shown.splitlines():
        name, *rest = line.split("\t")
        if name in names and rest and rest[0].isdecimal():
            found[names[name]] = int(rest[0])
    return found


def _endpoint(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
