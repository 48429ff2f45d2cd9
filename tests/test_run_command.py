"""`swarmp2p run`, `up`, `down` and `leases` as people use them: real lender, real Ray, real signals, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmp2p.cli import main
from swarmp2p.kept_cluster import KeptCluster
from tests.test_cli import fails

SCRIPT = """
import os, signal, sys, time, ray
ray.init(logging_level="ERROR", log_to_driver=False)  # nothing of a cluster is named here

@ray.remote
def square(value):
    return value * value

print(ray.get([square.remote(value) for value in range(3)], timeout=60), flush=True)
if sys.argv[1] == "wait":
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        sys.exit(9)
sys.exit(int(sys.argv[1]))
"""

COUNTS = """
import sys, ray
ray.init(logging_level="ERROR", log_to_driver=False, namespace="counts")

@ray.remote(num_cpus=1)
class Counter:
    value = 0

    def add(self):
        self.value += 1
        return self.value

counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
sys.exit(ray.get(counter.add.remote(), timeout=100))
"""


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARMP2P_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "home"


class Lender:
    """A `swarmp2p lend` that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.address = str(self.said("lending")["addresses"][0])

    def said(self, event: str, **wanted: object) -> dict[str, Any]:
        """The next event of a kind with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event and all(found[name] == value for name, value in wanted.items()):
                return found
        raise AssertionError("the lender has ended")


@contextmanager
def lender(*arguments: str) -> Generator[Lender, None, None]:
    options = ("--json", "--exit-on-eof", "--allow-anyone", "--isolation", "none", *arguments)
    command = [sys.executable, "-m", "swarmp2p", "lend", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield Lender(process)
        finally:
            process.stdin.close()
            process.wait(30)


def run(address: str, *arguments: str, script: tuple[str, ...]) -> list[str]:
    options = ("--bootstrap", address, "--paths", "direct", *arguments)
    return [sys.executable, "-m", "swarmp2p", "run", *options, "--", *script]


def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_a_script_finds_its_cluster_and_its_end_is_passed_on(tmp_path: Path) -> None:
    script = (sys.executable, str(tmp_path / "script.py"))
    with lender() as lends:
        done = finished(run(lends.address, "--json", script=(*script, "7")))
        assert (done.returncode, done.stdout) == (7, "[0, 1, 4]\n"), done.stderr
        told = [event["event"] for event in events(done.stderr)]
        assert told[0] == "borrowing"
        assert told[-4:] == ["worker", "running", "ended", "releasing"]
        lends.said("leases", borrowers=[])
        done = finished(run(lends.address, script=("/nowhere/to/be/found",)))
        assert done.returncode == 127
        assert "cannot run /nowhere/to/be/found: no such file" in done.stderr
        assert "1 of 1 workers run" in done.stderr
        lends.said("leases", borrowers=[])

        # Ctrl-C while the worker starts
        with subprocess.Popen(
            run(lends.address, "--json", script=("true",)), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            while json.loads(process.stderr.readline())["event"] != "granted":
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert "Traceback" not in process.stderr.read()
        lends.said("leases", borrowers=[])

        # Ctrl-C, as a terminal's shell would pass it to a process without one: to swarmp2p alone.
        with subprocess.Popen(
            run(lends.address, script=(*script, "wait")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "[0, 1, 4]\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 9, process.stderr.read()
            assert "swarmp2p: releasing 1 worker\n" in process.stderr.read()
        lends.said("leases", borrowers=[])


@pytest.mark.slow
def test_told_to_end_while_it_waits_and_too_few_workers(at_home: Path) -> None:
    done = finished([*run("", script=("true",))[:4], "--timeout", "1s", "--", "true"])
    assert done.returncode == 125
    assert "leased 0 of 1 workers" in done.stderr
    assert "Traceback" not in done.stderr
    done = finished([*run("", script=("true",))[:4], "--timeout", "6s", "--", "true"])
    assert "this peer has found no swarm" in done.stderr
    assert "waiting up to 6 s" in done.stderr
    for arguments, number, status in (
        (("run", "--json", "--", "true"), signal.SIGTERM, 143),
        (("up", "--json"), signal.SIGTERM, 143),
        (("up", "--json"), signal.SIGINT, 130),
    ):
        with subprocess.Popen(
            [sys.executable, "-m", "swarmp2p", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            told = process.stderr if arguments[0] == "run" else process.stdout
            assert json.loads(told.readline())["event"] == "borrowing"
            process.send_signal(number)
            assert process.wait(30) == status
            assert "Traceback" not in process.stderr.read()
    folder = at_home / "clusters" / "default"
    assert sorted(os.listdir(folder)) == ["key", "lock", "log"]
    assert "Traceback" not in (folder / "log").read_text()


def test_with_json_a_failure_is_told_where_the_other_events_are(capsys: pytest.CaptureFixture[str]) -> None:
    for options, status, error in (
        (("--workers", "many", "--", "true"), 125, "UsageError"),
        (("--cluster", "none", "--", "true"), 125, "SwarmError"),
    ):
        assert main(["run", "--json", *options]) == status
        printed = capsys.readouterr()
        assert printed.out == "", "the command's"
        assert [(event["event"], event["error"]) for event in events(printed.err)] == [("failed", error)]


def test_with_json_a_command_that_is_not_found_is_an_event(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def environment(_: KeptCluster) -> dict[str, str]:
        return {"RAY_ADDRESS": "nowhere"}

    monkeypatch.setattr(KeptCluster, "environment", environment)
    assert main(["run", "--json", "--cluster", "any", "--", "/nowhere/to/be/found"]) == 127
    printed = capsys.readouterr()
    (event,) = events(printed.err)
    assert (event["event"], event["error"]) == ("failed", "FileNotFoundError")
    assert "swarmp2p: cannot run /nowhere/to/be/found: no such file" in printed.err


def test_a_cluster_that_never_was_leaves_its_key_and_its_log(at_home: Path) -> None:
    kept = KeptCluster("new")
    assert not kept.remembers()
    with kept.holding():
        kept.ray.mkdir()
        for name in ("key", "log", "key.state"):
            (kept.folder / name).touch()
        assert kept.remembers()
        kept.forget(but=("log",))
    assert sorted(os.listdir(kept.folder)) == ["key", "lock", "log"]


def test_what_ends_is_told_whether_it_is_over_for_good(at_home: Path) -> None:
    hold = (
        "import sys, signal\n"
        "from swarmp2p.kept_cluster import KeptCluster\n"
        "kept = KeptCluster('one')\n"
        "def ends(*_): sys.exit(7 if kept.over() else 8)\n"
        "signal.signal(signal.SIGTERM, ends)\n"
        "with kept.holding():\n"
        "    print(kept.over(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    for end, status in ((True, 7), (False, 8), (True, 7)):  # what is left of a former `down` does not count
        with subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "False\n"
            if end:
                assert KeptCluster("one").end(20.0)
            else:
                process.terminate()
            assert process.wait(20) == status


def test_what_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        ([], "no command is given"),
        (["--workers", "many", "--", "true"], "write 4, or bounds such as 2-16"),
        (["--memory", "x", "--", "true"], "write 8G"),
        (["--lender", "me", "--", "true"], "is no peer id"),
        (["--cluster", "none", "--", "true"], "no cluster 'none' runs here; start it with: swarmp2p up none"),
        (["--cluster", "../x", "--", "true"], "cannot be a cluster's name"),
    ):
        assert told in fails(capsys, 125, "run", *options)


@pytest.mark.slow
def test_a_cluster_that_stays(at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def swarm(*arguments: str) -> subprocess.CompletedProcess[str]:
        return finished([sys.executable, "-m", "swarmp2p", *arguments])

    (tmp_path / "counts.py").write_text(COUNTS)
    count = ("run", "--cluster", "team", "--", sys.executable, str(tmp_path / "counts.py"))
    with lender("--leases", "2") as lends, ExitStack() as at_the_end:
        at_the_end.callback(main, ["down", "team"])  # whatever has failed
        options = ("--bootstrap", lends.address, "--paths", "direct")
        done = swarm("up", "team", *options)
        assert done.returncode == 0, done.stderr
        assert "until: swarmp2p down team" in done.stdout
        folder = at_home / "clusters" / "team"
        assert {(folder / name).stat().st_mode & 0o777 for name in ("", "key")} == {0o700, 0o600}
        held = KeptCluster("team").held()
        assert held is not None
        try:
            assert (folder / "environment").stat().st_mode & 0o777 == 0o600
            assert swarm(*count).returncode == 1
            again = events(swarm("up", "team", "--json", *options).stdout)
            assert [(event["event"], event["already"]) for event in again] == [("up", True)]
            shown = events(swarm("leases", "--json").stdout)
            assert [(event["event"], event.get("up")) for event in shown][-2:] == [
                ("cluster", True),
                ("leases", None),
            ]
        finally:
            os.kill(held.pid, signal.SIGKILL)
        while KeptCluster("team").held() is not None:  # its end takes a moment
            pass
        done = swarm("up", "team", *options)  # the same peer, where the one before left it
        assert done.returncode == 0, done.stderr
        once_more = KeptCluster("team").held()
        assert once_more is not None
        assert (once_more.peer, once_more.pid == held.pid) == (held.peer, False)
        assert swarm(*count).returncode == 2, "its actors live on"
        done = swarm("down", "team", "--json")
        assert events(done.stdout)[0]["ran"] is True
        assert sorted(os.listdir(folder)) == ["key", "lock"]
        lends.said("leases", borrowers=[])
        assert main(["down", "team"]) == 0
        assert "did not run" in capsys.readouterr().out
        done = swarm("up", "team", *options, "--timeout", "1s", "--kind", "gaming-pc")
        assert done.returncode == 3
        assert "leased 0 of 1 workers" in done.stderr
        assert swarm("up", "team", "--memory", "x").returncode == 2


def test_clusters_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no cluster 'other'" in fails(capsys, 1, "down", "other")
    assert "cannot be a cluster's name" in fails(capsys, 2, "up", "a/b")
    assert main(["leases"]) == 0
    assert capsys.readouterr().out == "swarmp2p: 0 leases\n"


def test_a_number_that_is_used_again_is_not_a_clusters_process(at_home: Path) -> None:
    kept = KeptCluster("old")
    with kept.holding():
        held = kept.held()
        assert held is not None
        assert held.pid == os.getpid()
        path = kept.folder / "cluster.json"
        text = path.read_text()
        path.write_text(text.replace(f'"start": {held.start}', f'"start": {held.start - 1}'))
        assert kept.held() is None
        assert kept.end(1.0) is False
        kept.kill()
        path.write_text("{")
        assert kept.held() is None
        path.write_text(text)
        assert kept.held() == held
    assert kept.held() is None
