"""Whom to ask for the next worker."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.recruit import Candidate, RecruitConfig, Recruiter


def peer(index: int) -> PeerId:
    return PeerId.from_public_key(hashlib.sha256(bytes([index])).digest())


def lease(index: int) -> bytes:
    return bytes([index]) * 16


CANDIDATES = [Candidate(peer(index), sequence=1) for index in range(4)]


def ask(recruiter: Recruiter, name: bytes, candidates: list[Candidate], now: float) -> PeerId | None:
    provider = recruiter.next(candidates, now)
    if provider is not None:
        recruiter.asked(name, next(c for c in candidates if c.provider == provider))
    return provider


def test_asks_the_best_first_and_each_only_once() -> None:
    recruiter = Recruiter(wanted=2)
    assert ask(recruiter, lease(1), CANDIDATES, 0.0) == peer(0)
    assert ask(recruiter, lease(2), CANDIDATES, 0.0) == peer(1)
    assert recruiter.missing() == 0
    assert recruiter.next(CANDIDATES, 0.0) is None


def test_a_refusal_moves_on_to_the_next() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES, 0.0)
    recruiter.refused(lease(1), "not allowed", None, 0.0)
    assert ask(recruiter, lease(2), CANDIDATES, 0.0) == peer(1)
    assert recruiter.refusals() == ((peer(0), "not allowed"),)


def test_one_that_refused_is_asked_again_after_its_pause_or_when_its_record_is_newer() -> None:
    recruiter = Recruiter(wanted=1, config=RecruitConfig(decline_pause_s=30.0))
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.refused(lease(1), "full", None, 0.0)
    assert recruiter.next(CANDIDATES[:1], 29.0) is None
    assert recruiter.next(CANDIDATES[:1], 30.0) == peer(0)
    assert recruiter.next([Candidate(peer(0), sequence=2)], 1.0) == peer(0)


def test_the_refusers_own_time_counts() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.refused(lease(1), "full", 2.0, 0.0)
    assert recruiter.next(CANDIDATES[:1], 1.9) is None
    assert recruiter.next(CANDIDATES[:1], 2.0) == peer(0)


def test_a_lost_worker_is_replaced_by_another_provider() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES, 0.0)
    recruiter.ended(lease(1), "silent", 5.0)
    assert ask(recruiter, lease(2), CANDIDATES, 5.0) == peer(1)


def test_answers_about_unknown_leases_change_nothing() -> None:
    recruiter = Recruiter(wanted=1)
    recruiter.refused(lease(9), "?", None, 0.0)
    recruiter.ended(lease(9), "?", 0.0)
    assert recruiter.missing() == 1
    assert recruiter.refusals() == ()


def test_what_is_remembered_is_bounded_and_busy_providers_are_never_forgotten() -> None:
    recruiter = Recruiter(wanted=1, config=RecruitConfig(max_remembered=3))
    for index in range(20):
        candidate = Candidate(peer(index), 1)
        recruiter.asked(lease(index), candidate)
        if index != 5:
            recruiter.refused(lease(index), "no", None, 0.0)
    assert recruiter.provider(lease(5)) == peer(5)
    assert len(recruiter.refusals()) <= 3
    assert recruiter.next([Candidate(peer(5), 1)], 0.0) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "refused", "ended"]), st.integers(0, 7), st.floats(0, 5)),
        max_size=60,
    )
)
def test_never_more_leases_than_wanted_and_two_at_one_provider_only_when_nobody_else_can_be_asked(
    steps: list[tuple[str, int, float]],
) -> None:
    recruiter = Recruiter(wanted=3)
    now, names = 0.0, iter(range(1000))
    standing: dict[bytes, PeerId] = {}
    for action, index, wait in steps:
        now += wait
        name = list(standing)[index % len(standing)] if standing else b""
        match action:
            case "ask":
                new = next(names).to_bytes(16, "big")
                others = any(recruiter.may_ask(each, now) for each in CANDIDATES)
                provider = ask(recruiter, new, CANDIDATES, now)
                if provider is not None:
                    assert not (others and provider in standing.values())
                    standing[new] = provider
            case "refused":
                recruiter.refused(name, "no", None, now)
                standing.pop(name, None)
            case _:
                recruiter.ended(name, "gone", now)
                standing.pop(name, None)
        assert len(standing) <= 3
        assert recruiter.missing() == 3 - len(standing)


def test_a_provider_cannot_have_itself_asked_again_and_again_before_others() -> None:
    recruiter, now = Recruiter(1), 0.0
    honest, pushy = peer(1), peer(0)
    for round_ in range(2):
        # It is always the best, by its own account, and its record is always newer.
        candidates = [Candidate(pushy, sequence=10 + round_), Candidate(honest, sequence=1)]
        provider = recruiter.next(candidates, now)
        assert provider == (pushy, honest)[round_]
        recruiter.asked(bytes([round_]) * 16, candidates[round_])
        recruiter.refused(bytes([round_]) * 16, "no", 0.0, now)
        now += 0.01
    assert recruiter.next([Candidate(pushy, sequence=99)], now) is None
    assert recruiter.next([Candidate(pushy, sequence=99)], now + 1.0) == pushy


def test_leases_count_until_a_signal_shows_them() -> None:
    recruiter = Recruiter(wanted=3)
    for number in (1, 2):
        ask(recruiter, lease(number), CANDIDATES, 0.0)
    assert recruiter.providers() == (peer(0), peer(1))
    assert recruiter.unseen(lambda _: 9.0) == {peer(0): 1, peer(1): 1}, "asked for: no signal can show it"
    recruiter.granted(lease(1), 10.0)
    recruiter.granted(lease(7), 10.0)
    assert recruiter.unseen(lambda _: 9.0) == {peer(0): 1, peer(1): 1}
    assert recruiter.unseen(lambda _: 10.5) == {peer(1): 1}
    recruiter.refused(lease(2), "no", None, 11.0)
    assert recruiter.unseen(lambda _: 10.5) == {}
    recruiter.ended(lease(1), "over", 12.0)
    assert recruiter.unseen(lambda _: 9.0) == {}
    assert not recruiter.may_ask(CANDIDATES[1], 12.0)
    assert recruiter.may_ask(CANDIDATES[2], 12.0)


def test_who_gives_a_worker_is_asked_for_another_once_nobody_else_could_be_for_a_while() -> None:
    recruiter = Recruiter(wanted=4)
    two = CANDIDATES[:2]
    assert [ask(recruiter, lease(n), two, 0.0) for n in (1, 2, 3)] == [peer(0), peer(1), None]
    assert recruiter.share_at() == 0.5
    assert ask(recruiter, lease(3), two, 0.4) is None
    assert ask(recruiter, lease(3), two, 0.5) == peer(0)
    assert ask(recruiter, lease(4), two, 0.5) == peer(1), "who gives fewest comes first"
    assert ask(recruiter, lease(5), CANDIDATES, 0.5) is None
    recruiter.ended(lease(1), "gone", 1.0)
    assert ask(recruiter, lease(5), CANDIDATES, 1.0) == peer(2), "somebody new again"


def test_of_one_provider_there_are_so_many_at_most() -> None:
    recruiter = Recruiter(wanted=9, config=RecruitConfig(max_each=2))
    given = [ask(recruiter, lease(n), CANDIDATES[:1], float(n)) for n in range(4)]
    assert given == [peer(0), None, peer(0), None]


def test_a_worker_that_is_about_to_end_is_replaced_before_and_not_by_the_same_provider() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.ending(lease(1), "its owner is back", 30.0)
    assert recruiter.missing() == 1
    assert recruiter.is_ending(lease(1))
    assert [ask(recruiter, lease(2), CANDIDATES[:1], now) for now in (1.0, 9.0)] == [None, None]
    assert ask(recruiter, lease(2), CANDIDATES, 9.0) == peer(1)
    recruiter.ended(lease(1), "its owner is back", 30.0)
    assert recruiter.missing() == 0
    assert not recruiter.may_ask(CANDIDATES[0], 39.0)
    assert recruiter.may_ask(CANDIDATES[0], 40.0)


def test_who_got_its_worker_back_may_be_asked_at_once() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.ended(lease(1), "it was idle", 5.0, given_back=True)
    assert recruiter.refusals() == ()
    assert recruiter.may_ask(CANDIDATES[0], 6.0)


def test_who_is_not_even_asked_is_told() -> None:
    recruiter = Recruiter(wanted=1)
    recruiter.unfit(peer(0), "another Ray")
    assert recruiter.refusals() == ((peer(0), "another Ray"),)
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.unfit(peer(0), "another Ray")
    assert recruiter.refusals() == ()


def test_a_silent_providers_worker_is_replaced_unless_it_answers_again() -> None:
    recruiter = Recruiter(wanted=1)
    ask(recruiter, lease(1), CANDIDATES[:1], 0.0)
    recruiter.silent(lease(1), True)
    assert recruiter.is_ending(lease(1))
    assert [ask(recruiter, lease(2), CANDIDATES[:1], now) for now in (5.0, 6.0)] == [None, None], (
        "not of itself"
    )
    assert ask(recruiter, lease(2), CANDIDATES, 6.0) == peer(1)
    assert recruiter.surplus() == 0
    recruiter.silent(lease(1), False)
    assert recruiter.surplus() == 1
    recruiter.ended(lease(2), "not needed", 7.0, given_back=True)
    assert (recruiter.surplus(), recruiter.missing()) == (0, 0)
    recruiter.silent(lease(9), True)
    assert recruiter.missing() == 0


FULL = [Candidate(peer(index), sequence=1, full=True) for index in range(3)]


def wait_at(recruiter: Recruiter, name: bytes, candidates: list[Candidate], now: float) -> PeerId | None:
    """Ask whoever is full; it has the request wait."""
    provider = recruiter.next(candidates, now) or recruiter.next_full(candidates, now)
    if provider is not None:
        recruiter.asked(name, next(c for c in candidates if c.provider == provider))
        recruiter.queued(name, "it is full")
    return provider


def test_those_that_are_full_are_asked_to_wait_when_nobody_else_is_left() -> None:
    recruiter = Recruiter(wanted=1)
    assert recruiter.next(FULL, 0.0) is None
    assert recruiter.next_full(FULL, 0.0) is None, "somebody may still be found"
    assert wait_at(recruiter, lease(1), FULL, 0.5) == peer(0)
    assert wait_at(recruiter, lease(2), FULL, 0.6) == peer(1), "one queue does not keep it from another"
    assert recruiter.refusals() == ((peer(0), "it is full"), (peer(1), "it is full"))
    assert recruiter.not_needed() == ()
    assert ask(recruiter, lease(3), CANDIDATES[3:], 0.7) == peer(3), "nor from who has room"
    assert recruiter.next_full(FULL, 9.0) is None
    assert recruiter.not_needed() == (lease(1), lease(2))
    recruiter.refused(lease(3), "no", None, 1.0)
    assert recruiter.not_needed() == ()
    assert recruiter.granted(lease(2), 2.0)
    assert recruiter.not_needed() == (lease(1),)
    recruiter.ended(lease(1), "not needed", 2.0, given_back=True)
    assert (recruiter.missing(), recruiter.surplus(), recruiter.not_needed()) == (0, 0, ())


def test_two_that_have_room_at_once_are_one_too_many() -> None:
    recruiter = Recruiter(wanted=1)
    recruiter.next(FULL, 0.0)
    wait_at(recruiter, lease(1), FULL, 1.0)
    wait_at(recruiter, lease(2), FULL, 1.0)
    assert recruiter.granted(lease(1), 2.0)
    assert recruiter.granted(lease(2), 2.0)
    assert recruiter.surplus() == 1


def test_only_so_many_requests_wait() -> None:
    recruiter = Recruiter(wanted=5, config=RecruitConfig(max_waiting=2))
    recruiter.next(FULL, 0.0)
    assert [wait_at(recruiter, lease(index), FULL, 1.0) for index in range(3)] == [peer(0), peer(1), None]
