"""`ray up` with the documented YAML file: real lenders, Ray's own autoscaler, and `ray down`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml  # type: ignore[import-untyped]

from swarmp2p import Identity, Offer, open_peer
from swarmp2p.autoscaling import identity_file
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.orders import need_of, socket_path

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent.parent / "docs" / "swarm.yaml"

DRIVER = """
import time
import ray
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1, label_selector={"swarmp2p.kind": "gaming-pc"})
def kind():
    return ray.get_runtime_context().get_node_labels()["swarmp2p.kind"]

print("kind", ray.get(kind.remote(), timeout=90), flush=True)
while sum(node["Alive"] for node in ray.nodes()) > 1:
    time.sleep(0.2)
print("alone", flush=True)
"""


async def ray(command: str, file: Path) -> str:
    """`ray up` or `ray down`."""
    program = [sys.executable, "-m", "ray.scripts.scripts", command, str(file), "-y"]
    done = await trio.run_process(
        program,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


async def test_ray_up_leases_what_tasks_wait_for_and_ray_down_ends_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    me = Identity.load_or_create(key)
    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    name = config["cluster_name"] = f"test-{os.getpid()}"
    config["idle_timeout_minutes"] = 0.05
    with trio.fail_after(170):
        async with AsyncExitStack() as stack:
            lender = await stack.enter_async_context(open_peer())
            offer = Offer(kind="gaming-pc", isolation="none")
            await stack.enter_async_context(lender.lend(offer, allow=[me.peer_id]))
            config["provider"].update(
                bootstrap=[str(lender.addresses[0])], identity=str(key), paths=["direct"]
            )
            file = tmp_path / "swarm.yaml"
            file.write_text(yaml.safe_dump(config))
            await ray("up", file)
            try:
                program = f'eval "$({sys.executable} -m swarmp2p.autoscaling env {name})"; exec "$@"'
                driver = await trio.run_process(
                    ["sh", "-c", program, "sh", sys.executable, "-c", DRIVER],
                    capture_stdout=True,
                    check=False,
                )
                assert driver.stdout.decode().splitlines() == ["kind gaming-pc", "alone"]
            finally:
                await ray("down", file)
            assert not socket_path(name).exists()


def test_a_node_type_says_what_is_asked_for() -> None:
    assert need_of({"CPU": 4, "GPU": 1, "memory": 10**9}, {}) == Need(cpus=4, gpus=1, memory_bytes=10**9)
    labels = {"swarmp2p.kind": "gaming-pc", "ray.io/availability-region": "eu", "gpu": "h200"}
    assert need_of({}, labels) == Need(kind="gaming-pc", region="eu", labels=(("gpu", "h200"),))


def test_a_key_below_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert identity_file("~/.config/swarmp2p/identity") == tmp_path / ".config/swarmp2p/identity"
    assert (tmp_path / ".config/swarmp2p").is_dir()
    assert identity_file(None) is None
