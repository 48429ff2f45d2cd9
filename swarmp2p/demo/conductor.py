"""Conducts the demo: starts the five peers, kills one, watches, and checks that all that was promised happened.

borrower up -> lenders up -> workers leased, one lender refuses -> job runs
            -> the refusing lender is told to accept, a lender is killed -> replaced -> job done -> checked
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console

from ..errors import UsageError
from ..ray_bridge.cells import cell_problem
from ..ray_bridge.events import JAIL, NO_ISOLATION
from ..ray_bridge.jails import jail_problem
from ..ray_bridge.versions import installed_versions
from ..scopes import TaskStatus, cancel_scope, start
from .process import PeerProcess
from .story import LENDERS, WORKERS, PeerStory, Story
from .view import LiveView, PlainView, View, show_end

_TASKS_BEFORE_KILL: Final = 15  # so that the kill comes in the middle of the job
_SCRIPT_S_BEFORE_KILL: Final = 3.0  # the same for a script of the user's, whose tasks cannot be counted
_PATIENCE_S: Final = 240.0  # for the built-in job and all else; a loaded machine needs about a minute
_TERMINAL_CODES: Final = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")  # ECMA-48 control sequences
_FRAME_S: Final = 0.1  # between two looks at the story: a script may print faster than anything can be drawn
_REPLACEMENT_S: Final = 60.0  # how long a replacement may outlast the job


class _Stage:
    """The peers on stage, and the story that their events tell."""

    def __init__(self, directory: Path, script: Path | None, make_view: Callable[[Story], View]) -> None:
        self.directory, self.script = directory, script
        self.story = Story(with_script=script is not None)
        self.view = make_view(self.story)
        self.processes: dict[str, PeerProcess] = {}
        self.allow_file = directory / "allowed-by-lender-4"
        self.addresses: dict[str, str] = {}
        self.accepts = False  # whether the refusing lender was told to accept, and has said so
        self._gone: set[str] = set()
        self._start = trio.current_time()
        self._changed = trio.Event()

    def now(self) -> float:
        """Seconds since the start."""
        return trio.current_time() - self._start

    def say(self, text: str) -> None:
        self.story.say(self.now(), text)
        self.change()

    def change(self) -> None:
        """Wake those who wait for something to happen."""
        self._changed.set()
        self._changed = trio.Event()

    async def paint(self) -> None:
        """Show what happens, until cancelled."""
        while True:
            changed = self._changed
            self.view.refresh()
            await trio.sleep(_FRAME_S)
            await changed.wait()

    async def until(self, condition: Callable[[], bool], timeout_s: float = math.inf) -> bool:
        """Wait for a condition on the story; False when it did not come true in time."""
        with trio.move_on_after(timeout_s):
            while not condition():
                await self._changed.wait()
        return condition()

    async def start(self, name: str, arguments: list[str], nursery: trio.Nursery) -> None:
        """Start a peer and follow its events."""
        log = self.directory / f"{name}.log"
        self.story.peers[name] = PeerStory(name, str(log))
        # in this order, so that a cancellation between the two cannot lose the process
        process = self.processes[name] = await PeerProcess.start(name, arguments, log)
        nursery.start_soon(self._follow, process)

    async def _follow(self, process: PeerProcess) -> None:
        async for event in process.events():
            self.take(process.name, event)
            self.change()
        self._gone.add(process.name)
        if not self.story.peers[process.name].killed:
            self.say(f"{process.name} ended")
        self.change()

    def ended(self, name: str) -> bool:
        """Whether a peer's process is gone."""
        return name in self._gone

    def over(self) -> bool:
        """Whether the job is done, or cannot be done any more."""
        return self.story.job_done_s is not None or self.ended("borrower")

    def hopeless(self) -> bool:
        """Whether the plot cannot go on: without the borrower, or with its job failed or done too early. A script
        of the user's may be as short as it likes."""
        return self.over() and not (self.story.script_done and not self.ended("borrower"))

    async def close(self) -> None:
        """End every process, all at once; lenders outlive the borrower, so that leases end in good order."""
        with cancel_scope(shield=True):
            if "borrower" in self.processes:
                await self.processes["borrower"].stop()
            async with trio.open_nursery() as nursery:
                for process in self.processes.values():
                    nursery.start_soon(process.stop)

    def take(self, name: str, event: dict[str, Any]) -> None:
        """Enter one event of one peer into the story."""
        story, now = self.story, self.now()
        match event:
            case {"event": "peer" | "lending", "peer": str(peer), "addresses": [str(address), *_]}:
                story.peers[name].peer = peer
                self.addresses[name] = address
                story.peers[name].state = "up"
                story.say(now, f"{name} is up: {peer}")
            case {"event": "allowed", "peers": [_, *_]}:
                self.accepts = True
                story.say(now, f"{name} accepts the borrower from now on")
            case {"event": "head", "address": str(address), "log": str(log)}:
                story.ray_log = log
                story.say(now, f"the Ray head runs at {address}")
            case {"event": "cluster", "kind": str(kind), "peer": str(peer), "reason": str(reason)}:
                story.cluster_event(now, kind, peer, reason)
            case {"event": "task", "node": str(node)}:
                story.task_done(now, node)
            case {"event": "result", **result}:
                story.result = result
            case {"event": "output", "line": str(line)}:
                story.script_says(now, _printable(line))
            case {"event": "job", "status": int(status)}:
                story.script_status, story.job_done_s = status, now
                story.say(now, "the job is done" if status == 0 else f"the job failed with status {status}")
            case {"event": "error", "message": str(message)}:
                story.say(now, f"{name}: {message}")
            case _:
                pass


