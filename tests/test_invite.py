"""Invites: what they carry, and what is said of one that was mistyped, cut, altered, made up or has expired."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr.multiaddr import Multiaddr

from swarmp2p import open_peer
from swarmp2p.errors import InviteError, UsageError
from swarmp2p.identity import Identity
from swarmp2p.invite import Invite, invitable, is_invite
from swarmp2p.network_key import NetworkKey
from swarmp2p.signed import pack, sign_map

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
HERE = f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE.peer_id}"
THERE = f"/dns4/example.org/tcp/4001/p2p/{BOB.peer_id}"
KEY = NetworkKey(bytes(range(32)))


def test_everything_comes_back() -> None:
    made = Invite.issue(
        ALICE,
        [THERE, HERE],
        network_key=KEY,
        dht_protocol="/other/kad/1.0.0",
        capability=b"may borrow",
        expires=1000.7,
    )
    read = Invite.parse(made.text)
    assert read.network_key is not None
    assert read.network_key.secret == KEY.secret
    assert (read.inviter, read.peers, read.text) == (ALICE.peer_id, made.peers, made.text)
    assert (read.capability, read.dht_protocol, read.expires) == (b"may borrow", "/other/kad/1.0.0", 1001)
    assert read.addresses == (Multiaddr(HERE), Multiaddr(THERE)), "the inviter first"


def test_what_is_secret_is_marked() -> None:
    plain = Invite.issue(ALICE, [HERE])
    assert (plain.secret, plain.text.startswith("swarm1_")) == (False, True)
    for secret in (
        Invite.issue(ALICE, [HERE], network_key=KEY),
        Invite.issue(ALICE, [HERE], capability=b"x"),
    ):
        assert (secret.secret, secret.text.startswith("swarm1secret_")) == (True, True)
        assert secret.text not in repr(secret)
        assert KEY.secret.hex() not in repr(secret)


def test_it_is_short_enough_to_paste() -> None:
    addresses = [f"/ip4/192.0.2.{number}/tcp/4001/p2p/{ALICE.peer_id}" for number in range(3)]
    assert len(Invite.issue(ALICE, addresses).text) < 250
    assert len(Invite.issue(ALICE, addresses, network_key=KEY, expires=2e9).text) < 300


def test_blanks_and_line_breaks_of_mail_do_no_harm() -> None:
    text = Invite.issue(ALICE, [HERE]).text
    assert Invite.parse(f"  {text[:30]}\n{text[30:60]} \r\n {text[60:]}\n").text == text


def test_an_expired_one() -> None:
    invite = Invite.issue(ALICE, [HERE], expires=1000.0)
    invite.check(1030.0)  # clocks differ
    with pytest.raises(InviteError, match="expired 31 s ago; ask for another one"):
        invite.check(1031.0)
    with pytest.raises(InviteError, match="expired 3 days ago"):
        invite.check(1000.0 + 3 * 86_400)
    Invite.issue(ALICE, [HERE]).check(1e18)


def test_one_of_a_later_version() -> None:
    for text in ("swarm2_abc", "swarm12secret_abc"):
        with pytest.raises(InviteError, match=r"of version 1?2, and .*install a newer one"):
            Invite.parse(text)


@pytest.mark.parametrize(
    "text", ["", "hello", "/ip4/127.0.0.1/tcp/1", "swarm_abc", "swarmx_abc", "swarm1", "swarm1é"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InviteError, match="does not begin with swarm1_ or swarm1secret_"):
        Invite.parse(text)


def test_a_character_that_base58_has_not() -> None:
    with pytest.raises(InviteError, match="the character '0' stands in none; copy it again"):
        Invite.parse(Invite.issue(ALICE, [HERE]).text[:-1] + "0")


def test_one_too_long() -> None:
    with pytest.raises(InviteError, match="3007 characters"):
        Invite.parse("swarm1_" + "a" * 3000)


@given(st.data())
def test_one_that_was_mistyped_or_cut(data: st.DataObject) -> None:
    text = Invite.issue(ALICE, [HERE], network_key=KEY).text
    at = data.draw(st.integers(14, len(text) - 1))
    other = data.draw(st.sampled_from([one for one in "123ABCabcxyz" if one != text[at]]))
    swapped = text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]
    for wrong in (text[:at] + other + text[at + 1 :], text[:at], text[:at] + text[at + 1 :], swapped):
        if wrong != text:
            with pytest.raises(InviteError, match="missing, too many or wrong; copy it again"):
                Invite.parse(wrong)


def test_a_secret_one_cannot_pass_for_a_plain_one() -> None:
    with pytest.raises(InviteError):
        Invite.parse(Invite.issue(ALICE, [HERE], network_key=KEY).text.replace("secret", ""))


def as_text(envelope: bytes) -> str:
    from hashlib import sha256

    return "swarm1_" + base58.b58encode(envelope + sha256(b"swarm1_" + envelope).digest()[:4]).decode()


def test_one_that_somebody_altered() -> None:
    """With a checksum that is right: to lead newcomers elsewhere under another's name."""
    forged = sign_map(
        "invite", {"by": bytes(ALICE.peer_id), "at": [[b"", b"\x04\x7f\0\0\1\6\0\1"]]}, BOB.sign
    )
    with pytest.raises(InviteError, match="somebody has altered it"):
        Invite.parse(as_text(forged))
    other = sign_map(
        "lease", {"by": bytes(ALICE.peer_id), "at": [[b"", b"\x04\x7f\0\0\1\6\0\1"]]}, ALICE.sign
    )
    with pytest.raises(InviteError, match="somebody has altered it"):
        Invite.parse(as_text(other))


