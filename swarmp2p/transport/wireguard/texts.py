"""A tunnel in the words of `wg` and `ip`: what goes to their standard input, and arguments. Pure.

Nothing here is given to a shell, and everything in it was checked to be an address, a number or a key
(`description.py`). Private keys are in `configuration` alone, which goes to standard input: command lines are seen by
every user of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .description import PeerChanges, TunnelPeer, TunnelPlan
from .keys import WireGuardKey, as_text


def configuration(plan: TunnelPlan, key: WireGuardKey) -> str:
    """For `wg setconf`: all of an interface. Secret: it has the private key."""
    lines = ["[Interface]", f"PrivateKey = {as_text(key.private)}"]
    if plan.listen_port:
        lines.append(f"ListenPort = {plan.listen_port}")
    for peer in plan.peers:
        lines += ["[Peer]", f"PublicKey = {as_text(peer.key)}", f"AllowedIPs = {peer.address}/32"]
        if peer.endpoint is not None:
            lines.append(f"Endpoint = {_endpoint(peer.endpoint)}")
        lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(lines) + "\n"


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


def bring_up(plan: TunnelPlan) -> str:
    """For `ip -batch -`: address, and the interface up. It has no IPv6 address, which nobody here would use."""
    return (
        f"address add {plan.address}/32 dev {plan.interface}\n"
        f"link set dev {plan.interface} mtu {plan.mtu} addrgenmode none\n"
        f"link set dev {plan.interface} up\n"
    ) + add_routes(plan, plan.peers)


def add_routes(plan: TunnelPlan, peers: Iterable[TunnelPeer]) -> str:
    """For `ip -batch -`: a route to each peer. Fails where another tunnel has one to the same address."""
    return "".join(f"route add {peer.address}/32 dev {plan.interface} src {plan.address}\n" for peer in peers)


def remove_routes(plan: TunnelPlan, peers: Iterable[TunnelPeer]) -> str:
    """For `ip -batch -`: the routes of peers that are gone."""
    return "".join(f"route del {peer.address}/32 dev {plan.interface}\n" for peer in peers)


def handshakes(shown: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """From `wg show INTERFACE latest-handshakes`: for each of these keys, seconds since the epoch; 0 for never."""
    names = {as_text(key): key for key in keys}
    times = dict.fromkeys(keys, 0)
    for line in shown.splitlines():
        name, _, when = line.partition("\t")
        if name in names and when.isdigit():
            times[names[name]] = int(when)
    return times


def _endpoint(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
