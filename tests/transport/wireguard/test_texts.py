"""A tunnel in the words of its tools: what each is told, and that the private key goes to one of them alone."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.wireguard.description import MTU, PeerChanges, changes
from swarmp2p.transport.wireguard.firewall import table, table_changes
from swarmp2p.transport.wireguard.keys import WireGuardKey, as_text
from swarmp2p.transport.wireguard.texts import (
    add_address,
    add_routes,
    bring_up,
    configuration,
    connections_with,
    handshakes,
    peer_arguments,
    received,
    remove_routes,
)
from tests.lab.requirements import require
from tests.transport.wireguard.test_description import NAME, PLACE, peer

KEY = WireGuardKey(b"p" * 32, b"q" * 32)
TWO, THREE = peer(2, endpoint=("192.0.2.1", 51_820)), peer(3, endpoint=("2001:db8::1", 7))


def test_wg_is_told_of_each_peer_one_address_and_no_more() -> None:
    assert configuration(KEY, 0) == f"[Interface]\nPrivateKey = {as_text(KEY.private)}\n"
    assert configuration(KEY, 7) == f"[Interface]\nPrivateKey = {as_text(KEY.private)}\nListenPort = 7\n"
    assert peer_arguments(changes([], [TWO, THREE])) == [
        "peer", as_text(TWO.key), "persistent-keepalive", "25",
        "endpoint", "192.0.2.1:51820", "allowed-ips", "100.66.0.2/32",
        "peer", as_text(THREE.key), "persistent-keepalive", "25",
        "endpoint", "[2001:db8::1]:7", "allowed-ips", "100.66.0.3/32",
    ]  # fmt: skip


def test_the_private_key_is_in_no_other_text() -> None:
    todo = PeerChanges((TWO,), (THREE,), (TWO,))
    texts = [
        *peer_arguments(todo),
        bring_up(NAME, MTU),
        add_address(PLACE),
        add_routes(PLACE, (TWO,)),
        remove_routes(PLACE, (TWO,)),
        table(PLACE),
        table_changes(PLACE, todo),
        *connections_with((TWO,)),
    ]
    for text in texts:
        assert as_text(KEY.private) not in text
        assert KEY.private.hex() not in text


def test_who_goes_is_removed_before_who_comes_is_added() -> None:
    todo = changes([TWO], [peer(3, host=2)])
    assert peer_arguments(todo) == [
        "peer", as_text(TWO.key), "remove",
        "peer", as_text(THREE.key), "persistent-keepalive", "25", "allowed-ips", "100.66.0.2/32",
    ]  # fmt: skip
    assert table_changes(PLACE, todo) == (
        f"delete element inet {NAME} members {{ 100.66.0.2 }}\n"
        f"delete element inet {NAME} aliases {{ 127.64.0.2 . 20200-20299 : 100.66.0.2 }}\n"
        f"add element inet {NAME} members {{ 100.66.0.2 }}\n"
        f"add element inet {NAME} aliases {{ 127.64.0.2 . 20200-20299 : 100.66.0.2 }}\n"
    )


def test_a_peer_that_moves_costs_no_rule_and_no_route() -> None:
    todo = changes([peer(2)], [TWO])
    assert table_changes(PLACE, todo) == ""
    assert add_routes(PLACE, todo.add) == ""


def test_handshakes_are_told_of_those_asked_for() -> None:
    shown = f"{as_text(TWO.key)}\t1800000000\nnonsense\n{as_text(b'x' * 32)}\t5\n"
    assert handshakes(shown, [TWO.key, THREE.key]) == {TWO.key: 1_800_000_000, THREE.key: 0}


@given(st.text())
def test_whatever_wg_shows_each_peer_has_its_numbers(shown: str) -> None:
    for read in (handshakes, received):
        assert read(f"{as_text(TWO.key)}\t{shown}", [TWO.key]).keys() == {TWO.key}


def test_bytes_received_are_the_first_number_of_a_transfer() -> None:
    assert received(f"{as_text(TWO.key)}\t148\t92\n", [TWO.key]) == {TWO.key: 148}


def test_connections_with_a_member_are_those_to_its_alias_and_from_its_address_inside() -> None:
    said = " ".join(connections_with((TWO, THREE)))
    assert said == "dst 127.64.0.2 or dst 100.66.0.2 or dst 127.64.0.3 or dst 100.66.0.3"


def test_nft_understands_the_rules_and_their_changes() -> None:
    require(root=False)
    more = changes([TWO], [peer(3, host=2), peer(4)])
    script = (
        table(PLACE) + table_changes(PLACE, changes([], [TWO])) + table_changes(PLACE, more) + table(PLACE)
    )
    enter = ["unshare", "--user", "--map-root-user", "--net"]
    done = subprocess.run(
        [*enter, "nft", "-f", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
