"""`swarmp2p grant`, `grants` and `revoke`, as people use them; and a revoked borrower's real worker, which ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from swarmp2p import open_peer
from swarmp2p.cli import main
from swarmp2p.command_grants import grants_file, grants_to_show
from swarmp2p.errors import GrantError
from swarmp2p.identity import Identity, verify
from swarmp2p.invite import Invite
from swarmp2p.ray_bridge.grant_terms import Terms
from swarmp2p.ray_bridge.grants import Grant
from tests.lab.requirements import lacking
from tests.test_cli import fails

BOB = Identity(b"b" * 32)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARMP2P_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    Identity(b"o" * 32).save(tmp_path / "key")
    return tmp_path / "key"


Capture = pytest.CaptureFixture[str]


def test_a_grant_says_what_was_asked(key: Path, capsys: Capture) -> None:
    bounds = [
        "--cpus",
        "2",
        "--gpus",
        "1",
        "--memory",
        "8G",
        "--leases",
        "3",
        "--lease",
        "2h",
        "--expires",
        "7d",
    ]
    lender = Identity(b"l" * 32).peer_id
    assert main(["grant", str(BOB.peer_id), "--identity", str(key), *bounds, "--lender", str(lender)]) == 0
    grant = Grant.parse(capsys.readouterr().out, verify)
    terms = grant.terms
    assert (grant.owner, grant.holder) == (Identity.load(key).peer_id, BOB.peer_id)
    assert (terms.cpus, terms.gpus, terms.memory_bytes, terms.leases) == (2, 1, 8 << 30, 3)
    assert (terms.lease_s, terms.lenders) == (7200, (lender,))
    assert 0 < 7 * 86_400 - (terms.expires - time.time()) < 60


def test_without_a_name_it_is_a_secret_for_whoever_has_it(key: Path, capsys: Capture) -> None:
    assert main(["grant", "--identity", str(key), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["secret"], said["holder"]) == (True, None)
    assert main(["grant", "--identity", str(key)]) == 0
    assert "Secret: whoever has it may lease" in capsys.readouterr().err


def test_a_holder_keeps_it_lists_it_and_passes_it_on(key: Path, tmp_path: Path, capsys: Capture) -> None:
    BOB.save(tmp_path / "bob")
    assert main(["grant", str(BOB.peer_id), "--cpus", "2", "--identity", str(key)]) == 0
    text = capsys.readouterr().out.strip()
    bob = ["--identity", str(tmp_path / "bob")]
    assert main(["grants", text, *bob, "--json"]) == 0
    assert main(["grants", *bob, "--json"]) == 0
    kept, again = map(json.loads, capsys.readouterr().out.splitlines())
    assert kept == again
    assert (kept["holder"], kept["cpus"]) == (str(BOB.peer_id), 2)
    assert main(["grant", "--under", text, "--cpus", "1", *bob, "--json"]) == 0
    narrowed = Grant.parse(json.loads(capsys.readouterr().out)["grant"], verify)
    assert (narrowed.is_ticket, narrowed.terms.cpus, len(narrowed.links)) == (True, 1, 2)
    said = fails(capsys, 2, "grant", "--under", text, "--cpus", "3", *bob)
    assert "can only be narrowed: cpus has 3 where 2 was granted" in said
    said = fails(capsys, 1, "grants", text, "--identity", str(key))
    assert "ask for one for" in said


def test_an_invite_with_a_grant(key: Path, capsys: Capture) -> None:
    assert main(["grant", "--identity", str(key)]) == 0
    ticket = capsys.readouterr().out.strip()
    where = ["--address", "/ip4/192.0.2.1/tcp/4141", "--identity", str(key)]
    assert main(["invite", *where, "--grant", ticket]) == 0
    invite = Invite.parse(capsys.readouterr().out)
    assert invite.grant is not None
    assert invite.grant.text == ticket
    assert "not both" in fails(capsys, 2, "invite", *where, "--grant", ticket, "--capability", "x")


async def test_what_a_command_shows(at_home: Path) -> None:
    """Its own grants, those on its command line, and those of the machine's peer, passed on."""
    machine, owner, now = Identity(b"m" * 32), Identity(b"o" * 32), time.time()
    machine.save(at_home / "key")
    terms = Terms(expires=now + 60, cpus=2)
    grants_file(at_home / "key").add(now, [Grant.issue(owner, machine.peer_id, terms, now)])
    async with open_peer(listen=()) as peer:
        own = await peer.hold(Grant.issue(owner, peer.id, terms, now))
        told = Grant.issue(owner, peer.id, replace(terms, cpus=1), now)
        shown = grants_to_show([told.text], peer)
        assert shown[:2] == [own, told]
        assert [(one.holder, len(one.links), one.terms) for one in shown[2:]] == [(peer.id, 2, terms)]
        with pytest.raises(GrantError, match="ask for one for"):
            grants_to_show([Grant.issue(owner, machine.peer_id, terms, now).text], peer)


