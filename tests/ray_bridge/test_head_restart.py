"""A head that is killed is started again: when, how often, and what of its cluster goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.errors import HeadFailed
from swarmp2p.ray_bridge import head as head_module
from swarmp2p.ray_bridge import processes
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.head import HeadRestart, RayHead, start_head
from swarmp2p.ray_bridge.node_tree import NodePlan
from swarmp2p.ray_bridge.tree import TreeEnded
from swarmp2p.ray_bridge.worker import RayWorker, start_worker
from swarmp2p.scopes import cancel_scope

from .process_marks import family, living, plasma_files, until

# Processes that only are said to run ------------------------------------------------------------------------


@dataclass
class FakeTree:
    """says: what it says after how many seconds; then it ends."""

    says: dict[str, tuple[float, object]]
    lives_s: float
    stopped: trio.Event = field(default_factory=trio.Event)
    pid: int = 1
    mark: str = "mark"
    log_path: Path = Path("head.log")

    def __post_init__(self) -> None:
        self.began = trio.current_time()

    async def told(self, subject: str) -> object:
        at, what = self.says.get(subject, (NEVER, None))
        if at < self.lives_s:
            await trio.sleep_until(self.began + at)
            return what
        with trio.move_on_at(self.began + self.lives_s):
            await self.stopped.wait()
            raise TreeEnded("it was told to stop")
        raise TreeEnded(f"killed after {self.lives_s:g} s")

    async def wait(self) -> None:
        with trio.move_on_at(self.began + self.lives_s):
            await self.stopped.wait()

    async def stop(self, grace_s: float) -> None:
        self.stopped.set()


@dataclass
class FakeNode:
    tree: FakeTree
    directory: Path = Path("/nowhere")

    def kept_log(self) -> str:
        return "/kept/head.log"


Life = tuple[dict[str, tuple[float, object]], float]


@dataclass
class Nodes:
    """Heads as they are started, one after the other. warm: of which of them by a zygote; zygotes: made so far."""

    lives: list[Life]
    plans: list[NodePlan] = field(default_factory=list[NodePlan])
    warm: list[bool] = field(default_factory=list[bool])
    zygotes: int = 0

    def begin(self, plan: NodePlan, *, warm: bool) -> FakeNode:
        says, lives_s = self.lives[min(len(self.plans), len(self.lives) - 1)]
        self.plans.append(plan)
        self.warm.append(warm)
        return FakeNode(FakeTree(says, lives_s))

    @asynccontextmanager
    async def open_node(self, plan: NodePlan, environment: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        yield self.begin(plan, warm=False)

    @asynccontextmanager
    async def open_warm(
        self, environment: Mapping[str, str], **settings: object
    ) -> AsyncGenerator[Any, None]:
        self.zygotes += 1
        yield FakeWarm(self)


@dataclass
class FakeWarm:
    nodes: Nodes
    tree: FakeTree | None = None

    async def start(self, plan: NodePlan, environment: Mapping[str, str]) -> FakeNode:
        node = self.nodes.begin(plan, warm=True)
        self.tree = node.tree
        return node


NEVER = float("inf")
FINE: dict[str, tuple[float, object]] = {"gcs": (1.0, "127.0.0.1:4711"), "joined": (2.0, "ab")}


def replaced(monkeypatch: pytest.MonkeyPatch, *lives: Life) -> Nodes:
    nodes = Nodes(list(lives))
    monkeypatch.setattr(head_module, "open_node", nodes.open_node)
    monkeypatch.setattr(head_module, "open_warm", nodes.open_warm)
    return nodes


async def test_it_is_started_again_at_its_port(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = replaced(monkeypatch, (FINE, 60.0), ({**FINE, "gcs again 1": (5.0, "it died")}, NEVER))
    async with start_head() as head:
        began = trio.current_time()
        await head.ready()
        assert trio.current_time() - began == pytest.approx(2)
        first = await head.restarted()
        assert trio.current_time() - began == pytest.approx(62)
        assert first == HeadRestart(1, "killed after 60 s", drivers=False)
        assert await head.restarted(first.number) == HeadRestart(2, "it died", drivers=True)
        assert [plan.port for plan in nodes.plans] == [0, 4711]
        assert nodes.warm == [False, True]
        await trio.sleep(10)
        assert nodes.zygotes == 2  # another one waits


async def test_one_that_dies_soon_is_started_without_a_zygote(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = replaced(monkeypatch, (FINE, 3.0), (FINE, NEVER))
    async with start_head() as head:
        await head.restarted()
        assert nodes.warm == [False, False]


async def test_one_that_never_answers_is_not_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = replaced(monkeypatch, ({}, 3.0))
    async with start_head() as head:
        with pytest.raises(HeadFailed, match="killed after 3 s") as failed:
            await head.gcs_ready()
        assert failed.value.log == "/kept/head.log"
        assert await head.died() == "killed after 3 s"
    assert len(nodes.plans) == 1


async def test_one_that_dies_again_and_again_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = replaced(monkeypatch, (FINE, 60.0), (FINE, 60.0), (FINE, 4.0))
    async with start_head() as head:
        assert await head.died() == "killed after 4 s"
        with pytest.raises(HeadFailed):
            await head.ready()
    assert len(nodes.plans) == 2 + head_module._MOST_SHORT + 1  # pyright: ignore[reportPrivateUsage]


async def test_one_that_is_stopped_stays_stopped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = replaced(monkeypatch, (FINE, NEVER))
    async with start_head() as head:
        await head.ready()
        await head.stop()
        assert await head.died() == "it was told to stop"
    assert len(nodes.plans) == 1


# Real ones --------------------------------------------------------------------------------------------------

# A driver that does what its input's lines say, and answers each with a line. Its actor is on the worker.
DRIVER = """
import sys
import ray

