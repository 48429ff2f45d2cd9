"""A zygote forks processes that are as Python would have made them; what it does not do, Python does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from swarmp2p.ray_bridge import forked, processes
from swarmp2p.ray_bridge.warm import WarmNode, open_warm
from swarmp2p.ray_bridge.zygote import EXECUTABLE, put_stand_in

from .process_marks import all_gone, family, until

pytestmark = pytest.mark.slow

# What a process can tell of itself. `ray` is there at once in a forked one.
TELL = """
import json, os, random, sys
import ray
print(json.dumps({
    "ray": "ray._raylet" in sys.modules and sys.modules.get("_swarmp2p_forked") is not None,
    "argv": sys.argv[1:], "cwd": os.getcwd(), "words": [os.environ.get("WORD"), os.environ.get("GONE")],
    "path": sorted(sys.path), "executable": sys.executable, "name": __name__, "file": __file__,
    "random": [random.random(), ray.NodeID.from_random().hex(), ray.WorkerID.from_random().hex()],
    "stdin": sys.stdin.read(), "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],
    "signals": [str(__import__("signal").getsignal(n)) for n in (15, 17, 2)],
}))
sys.stdout.flush()
print("words", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@asynccontextmanager
async def open_zygote() -> AsyncGenerator[WarmNode, None]:
    with trio.fail_after(60):
        async with open_warm({**os.environ, "GONE": "with the zygote"}) as warm:
            yield warm


async def test_a_forked_process_is_as_if_python_had_made_it(tmp_path: Path) -> None:
    script = tmp_path / "tell.py"
    script.write_text(TELL)
    here = tmp_path / "here"
    here.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "GONE"} | {"WORD": "x=1"}

    async def told(python: str) -> tuple[int, dict[str, object], str]:
        done = await trio.run_process(
            [python, "-u", str(script), "7", "two words"],
            cwd=here,
            env=environment,
            stdin=b"spoken",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr.decode()

    async with open_zygote() as warm:
        stand_in = str(Path(warm.zygote_directory) / EXECUTABLE)
        first, second, plain = await told(stand_in), await told(stand_in), await told(sys.executable)
    assert (first[1].pop("ray"), second[1].pop("ray"), plain[1].pop("ray")) == (True, True, False)
    randoms = [each[1].pop("random") for each in (first, second, plain)]
    assert all(one != other for i, one in enumerate(randoms) for other in randoms[:i])
    assert first == second == plain
    assert (plain[0], plain[2]) == (7, "words\n")


async def test_a_worker_goes_first_when_memory_is_short_and_its_node_does_not(tmp_path: Path) -> None:
    async with open_zygote() as warm:

        async def told(name: str, *arguments: str) -> int:
            (tmp_path / name).write_text("print(open('/proc/self/oom_score_adj').read())")
            command = [str(Path(warm.zygote_directory) / EXECUTABLE), str(tmp_path / name), *arguments]
            done = await trio.run_process(command, capture_stdout=True)
            return int(done.stdout)

        own = int(Path("/proc/self/oom_score_adj").read_text())
        assert (
            await told("setup_worker.py", "--worker-type=WORKER") == await told("default_worker.py") == 1000
        )
        assert await told("default_worker.py", "--worker-type=SPILL_WORKER") == await told("node.py") == own


async def test_ends_and_signals_pass_through_a_stand_in(tmp_path: Path) -> None:
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'heard'))\n"
        "os.write(1, b'%d' % os.getpid())\n"
        "while True: time.sleep(1)\n"
    )
    async with open_zygote() as warm:

        async def start() -> tuple[trio.Process, int]:
            process = await trio.lowlevel.open_process(
                [str(Path(warm.zygote_directory) / EXECUTABLE), str(script)], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            return process, int(await process.stdout.receive_some())

        process, pid = await start()
        assert pid != process.pid
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"heard"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        assert processes.look(pid) is None
        assert await process.stdout.receive_some() == b""

        process, pid = await start()
        os.kill(pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL

        process, pid = await start()
        process.kill()
        await process.wait()
        await until(lambda: processes.look(pid) is None)

        process, pid = await start()
        everyone, mark = family(warm.tree.pid), warm.tree.mark
        assert pid in [each.pid for each in everyone]
        zygote = processes.descendants(warm.tree.pid)[0]
        processes.send_signal(zygote, signal.SIGKILL)
        assert "137" in await warm.tree.died()
        assert await process.wait() == 1
        await all_gone(mark, everyone)
        assert not warm.directory.exists()


async def test_what_a_zygote_does_not_do_python_does(tmp_path: Path) -> None:
    script = tmp_path / "who.py"
    script.write_text("import sys; print('_swarmp2p_forked' in sys.modules, *sys.argv[1:], sep=' ')\n")
    async with open_zygote() as warm:

        async def said(*arguments: str, **environment: str) -> str:
            done = await trio.run_process(
                [str(Path(warm.zygote_directory) / EXECUTABLE), *arguments],
                env={**os.environ, **environment},
                capture_stdout=True,
            )
            return done.stdout.decode().strip()

        assert await said(str(script), "a") == "True a"
        assert await said("-c", "print(1)") == "1"
        assert await said("-m", "this") != ""
        assert await said("-O", str(script), "b") == "False b"
        assert await said(str(script), "x" * 100_000, BIG="y" * 120_000) == "False " + "x" * 100_000
        assert await said(str(script), RAY_JOB_ID="not the length of one") == "False"
        assert await said(str(script), RAY_JOB_ID="02000000") == "True"
        (Path(warm.zygote_directory) / "zygote").unlink()
        assert await said(str(script), "c") == "False c"


async def test_there_is_no_stand_in_where_pythons_path_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/a folder/python")
    with pytest.raises(OSError, match="spaces"):
        put_stand_in(tmp_path / "python")
    monkeypatch.setattr(sys, "executable", "/" + "long/" * 40 + "python")
    with pytest.raises(OSError, match="too long"):
        put_stand_in(tmp_path / "python")


def test_a_workers_setup_is_left_out_where_it_does_nothing() -> None:
    worker = ["/ray/default_worker.py", "--node-ip-address=127.0.0.1"]
    context = "--serialized-runtime-env-context="
    for empty in ([], [context + "{}"], [context]):
        assert forked.without_setup(["/ray/setup_worker.py", *worker, *empty, "--language=PYTHON"]) == worker
    for kept in (
        ["/ray/setup_worker.py", *worker, context + '{"env_vars": {"A": "1"}}', "--language=PYTHON"],
        ["/ray/setup_worker.py", *worker, context + "{}", "--language=CPP"],
    ):
        assert forked.without_setup(kept) == kept
