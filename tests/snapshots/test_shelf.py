"""What a holder takes and lets go of: never more than its bounds, never an older one in place of a newer."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.identity import PeerId
from swarmp2p.snapshots.form import Header
from swarmp2p.snapshots.shelf import EACH, Shelf, ShelfConfig

WEEK = 7 * 86_400.0
PEERS = [PeerId.from_public_key(hashlib.sha256(b"%d" % index).digest()) for index in range(6)]


def header(peer: PeerId, sequence: int, size: int = 100, expires: float = 1e9) -> Header:
    return Header(peer, sequence, size, bytes(32), expires, b"%d" % sequence)


def put(shelf: Shelf, wanted: Header, now: float = 0.0, leases: tuple[PeerId, ...] = ()) -> str:
    reason, _ = shelf.take(wanted, now, leases)
    if not reason:
        shelf.kept(wanted.borrower, now)
    return reason


STEPS = st.lists(
    st.tuples(
        st.sampled_from(PEERS),
        st.integers(1, 6),
        st.integers(48, 400),
        st.floats(0, 200),
        st.sampled_from(["keep", "lose", "wait"]),
        st.sets(st.integers(0, 5)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_bounds_hold_and_sequences_only_grow(
    steps: list[tuple[PeerId, int, int, float, str, set[int]]],
) -> None:
    config = ShelfConfig(1000, most=4, age_s=100)
    shelf, now = Shelf(config), 0.0
    best: dict[PeerId, int] = {}
    arriving: dict[PeerId, Header] = {}
    for peer, sequence, size, expires, what, lessees in steps:
        now += 1
        if peer in arriving and what != "wait":
            shelf.kept(peer, now)
            best[peer] = arriving.pop(peer).sequence
        for gone in shelf.expired(now):
            best.pop(gone)
        wanted = header(peer, sequence, size, expires)
        leases = [PEERS[index] for index in sorted(lessees)]
        reason, gone_now = shelf.take(wanted, now, leases)
        assert not set(gone_now) & {*leases, peer}
        for gone in gone_now:
            best.pop(gone)
        if not reason:
            assert expires > now
            assert size <= 1000 // EACH
            assert sequence > best.get(peer, 0)
            if what == "keep":
                shelf.kept(peer, now)
                best[peer] = sequence
            elif what == "lose":
                shelf.lost(peer)
            else:
                arriving[peer] = wanted
        assert shelf.used_bytes <= 1000
        assert len({*best, *arriving}) <= 4
        for each in PEERS:
            found = shelf.find(each, now)
            assert found is None or found.sequence == best[each]


def test_the_newest_wins_and_an_old_one_is_refused() -> None:
    shelf = Shelf(ShelfConfig(1000))
    assert put(shelf, header(PEERS[0], 5)) == ""
    assert "as new" in put(shelf, header(PEERS[0], 4))
    assert "as new" in put(shelf, header(PEERS[0], 5))
    assert put(shelf, header(PEERS[0], 6)) == ""
    found = shelf.find(PEERS[0], 0)
    assert found is not None
    assert found.sequence == 6
    assert len(shelf) == 1


def test_one_borrower_has_a_quarter_at_most() -> None:
    shelf = Shelf(ShelfConfig(1000))
    assert "250 are the most" in put(shelf, header(PEERS[0], 1, 251))
    assert put(shelf, header(PEERS[0], 1, 250)) == ""


def test_strangers_cannot_fill_the_place_of_those_who_are_worked_for() -> None:
    shelf = Shelf(ShelfConfig(1000))
    for peer in PEERS[:4]:
        assert put(shelf, header(peer, 1, 250)) == ""
    assert "no room" in put(shelf, header(PEERS[4], 1, 100))
    reason, gone = shelf.take(header(PEERS[4], 1, 250), 0, [PEERS[4], PEERS[0]])
    assert (reason, gone) == ("", (PEERS[1],))  # the oldest of those without a lease


def test_nobody_is_pushed_out_in_vain() -> None:
    shelf = Shelf(ShelfConfig(1000))
    for peer in PEERS[:4]:
        assert put(shelf, header(peer, 1, 250)) == ""
    leases = [*PEERS[:3], PEERS[4]]
    shelf.take(header(PEERS[3], 2, 250), 0, leases)  # it is arriving: there is no room behind it either
    reason, gone = shelf.take(header(PEERS[4], 1, 250), 0, leases)
    assert ("no room" in reason, gone) == (True, ())
    assert len(shelf) == 4


def test_what_is_over_goes() -> None:
    shelf = Shelf(ShelfConfig(1000))
    put(shelf, header(PEERS[0], 1, expires=50), now=10)
    put(shelf, header(PEERS[1], 1, expires=1e9), now=10)
    assert shelf.expired(49) == ()
    assert shelf.find(PEERS[0], 51) is None
    assert shelf.expired(51) == (PEERS[0],)
    assert shelf.expired(10 + WEEK) == (PEERS[1],)
    assert put(shelf, header(PEERS[2], 1, expires=50), now=50) == "it has expired"


def test_what_is_taken_back_is_gone_unless_it_is_newer_or_arriving() -> None:
    shelf = Shelf(ShelfConfig(1000))
    put(shelf, header(PEERS[0], 5, 100))
    put(shelf, header(PEERS[1], 5, 100))
    assert shelf.withdraw(header(PEERS[0], 4, 100)) == "there is a newer one"
    assert shelf.take(header(PEERS[0], 6, 100), 0) == ("", ())
    assert shelf.withdraw(header(PEERS[0], 6, 100)) == "another one of yours is arriving"
    shelf.kept(PEERS[0], 0)
    assert shelf.withdraw(header(PEERS[0], 6, 100)) == ""
    assert shelf.withdraw(header(PEERS[0], 6, 100)) == "", "said again"
    assert len(shelf) == 1
