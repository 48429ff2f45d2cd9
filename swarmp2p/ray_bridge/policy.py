"""Whether a lender gives a lease: its owner's terms against a request. Pure; no state of its own.

Who is not allowed learns that and nothing else: not what is lent, how full it is, or what runs here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, cast

from ..errors import UsageError
from ..fields import is_ip
from ..identity import PeerId
from ..providers import kind
from .events import ISOLATIONS, Lend, Need, Offer, Versions
from .grants import Grant
from .messages import MAX_COUNT, MAX_LABELS, MAX_MEMORY_BYTES, MAX_NAME_CHARS, LeaseRequest

_GIB: Final = 1 << 30
_ROUNDING: Final = 1e-9  # three times 0.1 CPU fits into 0.3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not.

    reason: a sentence for the borrower's owner. retry_after_s: seconds; None when asking again is useless. room:
    whether only room is missing, which others may free: what a queue is for.
    """

    reason: str
    retry_after_s: float | None = None
    room: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """What lets a borrower lease here.

    grant: that it rests on, verified; None when the owner's list names the borrower. until: when the lease ends
    whatever is renewed, seconds as `now`.
    """

    grant: Grant | None = None
    until: float = math.inf


Permit = Callable[[Lend, LeaseRequest, PeerId, Collection[Permission], float], Permission | Refusal]
"""Says whether a peer may lease at all, beside the permissions that leases and reservations rest on already, at a time:
`permission`, or GrantBook.permit."""


def permission(
    lend: Lend, request: LeaseRequest, borrower: PeerId, standing: Collection[Permission], now: float
) -> Permission | Refusal:
    """By the owner's list alone."""
    del request, standing, now
    if lend.allow is None or borrower in lend.allow:
        return Permission()
    return Refusal(f"its owner has not allowed peer {borrower}; ask them to add it with --allow {borrower}")


def admit(
    lend: Lend | None,
    request: LeaseRequest,
    borrower: PeerId,
    taken: Collection[Need],
    now: float,
    retry_after_s: float,
    permit: Permit = permission,
    standing: Collection[Permission] = (),
) -> Permission | Refusal:
    """Whether `borrower` gets what it asks for.

    lend: the owner's terms; None while nothing is lent. taken: needs of the leases that stand and of the
    reservations. retry_after_s: what to say when it is only full; every other refusal says None. standing: what
    leases and reservations rest on, for `permit`.
    """
    if lend is None:
        return Refusal("it lends nothing at the moment; take another provider")
    permitted = permit(lend, request, borrower, standing, now)
    if isinstance(permitted, Refusal):
        return permitted
    problem = version_problem(lend.versions, request.versions) or _offer_problem(lend.offer, request.need)
    if problem is not None:
        return Refusal(problem)
    full = _full_problem(lend.offer, request.need, taken)
    return permitted if full is None else Refusal(full, retry_after_s, room=True)


def check_offer(offer: Offer) -> None:
    """Raise UsageError when an offer cannot be lent as it is; says what to change."""
    kind(offer.kind)
    if not is_ip(offer.node_ip):
        raise UsageError(f"node_ip must be an IP address that the borrower can reach, not {offer.node_ip!r}")
    if not isinstance(cast(object, offer.max_leases), int) or offer.max_leases < 1:
        raise UsageError(f"max_leases must be at least 1, not {offer.max_leases!r}")
    if offer.isolation not in ISOLATIONS:
        raise UsageError(f"isolation must be one of {', '.join(ISOLATIONS)}, not {offer.isolation!r}")
    _check_amounts(offer)


def check_need(need: Need) -> None:
    """Raise UsageError when no offer could ever meet a need, or it cannot be sent; says what to change."""
    if need.kind:
        kind(need.kind)
    if len(need.labels) > MAX_LABELS:
        raise UsageError(f"at most {MAX_LABELS} labels can be asked for, not {len(need.labels)}")
    for text in (text for label in need.labels for text in label):
        if not isinstance(cast(object, text), str) or len(text) > MAX_NAME_CHARS or not text.isprintable():
            raise UsageError(f"a label must be printable and at most {MAX_NAME_CHARS} characters: {text!r}")
    _check_amounts(need)


