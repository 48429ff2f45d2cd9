"""ray_cluster in a script as users write it: real lender, real Ray, and the script goes on afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Ray comes first, and is not shut down; the first block ends with an error. Ray would not connect a second time,
# and would end the process a minute after the first head has gone, had nobody made it leave the cluster.
SCRIPT = """
import json, os, subprocess, sys
import ray
import swarmp2p

key, lender = sys.argv[1], None
me = swarmp2p.Identity.load_or_create(key)
lend = [sys.executable, "-m", "swarmp2p", "lend", "--json", "--exit-on-eof", "--allow", str(me.peer_id)]
lend += ["--isolation", "none"]
with subprocess.Popen(lend, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lender:
    address = json.loads(lender.stdout.readline())["addresses"][0]

    @ray.remote
    def double(value):
        return 2 * value

    for attempt in (1, 2):
        try:
            with swarmp2p.ray_cluster(workers=1, bootstrap=address, identity=key, paths="direct") as cluster:
                ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
                print(ray.get([double.remote(value) for value in range(3)], timeout=60))
                print([worker.path for worker in cluster.workers])
                if attempt == 1:
                    raise KeyError("the user's own")
        except KeyError as problem:
            print(problem)
        print([event.kind.value for event in cluster.events][-1], ray.is_initialized(), "RAY_ADDRESS" in os.environ)
    lender.stdin.close()
"""


def test_a_script_goes_on_after_its_cluster_and_may_borrow_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "key")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    attempt = ["[0, 2, 4]", "['direct']", "ended False False"]
    assert done.stdout.splitlines() == [*attempt[:2], '"the user\'s own"', attempt[2], *attempt]
