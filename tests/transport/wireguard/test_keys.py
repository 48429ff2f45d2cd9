"""A WireGuard key is one that `wg` knows, and its private half is shown to nobody."""

from __future__ import annotations

import subprocess

from swarmp2p.transport.wireguard.keys import WireGuardKey, as_text
from tests.lab.requirements import require


def test_the_private_half_is_not_shown() -> None:
    key = WireGuardKey.generate()
    assert repr(key.private) not in repr(key)
    assert key.private != WireGuardKey.generate().private


def test_wg_agrees_which_public_key_belongs_to_a_private_one() -> None:
    require("wg", root=False)
    key = WireGuardKey.generate()
    made = subprocess.run(
        ["wg", "pubkey"], input=as_text(key.private), capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == as_text(key.public)
