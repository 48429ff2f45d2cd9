"""What a machine needs to run a laboratory, and how it comes by it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

import pytest

PACKAGES: Final[Mapping[str, str]] = {
    "bwrap": "bubblewrap",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
}
"""Command to the Debian package that has it."""

NETWORK: Final = ("ip", "nft", "nsenter", "setpriv", "unshare")
"""Commands that every laboratory needs."""


def lacking(*commands: str, root: bool = True) -> str:
    """Why this machine cannot make a laboratory, with the command that helps; empty when it can.

    commands: further ones that must be there, of PACKAGES. root: whether it takes root; without it, user namespaces
    must be allowed.
    """
    missing = sorted({PACKAGES[one] for one in (*NETWORK, *commands) if shutil.which(one) is None})
    if missing:
        return f"missing commands: as root, apt-get install {' '.join(missing)}"
    if root and os.geteuid():
        return "network namespaces with a TUN device need root: sudo -E env PATH=$PATH python -m pytest"
    return _no_namespaces()


@functools.cache
def _no_namespaces() -> str:
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if not tried.returncode:
        return ""
    return f"no network namespace can be made here ({tried.stderr.strip()}): run as root"


def require(*commands: str, root: bool = True) -> None:
    """Skip the test where a laboratory cannot be made, and say why; in CI, fail it. Arguments:
    `lacking`'s."""
    reason = lacking(*commands, root=root)
    if reason and ("SWARMP2P_NO_SKIPS" in os.environ or os.environ.get("CI") == "true"):
        pytest.fail(f"CI has to run this test: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