ADDRESS = b"\x04\x7f\0\0\1\6\0\1"
WRONG = [
    {"at": []},
    {"at": 7},
    {"at": [[b""]]},
    {"at": [[b"", ADDRESS]] * 9},
    {"at": [[b"", *[ADDRESS] * 9]]},
    {"at": [[b"x", ADDRESS]]},
    {"at": [[b"", "text"]]},
    {"at": [[b"", b"\xff\xff"]]},
    {"at": [7]},
    {"by": "me"},
    {"by": b""},
    {"key": b"short"},
    {"key": 7},
    {"dht": 7},
    {"dht": "x" * 300},
    {"end": -1},
    {"end": 1 << 60},
    {"end": True},
    {"end": "never"},
    {"cap": bytes(513)},
    {"cap": "text"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_one_that_makes_no_sense_although_it_is_signed(wrong: dict[str, object]) -> None:
    fields = {"by": bytes(ALICE.peer_id), "at": [[b"", ADDRESS]]} | wrong
    with pytest.raises(InviteError):
        Invite.parse(as_text(sign_map("invite", fields, ALICE.sign)))


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.binary() | st.integers(0, 1 << 63), st.lists).map(pack)
)
def test_nothing_but_its_error_is_raised_whatever_it_holds(raw: bytes) -> None:
    for text in (as_text(raw), raw.decode("latin-1"), "swarm1_" + raw.decode("latin-1")):
        try:
            Invite.parse(text)
        except InviteError:
            pass


def test_fields_of_later_versions_are_skipped() -> None:
    fields = {"by": bytes(ALICE.peer_id), "at": [[b"", ADDRESS]], "new": 7}
    assert Invite.parse(as_text(sign_map("invite", fields, ALICE.sign))).inviter == ALICE.peer_id


@pytest.mark.parametrize(
    ("addresses", "capability"), [([], b""), (["/ip4/192.0.2.1/tcp/4001"], b""), ([HERE], bytes(513))]
)
def test_what_cannot_be_invited_with(addresses: list[str], capability: bytes) -> None:
    with pytest.raises(UsageError):
        Invite.issue(ALICE, addresses, capability=capability)


def test_no_more_addresses_than_a_peer_is_dialled_at() -> None:
    many = [f"/ip4/192.0.2.1/tcp/{port}/p2p/{ALICE.peer_id}" for port in range(1, 100)]
    assert len(Invite.issue(ALICE, many).addresses) == 8


def test_invites_are_told_from_addresses() -> None:
    assert is_invite(Invite.issue(ALICE, [HERE]).text)
    assert is_invite(" swarm2_x")
    assert not is_invite(HERE)
    assert not is_invite(None)


async def test_an_invite_opens_a_peer_in_a_private_swarm() -> None:
    async with open_peer(network_key=KEY, dht_protocol="/other/kad/1.0.0") as alice:
        invite = alice.invite(expires_in_s=60.0, capability=b"grant")
        assert (invite.inviter, invite.capability) == (alice.id, b"grant")
        for way_in in (invite, invite.text, [invite.text]):
            async with open_peer(bootstrap=way_in) as bob:
                assert bob.connected == (alice.id,)
                assert bob.network_key is not None
                assert bob.network_key.secret == KEY.secret
                assert len(bob.dht.table) == 1, "the same DHT"


async def test_invites_that_do_not_fit_together_start_nothing() -> None:
    private, other = (Invite.issue(ALICE, [HERE], network_key=key) for key in (KEY, NetworkKey(bytes(32))))
    with pytest.raises(UsageError, match=f"private swarm {KEY.name}, and the network key is that of"):
        async with open_peer(bootstrap=private, network_key=bytes(32)):
            pass
    with pytest.raises(UsageError, match="a peer is in one swarm"):
        async with open_peer(bootstrap=[private.text, other.text]):
            pass
    plain = [Invite.issue(ALICE, [HERE], dht_protocol=name).text for name in ("/a/kad/1.0.0", "/b/kad/1.0.0")]
    with pytest.raises(UsageError, match="different DHTs"):
        async with open_peer(bootstrap=plain):
            pass
    with pytest.raises(InviteError, match="expired"):
        async with open_peer(bootstrap=Invite.issue(ALICE, [HERE], expires=1.0)):
            pass


def test_loopback_addresses_are_for_want_of_others() -> None:
    here, lan = (Multiaddr(f"/ip4/{host}/tcp/1/p2p/{ALICE.peer_id}") for host in ("127.0.0.1", "192.168.1.5"))
    assert invitable([here, lan]) == (lan,)
    assert invitable([here]) == (here,)


async def test_who_listens_nowhere_invites_nobody() -> None:
    async with open_peer(listen=()) as alice:
        with pytest.raises(UsageError, match="at least one address"):
            alice.invite()
