"""What may come from one place, and which connections go when there are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.config import HostConfig
from swarmp2p.transport.sources import Sources, subnet_of
from swarmp2p.transport.trim import Held, least_useful
from tests.transport.station import named

PEERS = [named(f"peer {number}").peer_id for number in range(20)]


def test_subnets_are_what_one_party_has() -> None:
    assert subnet_of("8.8.8.8") == subnet_of("8.8.8.99") == subnet_of("::ffff:8.8.8.1") == "8.8.8.0/24"
    assert subnet_of("2600:1:2:3::1") == subnet_of("2600:1:2:ffff::1") == "2600:1:2::/48"


def test_so_many_of_one_address_and_of_one_subnet() -> None:
    sources = Sources(HostConfig(max_per_ip=2, max_per_subnet=3))
    assert [sources.admit("8.8.8.8", 0.0) for _ in range(3)] == [True, True, False]
    assert [sources.admit(f"8.8.8.{last}", 0.0) for last in (1, 2)] == [True, False]
    assert sources.admit("8.8.9.1", 0.0)
    sources.release("8.8.8.8")
    assert sources.admit("8.8.8.2", 0.0)


def test_so_many_new_ones_a_second() -> None:
    config = HostConfig(max_per_ip=100, max_per_subnet=100, subnet_burst=3, subnet_per_s=1.0)
    sources = Sources(config)
    for _ in range(3):
        assert sources.admit("8.8.8.8", 0.0)
        sources.release("8.8.8.8")
    assert not sources.admit("8.8.8.9", 0.5)
    assert sources.admit("8.8.8.9", 1.5)
    assert sources.admit("9.9.9.9", 1.5)


def test_loopback_and_private_addresses_are_not_limited() -> None:
    sources = Sources(HostConfig(max_per_ip=1))
    for host in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "100.64.0.1"):
        assert all(sources.admit(host, 0.0) for _ in range(100))
    assert len(sources) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans())))
def test_what_was_released_leaves_nothing_behind(steps: list[tuple[int, bool]]) -> None:
    sources = Sources(HostConfig(max_per_ip=2, max_per_subnet=3, subnet_burst=1000))
    held: list[str] = []
    for last, admit in steps:
        if admit and sources.admit(f"8.8.{last % 2}.{last}", 0.0):
            held.append(f"8.8.{last % 2}.{last}")
        elif not admit and held:
            sources.release(held.pop())
    for host in held:
        sources.release(host)
    assert len(sources) == 0


# Too many ---------------------------------------------------------------------------------------------------


def held(number: int, useful_at: float = 0.0, *, inbound: bool = False, kept: bool = False) -> Held:
    return Held(PEERS[number], 0.0, useful_at, inbound, kept)


def test_the_least_useful_go_until_the_low_mark_is_reached() -> None:
    some = [held(0, 5.0), held(1, 1.0), held(2, 1.0, inbound=True), held(3, 3.0), held(4, 0.0, kept=True)]
    assert least_useful(some, 5, 5, 3, 1.0) == []
    assert least_useful(some, 5, 4, 3, 1.0) == [PEERS[2], PEERS[1]]
    assert least_useful(some, 5, 4, 0, 1.0) == [PEERS[2], PEERS[1], PEERS[3], PEERS[0]]


def test_young_ones_stay() -> None:
    old, young = held(0, 9.0), Held(PEERS[1], 50.0, -1.0, inbound=True, kept=False)
    assert least_useful([old, young], 2, 1, 0, 49.0) == [PEERS[0]]
