"""The rules around a tunnel, in the words of `nft`: who may reach what through it, and under which address. Pure.

One table for each interface, of the same name, in the network namespace where the interface is. Nothing in it concerns
packets that neither come from the interface nor go to an alias of a member.

What comes in. The kernel takes packets for 127.0.0.0/8 from an interface when that is allowed
(`net.ipv4.conf.INTERFACE.route_localnet`), which translation to a loopback address needs; without more, members could
ask for everything that listens on this machine's loopback (Kubernetes' CVE-2020-8558). So `early`, before translation,
drops whatever is not from a member's address to our own, and `input`, after it, what is not for a port of the block.
Only answers may come back besides. Nothing is routed from the interface to elsewhere, nor from elsewhere into it.

What goes out. `leaving` turns an alias and a port of its block into the member's address in the tunnel; `left` makes
that come from our own address, because a loopback address would be dropped on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable

from .description import PeerChanges, TunnelPeer, TunnelPlace


def table(place: TunnelPlace) -> str:
    """For `nft -f -`: the table, without members. Ranges in a map of two fields need nftables 0.9.4 and Linux 5.6."""
    name, ports = place.interface, _range(place.ports)
    return f"""\
add table inet {name}
delete table inet {name}
table inet {name} {{
    set members {{ type ipv4_addr; }}
    map aliases {{ type ipv4_addr . inet_service : ipv4_addr; flags interval; }}
    chain early {{
        type filter hook prerouting priority -300; policy accept;
        iifname "{name}" ip saddr @members ip daddr {place.address} accept
        iifname "{name}" drop
    }}
    chain arriving {{
        type nat hook prerouting priority -100; policy accept;
        iifname "{name}" tcp dport {ports} dnat ip to {place.alias}
    }}
    chain input {{
        type filter hook input priority 0; policy accept;
        iifname "{name}" ct state established,related accept
        iifname "{name}" ip daddr {place.alias} tcp dport {ports} accept
        iifname "{name}" drop
    }}
    chain forward {{
        type filter hook forward priority 0; policy accept;
        iifname "{name}" drop
        oifname "{name}" drop
    }}
    chain leaving {{
        type nat hook output priority -100; policy accept;
        meta l4proto tcp dnat ip to ip daddr . tcp dport map @aliases
    }}
    chain left {{
        type nat hook postrouting priority 100; policy accept;
        oifname "{name}" ip saddr 127.0.0.0/8 snat ip to {place.address}
    }}
}}
"""


def table_changes(place: TunnelPlace, changes: PeerChanges) -> str:
    """For `nft -f -`: members that go and come. Connections of those that stay are not touched."""
    lines = list[str]()
    for word, peers in (("delete", changes.remove), ("add", changes.add)):
        if peers:
            lines += [
                f"{word} element inet {place.interface} members {{ {', '.join(_addresses(peers))} }}",
                f"{word} element inet {place.interface} aliases {{ {', '.join(_aliases(peers))} }}",
            ]
    return "".join(line + "\n" for line in lines)


def _addresses(peers: Iterable[TunnelPeer]) -> list[str]:
    return [peer.address for peer in peers]


def _aliases(peers: Iterable[TunnelPeer]) -> list[str]:
    return [f"{peer.alias} . {_range(peer.ports)} : {peer.address}" for peer in peers]


def _range(ports: range) -> str:
    return f"{ports.start}-{ports.stop - 1}"
