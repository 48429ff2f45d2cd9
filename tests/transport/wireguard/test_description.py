"""What an interface is to be: refused when it cannot be, and changed without touching what stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.transport.wireguard.description import (
    INTERFACE_CHARS,
    MAX_PEERS,
    PeerChanges,
    TunnelPeer,
    TunnelPlace,
    changes,
    check_peers,
    interface_name,
    is_ours,
)

NAME = interface_name(b"c" * 16, b"m" * 16)


def peer(number: int, host: int | None = None, endpoint: tuple[str, int] | None = None) -> TunnelPeer:
    host = number if host is None else host
    return TunnelPeer(
        number.to_bytes(32, "big"),
        f"100.66.0.{host}",
        f"127.64.0.{host}",
        range(20_000 + 100 * host, 20_100 + 100 * host),
        endpoint,
    )


PLACE = TunnelPlace(NAME, "100.66.0.1", "127.0.0.1", range(20_000, 20_100))


peers = st.builds(
    peer,
    st.integers(2, 9),
    st.none(),
    st.none() | st.tuples(st.just("192.0.2.1"), st.integers(1, 3)),
)
lists = st.lists(peers, unique_by=lambda one: one.key).map(tuple)
placed = st.permutations(range(2, 10)).map(lambda hosts: tuple(peer(n + 2, hosts[n]) for n in range(8)))


def applied(old: tuple[TunnelPeer, ...], todo: PeerChanges) -> dict[bytes, TunnelPeer]:
    """What WireGuard has after the changes, done in the order in which they are said."""
    now = {each.key: each for each in old}
    for each in todo.remove:
        del now[each.key]
    for each in todo.add:
        assert each.address not in {other.address for other in now.values()}, "two have one address"
        assert each.key not in now
        now[each.key] = each
    for each in todo.update:
        assert each.key in now
        now[each.key] = each
    return now


@given(lists | placed, lists | placed)
def test_changes_lead_from_one_list_to_the_other(
    old: tuple[TunnelPeer, ...], new: tuple[TunnelPeer, ...]
) -> None:
    assert applied(old, changes(old, new)) == {each.key: each for each in new}


@given(lists, lists)
def test_who_is_the_same_in_both_is_not_touched(
    old: tuple[TunnelPeer, ...], new: tuple[TunnelPeer, ...]
) -> None:
    todo = changes(old, new)
    for each in (*todo.remove, *todo.add, *todo.update):
        assert not (each in old and each in new)
    assert bool(todo) == (set(old) != set(new))


def test_a_peer_that_moves_keeps_its_connections_and_one_that_gets_another_address_does_not() -> None:
    moved, other = peer(2, endpoint=("192.0.2.1", 1)), peer(2, host=7)
    assert changes([peer(2)], [moved]) == PeerChanges(update=(moved,))
    assert changes([peer(2)], [other]) == PeerChanges(remove=(peer(2),), add=(other,))


def test_names_carry_our_mark_and_differ_between_clusters_and_members() -> None:
    names = [interface_name(cluster, member) for cluster in (b"a", b"b") for member in (b"c", b"d")]
    assert len(set(names)) == 4
    assert all(is_ours(name) and len(name) == INTERFACE_CHARS for name in names)
    for foreign in ("wg0", "eth0", "swarm", "swarm-trial1234", "swarmABCDEF0123", "tailscale0"):
        assert not is_ours(foreign)


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"short"},
        {"address": "10.0.0.1"},  # not of the range for tunnels: it may be the LAN
        {"address": "100.66.0.1; x"},
        {"alias": "192.168.0.1"},  # translation of such an address would take somebody's traffic away
        {"ports": range(10)},
        {"ports": range(10, 10)},
        {"ports": range(10, 70_000)},
        {"ports": range(10, 20, 2)},
        {"endpoint": ("example.org", 1)},  # no names: who resolves them could lead packets elsewhere
        {"endpoint": ("192.0.2.1", 0)},
        {"keepalive_s": -1},
    ],
)
def test_what_cannot_be_a_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(peer(2), **change)


@pytest.mark.parametrize(
    "change", [{"interface": "wg0"}, {"alias": "10.0.0.1"}, {"ports": range(0)}, {"address": "127.0.0.1"}]
)
def test_what_cannot_be_an_interface_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(PLACE, **change)


def test_members_share_neither_key_nor_address() -> None:
    def check(*peers: TunnelPeer) -> None:
        check_peers(peers, PLACE.address)

    with pytest.raises(UsageError, match="same key"):
        check(peer(2), peer(2, host=3))
    with pytest.raises(UsageError, match="same address"):
        check(peer(2), replace(peer(3), address="100.66.0.2"))
    with pytest.raises(UsageError, match="same address"):
        check(peer(2, host=1))
    with pytest.raises(UsageError, match="same alias"):
        check(peer(2), replace(peer(3), alias="127.64.0.2"))
    with pytest.raises(UsageError, match="at most"):
        check(*[peer(2)] * (MAX_PEERS + 1))
    check(peer(2), peer(3))
