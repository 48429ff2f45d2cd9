"""A relay's tables: whom it serves, and how many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.identity import PeerId
from swarmp2p.transport.relay_config import RelayConfig
from swarmp2p.transport.relay_slots import Pace, Slots
from tests.transport.station import named

PEERS: list[PeerId] = [named(f"peer {number}").peer_id for number in range(6)]
PEER: st.SearchStrategy[PeerId] = st.sampled_from(PEERS)
HOSTS = ["127.0.0.1", "192.168.1.7", "5.0.0.1", "5.0.0.2", "5.0.1.1", "2a00::1"]


def test_addresses_of_the_internet_are_counted_and_others_are_not() -> None:
    slots = Slots(RelayConfig(per_ip=1, per_subnet=2))
    assert slots.reserve(PEERS[0], "5.0.0.1", 0.0)
    assert not slots.reserve(PEERS[1], "5.0.0.1", 0.0)
    assert slots.reserve(PEERS[1], "5.0.0.2", 0.0)
    assert not slots.reserve(PEERS[2], "5.0.0.3", 0.0)
    assert slots.reserve(PEERS[2], "5.0.1.1", 0.0)
    assert all(slots.reserve(peer, "192.168.1.7", 0.0) for peer in PEERS[3:])
    assert slots.release(PEERS[0])
    assert slots.reserve(PEERS[0], "5.0.0.3", 0.0)


def test_a_reservation_is_renewed_in_its_place_and_ends_when_nobody_does() -> None:
    slots = Slots(RelayConfig(reservations=1, reservation_s=10.0))
    assert slots.reserve(PEERS[0], "5.0.0.1", 0.0)
    assert not slots.reserve(PEERS[1], "5.0.1.1", 9.0)
    assert slots.reserve(PEERS[0], "5.0.0.1", 9.0)
    assert slots.is_reserved(PEERS[0], 18.9)
    assert not slots.is_reserved(PEERS[0], 19.0)
    assert slots.reserve(PEERS[1], "5.0.1.1", 19.0)  # the other one has made room
    assert len(slots) == 1
    assert slots.sweep(29.0) == [PEERS[1]]
    assert not slots.release(PEERS[1])


def test_circuits_are_bounded_in_all_and_at_both_ends() -> None:
    slots = Slots(RelayConfig(circuits=3, circuits_per_peer=2))
    a, b, c, d = PEERS[:4]
    assert slots.connect(a, b)
    assert slots.connect(c, a)
    assert not slots.connect(d, a)
    assert not slots.connect(a, d)
    assert slots.connect(b, c)
    assert not slots.connect(d, PEERS[4])
    slots.disconnect(a, b)
    assert slots.connect(d, a)
    assert slots.circuits == 3


STEPS = st.tuples(
    st.sampled_from(["reserve", "release", "sweep", "connect", "disconnect"]),
    PEER,
    PEER,
    st.sampled_from(HOSTS),
    st.floats(0.0, 5.0),
)


@given(st.lists(STEPS, max_size=60))
def test_the_bounds_hold_and_what_is_given_back_leaves_nothing(
    steps: list[tuple[str, PeerId, PeerId, str, float]],
) -> None:
    config = RelayConfig(
        reservations=4, per_ip=2, per_subnet=3, reservation_s=10.0, circuits=5, circuits_per_peer=2
    )
    slots, now = Slots(config), 0.0
    circuits: list[tuple[PeerId, PeerId]] = []
    for what, one, other, host, later in steps:
        now += later
        match what:
            case "reserve":
                given_one = slots.reserve(one, host, now)
                assert slots.is_reserved(one, now) == given_one
            case "release":
                slots.release(one)
                assert not slots.is_reserved(one, now)
            case "sweep":
                slots.sweep(now)
                assert len(slots) == sum(slots.is_reserved(peer, now) for peer in PEERS)
            case "connect":
                if one != other and slots.connect(one, other):
                    circuits.append((one, other))
            case _:
                if circuits:
                    slots.disconnect(*circuits.pop(0))
        assert len(slots) <= 4
        assert slots.circuits == len(circuits) <= 5
        assert all(sum(peer in ends for ends in circuits) <= 2 for peer in PEERS)
    for peer in PEERS:
        slots.release(peer)
    for source, target in circuits:
        slots.disconnect(source, target)
    assert slots.circuits == len(slots) == 0
    assert all(slots.reserve(peer, "5.0.0.1", now) for peer in PEERS[:2])


def test_a_refused_renewal_takes_the_reservation() -> None:
    """It moved to where there are too many: it may not hold two places for one."""
    slots = Slots(RelayConfig(per_ip=1))
    assert slots.reserve(PEERS[0], "5.0.0.1", 0.0)
    assert slots.reserve(PEERS[1], "5.0.0.2", 0.0)
    assert not slots.reserve(PEERS[1], "5.0.0.1", 0.0)
    assert not slots.is_reserved(PEERS[1], 0.0)


def test_the_pace_is_kept_over_all_circuits() -> None:
    pace, now = Pace(1000.0), 100.0
    assert pace.spend(250, now) == 0.0
    for _ in range(100):
        now += pace.spend(100, now)
    assert round(now, 6) == 110.0
    assert pace.spend(250, 200.0) == 0.0  # after a pause
    assert Pace(0.0).spend(1 << 40, 0.0) == 0.0