@ray.remote(num_cpus=0.1)  # without any it could be on the head's node, and go with that
class Counter:
    count = 0
    def add(self):
        self.count += 1
        return self.count

@ray.remote(num_cpus=0.5)
def double(number):
    return 2 * number

for line in sys.stdin:
    if line == "init\\n":
        ray.shutdown()
        ray.init(logging_level="ERROR", log_to_driver=False, namespace="here")
        counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
    print("said", ray.get([double.remote(4), counter.add.remote()], timeout=60), flush=True)
"""


class Driver:
    """A process that uses the cluster, and is told what to do."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def tell(self, line: str) -> str:
        """Returns what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(line.encode() + b"\n")
        said = b""
        while not said.endswith(b"\n") or not said.splitlines()[-1].startswith(b"said"):
            chunk = await self._process.stdout.receive_some()
            assert chunk, said
            said += chunk
        return said.decode().splitlines()[-1]


@asynccontextmanager
async def driver(head: RayHead) -> AsyncGenerator[Driver, None]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, **head.driver_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Driver(process)
    finally:
        process.kill()
        with cancel_scope(shield=True):
            await process.wait()


@pytest.mark.slow
async def test_a_cluster_outlives_its_gcs_its_head_and_its_borrower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "_STANDBY_S", 0.0)
    before = plasma_files()
    with trio.fail_after(150):
        async with (
            start_head(state=tmp_path / "kept") as head,
            start_worker_of(head) as worker,
            driver(head) as user,
        ):
            address, token, everyone = head.address, head.token, family(head.pid)
            assert await user.tell("init") == "said [8, 1]"

            gcs = next(each for each in everyone if "gcs_server" in name(each.pid))
            processes.send_signal(gcs, signal.SIGKILL)
            assert await head.restarted() == HeadRestart(
                1, "its gcs_server ended with status -9", drivers=True
            )
            assert await user.tell("go on") == "said [8, 2]"
            everyone = family(head.pid)

            await until(lambda: head.prepared)
            for process in everyone:
                processes.send_signal(process, signal.SIGKILL)
            assert await head.restarted(1) == HeadRestart(
                2, "its supervisor was killed by signal 9", drivers=False
            )
            assert not living(everyone)
            assert (head.address, head.token) == (address, token)
            assert await user.tell("init") == "said [8, 3]"
            await worker.stop()
        async with start_head(state=tmp_path / "kept") as head, start_worker_of(head), driver(head) as user:
            assert (head.address, head.token) == (address, token)
            everyone = family(head.pid)
            assert all(
                token.encode() not in Path(f"/proc/{one.pid}/environ").read_bytes() for one in everyone
            )
            assert await user.tell("init") == "said [8, 1]"  # its machine is gone, and the actor with that
        assert not living(everyone)
        assert token.encode() not in (tmp_path / "kept" / "port").read_bytes()
        await until(lambda: plasma_files() <= before)


@asynccontextmanager
async def start_worker_of(head: RayHead) -> AsyncGenerator[RayWorker, None]:
    await head.gcs_ready()
    async with start_worker(head.secret, need=Need(), node_ip="127.0.0.1") as worker:
        await head.ready()
        yield worker


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
