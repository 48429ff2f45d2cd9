"""Whether this machine and its user can have WireGuard interfaces, and if not, what would help."""

from __future__ import annotations

import os
import stat
from typing import Final

from .description import INTERFACE_PREFIX, PeerChanges, TunnelPeer, TunnelPlace
from .firewall import table, table_changes
from .keeper import command
from .keys import KEY_BYTES
from .programs import missing

PACKAGES: Final = {"wg": "wireguard-tools", "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""Debian's package of each program that is needed."""

_NET_ADMIN: Final = 12  # CAP_NET_ADMIN, capabilities(7)
_TUN: Final = "/dev/net/tun"
_SETTINGS: Final = "/proc/sys/net/ipv4/conf/lo/route_localnet"
_TRIAL: Final = INTERFACE_PREFIX + "-trial"


def wireguard_problem() -> str | None:
    """Why there can be no WireGuard interface here, with what to do about it; None when there can.

    Tries what it can try without leaving anything; takes up to 50 ms, so call it in a thread.
    """
    if not _may_administer():
        return "only root may make network interfaces; run it as root (sudo)"
    lacking = missing(tuple(PACKAGES))
    if lacking:
        packages = " ".join(PACKAGES[name] for name in lacking)
        return f"{', '.join(lacking)} not found; run: apt-get install {packages}"
    return _carrier_problem() or _rules_problem()


def _carrier_problem() -> str | None:
    if _is_device(_TUN) and not missing(["wireguard-go"]):
        return None
    trial = f"{_TRIAL}{os.getpid() % 10_000}"
    problem = command(("ip", "link", "add", "dev", trial, "type", "wireguard"))
    if not problem:
        command(("ip", "link", "delete", "dev", trial))
        return None
    if missing(["wireguard-go"]):
        remedy = "wireguard-go is not found; run: apt-get install wireguard-go"
    else:
        remedy = f"wireguard-go needs {_TUN}; run: modprobe tun"
    return f"the kernel has no WireGuard ({problem}), and {remedy}"


def _rules_problem() -> str | None:
    if not os.access(_SETTINGS, os.W_OK):
        return "/proc/sys/net cannot be written to; in a container: start it with --privileged"
    ports = range(10_000, 10_100)
    peer = TunnelPeer(b"\1" * KEY_BYTES, "100.66.0.2", "127.64.0.2", ports)
    place = TunnelPlace(f"{INTERFACE_PREFIX}{0:010x}", "100.66.0.1", "127.0.0.1", ports)
    rules = table(place) + table_changes(place, PeerChanges(add=(peer,)))
    problem = command(("nft", "--check", "-f", "-"), given=rules)
    if not problem:
        return None
    return f"nft cannot make the rules that are needed ({problem}); it takes nftables 0.9.4 and Linux 5.6 with nf_nat"


def _may_administer() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            words = next(line.split() for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(words[1], 16) >> _NET_ADMIN & 1)


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False
