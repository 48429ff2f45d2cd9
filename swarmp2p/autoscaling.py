"""The program behind `ray up`: a head, the leases that Ray's autoscaler orders, and the autoscaler itself.

    python -m swarmp2p.autoscaling < CLUSTER.json

and what drivers need to use a cluster, for a shell (keep it secret: it opens the cluster):

    eval "$(python -m swarmp2p.autoscaling env CLUSTER_NAME)"

Started by the node provider (`ray_bridge/autoscaler.py`), which tells it what Ray wants by a Unix socket; ends when Ray
wants the head to end, and everything with it.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

from .opening import open_peer
from .ray_bridge.cluster import Cluster
from .ray_bridge.environment import borrowers_environment
from .ray_bridge.events import Need
from .ray_bridge.orders import HEAD, MAX_BYTES, ask, need_of, socket_path
from .ray_bridge.tree import open_tree

_LISTS: Final = (
    *("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)
"""What Ray's autoscaler reads without asking whether it is there."""

_MOST: Final = 256


class Orders:
    """What Ray has ordered, against what runs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: list[tuple[Need, dict[str, str]]] = []
        self._tags: dict[str, dict[str, str]] = {HEAD: {}}
        self.over = trio.Event()

    def answer(self, request: dict[str, Any]) -> dict[str, object]:
        """Do what a provider asks."""
        match request["do"]:
            case "nodes":
                return {"nodes": self._nodes()}
            case "environment":
                return {"environment": self._cluster.environment}
            case "tag" if request["node"] in self._tags:
                self._tags[request["node"]].update(request["tags"])
            case "order":
                need = need_of(request["resources"], request["labels"])
                for _ in range(min(int(request["count"]), _MOST - len(self._waiting))):
                    self._waiting.append((need, dict(request["tags"])))
                    self._cluster.order(need)
            case "end":
                if request["node"] == HEAD:
                    self.over.set()
                else:
                    self._cluster.give_back(bytes.fromhex(request["node"]))
            case _:
                pass
        return {}

    def _nodes(self) -> dict[str, object]:
        nodes: dict[str, object] = {HEAD: {"ip": "127.0.0.1", "tags": self._tags[HEAD]}}
        running = {worker.lease.hex(): worker for worker in self._cluster.workers}
        for lease, worker in running.items():
            if lease not in self._tags:
                self._tags[lease] = self._of(self._cluster.need(worker.lease))
            nodes[lease] = {"ip": worker.node_ip, "tags": self._tags[lease]}
        for lease in [lease for lease in self._tags if lease != HEAD and lease not in running]:
            del self._tags[lease]
        return nodes

    def _of(self, need: Need | None) -> dict[str, str]:
        """Tags of the order that a worker came for: the oldest for such a one."""
        found = next((n for n, (wanted, _) in enumerate(self._waiting) if wanted == need), None)
        return {} if found is None else self._waiting.pop(found)[1]


def identity_file(name: str | None) -> Path | None:
    """The key's file as YAML names it, with a folder for it; no shell has replaced its ~."""
    if name is None:
        return None
    path = Path(name).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


async def run(config: dict[str, Any]) -> None:
    """Until Ray wants the head to end. config: the cluster's YAML file."""
    provider = config["provider"]
    socket_file = socket_path(config["cluster_name"])
    with tempfile.TemporaryDirectory(prefix="swarm-ray-up-") as directory:
        async with (
            open_peer(
                identity=identity_file(provider.get("identity")),
                bootstrap=provider.get("bootstrap", ()),
                network_key=provider.get("network_key"),
            ) as peer,
            peer.borrow(
                workers=(0, min(_MOST, int(config["max_workers"]))),
                lenders=provider.get("lenders"),
                paths=provider.get("paths", ("direct", "overlay")),
                orders=True,
            ) as cluster,
        ):
            written = Path(directory, "cluster.yaml")
            written.write_text(
                json.dumps({"file_mounts": {}, **{name: [] for name in _LISTS}, **config})
            )  # JSON is YAML
            logs = Path(directory, "logs")
            logs.mkdir()
            monitor = importlib.import_module("ray").__path__[0] + "/autoscaler/v2/monitor.py"
            gcs = cluster.environment["RAY_ADDRESS"]
            arguments = [f"--gcs-address={gcs}", f"--autoscaling-config={written}", f"--logs-dir={logs}"]
            environment = borrowers_environment(
                {
                    **cluster.environment,
                    "RAY_enable_autoscaler_v2": "1",
                    "AUTOSCALER_UPDATE_INTERVAL_S": str(provider.get("interval_s", 1)),
                }
            )
            orders = Orders(cluster)
            async with (
                open_tree(
                    [sys.executable, "-P", monitor, *arguments, "--monitor-ip=127.0.0.1"],
                    environment=environment,
                    log_path=Path(directory, "monitor.log"),
                ),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_listen, socket_file, orders)
                await orders.over.wait()
                nursery.cancel_scope.cancel()


async def _listen(path: Path, orders: Orders) -> None:
    path.unlink(missing_ok=True)
    line = trio.socket.socket(trio.socket.AF_UNIX)
    try:
        old = os.umask(0o077)
        try:
            await line.bind(str(path))
        finally:
            os.umask(old)
        line.listen(16)
        async with trio.open_nursery() as nursery:
            while True:
                one, _ = await line.accept()
                nursery.start_soon(_serve, trio.SocketStream(one), orders)
    finally:
        line.close()
        path.unlink(missing_ok=True)


async def _serve(stream: trio.SocketStream, orders: Orders) -> None:
    said = b""
    with trio.move_on_after(10):
        try:
            async with stream:
                while not said.endswith(b"\n") and len(said) < MAX_BYTES:
                    chunk = await stream.receive_some(65536)
                    if not chunk:
                        return
                    said += chunk
                answer = orders.answer(json.loads(said))
                await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (trio.BrokenResourceError, ValueError, KeyError):
            pass  # its provider's matter


def main() -> None:
    """The program."""
    if sys.argv[1:2] == ["env"] and len(sys.argv) == 3:
        environment = ask(socket_path(sys.argv[2]), {"do": "environment"})["environment"]
        for name, value in environment.items():
            print(f"export {name}={shlex.quote(value)}")
    else:
        trio.run(run, json.load(sys.stdin))


if __name__ == "__main__":
    main()
