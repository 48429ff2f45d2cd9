"""Bad input to the command: one clear message, an exit status, nothing left behind."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from importlib import metadata
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from swarmp2p.__main__ import main as begin
from swarmp2p.cli import main
from swarmp2p.console import INTERRUPTED, state_file
from swarmp2p.identity import Identity
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer


@pytest.fixture
def peer() -> Generator[Peer, None, None]:
    """A peer that runs beside the test, in a thread of its own."""
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(open_peer()) as peer:
        yield peer


def fails(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    """Run the command; it must fail with this status and one message, which is returned."""
    threads = threading.active_count()
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("swarmp2p: ")
    assert "Traceback" not in printed.err
    assert threading.active_count() <= threads + 1  # trio keeps an idle thread
    return printed.err


@pytest.mark.parametrize("address", ["nonsense", "/ip4/127.0.0.1/tcp/4001", "/ip4/300.0.0.1/tcp/1/p2p/12D3"])
def test_a_wrong_multiaddr(capsys: pytest.CaptureFixture[str], address: str) -> None:
    message = fails(capsys, 2, "lend", "--bootstrap", address)
    assert f"cannot use the address '{address}'" in message


def test_a_wrong_listen_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot use the address 'here'" in fails(capsys, 2, "lend", "--listen", "here")


def test_an_address_whose_peer_id_does_not_match(capsys: pytest.CaptureFixture[str], peer: Peer) -> None:
    transport = str(peer.addresses[0]).rpartition("/p2p/")[0]
    other = Identity.generate().peer_id
    message = fails(capsys, 1, "lend", "--bootstrap", f"{transport}/p2p/{other}")
    assert str(other) in message


def test_an_unreachable_bootstrap(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and nobody else takes it
        address = f"/ip4/127.0.0.1/tcp/{unused.getsockname()[1]}/p2p/{Identity.generate().peer_id}"
        assert "cannot reach" in fails(capsys, 1, "lend", "--bootstrap", address)
        assert "cannot reach" in fails(
            capsys,
            1,
            "lend",
            "--bootstrap",
            address,
            "--bootstrap",
            address.replace("127.0.0.1", "127.0.0.2"),
        )


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        assert f"cannot listen on {address}" in fails(capsys, 1, "lend", "--listen", address)


def test_no_ray_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    for command in ("lend", "demo"):
        assert "pip install 'swarmp2p[ray]'" in fails(capsys, 1, command)


def test_key_files_that_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_text("not a key")
    damaged.chmod(0o600)
    assert "cannot use the identity file" in fails(capsys, 1, "lend", "--identity", str(damaged))
    assert damaged.read_text() == "not a key"
    open_to_all = tmp_path / "open"
    Identity.generate().save(open_to_all)
    open_to_all.chmod(0o644)
    assert "chmod 600" in fails(capsys, 1, "lend", "--identity", str(open_to_all))


def test_peers_and_kinds_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is no peer id" in fails(capsys, 2, "lend", "--allow", "me")
    assert "no provider kind 'toaster'" in fails(capsys, 2, "lend", "--kind", "toaster")
    missing = str(tmp_path / "none")
    assert "cannot read the file of allowed peers" in fails(capsys, 2, "lend", "--allow-file", missing)
    assert "a path is one of direct," in fails(capsys, 2, "lend", "--paths", "tunnel")
    assert "node_ip must be an IP address" in fails(capsys, 2, "lend", "--node-ip", "host.example")


def test_wrong_usage_is_told_by_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["borrow"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_the_demo_without_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)  # as if it were not there
    assert "pip install 'swarmp2p[demo]'" in fails(capsys, 1, "demo")


def test_logs_and_regions_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lend = ["lend", "--isolation", "none"]  # else a machine without bubblewrap is told of that
    assert "logs cannot be kept in" in fails(capsys, 2, *lend, "--logs", str(tmp_path / "file"))
    assert "region has at most 32 bytes" in fails(capsys, 2, *lend, "--region", "\u00e9" * 20)


def test_a_lender_outlives_a_broken_file_of_allowed_peers(tmp_path: Path) -> None:
    file = tmp_path / "allowed"
    file.write_text("# nobody\n")
    options = ["--json", "--exit-on-eof", "--isolation", "none", "--allow-file", str(file)]
    command = [sys.executable, "-m", "swarmp2p", "lend", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lender:
        assert lender.stdin is not None
        assert lender.stdout is not None
        assert json.loads(lender.stdout.readline())["event"] == "lending"
        file.write_text("half a li")
        told = json.loads(lender.stdout.readline())
        assert (told["event"], "'half a li' is no peer id" in told["message"]) == ("problem", True)
        friend = str(Identity.generate().peer_id)
        file.write_text(friend)
        assert json.loads(lender.stdout.readline()) == {"event": "allowed", "peers": [friend]}
        lender.stdin.close()
        assert lender.wait(30) == 0


def test_a_lender_that_lends_to_nobody_says_so_and_one_says_what_its_machine_forbids(tmp_path: Path) -> None:
    program = tmp_path / "lend.py"  # where neither network namespaces nor interfaces can be made
    program.write_text(
        """import sys
from swarmp2p.cli import main
from swarmp2p.ray_bridge import cells
from swarmp2p.transport.wireguard import problem
async def forbidden():
    return "the owner forbids it"
cells.cell_problem = forbidden
if "--allow-anyone" in sys.argv:
    async def allowed():
        return None
    cells.cell_problem = allowed
problem.wireguard_problem = lambda: "only root may"
sys.exit(main(sys.argv[1:]))
"""
    )
    for options, expected in (
        ([], ["nobody may borrow", "borrowers on other machines cannot be lent to: the owner forbids it"]),
        (["--allow-anyone", "--paths", "wireguard, overlay"], ["no path will be WireGuard's: only root may"]),
        (["--allow-anyone"], []),
    ):
        command = [
            sys.executable,
            str(program),
            "lend",
            "--json",
            "--exit-on-eof",
            "--isolation",
            "none",
            *options,
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
        )
        first, *others = [json.loads(line) for line in done.stdout.splitlines()]
        assert first["event"] == "lending"
        assert [one["event"] for one in others] == ["problem"] * len(expected)
        for one, part in zip(others, expected, strict=True):
            assert part in one["message"]


def test_the_state_file_stands_beside_the_key_where_it_can(tmp_path: Path) -> None:
    def where(**options: Path | None) -> Path | None:
        return state_file(argparse.Namespace(**{"state": None, "identity": None, **options}))

    assert where() is None
    assert where(state=tmp_path / "s") == tmp_path / "s"
    assert where(identity=tmp_path / "key") == tmp_path / "key.state"
    assert where(identity=Path("/proc/self/key")) is None


def test_a_state_file_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear friend")
    message = fails(capsys, 1, "lend", "--state", str(tmp_path / "letter"))
    assert "it is no state file of swarmp2p; name another file" in message


def test_ctrl_c_before_a_command_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """While modules are read, for instance."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("swarmp2p.cli.main", interrupted)
    assert begin() == INTERRUPTED
