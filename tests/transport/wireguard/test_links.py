"""Which links stand: told once each way, endpoints tried in turn, silence noticed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.mesh.members import Endpoint, PortBlock
from swarmp2p.transport.mesh.plan import WireGuardPeer
from swarmp2p.transport.wireguard.description import check_peers
from swarmp2p.transport.wireguard.links import LinkConfig, LinkLost, Links, LinkState, LinkUp

A, B = b"a" * 32, b"b" * 32
CONFIG = LinkConfig(try_s=2.0, give_up_s=8.0, silent_s=5.0)
HOME, OFFICE = Endpoint("192.168.0.7", 51_820), Endpoint("198.51.100.7", 51_820)


def partner(key: bytes = A, *endpoints: Endpoint) -> WireGuardPeer:
    host = key[0] - 90
    return WireGuardPeer(
        key[:16], key, endpoints, f"100.66.0.{host}", f"127.64.0.{host}", PortBlock(20_000 + 50 * host, 50)
    )


def links(*partners: WireGuardPeer) -> Links:
    made = Links(CONFIG)
    made.follow(partners, 0.0)
    return made


def test_a_link_is_up_once_keys_are_agreed_on_and_that_is_told_once() -> None:
    found = links(partner(A), partner(B))
    assert found.saw({}, {}, 0.1) == ([], [])
    assert found.saw({A: 1_800_000_000}, {A: 92}, 0.2) == ([LinkUp(A[:16])], [])
    assert found.saw({A: 1_800_000_000}, {A: 92}, 0.3) == ([], [])
    assert (found.state(A[:16]), found.state(B[:16])) == (LinkState.UP, LinkState.TRYING)
    assert found.look_s == CONFIG.look_trying_s


def test_endpoints_are_tried_in_turn_until_one_answers() -> None:
    found = links(partner(A, HOME, OFFICE))
    assert found.wanted()[0].endpoint == (HOME.ip, HOME.port)
    assert found.saw({}, {}, 1.9) == ([], [])
    assert found.saw({}, {}, 2.0) == ([], [A])
    assert found.wanted()[0].endpoint == (OFFICE.ip, OFFICE.port)
    assert found.saw({A: 1}, {A: 1}, 2.5) == ([LinkUp(A[:16])], [])
    assert found.saw({A: 1}, {A: 2}, 4.6) == ([], [])
    assert found.wanted()[0].endpoint == (OFFICE.ip, OFFICE.port)


def test_the_only_endpoint_is_left_to_wireguard() -> None:
    found = links(partner(A, HOME), partner(B))
    assert all(found.saw({}, {}, now)[1] == [] for now in range(1, 20))


def test_in_vain_is_told_once_with_what_to_look_at_and_it_may_come_up_later() -> None:
    found = links(partner(A, HOME), partner(B))
    events, _ = found.saw({}, {}, 8.0)
    reasons = [event.reason for event in events if isinstance(event, LinkLost)]
    assert "192.168.0.7 port 51820" in reasons[0]
    assert "it was to send first" in reasons[1]
    assert found.saw({}, {}, 9.0) == ([], [])
    assert found.look_s == CONFIG.look_s
    assert found.saw({B: 1}, {B: 1}, 10.0) == ([LinkUp(B[:16])], [])


def test_silence_is_told_and_its_end() -> None:
    found = links(partner(A))
    found.saw({A: 1}, {A: 10}, 1.0)
    assert found.saw({A: 1}, {A: 20}, 5.9) == ([], [])
    assert found.saw({A: 1}, {A: 20}, 10.8) == ([], [])
    (lost,), _ = found.saw({A: 1}, {A: 20}, 10.9)
    assert lost == LinkLost(A[:16], "no WireGuard packet came for 5 s")
    assert found.saw({A: 1}, {A: 20}, 20.0) == ([], [])
    assert found.saw({A: 1}, {A: 21}, 21.0) == ([LinkUp(A[:16])], [])


def test_who_stays_keeps_its_state_and_who_has_another_place_begins_anew() -> None:
    found = links(partner(A, HOME))
    found.saw({A: 1}, {A: 1}, 1.0)
    found.follow([partner(A, OFFICE), partner(B)], 2.0)
    assert found.state(A[:16]) is LinkState.UP
    assert found.wanted()[0].endpoint == (OFFICE.ip, OFFICE.port)
    found.follow([replace(partner(A, OFFICE), address="127.64.9.9")], 3.0)
    assert (found.state(A[:16]), found.state(B[:16])) == (LinkState.TRYING, None)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.dictionaries(st.sampled_from((A, B, b"x" * 32)), st.integers(0, 2)),
            st.dictionaries(st.sampled_from((A, B)), st.integers(0, 3)),
        ),
        max_size=30,
    )
)
def test_up_and_lost_take_turns_whatever_is_seen(
    looks: list[tuple[float, dict[bytes, int], dict[bytes, int]]],
) -> None:
    found, now = links(partner(A, HOME, OFFICE), partner(B)), 0.0
    last: dict[bytes, type] = {}
    for pause_s, handshakes, received in looks:
        now += pause_s
        events, turned = found.saw(handshakes, received, now)
        for event in events:
            assert last.get(event.member) is not type(event)
            last[event.member] = type(event)
        assert all(found.state(key[:16]) is LinkState.TRYING for key in turned)
        check_peers(found.wanted(), "100.66.0.1")
