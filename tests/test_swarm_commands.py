"""`swarmp2p join`, `invite` and `network-key`: two machines, one invite, as processes; and what is said of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmp2p.cli import main
from swarmp2p.identity import Identity
from swarmp2p.invite import Invite
from swarmp2p.network_key import NetworkKey
from tests.test_cli import fails

HERE = "/ip4/127.0.0.1/tcp/0"
OPTIONS = ("--listen", HERE, "--json", "--exit-on-eof")


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARMP2P_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Joined:
    """One `swarmp2p join` that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def next(self, event: str, **wanted: object) -> dict[str, Any]:
        """The next event of a kind with these fields."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event and all(found[name] == value for name, value in wanted.items()):
                return found
        assert self._process.stderr is not None
        raise AssertionError(self._process.stderr.read())


@contextmanager
def join(*arguments: str, stdin: str = "") -> Generator[Joined, None, None]:
    command = [sys.executable, "-m", "swarmp2p", "join", *OPTIONS, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        if stdin:
            process.stdin.write(stdin + "\n")
            process.stdin.flush()
        try:
            yield Joined(process)
        finally:
            process.stdin.close()
            process.wait(30)


def test_two_machines_one_invite(at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A private swarm: made here, joined there by the invite alone, and joined again without it."""
    key, there = tmp_path / "swarm.key", tmp_path / "there"
    assert main(["network-key", str(key)]) == 0
    name = NetworkKey.load(key).name
    assert name in capsys.readouterr().out
    with join("--network-key", str(key)) as first:
        started = first.next("joined", network=f"private:{name}")
        assert main(["invite", "--network-key", str(key)]) == 0
        printed = capsys.readouterr()
        invite = printed.out.strip()
        assert "Secret" in printed.err
        assert "own addresses only" in printed.err
        assert str(Invite.parse(invite).inviter) == started["peer"]
        with join("-", "--identity", str(there), stdin=invite) as second:
            second.next("joined", network=f"private:{name}", connected=1)
            first.next("peers", connected=1, known=1)
        assert NetworkKey.load(tmp_path / "there.network").name == name
        with join("--identity", str(there)) as second:
            second.next("peers", connected=1)
    assert not (at_home / "key.addresses").exists()
    assert (at_home / "key").stat().st_mode & 0o777 == 0o600
    assert at_home.stat().st_mode & 0o777 == 0o700


def test_an_open_swarm_by_lines_for_people(capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    at_home.mkdir()
    Identity.generate().save(at_home / "key")
    address = "/ip4/192.0.2.1/tcp/4141"
    assert main(["invite", "--address", address, "--expires", "never"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert Invite.parse(printed.out).expires is None
    assert (
        main(["invite", "--json", "--address", address, "--capability", "half a GPU", "--expires", "2h"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["secret"], told["network"], Invite.parse(told["invite"]).capability) == (
        True,
        "open",
        b"half a GPU",
    )


@pytest.mark.parametrize(
    ("invite", "told"),
    [
        ("hello", "does not begin with swarm1_"),
        ("swarm9_abc", "install a newer one"),
        ("/ip4/127.0.0.1/tcp/1", "name it with --bootstrap"),
    ],
)
def test_invites_that_cannot_be_used(capsys: pytest.CaptureFixture[str], invite: str, told: str) -> None:
    status = 2 if "--bootstrap" in told else 1
    assert told in fails(capsys, status, "join", "--listen", HERE, invite)


def test_an_expired_invite(capsys: pytest.CaptureFixture[str]) -> None:
    identity = Identity.generate()
    invite = Invite.issue(identity, [f"/ip4/127.0.0.1/tcp/1/p2p/{identity.peer_id}"], expires=1e9)
    assert "it expired" in fails(capsys, 1, "join", "--listen", HERE, invite.text)


def test_another_private_swarm_is_for_another_identity(
    capsys: pytest.CaptureFixture[str], at_home: Path
) -> None:
    at_home.mkdir()
    NetworkKey(b"o" * 32).save(at_home / "key.network")
    identity = Identity.generate()
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{identity.peer_id}"
    invite = Invite.issue(identity, [address], network_key=NetworkKey(b"k" * 32))
    assert "join with another --identity" in fails(capsys, 2, "join", "--listen", HERE, invite.text)
    assert NetworkKey.load(at_home / "key.network").secret == b"o" * 32


def test_who_has_no_peer_yet_is_told_how_to_start_one(
    capsys: pytest.CaptureFixture[str], at_home: Path
) -> None:
    assert "swarmp2p join" in fails(capsys, 2, "invite")
    at_home.mkdir()
    Identity.generate().save(at_home / "key")
    assert "no peer runs with the key" in fails(capsys, 2, "invite")
    for wrong in ("soon", "0d", "7 d", "1w"):
        assert "write 30m, 12h, 7d or never" in fails(capsys, 2, "invite", "--expires", wrong)


def test_a_network_key_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["network-key", "--json", str(tmp_path / "key")]) == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["file"]) == ("network-key", str(tmp_path / "key"))
    assert event["network"].startswith("private:")
    assert "such a file already" in fails(capsys, 1, "network-key", str(tmp_path / "key"))
    assert "no such file" in fails(capsys, 1, "lend", "--network-key", str(tmp_path / "other"))