def _check_amounts(wish: Offer | Need) -> None:
    cpus, gpus, memory_bytes, region = cast(
        tuple[object, object, object, object], (wish.cpus, wish.gpus, wish.memory_bytes, wish.region)
    )
    if not isinstance(cpus, int | float) or not 0 < cpus <= MAX_COUNT:
        raise UsageError(f"cpus must be a number above 0 and at most {MAX_COUNT:g}, not {cpus!r}")
    if not isinstance(gpus, int | float) or not 0 <= gpus <= MAX_COUNT:
        raise UsageError(f"gpus must be a number from 0 to {MAX_COUNT:g}, not {gpus!r}")
    if not isinstance(memory_bytes, int) or not 0 <= memory_bytes <= MAX_MEMORY_BYTES:
        raise UsageError(f"memory_bytes must be a count from 0 to {MAX_MEMORY_BYTES}, not {memory_bytes!r}")
    if not isinstance(region, str) or len(region) > MAX_NAME_CHARS or not region.isprintable():
        raise UsageError(f"region must be printable and at most {MAX_NAME_CHARS} characters long")


def _minor(python: str) -> str:
    """major.minor of a Python version."""
    return ".".join(python.split(".")[:2])


def version_problem(here: Versions, head: Versions) -> str | None:
    """Ray's nodes must run one version of Ray, and pickles need one minor version of Python."""
    runs = f"this lender runs Ray {here.ray} and Python {_minor(here.python)}, the head runs"
    same_python = _minor(here.python) == _minor(head.python)
    remedy = f"pip install 'ray=={here.ray}'"
    if not same_python:
        both = "" if here.ray == head.ray else f", in it: {remedy}"
        return (
            f"{runs} Ray {head.ray} and Python {_minor(head.python)}; use Python {_minor(here.python)}{both}"
        )
    if here.ray != head.ray:
        return f"{runs} Ray {head.ray}; install the same with: {remedy}"
    return None


def _offer_problem(offer: Offer, need: Need) -> str | None:
    """What this offer can never give."""
    if need.kind and need.kind != offer.kind:
        return f"its kind is {offer.kind}, and {need.kind} was asked for"
    if need.region and need.region != offer.region:
        return f"its region is {offer.region or 'not set'}, and {need.region} was asked for"
    missing = [f"{name}={value}" for name, value in need.labels if (name, value) not in offer.labels]
    if missing:
        return f"it does not have the labels that were asked for: {', '.join(missing)}"
    for name, offered, needed in (
        ("CPUs", offer.cpus, need.cpus),
        ("GPUs", offer.gpus, need.gpus),
        ("GiB of memory", offer.memory_bytes / _GIB, need.memory_bytes / _GIB),
    ):
        if needed > offered + _ROUNDING:
            return f"it lends {offered:g} {name}, and {needed:g} were asked for; ask for less or elsewhere"
    return None


def _full_problem(offer: Offer, need: Need, taken: Collection[Need]) -> str | None:
    """What it cannot give now."""
    if len(taken) >= offer.max_leases:
        return f"all of its leases ({offer.max_leases}) are taken"
    for name, offered, needed, used in (
        ("CPUs", offer.cpus, need.cpus, sum(other.cpus for other in taken)),
        ("GPUs", offer.gpus, need.gpus, sum(other.gpus for other in taken)),
        (
            "GiB of memory",
            offer.memory_bytes / _GIB,
            need.memory_bytes / _GIB,
            sum(other.memory_bytes for other in taken) / _GIB,
        ),
    ):
        if needed + used > offered + _ROUNDING:
            return f"{used:g} of its {offered:g} {name} are taken, and {needed:g} more were asked for"
    return None
