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
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarmp2p.ray_bridge.orphans import members
from swarmp2p.ray_bridge.processes import Process, all_processes, look
from swarmp2p.storage.journal import journal_path, read_journal
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

# Code and packages that only this machine has: one in a file, one by its name in an index at its loopback address.
IMPORTS = """
import os, sys, ray
ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"working_dir": "project", **eval(sys.argv[1])})

@ray.remote
def use(index):
    import urllib.error, urllib.request
    import mine, infile, byname
    proxy = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["PIP_PROXY"]}))
    answers = []
    for url in (index, "http://127.0.0.1:22/", "http://localhost" + index.removeprefix("http://127.0.0.1")):
        try:
            answers.append(proxy.open(url).status)
        except urllib.error.HTTPError as refused:
            answers.append(refused.code)
    return [mine.NAME, open("data.txt").read(), os.getuid() == 0, infile.ANSWER, byname.ANSWER, answers]

print(ray.get(use.remote(sys.argv[2]), timeout=100))
"""
WHEEL = "infile-1.2-py3-none-any.whl"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMP2P_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def stopped_all(journal: str) -> tuple[list[Process], list[str]]:
    """SIGSTOP all supervisors of a peer, so that they do not see its end; what their trees consist of."""
    everyone = all_processes()
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
    journal = journal_path(tmp_path / "lender.state")
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


def make_wheel(path: Path, answer: int) -> None:
    name = path.name.partition("-")[0]
    about = f"{name}-1.2.dist-info"
    files = {
        f"{name}/__init__.py": f"ANSWER = {answer}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for each, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{each},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            wheel.writestr(each, text)


@contextmanager
def served(folder: Path) -> Generator[str, None, None]:
    """A package index: a folder for each package, listed. Its address at this machine's loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def test_code_data_and_packages_of_the_borrower_reach_a_jailed_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in a jail and in a network of its own: all that it gets comes from the head, packages by name from an
    index at the borrower's loopback address; and by that way nothing else of the borrower's machine is reached."""
    if importlib.util.find_spec("virtualenv") is None:
        pytest.skip(
            "Ray's runtime_env needs virtualenv for pip: pip install virtualenv (swarmp2p[ray] brings it)"
        )
    monkeypatch.chdir(tmp_path)
    project, found = tmp_path / "project", tmp_path / "simple" / "byname"
    project.mkdir()
    found.mkdir(parents=True)
    make_wheel(project / WHEEL, 42)
    make_wheel(found / "byname-1.2-py3-none-any.whl", 43)
    (project / "mine.py").write_text("NAME = 'the borrower'\n")
    (project / "data.txt").write_text("its data")
    (tmp_path / "script.py").write_text(IMPORTS)
    pip = repr({"pip": ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + WHEEL, "byname"]})
    with lender("--isolation", "jail") as lends, served(tmp_path) as index:
        command = [
            sys.executable,
            "-m",
            "swarmp2p",
            "run",
            "--bootstrap",
            lends.address,
            "--index",
            index,
            "--",
        ]
        done = finished([*command, sys.executable, "script.py", pip, f"{index}/"])
        assert done.stdout == "['the borrower', 'its data', False, 42, 43, [200, 403, 403]]\n", done.stderr
