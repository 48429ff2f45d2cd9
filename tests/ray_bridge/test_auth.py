"""Proofs and agreements: what is genuine passes; forged, replayed, re-addressed, altered and expired does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.fields import is_ip
from swarmp2p.identity import PeerId, seal_to
from swarmp2p.ray_bridge.auth import (
    LeaseKeys,
    NotAuthentic,
    Terms,
    check_agreement,
    check_proof,
    make_agreement,
    make_proof,
    read_agreement,
    request_digest,
    secret_problem,
)
from swarmp2p.ray_bridge.events import JAIL, JoinSecret, Need
from swarmp2p.ray_bridge.messages import MAX_ENVELOPE_BYTES, LeaseRequest
from swarmp2p.signed import pack_map, sign_map

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, real_identity, real_keys, request

NONCE = bytes(range(32))
NOW, EXPIRES, CLOCK_ERROR_S = 1000.0, 1005.0, 30.0


class Pair:
    """A lender and a borrower, with cheap or real keys."""

    def __init__(self, real: bool) -> None:
        if real:
            lender, borrower = real_identity(1), real_identity(2)
            self.lender, self.borrower = lender.peer_id, borrower.peer_id
            self.lender_keys, self.borrower_keys = real_keys(lender), real_keys(borrower)
        else:
            self.lender, self.borrower = peer(1), peer(2)
            self.lender_keys, self.borrower_keys = cheap_keys(self.lender), cheap_keys(self.borrower)

    def prove(self, asked: LeaseRequest | None = None, secret: JoinSecret = SECRET) -> bytes:
        return make_proof(
            self.borrower_keys, asked or request(), NONCE, self.lender, self.borrower, secret, EXPIRES
        )

    def check(
        self,
        envelope: bytes,
        *,
        asked: LeaseRequest | None = None,
        nonce: bytes = NONCE,
        sender: PeerId | None = None,
        now: float = NOW,
    ) -> JoinSecret:
        return check_proof(
            self.lender_keys,
            envelope,
            asked or request(),
            nonce,
            self.lender,
            sender or self.borrower,
            now,
            CLOCK_ERROR_S,
        )

    def terms(self) -> Terms:
        asked = request()
        return Terms(
            asked.lease,
            self.lender,
            self.borrower,
            request_digest(asked),
            asked.cluster,
            asked.need,
            "127.0.0.5",
            NOW,
            NOW + 60,
            60.0,
            JAIL,
            VERSIONS,
            "workstation",
        )

    def accept(self, envelope: bytes, *, asked: LeaseRequest | None = None, now: float = NOW) -> Terms:
        return check_agreement(
            self.borrower_keys, envelope, asked or request(), self.lender, self.borrower, now, CLOCK_ERROR_S
        )


@pytest.fixture(params=[False, True], ids=["cheap", "nacl"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(real=request.param)


def refused(check: Callable[[], object], because: str) -> None:
    with pytest.raises(NotAuthentic, match=because):
        check()


# Proofs -----------------------------------------------------------------------------------------------------


def test_a_genuine_proof_brings_the_secret(pair: Pair) -> None:
    assert pair.check(pair.prove()) == SECRET


def test_the_secret_is_not_readable_on_the_way() -> None:
    assert SECRET.token.encode() not in Pair(real=True).prove()


def test_a_proof_answers_one_challenge_only(pair: Pair) -> None:
    refused(lambda: pair.check(pair.prove(), nonce=bytes(32)), "answers another challenge")


def test_a_proof_is_for_one_lease_only(pair: Pair) -> None:
    refused(lambda: pair.check(pair.prove(), asked=request(2)), "answers another challenge")


def test_a_proof_covers_the_whole_request(pair: Pair) -> None:
    envelope = pair.prove()
    asked = request()
    for other in (
        replace(asked, need=replace(asked.need, cpus=64.0)),
        replace(asked, need=replace(asked.need, kind="gpu-cluster")),
        replace(asked, versions=replace(asked.versions, ray="2.59.1")),
        replace(asked, cluster="another"),
    ):
        refused(lambda other=other: pair.check(envelope, asked=other), "covers another request")  # type: ignore[misc]


def test_a_proof_for_another_lender_is_refused(pair: Pair) -> None:
    relayed = make_proof(
        pair.borrower_keys,
        request(),
        NONCE,
        real_identity(3).peer_id,
        pair.borrower,
        SECRET,
        EXPIRES,
    )
    refused(lambda: pair.check(relayed), "other peers than these two")


def test_a_proof_shown_by_another_than_its_maker_is_refused(pair: Pair) -> None:
    refused(lambda: pair.check(pair.prove(), sender=real_identity(3).peer_id), "signature is not")


def test_a_proof_that_names_another_borrower_than_its_signer_is_refused(pair: Pair) -> None:
    envelope = make_proof(pair.borrower_keys, request(), NONCE, pair.lender, peer(9), SECRET, EXPIRES)
    refused(lambda: pair.check(envelope), "other peers than these two")


def test_an_expired_proof_is_refused_once_clocks_cannot_explain_it(pair: Pair) -> None:
    envelope = pair.prove()
    assert pair.check(envelope, now=EXPIRES + CLOCK_ERROR_S) == SECRET
    refused(
        lambda: pair.check(envelope, now=EXPIRES + CLOCK_ERROR_S + 1),
        "expired 31 s ago by this machine's clock; .* set both machines' clocks",
    )


def test_a_signature_given_for_another_purpose_is_no_proof(pair: Pair) -> None:
    payload: bytes = msgpack.unpackb(pair.prove())[0]
    fields: dict[str, Any] = msgpack.unpackb(payload, raw=False)
    refused(
        lambda: pair.check(sign_map("service-record", fields, pair.borrower_keys.sign)), "signature is not"
    )
    assert pair.check(sign_map("lease-proof", fields, pair.borrower_keys.sign)) == SECRET


def proof_fields(pair: Pair, box: bytes) -> dict[str, Any]:
    return {
        "lease": lease_id(1),
        "nonce": NONCE,
        "lender": pair.lender,
        "borrower": pair.borrower,
        "request": request_digest(request()),
        "sealed": box,
        "expires": EXPIRES,
    }


def test_a_box_taken_from_another_borrower_or_lease_is_refused(pair: Pair) -> None:
    for bound in ({"borrower": real_identity(3).peer_id}, {"lease": lease_id(9)}):
        inner = {"lease": lease_id(1), "borrower": pair.borrower, "address": "10.0.0.1:6379", "token": "t"}
        box = pair.borrower_keys.seal_to(pair.lender, pack_map({**inner, **bound}))
        envelope = sign_map("lease-proof", proof_fields(pair, box), pair.borrower_keys.sign)
        refused(lambda envelope=envelope: pair.check(envelope), "sealed for another lease")  # type: ignore[misc]


def test_a_box_for_another_lender_is_refused(pair: Pair) -> None:
    box = seal_to(real_identity(3).peer_id, pack_map({"lease": lease_id(1)}))
    envelope = sign_map("lease-proof", proof_fields(pair, box), pair.borrower_keys.sign)
    refused(lambda: pair.check(envelope), "not sealed to this lender, or was altered")


@pytest.mark.parametrize(
    "inner", [b"", b"\xc1", b"\x80", pack_map({"lease": lease_id(1), "borrower": peer(2), "address": "a:1"})]
)
def test_a_box_with_something_else_inside_is_refused(inner: bytes) -> None:
    pair = Pair(real=False)
    box = pair.borrower_keys.seal_to(pair.lender, inner)
    envelope = sign_map("lease-proof", proof_fields(pair, box), pair.borrower_keys.sign)
    refused(lambda: pair.check(envelope), "not sealed to this lender, or was altered")


@pytest.mark.parametrize("field", ["lease", "nonce", "lender", "borrower", "request", "sealed", "expires"])
def test_a_signed_proof_with_a_strange_field_is_refused(field: str) -> None:
    pair = Pair(real=False)
    payload: bytes = msgpack.unpackb(pair.prove())[0]
    fields: dict[str, Any] = msgpack.unpackb(payload, raw=False)
    strange: list[object] = [
        None,
        -1,
        "x",
        b"x",
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        2**64 - 1,
        b"x" * 2000,
    ]
    for value in strange:
        envelope = sign_map("lease-proof", {**fields, field: value}, pair.borrower_keys.sign)
        refused(lambda envelope=envelope: pair.check(envelope), ".")  # type: ignore[misc]
    del fields[field]
    refused(
        lambda: pair.check(sign_map("lease-proof", fields, pair.borrower_keys.sign)), f"{field} is missing"
    )


def test_unknown_fields_in_a_signed_proof_are_refused(pair: Pair) -> None:
    fields = proof_fields(pair, b"box") | {"also": "run this"}
    refused(lambda: pair.check(sign_map("lease-proof", fields, pair.borrower_keys.sign)), "1 unknown fields")


def test_every_single_bit_of_a_proof_counts() -> None:
    pair = Pair(real=True)
    envelope = pair.prove()
    draw = Random(7)
    for position in draw.sample(range(len(envelope) * 8), 600):
        altered = bytearray(envelope)
        altered[position // 8] ^= 1 << position % 8
        refused(lambda altered=altered: pair.check(bytes(altered)), ".")  # type: ignore[misc]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=MAX_ENVELOPE_BYTES + 1))
def test_arbitrary_bytes_are_neither_proof_nor_agreement(data: bytes) -> None:
    pair = Pair(real=False)
    refused(lambda: pair.check(data), ".")
    refused(lambda: pair.accept(data), ".")


def test_a_lender_whose_id_holds_no_key_cannot_be_sealed_to() -> None:
    hashed = PeerId.from_bytes(b"\x12\x20" + bytes(32))
    with pytest.raises(UsageError, match="cannot seal to"):
        make_proof(
            real_keys(real_identity(2)), request(), NONCE, hashed, real_identity(2).peer_id, SECRET, EXPIRES
        )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "head",
        ":6379",
        "head:",
        "head:0",
        "head:65536",
        "--block:1",
        "a b:1",
        "h;ls:1",
        "h:1\n",
        "[::1:1",
        "h:1:2",
    ],
)
def test_an_address_that_is_none_never_reaches_a_command_line(address: str) -> None:
    secret = JoinSecret(address, "token")
    assert secret_problem(secret) == "the head's address is not host:port"
    pair = Pair(real=False)
    refused(lambda: pair.check(pair.prove(secret=secret)), "secret cannot be used|not sealed|head is not")


@pytest.mark.parametrize("token", ["", "two words", "line\n", "x" * 513, "schlüssel", "\x00"])
def test_a_token_that_no_environment_can_carry_is_refused(token: str) -> None:
    secret = JoinSecret("127.0.0.1:6379", token)
    assert secret_problem(secret) is not None
    pair = Pair(real=False)
    refused(lambda: pair.check(pair.prove(secret=secret)), "secret cannot be used|not sealed")


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "head.example.org:1", "[::1]:6379", "head-1:65535"])
def test_usual_addresses_are_fine(address: str) -> None:
    secret = JoinSecret(address, "9f86d081-884c_7d65=")
    assert secret_problem(secret) is None
    pair = Pair(real=False)
    assert pair.check(pair.prove(secret=secret)) == secret


def test_a_secret_does_not_print_its_token() -> None:
    assert SECRET.token not in repr(SECRET)


# Agreements -------------------------------------------------------------------------------------------------


def test_a_genuine_agreement_is_accepted_and_can_be_shown_to_anyone(pair: Pair) -> None:
    envelope = make_agreement(pair.lender_keys, pair.terms())
    assert pair.accept(envelope) == pair.terms()
    assert read_agreement(envelope, pair.lender, pair.borrower_keys.verify) == pair.terms()


def test_an_agreement_signed_by_another_is_refused(pair: Pair) -> None:
    envelope = make_agreement(pair.borrower_keys, pair.terms())
    refused(lambda: pair.accept(envelope), "signature is not")
    refused(lambda: read_agreement(envelope, pair.borrower, pair.lender_keys.verify), "names another lender")


def test_an_agreement_is_for_one_borrower_and_one_request(pair: Pair) -> None:
    def granted(**changes: Any) -> bytes:
        return make_agreement(pair.lender_keys, replace(pair.terms(), **changes))

    refused(lambda: pair.accept(granted(borrower=peer(9))), "given to another borrower")
    refused(lambda: pair.accept(granted(lease=lease_id(2))), "for another request")
    refused(lambda: pair.accept(granted(digest=bytes(32))), "for another request")
    refused(lambda: pair.accept(granted(need=Need(cpus=0.5))), "not what was asked for")
    refused(lambda: pair.accept(granted(cluster="mine")), "not what was asked for")
    refused(lambda: pair.accept(granted(isolation="none at all")), "isolation is not one of jail, none")
    refused(lambda: pair.accept(granted(versions=None)), "does not say how the worker is isolated")
    refused(lambda: pair.accept(granted(node_ip="$(reboot)")), "no IP address")
    refused(lambda: pair.accept(granted(lease_s=1e9)), "lease_s is not a number")
    refused(lambda: pair.accept(granted(lease_s=0.0)), "lease_s is not a number")


def test_an_expired_agreement_is_refused(pair: Pair) -> None:
    envelope = make_agreement(pair.lender_keys, pair.terms())
    assert pair.accept(envelope, now=NOW + 60 + CLOCK_ERROR_S)
    refused(lambda: pair.accept(envelope, now=NOW + 61 + CLOCK_ERROR_S), "the agreement expired 31 s ago")


def test_a_proof_is_no_agreement_and_an_agreement_no_proof(pair: Pair) -> None:
    refused(lambda: pair.accept(pair.prove()), ".")
    refused(lambda: pair.check(make_agreement(pair.lender_keys, pair.terms())), ".")


def test_the_longest_proof_and_agreement_fit_into_a_message() -> None:
    pair = Pair(real=True)
    name = "\U0001f600" * 64
    need = Need(1e6, 1e6, 1 << 50, name, name)
    asked = LeaseRequest(lease_id(1), need, request().versions, name)
    secret = JoinSecret("h" * 253 + ":65535", "t" * 512)
    proof = pair.prove(asked, secret)
    assert pair.check(proof, asked=asked) == secret
    terms = replace(
        pair.terms(), need=need, cluster=name, digest=request_digest(asked), node_ip=":".join(["ffff"] * 8)
    )
    agreement = make_agreement(pair.lender_keys, terms)
    assert pair.accept(agreement, asked=asked) == terms
    assert max(len(proof), len(agreement)) <= MAX_ENVELOPE_BYTES * 3 // 8


@pytest.mark.parametrize(
    ("text", "fine"), [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", False), ("h", False)]
)
def test_what_an_ip_address_is(text: str, fine: bool) -> None:
    assert is_ip(text) is fine


def test_keys_are_a_frozen_bundle() -> None:
    keys = cheap_keys(peer(1))
    with pytest.raises(AttributeError):
        keys.sign = keys.open_sealed  # type: ignore[misc]
    assert isinstance(keys, LeaseKeys)
