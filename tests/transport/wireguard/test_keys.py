"""A WireGuard key is believed to be a member's when its identity signed that, for this cluster, and not for longer."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.identity import Identity, verify
from swarmp2p.signed import sign_map
from swarmp2p.transport.wireguard.keys import (
    CLOCK_ERROR_S,
    MAX_STATEMENT_BYTES,
    WireGuardKey,
    as_text,
    check_statement,
    make_statement,
)

ALICE, BOB = Identity(bytes(32)), Identity(b"\x01" * 32)
CLUSTER, MEMBER, KEY = b"c" * 16, b"m" * 16, b"k" * 32
NOW = 1_800_000_000.0


def statement(cluster: bytes = CLUSTER, member: bytes = MEMBER, expires: float = NOW + 60) -> bytes:
    return make_statement(cluster, member, KEY, expires, ALICE.sign)


def check(data: bytes, now: float = NOW) -> bytes:
    return check_statement(data, ALICE.peer_id, CLUSTER, MEMBER, now, verify)


def test_what_a_member_signed_is_its_key() -> None:
    assert check(statement()) == KEY
    assert len(statement()) <= MAX_STATEMENT_BYTES


def test_it_is_taken_until_it_expires_and_a_little_longer_because_clocks_differ() -> None:
    assert check(statement(), NOW + 60 + CLOCK_ERROR_S) == KEY
    with pytest.raises(BadMessage, match="over"):
        check(statement(), NOW + 61 + CLOCK_ERROR_S)
    with pytest.raises(BadMessage, match="over"):
        check(statement(expires=math.nan))


def test_a_statement_is_of_one_member_of_one_cluster() -> None:
    for other in (statement(cluster=b"d" * 16), statement(member=b"n" * 16)):
        with pytest.raises(BadMessage, match="another"):
            check(other)


def test_only_the_member_s_own_identity_can_make_it() -> None:
    with pytest.raises(BadMessage, match="signature"):
        check(make_statement(CLUSTER, MEMBER, KEY, NOW + 60, BOB.sign))


def test_a_signature_for_another_purpose_is_none_for_this() -> None:
    fields = {"cluster": CLUSTER, "member": MEMBER, "key": KEY, "expires": NOW + 60}
    with pytest.raises(BadMessage, match="signature"):
        check(sign_map("lease", fields, ALICE.sign))


@pytest.mark.parametrize("key", [None, "k" * 32, b"k" * 31, bytes(32)])
def test_what_is_no_key_is_refused_though_it_be_signed(key: object) -> None:
    fields = {"cluster": CLUSTER, "member": MEMBER, "key": key, "expires": NOW + 60}
    with pytest.raises(BadMessage, match="no WireGuard key"):
        check(sign_map("wireguard", fields, ALICE.sign))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_BadMessage_alone(data: bytes) -> None:
    with pytest.raises(BadMessage):
        check(data)


def test_the_private_half_is_not_shown() -> None:
    key = WireGuardKey.generate()
    assert repr(key.private) not in repr(key)
    assert key.private != WireGuardKey.generate().private


@pytest.mark.skipif(shutil.which("wg") is None, reason="wg is missing: apt-get install wireguard-tools")
def test_wg_agrees_which_public_key_belongs_to_a_private_one() -> None:
    key = WireGuardKey.generate()
    made = subprocess.run(
        ["wg", "pubkey"], input=as_text(key.private), capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == as_text(key.public)
