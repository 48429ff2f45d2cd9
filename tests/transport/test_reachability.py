"""Reachability by facts: listening, dialling, being dialled, and what others say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.reachability import Reachability, Scope, scope_of
from tests.transport.station import named

HERE, LAN, NET = "127.0.0.1", "192.168.1.5", "8.8.8.8"
SERVERS = [named(f"server {number}").peer_id for number in range(9)]


def listening(*hosts: str) -> Reachability:
    return Reachability([to_multiaddr(host, 4001) for host in hosts])


def status_of(reach: Reachability) -> str:
    """Of another type at each call, for type checkers."""
    return reach.status


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.3.4.5", Scope.MACHINE),
        ("::1", Scope.MACHINE),
        ("10.0.0.1", Scope.PRIVATE),
        ("169.254.1.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),  # a carrier's NAT
        ("fd00::1", Scope.PRIVATE),
        ("fe80::1%eth0", Scope.PRIVATE),
        ("::ffff:8.8.8.8", Scope.GLOBAL),
        ("2600::1", Scope.GLOBAL),
        ("8.8.8.8", Scope.GLOBAL),
        ("example.org", Scope.NONE),
    ],
)
def test_scopes(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


def test_who_listens_nowhere_cannot_be_reached_and_asks_nobody() -> None:
    reach = listening()
    reach.dialled(NET, 1.0)
    assert (reach.reachable, reach.status, reach.ask_at) == (False, "unreachable", math.inf)


def test_a_swarm_on_one_machine_works_at_once_and_asks_nobody() -> None:
    reach = listening(HERE)
    reach.dialled("127.0.0.2", 1.0)
    assert (reach.reachable, reach.status, reach.ask_at) == (True, "unknown", math.inf)


def test_who_listens_on_loopback_only_is_alone_once_it_dials_another_machine() -> None:
    reach = listening(HERE)
    reach.dialled(LAN, 1.0)
    assert not reach.reachable


def test_a_lan_works_at_once_and_is_behind_a_nat_for_the_internet() -> None:
    reach = listening(HERE, LAN)
    reach.dialled("192.168.1.9", 1.0)
    assert (reach.reachable, reach.ask_at) == (True, 1.0)
    reach.dialled(NET, 2.0)
    assert (reach.reachable, reach.ask_at) == (False, 2.0)


def test_a_connection_from_afar_is_evidence() -> None:
    reach = listening(LAN)
    reach.dialled(NET, 1.0)
    reach.dialled_by("192.168.1.9", 1.0)
    assert not reach.reachable
    reach.dialled_by("9.9.9.9", 1.0)
    assert (reach.reachable, reach.status) == (True, "reachable")


def test_most_of_those_who_tried_decide() -> None:
    reach = listening(NET)
    reach.dialled(NET, 0.0)
    assert (reach.reachable, reach.status) == (True, "unknown")
    reach.verdict(SERVERS[0], NET, reached=False, now=2.0)
    assert (reach.reachable, reach.status) == (False, "unreachable")
    reach.verdict(SERVERS[1], NET, reached=True, now=2.0)
    assert status_of(reach) == "unknown"
    reach.verdict(SERVERS[2], NET, reached=True, now=2.0)
    assert (reach.reachable, reach.status) == (True, "reachable")
    for server in SERVERS[3:]:  # it has changed: the newest count
        reach.verdict(server, NET, reached=False, now=2.0)
    assert status_of(reach) == "unreachable"


def test_liars_cannot_talk_away_that_somebody_dialled_us() -> None:
    reach = listening(NET)
    reach.dialled(NET, 0.0)
    reach.verdict(SERVERS[8], NET, reached=False, now=0.5)
    reach.dialled_by("9.9.9.9", 1.0)
    assert (reach.reachable, reach.status) == (True, "reachable")
    for server in SERVERS:
        reach.verdict(server, NET, reached=False, now=900.0)
    assert (reach.reachable, status_of(reach)) == (True, "reachable")
    for server in SERVERS:  # but nobody has for a quarter of an hour
        reach.verdict(server, NET, reached=False, now=902.0)
    assert (reach.reachable, status_of(reach)) == (False, "unreachable")


def test_a_connection_of_the_lan_is_no_fact_about_the_internet() -> None:
    reach = listening(NET)
    reach.dialled(NET, 0.0)
    reach.dialled_by(LAN, 1.0)
    reach.verdict(SERVERS[0], NET, reached=False, now=2.0)
    assert not reach.reachable


def test_what_a_neighbour_can_reach_says_nothing_about_the_internet() -> None:
    reach = listening(LAN)
    reach.dialled("192.168.1.9", 0.0)
    reach.verdict(SERVERS[0], "192.168.1.9", reached=True, now=2.0)
    reach.dialled(NET, 1.0)
    assert not reach.reachable
    reach.verdict(SERVERS[0], "192.168.1.9", reached=True, now=2.0)
    assert not reach.reachable
    reach.verdict(SERVERS[1], NET, reached=True, now=2.0)
    assert reach.reachable


def test_others_are_asked_again_sooner_when_nobody_had_an_answer() -> None:
    reach = listening(NET)
    reach.dialled(NET, 5.0)
    reach.asked(6.0)
    assert reach.ask_at == 96.0
    reach.verdict(SERVERS[0], NET, reached=True, now=2.0)
    reach.asked(100.0)
    assert reach.ask_at == 1000.0


HOSTS = st.sampled_from([HERE, LAN, NET, "name.example"])


@given(
    st.lists(HOSTS),
    st.lists(st.tuples(st.sampled_from(["dialled", "dialled_by", "yes", "no", "asked"]), HOSTS)),
)
def test_a_status_that_is_sure_is_the_decision(hosts: list[str], steps: list[tuple[str, str]]) -> None:
    reach = listening(*(host for host in hosts if host != "name.example"))
    for number, (step, host) in enumerate(steps):
        if step == "dialled":
            reach.dialled(host, float(number))
        elif step == "dialled_by":
            reach.dialled_by(host, float(number))
        elif step == "asked":
            reach.asked(float(number))
        else:
            reach.verdict(SERVERS[number % len(SERVERS)], host, step == "yes", float(number))
        if reach.status != "unknown":
            assert reach.reachable == (reach.status == "reachable")
