"""docs/mesh.md says what the code does: numbers that it quotes are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmp2p.transport.mesh import allocation, members
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.wire import MESH_PROTOCOL_ID
from swarmp2p.transport.overlay import doorway, listeners
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.wireguard import description

TEXT = " ".join((Path(__file__).parent.parent / "docs" / "mesh.md").read_text().split())
SESSION, MESH = SessionConfig(), MeshConfig()
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    "said",
    [
        f"`{MESH_PROTOCOL_ID}`",
        "the head, whose member id is the cluster's",
        f"an expiry ({MESH.pairing_life_s:.0f} s)",
        f"{members.HEAD_ADDRESS} for the head, 127.64.x.y for a worker",
        f"a heartbeat every {SESSION.heartbeat_s:g} s",
        f"{SESSION.silence_s:g} s + {SESSION.silence_rtts:.0f} round trips",
        f"{SESSION.rekey_bytes // GIB} GiB, 2^{SESSION.rekey_records.bit_length() - 1} records or "
        f"{SESSION.rekey_s:.0f} s",
        f"at most {doorway.MOST_WAITING} that wait for {doorway.PATIENCE_S:.0f} s, {doorway.MOST_OF_A_SOURCE} of",
        f"MTU inside is {description.MTU} bytes",
        f"named `{description.INTERFACE_PREFIX}` and ten hex digits",
        f"members of a cluster | {MESH.max_members} |",
        f"{allocation.FIXED_PORTS}, and {allocation.PORTS_PER_CPU} for each CPU; {allocation.MAX_BLOCK} at most, "
        f"all between {allocation.FIRST_PORT} and {allocation.END_PORT - 1}",
        f"channels of a session | {SESSION.channels_most} |",
        f"{SESSION.first_window_bytes // KIB} KiB at first, up to {SESSION.window_most_bytes // MIB} MiB",
        f"| {SESSION.unacknowledged_most_bytes // MIB} MiB a session |",
        f"listeners of a plane | {listeners.MOST} |",
        f"peers of a WireGuard interface | {description.MAX_PEERS} |",
    ],
)
def test_what_it_quotes_is_so(said: str) -> None:
    assert said in TEXT


def test_addresses_and_names_are_made_as_it_says() -> None:
    assert members.overlay_address(7) == "127.64.0.7"
    assert members.wireguard_address(members.HEAD_HOST) == "100.66.0.1"
    digits = description.INTERFACE_CHARS - len(description.INTERFACE_PREFIX)
    assert digits == 10
