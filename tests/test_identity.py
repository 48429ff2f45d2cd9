"""Keys, peer ids, signatures, sealed boxes, and key files that are never lost, shared or made anew."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import nacl.signing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmp2p.errors import IdentityFileError, SealedBoxError, SwarmError, UsageError
from swarmp2p.identity import Identity, PeerId, seal_to, verify

# RFC 8032 §7.1, tests 1 to 3: seed, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

# Public keys that are no honest peer's: the points of small order and non-canonical encodings of them (from
# libsodium's ge25519_has_small_order), the largest values, and one that is no point of the curve.
ODD_KEYS = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    b"\xff" * 32,
    bytes(31) + b"\x80",
    b"\x02" + bytes(31),
]


@pytest.fixture(scope="module")
def alice() -> Identity:
    return Identity(bytes(range(32)))


@pytest.fixture(scope="module")
def bob() -> Identity:
    return Identity(bytes(range(1, 33)))


# Peer ids ---------------------------------------------------------------------------------------------------


def test_peer_ids_and_texts_are_libp2ps(alice: Identity) -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    pair = create_new_key_pair(alice.seed)
    theirs = ID.from_pubkey(pair.public_key)
    assert alice.peer_id == theirs.to_bytes()
    assert str(alice.peer_id) == str(theirs)
    assert PeerId.from_text(str(theirs)) == alice.peer_id
    assert alice.peer_id.public_key == pair.public_key.to_bytes()
    assert pair.public_key.verify(b"data", alice.sign(b"data"))
    assert alice.verify(alice.peer_id, b"data", pair.private_key.sign(b"data"))


def test_a_peer_id_is_the_identity_multihash_of_the_encoded_key() -> None:
    """libp2p peer-ids spec, "Test vectors": an encoded Ed25519 public key."""
    encoded = bytes.fromhex("080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    peer = PeerId.from_public_key(encoded[4:])
    assert peer == b"\x00\x24" + encoded
    assert peer.public_key == encoded[4:]


@given(st.binary(min_size=32, max_size=32))
def test_text_and_bytes_of_a_peer_id_come_back_as_they_were(public_key: bytes) -> None:
    peer = PeerId.from_public_key(public_key)
    assert PeerId.from_text(str(peer)) == peer == PeerId.from_bytes(bytes(peer))
    assert PeerId.from_text(f"  {peer}\n") == peer
    assert str(peer).startswith("12D3KooW")
    assert str(peer).endswith(peer.short)
    assert repr(peer) == f"PeerId({peer})"


def test_ids_that_hash_their_key_have_none_to_give() -> None:
    text = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"  # sha2-256 multihash, as RSA peers have
    peer = PeerId.from_text(text)
    assert str(peer) == text
    assert peer.public_key is None
    assert not verify(peer, b"data", bytes(64))
    with pytest.raises(UsageError, match=text):
        seal_to(peer, b"data")


@pytest.mark.parametrize(
    "text", ["", "0", "12D3KooW", "I1l0", "hello world", "12D3KooW\u00e9", "Qm" * 40, "\x00"]
)
def test_what_is_no_peer_id_is_refused_with_the_text_or_the_reason(text: str) -> None:
    with pytest.raises(UsageError, match="peer id"):
        PeerId.from_text(text)


@given(st.text(max_size=80))
def test_any_text_is_a_peer_id_or_a_usage_error(text: str) -> None:
    try:
        peer = PeerId.from_text(text)
    except UsageError:
        return
    assert PeerId.from_text(str(peer)) == peer


@given(st.binary(max_size=80))
def test_any_bytes_are_a_peer_id_or_a_usage_error(raw: bytes) -> None:
    try:
        peer = PeerId.from_bytes(raw)
    except UsageError:
        return
    assert peer == raw
    assert len(peer) <= 64
    assert PeerId.from_text(str(peer)) == peer
    verify(peer, b"data", bytes(64))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_and_seeds_of_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(UsageError, match=str(length)):
        PeerId.from_public_key(bytes(length))
    with pytest.raises(UsageError, match=str(length)):
        Identity(bytes(length))


# Signatures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "key", "data", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(seed: str, key: str, data: str, signature: str) -> None:
    identity = Identity(bytes.fromhex(seed))
    assert identity.peer_id.public_key == bytes.fromhex(key)
    assert identity.sign(bytes.fromhex(data)) == bytes.fromhex(signature)
    assert verify(identity.peer_id, bytes.fromhex(data), bytes.fromhex(signature))


def test_a_signature_holds_for_its_signer_and_data_only(alice: Identity, bob: Identity) -> None:
    signature = alice.sign(b"data")
    assert Identity.verify(alice.peer_id, b"data", signature)
    assert not verify(bob.peer_id, b"data", signature)
    assert not verify(alice.peer_id, b"date", signature)
    assert not verify(alice.peer_id, b"", signature)


def test_a_signature_with_any_bit_changed_does_not_hold(alice: Identity) -> None:
    signature = alice.sign(b"data")
    for bit in range(8 * 64):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(alice.peer_id, b"data", bytes(changed)), bit
    for length in (0, 1, 63):
        assert not verify(alice.peer_id, b"data", signature[:length])
    assert not verify(alice.peer_id, b"data", signature + b"\0")


def test_a_signature_longer_than_64_bytes_cannot_borrow_from_the_data(alice: Identity) -> None:
    signature = alice.sign(b"data")
    assert not verify(alice.peer_id, b"ata", signature + b"d")


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: key.hex()[:8])
def test_odd_public_keys_verify_nothing_and_raise_nothing(key: bytes) -> None:
    peer = PeerId.from_public_key(key)
    # R = identity, S = 0 is a "signature" of everything under a key of small order where that is not checked
    for signature in (bytes(64), b"\x01" + bytes(63), key + bytes(32), b"\xff" * 64):
        assert not verify(peer, b"data", signature)


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: key.hex()[:8])
def test_sealing_to_odd_public_keys_is_a_usage_error(key: bytes) -> None:
    peer = PeerId.from_public_key(key)
    with pytest.raises(UsageError, match=str(peer)):
        seal_to(peer, b"secret")


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_verify_never_raises(raw: bytes, data: bytes, signature: bytes) -> None:
    assert not verify(PeerId(raw), data, signature)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_verify_never_raises_for_any_key_of_the_right_length(key: bytes, signature: bytes) -> None:
    assert not verify(PeerId.from_public_key(key), b"data", signature)


# Sealed boxes -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_what_is_sealed_to_an_identity_it_opens(data: bytes) -> None:
    identity = Identity(bytes(range(32)))
    box = Identity.seal_to(identity.peer_id, data)
    assert len(box) == len(data) + 48
    assert identity.open_sealed(box) == data


def test_boxes_are_different_each_time_and_open_for_nobody_else(alice: Identity, bob: Identity) -> None:
    box = seal_to(alice.peer_id, b"secret")
    assert box != seal_to(alice.peer_id, b"secret")
    assert b"secret" not in box
    with pytest.raises(SealedBoxError, match=str(bob.peer_id)):
        bob.open_sealed(box)


def test_a_box_with_any_byte_changed_or_missing_does_not_open(alice: Identity) -> None:
    box = seal_to(alice.peer_id, b"secret")
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 0x55
        with pytest.raises(SealedBoxError):
            alice.open_sealed(bytes(changed))
        with pytest.raises(SealedBoxError):
            alice.open_sealed(box[:place])
    with pytest.raises(SealedBoxError):
        alice.open_sealed(box + b"\0")


@given(st.binary(max_size=100))
def test_other_bytes_are_no_sealed_box(box: bytes) -> None:
    with pytest.raises(SealedBoxError):
        Identity(bytes(range(32))).open_sealed(box)


def test_a_box_whose_ephemeral_key_has_small_order_does_not_open(alice: Identity) -> None:
    for key in ODD_KEYS:
        with pytest.raises(SealedBoxError):
            alice.open_sealed(key + bytes(40))


# The private key stays private --------------------------------------------------------------------------------


def test_the_private_key_is_neither_printed_nor_pickled_nor_compared(alice: Identity) -> None:
    assert repr(alice) == f"Identity({alice.peer_id})"
    assert alice.seed.hex() not in repr(alice)
    with pytest.raises(TypeError, match="private key"):
        pickle.dumps(alice)
    assert alice != Identity(alice.seed)
    assert not hasattr(alice, "__dict__")


def test_generated_identities_differ() -> None:
    assert len({Identity.generate().peer_id for _ in range(20)}) == 20


# Key files --------------------------------------------------------------------------------------------------


def test_an_identity_is_the_same_after_saving_and_loading(tmp_path: Path, alice: Identity) -> None:
    path = tmp_path / "new" / "folders" / "key"
    alice.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Identity.load(path).seed == alice.seed
    assert Identity.load(str(path)).peer_id == alice.peer_id
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_load_or_create_makes_an_identity_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = Identity.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert Identity.load_or_create(path).peer_id == first.peer_id
    assert Identity.load(path).peer_id == first.peer_id
    assert path.read_bytes() == content


def test_the_mode_is_0600_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Identity.load_or_create(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_threads_that_create_at_once_all_get_the_one_identity(tmp_path: Path) -> None:
    path = tmp_path / "key"
    found: list[PeerId] = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait(10)
        found.append(Identity.load_or_create(path).peer_id)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [Identity.load(path).peer_id] * 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_save_never_replaces_what_is_there_and_leaves_nothing_behind(tmp_path: Path, alice: Identity) -> None:
    path = tmp_path / "key"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        alice.save(path)
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_missing_file_is_an_error_for_load_and_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(IdentityFileError, match="no such file") as caught:
        Identity.load(path)
    assert caught.value.path == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o644, 0o666, 0o601, 0o610, 0o777])
def test_looser_permissions_are_refused_with_the_remedy(tmp_path: Path, alice: Identity, mode: int) -> None:
    path = tmp_path / "key"
    alice.save(path)
    path.chmod(mode)
    for read in (Identity.load, Identity.load_or_create):
        with pytest.raises(IdentityFileError, match=f"{mode:04o}.*chmod 600 {path}"):
            read(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o400)
    assert Identity.load(path).seed == alice.seed


def refused(path: Path, content: bytes) -> None:
    """Both ways to read refuse the content, and leave it."""
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (Identity.load, Identity.load_or_create):
        with pytest.raises(IdentityFileError):
            read(path)
    assert path.read_bytes() == content


def test_a_file_damaged_at_any_byte_is_refused_and_kept(tmp_path: Path, alice: Identity) -> None:
    """A changed digit of the seed would be another identity, silently: the peer id beside it tells."""
    path = tmp_path / "key"
    alice.save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        for other in {content[place] ^ 1, content[place] ^ 0x20, content[place] ^ 0x80, ord("0"), ord("\n")}:
            if other != content[place]:
                refused(path, content[:place] + bytes([other]) + content[place + 1 :])


def test_a_file_cut_or_extended_at_any_byte_is_refused_and_kept(tmp_path: Path, alice: Identity) -> None:
    path = tmp_path / "key"
    alice.save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        refused(path, content[:place])
        refused(path, content[:place] + b"0" + content[place:])
        refused(path, content[:place] + b"\n" + content[place:])
    refused(path, content + b"\n")
    refused(path, content * 2)
    refused(path, content + b" " * 10_000)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_other_contents_are_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "key", content)


def test_an_error_never_shows_the_key(tmp_path: Path, alice: Identity) -> None:
    path = tmp_path / "key"
    alice.save(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(IdentityFileError) as caught:
        Identity.load(path)
    error: BaseException | None = caught.value
    while error is not None:
        assert alice.seed.hex() not in str(error)
        error = None if error.__suppress_context__ else error.__context__


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (folder, pipe, Path("/dev/null")):
        for read in (Identity.load, Identity.load_or_create):
            with pytest.raises(IdentityFileError, match="regular file"):
                read(path)


def test_a_link_to_a_key_is_followed_and_a_dangling_link_is_not_replaced(
    tmp_path: Path, alice: Identity
) -> None:
    alice.save(tmp_path / "key")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "key")
    assert Identity.load_or_create(link).seed == alice.seed
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityFileError, match="no such file"):
        Identity.load_or_create(dangling)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(FileExistsError):
        alice.save(dangling)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_path(
    tmp_path: Path, alice: Identity
) -> None:
    (tmp_path / "file").write_text("")
    for use in (alice.save, Identity.load, Identity.load_or_create):
        with pytest.raises(SwarmError, match="file/key"):
            use(tmp_path / "file" / "key")


def test_the_seed_is_libsodiums(alice: Identity) -> None:
    assert bytes(nacl.signing.SigningKey(alice.seed).verify_key) == alice.peer_id.public_key


def test_an_identity_verifies_its_own_signatures_and_others(alice: Identity, bob: Identity) -> None:
    signature = alice.sign(b"data")
    assert alice.verify(b"data", signature)
    assert not bob.verify(b"data", signature)
    assert bob.verify(alice.peer_id, b"data", signature)
    assert Identity.verify(str(alice.peer_id), b"data", signature)
    assert bob.open_sealed(alice.seal_to(str(bob.peer_id), b"secret")) == b"secret"


def test_values_of_wrong_types_are_usage_errors_that_do_not_show_them(alice: Identity) -> None:
    wrong: Any = "hunter2"
    for call in (
        lambda: alice.sign(wrong),
        lambda: alice.verify(wrong, wrong),
        lambda: alice.seal_to(alice.peer_id, wrong),
    ):
        with pytest.raises(UsageError, match="bytes are needed, not str") as caught:
            call()
        assert wrong not in str(caught.value)
    nobody: Any = None
    for call in (lambda: alice.seal_to(nobody, b""), lambda: Identity.verify(nobody, b"", b"")):
        with pytest.raises(UsageError, match="a peer id"):
            call()
    with pytest.raises(UsageError, match="no text of a peer id"):
        PeerId.from_text(nobody)


@pytest.mark.parametrize("path", [None, 5, b"key", "", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    for call in (Identity.load, Identity.load_or_create, Identity.generate().save):
        with pytest.raises(IdentityFileError, match="no path"):
            call(path)
