"""The commands with real machines' troubles: a lender that is killed with its supervisors, and packages that only the
borrower has."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from swarmp2p.ray_bridge.orphans import members
from swarmp2p.ray_bridge.supervisor import Process, look, processes
from swarmp2p.storage.journal import read_journal
from tests.test_run_command import events, finished, lender, run

pytestmark = pytest.mark.slow

HOLDS = """
import os, sys, time, ray
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(max_retries=-1)
def hold(path):
    while not os.path.exists(path):
        time.sleep(0.1)
    return "held to the end"

running = hold.remote(sys.argv[1])
print("up", flush=True)
print(ray.get(running, timeout=160), flush=True)
"""

# Code and a package that only this machine has.
IMPORTS = """
import os, sys, ray
ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"working_dir": "project", **eval(sys.argv[1])})

@ray.remote
def use():
    import mine
    found = [mine.NAME, open("data.txt").read(), os.getuid() == 0]
    try:
        import tinypackage
        found.append(tinypackage.ANSWER)
    except ImportError:
        pass
    return found

print(ray.get(use.remote(), timeout=100))
"""
WHEEL = "tinypackage-1.2-py3-none-any.whl"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMP2P_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def stopped_all(journal: str) -> tuple[list[Process], list[str]]:
    """SIGSTOP all supervisors of a peer, so that they do not see its end; what their trees consist of."""
    everyone = processes()
    trees = read_journal(journal).trees
    for tree in trees:
        os.kill(tree.pid, signal.SIGSTOP)
    found = [process for tree in trees for process in members(tree, everyone)]
    return found, [directory for tree in trees for directory in tree.directories]


def is_there(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.start == process.start


@pytest.mark.timeout(300)
def test_a_lender_killed_with_its_supervisors_ends_its_orphans_and_lends_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HOLDS)
    key = ("--identity", str(tmp_path / "lender"))
    journal = str(tmp_path / "lender.state-journal")
    script = (sys.executable, str(tmp_path / "script.py"), str(tmp_path / "go"))
    with lender(*key) as first:
        port = first.address.split("/tcp/")[1].split("/")[0]
        job = subprocess.Popen(run(first.address, script=script), stdout=subprocess.PIPE, text=True)
        try:
            assert job.stdout is not None
            assert job.stdout.readline() == "up\n"
            (given,) = read_journal(journal).leases
            assert (given.role.value, given.state) == ("lender", "active")
            shown = events(finished([sys.executable, "-m", "swarmp2p", "leases", "--json", *key]).stdout)
            assert [(event["event"], event.get("live"), event.get("state")) for event in shown] == [
                ("lease", True, "active"),
                ("leases", None, None),
            ]
            shown = events(finished([sys.executable, "-m", "swarmp2p", "leases", "--json"]).stdout)
            assert [event["role"] for event in shown if event["event"] == "lease"] == ["borrower"]
            everyone, directories = stopped_all(journal)
            first.process.kill()
            first.process.wait()
            for tree in read_journal(journal).trees:
                os.kill(tree.pid, signal.SIGKILL)
            assert any(is_there(process) for process in everyone), (
                "it left nothing, and this test shows nothing"
            )
            with lender(*key, "--listen", f"/ip4/127.0.0.1/tcp/{port}") as again:
                assert [process.pid for process in everyone if is_there(process)] == []
                assert [directory for directory in directories if Path(directory).exists()] == []
                assert given.lease not in [record.lease for record in read_journal(journal).leases]
                again.said("leases")
                (tmp_path / "go").touch()
                assert "held to the end\n" in job.stdout  # around it, Ray may say what happened
                assert job.wait(60) == 0
        finally:
            job.terminate()
            job.communicate(timeout=60)


def make_wheel(path: Path) -> None:
    about = "tinypackage-1.2.dist-info"
    files = {
        "tinypackage/__init__.py": "ANSWER = 42\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.2\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            wheel.writestr(name, text)


def test_code_data_and_packages_of_the_borrower_reach_a_jailed_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in a jail and in a network of its own: all that it gets comes from the head."""
    if importlib.util.find_spec("virtualenv") is None:
        pytest.skip(
            "Ray's runtime_env needs virtualenv for pip: pip install virtualenv (swarmp2p[ray] brings it)"
        )
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    make_wheel(project / WHEEL)
    (project / "mine.py").write_text("NAME = 'the borrower'\n")
    (project / "data.txt").write_text("its data")
    (tmp_path / "script.py").write_text(IMPORTS)
    pip = repr({"pip": ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + WHEEL]})
    with lender("--isolation", "jail") as lends:
        done = finished(
            [
                *(
                    sys.executable,
                    "-m",
                    "swarmp2p",
                    "run",
                    "--bootstrap",
                    lends.address,
                    "--",
                    sys.executable,
                ),
                *("script.py", pip),
            ]
        )
        assert done.stdout == "['the borrower', 'its data', False, 42]\n", done.stderr
