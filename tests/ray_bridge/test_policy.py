"""Who gets what: the owner's terms against requests, and what a refused borrower is told."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import Lend, Need, Offer, Versions
from swarmp2p.ray_bridge.messages import LeaseRequest
from swarmp2p.ray_bridge.policy import Refusal, admit, check_need, check_offer

from .keys import VERSIONS, lease_id, peer

ALICE, MALLORY = peer(1), peer(2)


def ask(
    offer: Offer,
    need: Need,
    *taken: Need,
    versions: Versions = VERSIONS,
    allow: frozenset[PeerId] | None = None,
) -> Refusal | None:
    lend = Lend(offer, VERSIONS, allow)
    verdict = admit(lend, LeaseRequest(lease_id(1), need, versions, "c"), ALICE, taken, 0.0, 5.0)
    return verdict if isinstance(verdict, Refusal) else None


def reason(problem: Refusal | None) -> str:
    assert problem is not None
    return problem.reason


def test_what_fits_is_given() -> None:
    offer = Offer(cpus=4, gpus=1, memory_bytes=8 << 30, kind="workstation", region="eu", max_leases=3)
    need = Need(cpus=2, gpus=1, memory_bytes=4 << 30, kind="workstation", region="eu")
    assert ask(offer, need) is None
    assert ask(offer, need, Need(cpus=2, memory_bytes=4 << 30)) is None
    assert ask(offer, need, allow=frozenset({ALICE})) is None


def test_nothing_is_lent() -> None:
    request = LeaseRequest(lease_id(1), Need(), VERSIONS, "c")
    verdict = admit(None, request, ALICE, (), 0.0, 5.0)
    assert isinstance(verdict, Refusal)
    assert "lends nothing" in verdict.reason


def test_a_peer_that_is_not_allowed_learns_whom_to_ask_and_nothing_else() -> None:
    full = Offer(cpus=1, max_leases=1)
    hopeless = Need(cpus=64, kind="gpu-cluster", region="mars")
    problem = ask(full, hopeless, Need(), versions=Versions("1.0", "2.7", "0"), allow=frozenset({MALLORY}))
    assert problem == Refusal(
        f"its owner has not allowed peer {ALICE}; ask them to add it with --allow {ALICE}", None
    )


def test_an_empty_allow_set_allows_nobody() -> None:
    assert "has not allowed" in reason(ask(Offer(), Need(), allow=frozenset()))


def test_another_ray_version_is_refused_with_the_command_that_helps() -> None:
    problem = ask(Offer(), Need(), versions=Versions("2.59.1", "3.11", "0.1.0"))
    assert reason(problem) == (
        "this lender runs Ray 2.60.0 and Python 3.11, the head runs Ray 2.59.1; "
        "install the same with: pip install 'ray==2.60.0'"
    )


def test_another_python_minor_version_is_refused() -> None:
    problem = ask(Offer(), Need(), versions=Versions("2.60.0", "3.12.1", "0.1.0"))
    assert reason(problem) == (
        "this lender runs Ray 2.60.0 and Python 3.11, the head runs Ray 2.60.0 and Python 3.12; use Python 3.11"
    )
    both = ask(Offer(), Need(), versions=Versions("2.59.1", "3.12.1", "0.1.0"))
    assert reason(both).endswith("use Python 3.11, in it: pip install 'ray==2.60.0'")


def test_patch_versions_of_python_and_versions_of_swarmp2p_may_differ() -> None:
    assert ask(Offer(), Need(), versions=Versions("2.60.0", "3.11.9", "0.2.0")) is None


@pytest.mark.parametrize(
    ("need", "said"),
    [
        (Need(cpus=5), "it lends 4 CPUs, and 5 were asked for"),
        (Need(gpus=1), "it lends 0 GPUs, and 1 were asked for"),
        (Need(memory_bytes=3 << 30), "it lends 2 GiB of memory, and 3 were asked for"),
        (Need(kind="gpu-cluster"), "its kind is individual, and gpu-cluster was asked for"),
        (Need(region="eu"), "its region is not set, and eu was asked for"),
    ],
)
def test_what_can_never_be_given_is_not_to_be_asked_for_again(need: Need, said: str) -> None:
    problem = ask(Offer(cpus=4, memory_bytes=2 << 30), need)
    assert reason(problem).startswith(said)
    assert problem is not None
    assert problem.retry_after_s is None


@pytest.mark.parametrize(
    ("offer", "taken", "said"),
    [
        (Offer(cpus=8, max_leases=1), Need(cpus=1), "all of its leases (1) are taken"),
        (Offer(cpus=4, max_leases=2), Need(cpus=3), "3 of its 4 CPUs are taken, and 2 more were asked for"),
    ],
)
def test_what_cannot_be_given_now_may_be_asked_for_later(offer: Offer, taken: Need, said: str) -> None:
    assert ask(offer, Need(cpus=2), taken) == Refusal(said, 5.0, room=True)


def test_ten_tenths_of_a_cpu_fit_into_one() -> None:
    assert ask(Offer(cpus=1, max_leases=10), Need(cpus=0.1), *[Need(cpus=0.1)] * 9) is None


def test_offers_are_checked_with_a_reason() -> None:
    check_offer(Offer())
    check_offer(Offer(node_ip="::1", kind="regional-hub", memory_bytes=1 << 40))
    for offer, said in [
        (Offer(kind="toaster"), "no provider kind 'toaster'"),
        (Offer(node_ip="localhost"), "node_ip must be an IP address"),
        (Offer(max_leases=0), "max_leases must be at least 1"),
        (Offer(cpus=0), "cpus must be a number above 0"),
        (Offer(gpus=-1), "gpus must be a number from 0"),
        (Offer(memory_bytes=-1), "memory_bytes must be a count from 0"),
        (Offer(region="x" * 65), "region must be printable"),
    ]:
        with pytest.raises(UsageError, match=said):
            check_offer(offer)


@pytest.mark.parametrize(
    "need",
    [
        Need(cpus=0),
        Need(cpus=cast(Any, "2")),
        Need(cpus=math.nan),
        Need(gpus=-1),
        Need(memory_bytes=cast(Any, 1.5)),
        Need(kind="toaster"),
        Need(region="x" * 65),
        Need(region=cast(Any, None)),
    ],
)
def test_needs_that_nobody_can_meet_are_refused_before_anybody_is_asked(need: Need) -> None:
    check_need(Need())
    check_need(Need(cpus=0.5, gpus=1, kind="gpu-cluster", region="eu"))
    with pytest.raises(UsageError):
        check_need(need)
