"""Routers that translate addresses, and firewalls: nftables rules.

What comes from outside and was not asked for is dropped in silence, by both kinds and by the firewall: that is what
routers at home do, and what hole punching has to cope with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from tests.lab.namespaces import Interface, Lab, Node, Segment


class NatKind(Enum):
    """How a router chooses the port that a connection is seen from.

    CONE: the one that the machine chose, as long as it is free, hence the same towards everybody: RFC 4787's
        endpoint-independent mapping, with address- and port-dependent filtering. Holes can be punched.
    SYMMETRIC: a random one for each connection. They cannot.
    """

    CONE = "cone"
    SYMMETRIC = "symmetric"


@dataclass(frozen=True, slots=True)
class Nat:
    """A router. outside: its cable to the world; inside: the switch behind it, of which it is the gateway."""

    node: Node
    kind: NatKind
    outside: Interface
    inside: Segment
    gateway: str

    def join(self, node: Node, address: str) -> Interface:
        """Put a machine behind the router."""
        return self.inside.join(node, address, self.gateway)

    def forward(self, port: int, address: str, protocol: str = "tcp") -> None:
        """What comes to a port from outside goes to that port of a machine inside."""
        name = f"forward_{protocol}_{port}"
        self.node.nft(
            f"table ip {name} {{\n chain in {{\n  type nat hook prerouting priority dstnat\n"
            f'  iifname "{self.outside.name}" {protocol} dport {port} dnat to {address}:{port}\n }}\n}}'
        )


def nat(lab: Lab, name: str, kind: NatKind, outside: Segment, address: str, inside: str) -> Nat:
    """A router with a network of its own behind it. address: the router's outside; inside: its own there; a.b.c.d/n."""
    node = lab.node(name)
    wan = outside.join(node, address)
    lan = lab.segment(f"{name}'s network")
    gateway = lan.join(node, inside)
    match kind:
        case NatKind.CONE:
            how = "masquerade"
        case NatKind.SYMMETRIC:
            how = "masquerade random,fully-random"
        case _:
            assert_never(kind)
    node.forward()
    node.nft(
        f'table ip translate {{\n chain out {{\n  type nat hook postrouting priority srcnat\n  oifname "{wan.name}" '
        f"{how}\n }}\n}}"
    )
    _only_asked_for(node, wan)
    return Nat(node, kind, wan, lan, gateway.ip)


def firewall(interface: Interface) -> None:
    """Let in what was asked for from inside, and nothing else; on a machine or on a router."""
    _only_asked_for(interface.node, interface)


def _only_asked_for(node: Node, interface: Interface) -> None:
    # What port forwarding has sent on (dnat) was asked for by whoever set it up.
    rule = f'ct status dnat accept\n  iifname "{interface.name}" ct state new drop'
    node.nft(
        f"table inet firewall_{interface.name} {{\n"
        f" chain in {{\n  type filter hook input priority filter\n  {rule}\n }}\n"
        f" chain through {{\n  type filter hook forward priority filter\n  {rule}\n }}\n}}"
    )
