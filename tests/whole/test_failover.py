"""A lender whose machine is cut off: nothing says so, and its task runs elsewhere all the same."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest

from tests.lab.namespaces import Lab
from tests.lab.requirements import require
from tests.whole.machines import at, member

pytestmark = pytest.mark.slow

DRIVER: Final = """
import time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(logging_level="ERROR", log_to_driver=False)
here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)

@ray.remote(num_cpus=0, scheduling_strategy=here)
class Log:
    def __init__(self):
        self.peers = []

    def add(self, peer):
        self.peers.append(peer)
        return len(self.peers)

    def first(self):
        return self.peers[:1]

@ray.remote(num_cpus=1, max_retries=-1)
def stay(log):
    peer = ray.get_runtime_context().get_node_labels()["swarmp2p.peer"]
    if ray.get(log.add.remote(peer)) == 1:
        time.sleep(1000)
    return peer

log = Log.remote()
task = stay.remote(log)
while not (first := ray.get(log.first.remote())):
    time.sleep(0.05)
print("at", *first, flush=True)
print("at", ray.get(task, timeout=120), flush=True)
"""


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require()
    with Lab() as found:
        yield found


def test_a_task_of_a_lender_that_is_cut_off_runs_elsewhere(lab: Lab) -> None:
    network = lab.segment("network")
    nodes = [lab.node(name) for name in ("borrower", "lender", "another lender")]
    cables = [network.join(node, f"5.0.0.{n}/24") for n, node in enumerate(nodes, 1)]
    first = member(nodes[1], 1, lend=1)
    second = member(nodes[2], 2, [at(first)], lend=1)
    borrower = member(nodes[0], 3, [at(first)])
    got = borrower.ask("borrow", workers=1, timeout_s=60.0)
    driver = nodes[0].python("-c", DRIVER, env=got["environment"])
    assert driver.stdout is not None
    said = (line.decode().split() for line in driver.stdout)
    places = (words[1] for words in said if words[0] == "at")  # others are Ray's
    lenders = [first.id, second.id]
    began = lenders.index(next(places))
    cables[1 + began].cut()
    assert next(places) == lenders[1 - began]
