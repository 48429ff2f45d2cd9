"""What a lender signs of a lease that runs: for exactly that lease, and of no use for another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Received
from swarmp2p.ray_bridge.auth import LeaseKeys, NotAuthentic
from swarmp2p.ray_bridge.events import PathUp, WorkerStarted
from swarmp2p.ray_bridge.messages import MAX_ENVELOPE_BYTES, MAX_SEQUENCE, Agreement, Renew, Renewed, Started
from swarmp2p.ray_bridge.standing import (
    Standing,
    agreement_digest,
    check_standing,
    make_standing,
    read_standing,
)
from swarmp2p.signed import sign_map

from .keys import cheap_keys, lease_id, peer, real_identity, real_keys
from .two import BORROWER, LEASE, LENDER, ask, borrower, lender, sent

AGREEMENT = b"what was agreed on"
STANDING = Standing(
    LEASE, LENDER, BORROWER, agreement_digest(AGREEMENT), "10.1.2.3", (20000, 200), 7, 1000.0, 1060.0
)
KEYS = cheap_keys(LENDER)


def check(envelope: bytes, keys: LeaseKeys = KEYS) -> Standing:
    return check_standing(keys, envelope, LEASE, LENDER, BORROWER, AGREEMENT)


def refused(call: Callable[[], object], because: str) -> None:
    with pytest.raises(NotAuthentic, match=because):
        call()


def test_what_was_signed_is_what_is_read() -> None:
    assert check(make_standing(KEYS, STANDING)) == STANDING
    longest = replace(STANDING, node_ip=":".join(["ffff"] * 8), ports=(65535, 65535), sequence=MAX_SEQUENCE)
    assert check(make_standing(KEYS, longest)) == longest
    assert len(make_standing(KEYS, longest)) <= MAX_ENVELOPE_BYTES // 3


def test_with_real_keys_anybody_can_check_it() -> None:
    ours, theirs = real_identity(1), real_identity(2)
    standing = replace(STANDING, lender=ours.peer_id, borrower=theirs.peer_id)
    envelope = make_standing(real_keys(ours), standing)
    assert read_standing(envelope, ours.peer_id, real_keys(real_identity(3)).verify) == standing
    refused(lambda: read_standing(envelope, theirs.peer_id, real_keys(ours).verify), "signature is not")


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"lease": lease_id(2)}, "another lease"),
        ({"borrower": peer(9)}, "another lease"),
        ({"agreement": bytes(32)}, "another agreement"),
        ({"lender": peer(9)}, "another lender"),
        ({"node_ip": "$(reboot)"}, "no IP address"),
        ({"ports": (70000, 1)}, "port is not"),
        ({"sequence": -1}, "sequence is not"),
    ],
)
def test_another_lease_is_not_this_one(changes: dict[str, Any], because: str) -> None:
    refused(lambda: check(make_standing(KEYS, replace(STANDING, **changes))), because)


def test_who_is_not_the_lender_cannot_sign_it() -> None:
    refused(lambda: check(make_standing(cheap_keys(BORROWER), STANDING)), "signature is not")


def test_a_signature_for_another_purpose_is_none() -> None:
    fields: dict[str, Any] = msgpack.unpackb(msgpack.unpackb(make_standing(KEYS, STANDING))[0], raw=False)
    refused(lambda: check(sign_map("lease-grant", fields, KEYS.sign)), "signature is not")
    refused(lambda: check(sign_map("lease-standing", {**fields, "also": 1}, KEYS.sign)), "1 unknown fields")
    assert check(sign_map("lease-standing", fields, KEYS.sign)) == STANDING


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refused(lambda: check(data), ".")


def test_a_lender_says_where_the_worker_is_and_signs_each_renewal_once() -> None:
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    assert isinstance(agreement, Agreement)
    digest = agreement_digest(agreement.envelope)
    (early,) = sent(gives.handle(Received(BORROWER, Renew(LEASE, 1)), 1.0))
    assert isinstance(early, Renewed)
    assert early.envelope == b"", "nothing stands before the worker does"
    gives.handle(PathUp(LEASE), 1.0)
    (started,) = sent(gives.handle(WorkerStarted(LEASE, "10.1.2.3", (20000, 200)), 2.0))
    assert isinstance(started, Started)
    stands = Standing(LEASE, LENDER, BORROWER, digest, "10.1.2.3", (20000, 200), 1, 2.0, 61.0)
    assert read_standing(started.envelope, LENDER, KEYS.verify) == stands
    for _ in range(2):
        (renewed,) = sent(gives.handle(Received(BORROWER, Renew(LEASE, 5)), 10.0))
        assert isinstance(renewed, Renewed)
        now = replace(stands, sequence=5, issued=10.0, expires=70.0)
        assert read_standing(renewed.envelope, LENDER, KEYS.verify) == now
