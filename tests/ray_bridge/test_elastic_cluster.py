"""An elastic cluster with real lenders and real Ray: workers come for what waits, of the kind that it asks for, and go
when they are idle."""

from __future__ import annotations

import os
import sys
import textwrap
from contextlib import AsyncExitStack

import pytest
import trio

from swarmp2p import Offer, open_peer

pytestmark = pytest.mark.slow

DRIVER = textwrap.dedent("""
    import sys, time
    import ray
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
        assert process.stdout.decode().splitlines() == ["gaming-pc eu none", "spread", "alone"]
        events = [event for event in cluster.past_events if event.kind.value in ("active", "ended")]
        assert [event.kind.value for event in events] == ["active"] * 2 + ["ended"] * 2
        assert {event.reason for event in events[2:]} == {"it was idle"}