def _printable(line: str) -> str:
    """A line without what would move a terminal's cursor or colour what follows."""
    plain = _TERMINAL_CODES.sub("", line.rpartition("\r")[2] or line).expandtabs(4)
    return "".join(character if character.isprintable() else " " for character in plain)


async def _play(stage: _Stage, nursery: trio.Nursery) -> None:
    """The demo's plot."""
    story = stage.story
    script = [] if stage.script is None else ["--script", str(stage.script)]
    await stage.start(
        "borrower",
        ["swarmp2p.demo.borrower", "--json", "--logs", str(stage.directory / "borrower"), *script],
        nursery,
    )
    borrower = story.peers["borrower"]
    await stage.until(lambda: bool(borrower.peer) or stage.ended("borrower"))
    if not borrower.peer:
        return

    stage.allow_file.write_text("# nobody yet\n")
    problem = await trio.to_thread.run_sync(jail_problem) or await cell_problem()
    isolation = JAIL if problem is None else NO_ISOLATION
    stage.say("workers are jailed" if problem is None else f"workers run without a jail here: {problem}")
    for number in range(1, LENDERS + 1):
        # the last one names nobody; it offers most, so that it is asked early
        refuses = number == LENDERS
        policy = ["--allow-file", str(stage.allow_file)] if refuses else ["--allow", borrower.peer]
        arguments = [
            *("swarmp2p", "lend", "--json", "--exit-on-eof"),
            *(
                "--bootstrap",
                stage.addresses["borrower"],
                "--logs",
                str(stage.directory / f"lender-{number}"),
            ),
            *("--cpus", "2" if refuses else "1", "--isolation", isolation),
            *policy,
        ]
        await stage.start(f"lender-{number}", arguments, nursery)

    def ready_for_the_kill() -> bool:
        under_way = story.tasks >= _TASKS_BEFORE_KILL or stage.script is not None
        return len(story.active) == WORKERS and under_way

    def refused() -> bool:
        return any(peer.refused for peer in story.peers.values())

    await stage.until(lambda: ready_for_the_kill() or stage.hopeless())
    if stage.script is not None:
        await stage.until(stage.over, _SCRIPT_S_BEFORE_KILL)
    if stage.hopeless():
        return
    if story.script_done:
        stage.say("the script was done before the kill; a longer one would show lost tasks retried")
    if refused():  # as it mostly is: it offers most, so it was asked early
        await _accept(stage)
    victim = story.active[0]
    victim.killed, story.killed_s = True, stage.now()
    stage.processes[victim.name].kill()
    stage.say(f"{victim.name} is killed with SIGKILL")
    if not stage.accepts:  # it came up too late to be asked before; now it is the only one left to ask
        await stage.until(lambda: refused() or stage.ended("borrower"))
        await _accept(stage)

    await stage.until(stage.over)
    await stage.until(lambda: story.replaced_s is not None or stage.ended("borrower"), _REPLACEMENT_S)
    if stage.script is None and story.result is not None:
        stage.say("the same fits without a cluster, for comparison")
        story.reference = await _reference()


async def _accept(stage: _Stage) -> None:
    """Tell the lender that refused to accept the borrower, and wait until it has heard."""
    stage.allow_file.write_text(f"{stage.story.peers['borrower'].peer}\n")
    await stage.until(lambda: stage.accepts or stage.hopeless())


async def _reference() -> dict[str, Any] | None:
    """The job's result when it is done in one process."""
    done = await trio.run_process(
        [sys.executable, "-m", "swarmp2p.demo.digits", "--serial", "--json"],
        capture_stdout=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        if event.pop("event") == "result":
            return event
    return None


async def run_demo(script: Path | None, plain: bool, as_json: bool) -> int:
    """Run the demo to its end; returns the exit status. SIGINT and SIGTERM end it in good order with 130 and 143."""
    installed_versions()  # RayMissing before anything starts
    if script is not None and not script.is_file():
        raise UsageError(f"there is no script {script}; name a Python file. Nothing was started")
    console = Console(stderr=as_json)
    directory = Path(tempfile.mkdtemp(prefix="swarmp2p-demo-"))

    def make_view(story: Story) -> View:
        return PlainView(story, console) if plain or not console.is_terminal else LiveView(story, console)

    stage = _Stage(directory, script, make_view)
    caught: list[int] = []
    try:
        async with trio.open_nursery() as nursery:
            await start(nursery, _watch_signals, caught, nursery.cancel_scope)
            nursery.start_soon(stage.paint)
            # a script may take as long as it likes: whoever started it can stop it
            with trio.move_on_after(_PATIENCE_S if script is None else math.inf) as patience:
                await _play(stage, nursery)
            if patience.cancelled_caught:
                stage.say(f"not finished within {_PATIENCE_S:.0f} s")
            await stage.close()
            nursery.cancel_scope.cancel()
    finally:
        await stage.close()
        stage.view.close()
    if caught:
        console.print(f"stopped; nothing is left running. Logs: {directory}", highlight=False, soft_wrap=True)
        return 128 + caught[0]
    problems = stage.story.problems()
    show_end(stage.story, console, problems)
    if as_json:
        told = {**stage.story.figures(), "problems": problems, "logs": str(directory)}
        print(json.dumps({"event": "demo", **told}))
    return 1 if problems else 0


async def _watch_signals(
    caught: list[int], scope: trio.CancelScope, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:  # later ones change nothing: the end is under way
            if not caught:
                caught.append(number)
                scope.cancel()
