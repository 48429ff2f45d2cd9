"""Real Ray heads and workers: they join, work, fail with a reason, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from swarmp2p.errors import WorkerNotStarted
from swarmp2p.ray_bridge import processes
from swarmp2p.ray_bridge.environment import lender_environment
from swarmp2p.ray_bridge.events import JoinSecret, Need
from swarmp2p.ray_bridge.head import RayHead, start_head
from swarmp2p.ray_bridge.warm import WarmNode, open_warm
from swarmp2p.ray_bridge.worker import PEER_LABEL, start_worker

from .process_marks import all_gone, family, living, marked, plasma_files, until

pytestmark = pytest.mark.slow

HEAD_IP = WORKER_IP = OTHER_IP = "127.0.0.1"

# A driver whose first import is Ray's, as in most scripts.
WORK = """
import ray
import contextlib, io, json, os, sys, time
from swarmp2p.ray_bridge.environment import applied

@ray.remote(num_cpus=1)
def where():
    here = ray.get_runtime_context()
    print("printed by a task", flush=True)
    return here.get_node_id(), here.get_node_labels(), os.getcwd(), dict(os.environ)

@ray.remote(num_cpus=1)
def forked():
    return "_swarmp2p_forked" in sys.modules, os.environ.get("WORD")

with applied(json.load(sys.stdin)):
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        ray.init(logging_level="ERROR")
        node, labels, cwd, environment = ray.get(where.remote(), timeout=60)
        deadline = time.monotonic() + 30
        while "printed by a task" not in heard.getvalue():
            assert time.monotonic() < deadline, "what the task printed did not come"
            time.sleep(0.05)
    names = {entry["NodeID"]: entry["NodeName"] for entry in ray.nodes()}
    ray.shutdown()
    ray.init(logging_level="ERROR", log_to_driver=False)  # another job
    other = forked.options(runtime_env={"env_vars": {"WORD": "x"}})
    of = ray.get([forked.remote(), other.remote()], timeout=60)
    print(json.dumps(
        {"node": node, "labels": labels, "cwd": cwd, "environment": environment, "names": names, "forked": of}
    ))
    ray.shutdown()
"""

# A task that hangs on its first node, and says where it runs; ends when it has run elsewhere.
OUTLIVE = """
import os, sys, time
import ray
from pathlib import Path

@ray.remote(num_cpus=1, max_retries=-1)
def task(log):
    name = ray.get_runtime_context().get_node_labels()["swarmp2p.peer"]
    with open(log, "a") as file:
        print(name, file=file)
    while len(Path(log).read_text().split()) < 2:
        time.sleep(0.1)
    return name

ray.init(logging_level="ERROR", log_to_driver=False)
print(ray.get(task.remote(sys.argv[1]), timeout=100))
"""

# What a head tells joining nodes about its versions, changed to others.
CHANGE_VERSION = """
import json, ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init(logging_level="ERROR", log_to_driver=False)
where = {"key": b"CLUSTER_METADATA", "namespace": b"cluster"}
told = json.loads(_internal_kv_get(**where))
_internal_kv_put(value=json.dumps({**told, "ray_version": "1.2.3"}), overwrite=True, **where)
"""

# A peer of its own, to be killed.
PEER = """
import sys, trio
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.head import start_head
from swarmp2p.ray_bridge.worker import start_worker

async def main():
    async with start_head(node_ip=sys.argv[1]) as head:
        await head.gcs_ready()
        async with start_worker(head.secret, need=Need(), node_ip=sys.argv[2]) as worker:
            await head.ready()
            print(head.mark, head.pid, head.token_path.parent, worker.mark, worker.pid)
            sys.stdout.flush()
            await trio.sleep_forever()

