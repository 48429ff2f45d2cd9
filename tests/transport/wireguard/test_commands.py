"""What a command's failure says: one line, because it goes into facts and errors."""

from __future__ import annotations

import pytest

from swarmp2p.errors import WireGuardFailed
from swarmp2p.transport.wireguard.keeper import command
from swarmp2p.transport.wireguard.programs import run

FAILS = ("sh", "-c", "echo one >&2; echo '  two' >&2; exit 3")


def test_the_keeper_says_it_in_one_line() -> None:
    assert command(("true",)) == ""
    assert command(FAILS) == "one two"
    assert command(("false",)) == "false failed (1)"
    assert command(("no-such-program",)) == "cannot run no-such-program: No such file or directory"


async def test_the_peer_says_it_in_one_line() -> None:
    with pytest.raises(WireGuardFailed, match="sh -c: one two"):
        await run("swarm0123456789", *FAILS)
    with pytest.raises(WireGuardFailed, match="cannot run no-such-program"):
        await run("swarm0123456789", "no-such-program")