def test_mistakes(key: Path, capsys: Capture) -> None:
    own = ["--identity", str(key)]
    for arguments, status, said in (
        (["grant", "nobody", *own], 2, "is no peer id"),
        (["grant", "--memory", "much", *own], 2, "no amount of memory"),
        (["grant", "--expires", "400d", *own], 2, "366 days at most"),
        (["grant", "--identity", str(key) + "x"], 2, "swarmp2p join"),
        (["grants", "grant1_xyz", *own], 1, "copy it again"),
        (["revoke", *own], 2, "nothing is named"),
        (["revoke", "nobody", *own], 2, "is no peer id"),
        (["lend", "--grantor", "nobody"], 2, "is no peer id"),
    ):
        assert said in fails(capsys, status, *arguments)


def test_a_revocation_without_a_swarm_says_so(key: Path, capsys: Capture) -> None:
    own = ["--identity", str(key), "--listen", "/ip4/127.0.0.1/tcp/0", "--json"]
    assert main(["revoke", str(BOB.peer_id), *own]) == 0
    revoked, problem = map(json.loads, capsys.readouterr().out.splitlines())
    assert (revoked["told"], revoked["stored"]) == (0, 0)
    assert "nobody was told" in problem["message"]
    assert main(["revoke", "--everything", *own]) == 0
    again, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert again["sequence"] > revoked["sequence"]


# With real processes ----------------------------------------------------------------------------------------------


class Process:
    """A command of ours, or a script, that runs and tells events as JSON lines."""

    def __init__(self, *command: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def next(self, event: str, fits: Callable[[dict[str, Any]], bool] = lambda found: True) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                if found["event"] == event and fits(found):
                    return found
        raise AssertionError(f"it ended without {event}")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.stdout.close()


BORROWER = """
import json, sys, trio
from swarmp2p import Need, open_peer
async def main(bootstrap, grant):
    async with open_peer(bootstrap=bootstrap) as peer:
        await peer.hold(grant)
        async with peer.borrow(Need(cpus=1), min_workers=1, timeout_s=90) as cluster:
            print(json.dumps({"event": "borrowed", "workers": len(cluster.workers)}), flush=True)
            async for event in cluster.events:
                if event.kind.value == "ended":
                    print(json.dumps({"event": "ended", "reason": event.reason}), flush=True)
                    break
            await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main, sys.argv[1], sys.argv[2])
"""


def raylets(under: int) -> list[int]:
    """Ray nodes among the processes below one, all the way down; a lender also keeps a worker ready, which is none."""
    found: list[int] = []
    for child in psutil.Process(under).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


async def revoke_all(owner: Identity, address: str, lending: Process) -> float:
    """Revoke everything, and wait for the workers' end; how long it took from the owner's word on, in seconds."""
    async with open_peer(bootstrap=address) as peer, trio.open_nursery() as nursery:
        began = time.monotonic()
        nursery.start_soon(partial(peer.revoke, everything=True, owner=owner))
        with trio.fail_after(60):
            while await trio.to_thread.run_sync(raylets, lending.process.pid):  # noqa: ASYNC110
                await trio.sleep(0.05)
        return time.monotonic() - began


@pytest.mark.slow
def test_a_revoked_borrowers_worker_ends_within_five_seconds(
    key: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Lender, borrower and owner are processes of their own. The owner is none of the two, and runs no peer. The worker
    is jailed, where the machine makes jails; in CI it does."""
    isolation = "none" if "CI" not in os.environ and lacking("bwrap", root=False) else "jail"
    owner = Identity.load(key).peer_id
    here, own = ["--listen", "/ip4/127.0.0.1/tcp/0", "--json"], ["--identity", str(key)]
    swarmp2p = [sys.executable, "-m", "swarmp2p"]
    lending = Process(
        *swarmp2p, "lend", *here, "--isolation", isolation, "--grantor", str(owner), "--exit-on-eof"
    )
    try:
        (address, *_) = lending.next("lending")["addresses"]
        assert main(["grant", *own]) == 0
        ticket = capsys.readouterr().out.strip()
        borrowing = Process(sys.executable, "-c", BORROWER, address, ticket)
        try:
            assert borrowing.next("borrowed")["workers"] == 1
            lending.next("leases", lambda found: len(found["borrowers"]) == 1)
            assert len(raylets(lending.process.pid)) == 1
            took_s = trio.run(revoke_all, Identity.load(key), address, lending)
            assert took_s < 5, f"{took_s:.1f} s"
            assert "revoked" in borrowing.next("ended")["reason"]
            assert main(["revoke", "--everything", *own, *here, "--bootstrap", address]) == 0
            assert json.loads(capsys.readouterr().out.splitlines()[0])["told"] == 1
        finally:
            borrowing.close()
    finally:
        lending.close()