trio.run(main)
"""


async def python(
    code: str, *arguments: str, environment: dict[str, str] | None = None, stdin: str = ""
) -> str:
    """Run a program; returns what it prints."""
    done = await trio.run_process(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=stdin.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def labels(peer: str) -> dict[str, str]:
    return {PEER_LABEL: peer}


@asynccontextmanager
async def either(warm: bool) -> AsyncGenerator[WarmNode | None, None]:
    """What a worker is started from: a zygote or nothing."""
    if not warm:
        yield None
        return
    async with open_warm(lender_environment()) as node:
        yield node


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_tasks_run_on_a_worker_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    monkeypatch.setenv("OWNERS_SECRET", "private")
    before = plasma_files()
    with trio.fail_after(120):
        async with either(warm) as zygote, start_head(node_ip=HEAD_IP, directory=tmp_path / "head") as head:
            await head.gcs_ready()  # and no more: the worker starts beside the rest of the head
            assert head.secret.address.startswith(HEAD_IP + ":")
            assert head.address.startswith("[::ffff:127.0.0.1]:")
            assert head.token not in repr(head) + repr(head.secret)
            assert head.token_path.read_text() == head.token
            assert head.token_path.stat().st_mode & 0o777 == 0o600
            async with start_worker(
                head.secret,
                need=Need(),
                node_ip=WORKER_IP,
                labels=labels("abc"),
                directory=tmp_path / "worker",
                warm=zygote,
            ) as worker:
                await head.ready()
                said: Any = json.loads(await python(WORK, stdin=json.dumps(head.driver_environment())))
                assert said["forked"] == [
                    [warm, None],
                    [False, "x"],
                ]  # with an environment, Ray executes anew
                assert said["node"] == worker.node_id
                assert said["names"][worker.node_id] == "abc"
                assert said["labels"][PEER_LABEL] == "abc"
                assert "OWNERS_SECRET" not in said["environment"]
                assert "RAY_ADDRESS" not in said["environment"]

                directories = [head.token_path.parent, Path(said["cwd"]).parent, head.directory]
                assert all(directory.stat().st_mode & 0o777 == 0o700 for directory in directories)
                everyone = family(head.pid) + family(worker.pid)
                for process in everyone:
                    assert head.token.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
                logs = [
                    path for place in (*directories, tmp_path) for path in place.rglob("*") if path.is_file()
                ]
                assert len(logs) > 10
                shown = [path for path in logs if head.token.encode() in path.read_bytes()]
                assert shown == [head.token_path]
            assert not marked(worker.mark)
            assert not directories[1].exists()
        assert not living(everyone)
        assert not marked(head.mark)
        assert not any(directory.exists() for directory in directories)
        await until(lambda: plasma_files() <= before)


async def test_a_worker_that_cannot_join_says_why() -> None:
    async def refusal(secret: JoinSecret) -> str:
        with pytest.raises(WorkerNotStarted) as problem:
            async with start_worker(secret, need=Need(), node_ip=WORKER_IP):
                pytest.fail("it joined")
        Path(problem.value.log).unlink()  # kept because it failed
        return problem.value.reason

    with trio.fail_after(120):
        async with start_head(node_ip=HEAD_IP) as head, start_head(node_ip=HEAD_IP) as other:
            await head.ready()
            await other.gcs_ready()
            assert head.address != other.address
            assert await refusal(JoinSecret(head.secret.address, other.token)) == (
                f"the Ray head at {head.secret.address} refused the token"
            )
            await python(CHANGE_VERSION, environment=head.driver_environment())
            assert "Version mismatch" in (mismatch := await refusal(head.secret))
            assert "1.2.3" in mismatch
            gone = head.secret
            await head.stop()
            assert f"no Ray head can be reached at {gone.address}" in await refusal(gone)


async def test_a_task_outlives_the_machine_that_it_ran_on(tmp_path: Path) -> None:
    log = tmp_path / "ran"
    log.touch()
    results: list[str] = []

    async def drive(head: RayHead) -> None:
        results.append(await python(OUTLIVE, str(log), environment=head.driver_environment()))

    with trio.fail_after(150):
        async with start_head(node_ip=HEAD_IP) as head, trio.open_nursery() as nursery:
            await head.gcs_ready()
            async with start_worker(
                head.secret, need=Need(), node_ip=WORKER_IP, labels=labels("first")
            ) as first:
                await head.ready()
                nursery.start_soon(drive, head)
                await until(lambda: bool(log.read_text()))
                async with start_worker(head.secret, need=Need(), node_ip=OTHER_IP, labels=labels("second")):
                    machine = family(first.pid)
                    for process in machine:
                        processes.send_signal(process, signal.SIGKILL)
                    assert await first.died() == "its supervisor was killed by signal 9"
                    await until(lambda: bool(results))
        assert "second" in results[0].splitlines()  # around it, Ray may say what happened
        assert log.read_text().split() == ["first", "second"]


async def test_a_killed_peer_leaves_no_ray_behind() -> None:
    with trio.fail_after(120):
        peer = await trio.lowlevel.open_process(
            [sys.executable, "-c", PEER, HEAD_IP, WORKER_IP], stdout=subprocess.PIPE
        )
        assert peer.stdout is not None
        try:
            said = b""
            while not said.endswith(b"\n"):
                said += await peer.stdout.receive_some() or pytest.fail("it ended early")
            head_mark, head_pid, directory, worker_mark, worker_pid = said.decode().split()
            everyone = family(int(head_pid)) + family(int(worker_pid))
            assert len(everyone) >= 10
        finally:
            peer.kill()
            await peer.wait()
            await peer.stdout.aclose()
        await all_gone(head_mark, everyone)
        await all_gone(worker_mark)
        await until(lambda: not Path(directory).exists())
