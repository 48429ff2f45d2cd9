"""No worker starts for whoever cannot prove, for this lease, who it is. Thousands of tries, then a genuine one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack
import pytest

from swarmp2p.engine import NetworkOutput, Received, Send
from swarmp2p.identity import Identity, PeerId
from swarmp2p.ray_bridge.auth import LeaseKeys, make_proof
from swarmp2p.ray_bridge.events import (
    Journal,
    LeaseGranted,
    LeaseOutput,
    Lend,
    Offer,
    OpenPath,
    PathUp,
    StartWorker,
)
from swarmp2p.ray_bridge.lease import LeaseConfig, Leases
from swarmp2p.ray_bridge.messages import Agreement, Challenge, Proof, Refuse, Release
from swarmp2p.signed import sign_map

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, real_identity, real_keys, request

NOW = 1000.0
Outputs = Sequence[NetworkOutput | LeaseOutput]


class Attempt:
    """A lender that allows only `borrower`, and one challenge after another to play with."""

    def __init__(self, lender: tuple[PeerId, LeaseKeys], borrower: tuple[PeerId, LeaseKeys]) -> None:
        self.lender, lender_keys = lender
        self.borrower, self.borrower_keys = borrower
        self.engine = Leases(self.lender, lender_keys, Random(0), LeaseConfig(max_finished=8))
        self.engine.handle(Lend(Offer(), VERSIONS, frozenset({self.borrower})), NOW)
        self.number = 0
        self.nonce = b""
        self.seen: list[bytes] = []  # genuine proofs of challenges past

    def challenge(self) -> None:
        self.number += 1
        for output in self.engine.handle(Received(self.borrower, request(self.number)), NOW):
            assert isinstance(output, Send)
            assert isinstance(output.message, Challenge), output.message
            self.nonce = output.message.nonce

    def genuine(self, expires: float = NOW + 5, lender: PeerId | None = None) -> bytes:
        return make_proof(
            self.borrower_keys,
            request(self.number),
            self.nonce,
            lender or self.lender,
            self.borrower,
            SECRET,
            expires,
        )

    def present(self, envelope: bytes, sender: PeerId | None = None) -> Outputs:
        return self.engine.handle(
            Received(sender or self.borrower, Proof(lease_id(self.number), envelope)), NOW
        )

    def must_fail(self, envelope: bytes, sender: PeerId | None = None) -> None:
        outputs = self.present(envelope, sender)
        assert [type(output) for output in outputs].count(Journal) == 0
        assert not [output for output in outputs if isinstance(output, LeaseGranted | OpenPath | StartWorker)]
        assert self.engine.handle(PathUp(lease_id(self.number)), NOW) == []
        for output in outputs:
            assert isinstance(output, Send)
            assert isinstance(output.message, Refuse | Release)

    def must_work(self) -> None:
        self.challenge()
        _, granted, *_ = self.present(self.genuine())
        assert isinstance(granted, Send)
        assert isinstance(granted.message, Agreement)
        _, start = self.engine.handle(PathUp(lease_id(self.number)), NOW)
        assert isinstance(start, StartWorker)
        assert (start.borrower, start.secret) == (self.borrower, SECRET)


def cheap() -> Attempt:
    return Attempt((peer(1), cheap_keys(peer(1))), (peer(2), cheap_keys(peer(2))))


def nacl() -> Attempt:
    lender, borrower = real_identity(1), real_identity(2)
    return Attempt((lender.peer_id, real_keys(lender)), (borrower.peer_id, real_keys(borrower)))


def flip_bits(attempt: Attempt, draw: Random) -> bytes:
    altered = bytearray(attempt.genuine())
    for _ in range(draw.randint(1, 3)):
        altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    return bytes(altered) if bytes(altered) != attempt.genuine() else b""


def cut_or_grow(attempt: Attempt, draw: Random) -> bytes:
    envelope = attempt.genuine()
    return envelope[: draw.randrange(len(envelope))] if draw.random() < 0.5 else envelope + draw.randbytes(3)


def replay(attempt: Attempt, draw: Random) -> bytes:
    return draw.choice(attempt.seen) if attempt.seen else b""


def for_another_lender(attempt: Attempt, draw: Random) -> bytes:
    return attempt.genuine(lender=real_identity(draw.randint(50, 60)).peer_id)


def expired(attempt: Attempt, draw: Random) -> bytes:
    return attempt.genuine(expires=NOW - draw.uniform(30.001, 1e6))


def fields_of(attempt: Attempt) -> dict[str, Any]:
    payload: bytes = msgpack.unpackb(attempt.genuine())[0]
    fields: dict[str, Any] = msgpack.unpackb(payload, raw=False)
    return fields


def other_field_signed_again(attempt: Attempt, draw: Random) -> bytes:
    """The borrower itself signs something that does not fit."""
    fields = fields_of(attempt)
    key = draw.choice(sorted(fields))
    value = fields[key]
    fields[key] = draw.randbytes(len(value)) if isinstance(value, bytes) else draw.choice((None, "x", -1e18))
    if draw.random() < 0.1:
        del fields[key]
    return sign_map("lease-proof", fields, attempt.borrower_keys.sign)


def signed_by_another(attempt: Attempt, draw: Random) -> bytes:
    return sign_map("lease-proof", fields_of(attempt), cheap_keys(peer(draw.randint(3, 9))).sign)


def for_another_purpose(attempt: Attempt, draw: Random) -> bytes:
    domain = draw.choice(("lease-grant", "lease-proo", "lease-prooff", "service-record", "load", ""))
    return sign_map(domain, fields_of(attempt), attempt.borrower_keys.sign)


def noise(attempt: Attempt, draw: Random) -> bytes:
    return draw.randbytes(draw.randint(1, 500))


FORGERIES: tuple[Callable[[Attempt, Random], bytes], ...] = (
    flip_bits,
    cut_or_grow,
    replay,
    for_another_lender,
    expired,
    other_field_signed_again,
    signed_by_another,
    for_another_purpose,
    noise,
)


@pytest.mark.parametrize("forge", FORGERIES)
@pytest.mark.parametrize(("make", "tries"), [(cheap, 2000), (nacl, 40)])
def test_no_forged_proof_starts_a_worker(
    make: Callable[[], Attempt], tries: int, forge: Callable[[Attempt, Random], bytes]
) -> None:
    attempt, draw = make(), Random(forge.__name__)
    for _ in range(tries):
        attempt.challenge()
        attempt.must_fail(forge(attempt, draw))
        attempt.seen = [*attempt.seen[-20:], attempt.genuine()]  # never presented, but somebody may have it
    attempt.must_work()


@pytest.mark.parametrize("make", [cheap, nacl])
def test_a_genuine_proof_is_worth_nothing_to_another_peer(make: Callable[[], Attempt]) -> None:
    attempt = make()
    attempt.challenge()
    for thief in (peer(7), Identity.generate().peer_id, attempt.lender):
        attempt.must_fail(attempt.genuine(), sender=thief)
    assert attempt.engine.states() == {lease_id(1): attempt.engine.states()[lease_id(1)]}
    (_, _, granted, _) = attempt.present(attempt.genuine())  # the thieves did not disturb the borrower
    assert isinstance(granted, LeaseGranted)


def test_a_proof_used_once_starts_one_worker_however_often_it_comes() -> None:
    attempt = cheap()
    attempt.must_work()
    proof = attempt.genuine()
    for _ in range(100):
        (again,) = attempt.present(proof)
        assert isinstance(again, Send)
        assert isinstance(again.message, Agreement)
    assert attempt.engine.handle(PathUp(lease_id(1)), NOW) == []


def test_a_challenge_comes_from_the_random_source_and_is_never_repeated() -> None:
    asked: list[int] = []
    keys = cheap_keys(peer(1))

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return len(asked).to_bytes(count, "big")

    watched = LeaseKeys(keys.sign, keys.verify, keys.seal_to, keys.open_sealed, random_bytes)
    attempt = Attempt((peer(1), watched), (peer(2), cheap_keys(peer(2))))
    nonces: list[bytes] = []
    for _ in range(10):
        attempt.challenge()
        nonces.append(attempt.nonce)
        attempt.present(b"x")
    assert nonces == [number.to_bytes(32, "big") for number in range(1, 11)]
    assert asked == [32] * 10
