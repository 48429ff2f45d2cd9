"""Observed addresses: who is believed, what agrees, what is forgotten, and what liars can do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.observed import Observed

LOCAL = ("192.168.1.5", 4001)
SEEN, LIE = to_multiaddr("9.9.9.9", 4001), to_multiaddr("6.6.6.6", 4001)
NET = [f"8.8.{number}.1" for number in range(40)]  # each of another subnet


def behind_nat() -> Observed:
    return Observed([to_multiaddr(*LOCAL), to_multiaddr("127.0.0.1", 4001)])


def test_three_subnets_that_agree_make_it_an_address_of_ours() -> None:
    seen = behind_nat()
    for number in range(3):
        assert seen.addresses(1.0) == ()
        seen.saw(NET[number], LOCAL, SEEN, 1.0)
    assert (seen.addresses(1.0), seen.candidates(1.0)) == ((SEEN,), (SEEN,))


def test_a_subnet_has_one_voice_however_many_peers_it_has() -> None:
    seen = behind_nat()
    for number in range(200):
        seen.saw(f"8.8.8.{number}", LOCAL, LIE, 1.0)
    assert (seen.addresses(1.0), seen.candidates(1.0)) == ((), (LIE,))


def test_who_dialled_us_there_counts_twice() -> None:
    seen = behind_nat()
    seen.saw(NET[0], LOCAL, SEEN, 1.0)
    seen.reached(NET[0], SEEN)
    seen.reached(NET[1], SEEN)  # says so, and never said that it sees us there
    assert seen.addresses(1.0) == ()
    seen.saw(NET[1], LOCAL, SEEN, 1.0)
    assert seen.addresses(1.0) == (SEEN,)
    seen.saw(NET[0], LOCAL, LIE, 2.0)  # it sees us elsewhere now
    assert seen.addresses(2.0) == ()


def test_only_connections_from_where_we_listen_tell() -> None:
    seen = behind_nat()
    for number in range(3):
        seen.saw(NET[number], (LOCAL[0], 50_000 + number), SEEN, 1.0)
    assert (seen.candidates(1.0), seen.wants(NET[0], (LOCAL[0], 50_000), 1.0)) == ((), False)


@pytest.mark.parametrize(
    ("observer", "said"),
    [
        ("192.168.1.9", "9.9.9.9"),  # a neighbour knows nothing of the internet
        ("8.8.8.8", "192.168.7.7"),  # and the internet nothing of private networks
        ("127.0.0.1", "127.0.0.1"),
        ("8.8.8.8", "127.0.0.1"),
        ("8.8.8.8", "2600::1"),  # over IPv4
        ("8.8.8.8", ""),
    ],
)
def test_what_cannot_be_is_not_listened_to(observer: str, said: str) -> None:
    seen = behind_nat()
    seen.saw(observer, LOCAL, to_multiaddr(said, 4001) if said else b"\xffnonsense", 1.0)
    assert seen.candidates(1.0) == ()


def test_a_nat_inside_of_a_private_network_is_seen_by_private_peers() -> None:
    seen = Observed([to_multiaddr("10.0.2.15", 4001)])
    for number in range(3):
        seen.saw(f"192.168.1.{number}", ("10.0.2.15", 4001), to_multiaddr("192.168.1.77", 4001), 1.0)
    assert seen.addresses(1.0) == (to_multiaddr("192.168.1.77", 4001),)


def test_without_a_nat_there_is_nothing_new() -> None:
    seen = Observed([SEEN])
    for number in range(3):
        assert seen.mapping(1.0) == "unknown"
        seen.saw(NET[number], ("9.9.9.9", 4001), SEEN, 1.0)
    assert (seen.addresses(1.0), seen.candidates(1.0), seen.mapping(1.0)) == ((), (), "none")


def test_a_nat_that_changes_the_port_for_each_destination_is_noticed() -> None:
    seen = behind_nat()
    for number in range(3):
        assert seen.mapping(1.0) == "unknown"
        seen.saw(NET[number], LOCAL, to_multiaddr("9.9.9.9", 1024 + number), 1.0)
    assert (seen.mapping(1.0), seen.addresses(1.0)) == ("varies", ())
    assert len(seen.candidates(1.0)) == 3


def test_one_liar_changes_nothing() -> None:
    same, varies = behind_nat(), behind_nat()
    for seen in (same, varies):
        seen.saw(NET[9], LOCAL, LIE, 1.0)
    for number in range(3):
        same.saw(NET[number], LOCAL, SEEN, 1.0)
        varies.saw(NET[number], LOCAL, to_multiaddr("9.9.9.9", 1024 + number), 1.0)
    assert (same.mapping(1.0), same.addresses(1.0)) == ("same", (SEEN,))
    assert (varies.mapping(1.0), varies.addresses(1.0)) == ("varies", ())


def test_words_grow_old_and_are_asked_for_again() -> None:
    seen = behind_nat()
    assert seen.wants(NET[0], LOCAL, 0.0)
    for number in range(3):
        seen.saw(NET[number], LOCAL, SEEN, float(number))
    assert not seen.wants(NET[0], LOCAL, 899.0)
    assert seen.wants(NET[0], LOCAL, 900.0)
    assert (seen.expires_at(1799.0), seen.addresses(1799.0)) == (1800.0, (SEEN,))
    assert (seen.expires_at(1800.0), seen.addresses(1800.0)) == (1801.0, ())
    assert (seen.expires_at(9000.0), seen.candidates(9000.0)) == (None, ())


def test_a_new_address_replaces_the_old_one() -> None:
    seen = behind_nat()
    for number in range(8):
        seen.saw(NET[number], LOCAL, LIE, 1.0)
    for number in range(8):
        seen.saw(NET[number + (8 if number < 4 else 0)], LOCAL, SEEN, 2.0)
    assert seen.addresses(2.0) == (SEEN,)


def test_two_listeners_are_seen_each_for_itself() -> None:
    seen = Observed([to_multiaddr("192.168.1.5", port) for port in (4001, 4002)])
    for number in range(4):
        seen.saw(
            NET[number], ("192.168.1.5", 4001 + number % 2), to_multiaddr("9.9.9.9", 5001 + number % 2), 1.0
        )
    assert seen.addresses(1.0) == ()
    seen.saw(NET[4], ("192.168.1.5", 4001), to_multiaddr("9.9.9.9", 5001), 1.0)
    assert seen.addresses(1.0) == (to_multiaddr("9.9.9.9", 5001),)


HOSTS = st.sampled_from([*NET, "192.168.1.9", "2600::1", "127.0.0.1", "fe80::1%eth0"])
STEPS = st.lists(
    st.tuples(HOSTS, st.sampled_from([4001, 4002]), st.binary(max_size=20) | st.sampled_from([SEEN, LIE])),
    max_size=60,
)


@given(STEPS)
def test_nothing_grows_and_nothing_raises_whatever_is_said(steps: list[tuple[str, int, bytes]]) -> None:
    seen = behind_nat()
    for now, (observer, port, said) in enumerate(steps):
        seen.wants(observer, (LOCAL[0], port), float(now))
        seen.saw(observer, (LOCAL[0], port), said, float(now))
        seen.reached(observer, said)
        assert len(seen.candidates(float(now))) <= 4
        assert len(seen.addresses(float(now))) <= 4
        assert seen.mapping(float(now)) in ("unknown", "same", "varies")
