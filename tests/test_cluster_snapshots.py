"""A borrower and its machine are gone: another one with the same key goes on from what two lenders hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from .test_cluster_state import running

# Has its detached actor count, and stores something in GCS; waits until two hold that; says so, and waits to be killed.
BORROWER = """
import json, os, sys, time
said = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # for what Ray prints
import ray
import swarmp2p
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

bootstrap, folder, restore = sys.argv[1:]
with swarmp2p.ray_cluster(
    bootstrap=bootstrap, identity=folder + "/key", cluster_state=folder + "/cluster", paths="direct", snapshots=2,
    restore=restore == "restore",
) as cluster:
    ray.init(logging_level="ERROR", log_to_driver=False, namespace="here")

    @ray.remote(num_cpus=0.1, max_restarts=-1, max_task_retries=-1)
    class Counter:
        def __init__(self, first):
            self.count = first
        def add(self):
            self.count += 1
            return self.count

    if restore == "restore":
        counter = ray.get_actor("counter")
    else:
        _internal_kv_put(b"mine", b"kept")
        counter = Counter.options(name="counter", lifetime="detached").remote(41)
    count = ray.get(counter.add.remote(), timeout=60)
    if restore != "restore":
        stored = time.time()
        while len([made for made in cluster.snapshots.values() if made > stored]) < 2:
            time.sleep(0.05)
    told = [f"{event.kind.value}: {event.reason}" for event in cluster.events]
    print(json.dumps({"count": count, "kv": _internal_kv_get(b"mine").decode(), "told": told}), file=said, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_cluster_goes_on_on_another_machine(tmp_path: Path) -> None:
    former, next_one = tmp_path / "former", tmp_path / "next"
    with running("-m", "tests.snapshot_holders") as (holders, bootstrap):
        with running("-c", BORROWER, bootstrap.strip(), str(former), "begin") as (borrower, line):
            before: dict[str, Any] = json.loads(line)
            borrower.kill()
        assert holders.stdout is not None
        assert holders.stdout.readline() == "free\n"  # its worker was on another machine, too
        next_one.mkdir()
        shutil.copy2(former / "key", next_one / "key")
        shutil.rmtree(former)
        with running("-c", BORROWER, bootstrap.strip(), str(next_one), "restore") as (borrower, line):
            after: dict[str, Any] = json.loads(line)
            borrower.kill()
    assert sum("it holds a snapshot" in each for each in before["told"]) == 2
    assert (before["count"], before["kv"]) == (42, "kept")
    # state in an actor's memory went with its worker: it was started again, by the record that GCS has of it
    assert (after["count"], after["kv"]) == (42, "kept"), after
    assert any("restored: from a snapshot" in each for each in after["told"])
