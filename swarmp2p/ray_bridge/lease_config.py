"""Tuning of the lease engine. All times in seconds; lease.py's docstring says how they work together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """Both roles' settings.

    Borrower, whose messages drive everything:

    retry_s: an unanswered message is sent again after this.
    probes: at least so many of them must have gone unanswered, each for `retry_s`, before silence is
        believed, so that a borrower that was itself stopped for a while does not blame the lender.
    step_timeout_s: silence that ends a request which is not granted yet.
    starting_silence_s: silence that ends a granted lease while the worker starts. Longer than `silence_s`,
        because starting Ray keeps a small machine's processors busy (7 s by `ray start` on two cores).
    renew_interval_s: from an answered renewal to the next one.
    silence_s: silence that ends an active lease. A lender killed right after an answer is noticed after this,
        one killed right before its next answer after silence_s - renew_interval_s: 2 to 3 s.
    gang_s: how long a worker that was set aside for a gang is kept while others are asked. Less than the lender's
        `hold_s`, so that what is committed still stands there.
    confirm_s: the same after the connection closed (PeerDown), when all depends on dialling again.
    farewells: so often a Release is said again, 0.5, 1.5 and 3.5 s after the first time: with every fifth message lost,
        one lender in 600 keeps the lease until its term is over.
    redials: so many times it is dialled again; the PeerDown after that ends the lease. Two, not one, because
        a message that was under way when the connection closed may come back as a PeerDown of its own.

    Lender:

    challenge_timeout_s: how long resources are set aside for a borrower that has not proven who it is.
    hold_s: the same for a gang's, which its borrower proves when it has all of them.
    waste_s: seconds of reservations that came to nothing which are forgiven (waste.py): one lost proof's, not two.
    waste_forgotten: so many of them are forgotten each second: who goes on wasting keeps room from others for a
        twelfth of the time.
    max_waste_s: more are not counted, so that all is forgiven after some 5 minutes.
    max_queue, max_queue_per_peer: requests that wait for room; beyond them requests are refused.
    max_queue_s: how long one may wait at most, whatever it asks for.
    overtake_s: a request that has waited so long and does not fit is not overtaken any more. A guess.
    queue_silence_s: one that was not repeated for so long is forgotten; borrowers repeat it every `renew_interval_s`.
    lease_s: term of a lease and of each renewal; None for what the offer's provider kind says.
    orphan_grace_s: term that is left once the connection to the borrower closed; a renewal restores it.
    max_half_open, max_half_open_per_peer: challenges under way at a time; beyond them requests are refused. Of those
        for which nothing is set aside there may be as many again; beyond them the oldest goes.
    retry_after_s: what a borrower is told when the lender is full.

    Both:

    start_timeout_s: a worker that has not joined by then is given up. The borrower allows `step_timeout_s`
        more, so that the lender's reason, which says more, comes first.
    clock_error_s: difference of two machines' clocks that is forgiven when signed expiries are checked.
    max_taken: leases and requests of a borrower at a time; beyond them requests are refused at once.
    max_finished: finished leases that are remembered, oldest forgotten first, so that a late copy of a
        message does not revive them.
    strange_per_s: messages about unknown leases that are answered, for each peer and second.
    max_strangers: peers for which those are counted, and accounts whose waste is, oldest forgotten first.
    """

    retry_s: float = 0.5
    probes: int = 3
    step_timeout_s: float = 5.0
    starting_silence_s: float = 10.0
    renew_interval_s: float = 1.0
    silence_s: float = 3.0
    gang_s: float = 8.0
    confirm_s: float = 2.0
    farewells: int = 3
    redials: int = 2
    challenge_timeout_s: float = 5.0
    hold_s: float = 10.0
    waste_s: float = 6.0
    waste_forgotten: float = 1 / 12
    max_waste_s: float = 30.0
    max_queue: int = 64
    max_queue_per_peer: int = 8
    max_queue_s: float = 600.0
    overtake_s: float = 30.0
    queue_silence_s: float = 5.0
    lease_s: float | None = None
    orphan_grace_s: float = 10.0
    max_half_open: int = 64
    max_half_open_per_peer: int = 8
    retry_after_s: float = 5.0
    start_timeout_s: float = 60.0
    clock_error_s: float = 30.0
    max_taken: int = 256
    max_finished: int = 1024
    strange_per_s: int = 20
    max_strangers: int = 256
