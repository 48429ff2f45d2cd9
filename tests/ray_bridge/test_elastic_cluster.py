"""An elastic cluster with real lenders and real Ray: workers come for what waits, of the kind that it asks for, and go
when they are idle."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from swarmp2p import Offer, open_peer

pytestmark = pytest.mark.slow

DRIVER = textwrap.dedent("""
    import sys, time
    import ray
    from ray.autoscaler.sdk import request_resources
    from ray.util.placement_group import placement_group, remove_placement_group

    ray.init(logging_level="ERROR", log_to_driver=False)

    @ray.remote(num_cpus=1)
    def labels():
        return ray.get_runtime_context().get_node_labels()

    began = time.monotonic()
    gamer = labels.options(label_selector={"swarmp2p.kind": "in(gaming-pc,gpu-cluster)"})
    got = ray.get(gamer.remote(), timeout=60)
    print(got["swarmp2p.kind"], got["ray.io/availability-region"], got["gpu"], flush=True)
    print("demand to task %.1f s" % (time.monotonic() - began), file=sys.stderr, flush=True)
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
    ray.get(group.ready(), timeout=60)
    print("spread", flush=True)
    remove_placement_group(group)
    alive = lambda: sum(node["Alive"] for node in ray.nodes())
    request_resources(bundles=[{"CPU": 1}] * 2)
    time.sleep(5)  # longer than a worker may be idle
    print(alive() - 1, "kept", flush=True)
    request_resources(bundles=[])
    while alive() > 1:
        time.sleep(0.1)
    print("alone", flush=True)
""")


async def test_workers_come_for_what_waits_and_go_when_idle() -> None:
    offers = [
        Offer(kind="workstation", isolation="none"),
        Offer(kind="gaming-pc", region="eu", labels=(("gpu", "none"),), isolation="none"),
    ]
    async with AsyncExitStack() as stack:
        borrower = await stack.enter_async_context(open_peer())
        for offer in offers:
            lender = await stack.enter_async_context(open_peer(bootstrap=borrower.addresses))
            await stack.enter_async_context(lender.lend(offer, allow=[borrower.id]))
        cluster = await stack.enter_async_context(
            borrower.borrow(workers=(0, 2), paths=["direct"], idle_s=2.0)
        )
        assert cluster.workers == ()
        process = await trio.run_process(
            [sys.executable, "-c", DRIVER], env={**os.environ, **cluster.environment}, capture_stdout=True
        )
        assert process.stdout.decode().splitlines() == ["gaming-pc eu none", "spread", "2 kept", "alone"]
        events = [event for event in cluster.past_events if event.kind.value in ("active", "ended")]
        assert [event.kind.value for event in events] == ["active"] * 2 + ["ended"] * 2
        assert {event.reason for event in events[2:]} == {"it was idle"}


MOVING = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    import ray

    ray.init(logging_level="ERROR", log_to_driver=False)
    log = Path(sys.argv[1])

    @ray.remote(num_cpus=0.2)
    def short(number):
        time.sleep(0.5)
        return number

    @ray.remote(num_cpus=0.2)
    def long():
        with log.open("a") as file:
            print(ray.get_runtime_context().get_node_labels()["swarmp2p.peer"], file=file)
        while len(log.read_text().split()) < 2:  # for ever, where it runs first
            time.sleep(0.1)
        return "moved"

    @ray.remote(num_cpus=0.2, max_restarts=-1, max_task_retries=-1)
    class Actor:
        def where(self):
            return ray.get_runtime_context().get_node_labels()["swarmp2p.peer"]

    slow, actor = long.remote(), Actor.remote()
    print("at", ray.get(actor.where.remote(), timeout=60), flush=True)
    while not log.exists():
        time.sleep(0.1)
    print("at work", flush=True)
    done = 0
    while done < 60:
        numbers = list(range(done, done + 6))
        assert ray.get([short.remote(number) for number in numbers], timeout=60) == numbers
        done += 6
    print("at", ray.get(slow, timeout=60), ray.get(actor.where.remote(), timeout=60), flush=True)
""")


async def test_tasks_move_when_a_lender_wants_its_machine_back(tmp_path: Path) -> None:
    offer = Offer(isolation="none")
    async with AsyncExitStack() as stack:
        borrower = await stack.enter_async_context(open_peer())
        lenders = [await stack.enter_async_context(open_peer(bootstrap=borrower.addresses)) for _ in range(2)]
        lending = await stack.enter_async_context(lenders[0].lend(offer, allow=[borrower.id]))
        cluster = await stack.enter_async_context(borrower.borrow(workers=1, paths=["direct"]))
        await stack.enter_async_context(lenders[1].lend(offer, allow=[borrower.id]))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", MOVING, str(tmp_path / "log")],
            env={**os.environ, **cluster.environment},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        said = b""
        while b"at work" not in said:
            said += await process.stdout.receive_some()
        lending.take_back(8.0, "its owner is back")
        while chunk := await process.stdout.receive_some():
            said += chunk
        assert await process.wait() == 0
        lines = [line for line in said.decode().splitlines() if line.startswith("at ")]  # others are Ray's
        assert lines == [f"at {lenders[0].id}", "at work", f"at moved {lenders[1].id}"]
        after = [event for event in cluster.past_events if event.kind.value in ("drained", "active", "ended")]
        first, *between, last = [event.kind.value for event in after]
        assert (first, last) == ("active", "ended")
        assert sorted(between) == ["active", "drained"]  # at once, both: the other may be there first
        drained = after[1 + between.index("drained")]
        assert drained.reason == "its owner is back: drained"
