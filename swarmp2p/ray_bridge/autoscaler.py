"""Ray's node provider: `ray up`, `ray down` and Ray's autoscaler (version 2) lease workers of the swarm.

    provider:
      type: external
      module: swarmp2p.ray_bridge.autoscaler.SwarmNodeProvider

Ray makes one of these in the process of `ray up`, and one in its autoscaler's; both talk to the program that has the
cluster (`swarmp2p/autoscaling.py`), by a Unix socket that nobody else can open. `ray up` starts it, and with it the
head and the autoscaler; `ray down` ends it. So it is our head, with all that it can: paths, tokens, leases. A YAML file
that works: docs/swarm.yaml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ray.autoscaler.command_runner import CommandRunnerInterface
from ray.autoscaler.node_provider import NodeProvider

from .orders import HEAD, WHOLE, ask, socket_path

_START_S: Final = 60.0  # for the program to say that its head is up
_END_S: Final = 30.0
_LOOK_S: Final = 0.1


class SwarmNodeProvider(NodeProvider):
    """See the module."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._socket = socket_path(cluster_name)

    def _nodes(self) -> dict[str, dict[str, Any]]:
        """By id; none while there is no cluster."""
        try:
            nodes: dict[str, dict[str, Any]] = ask(self._socket, {"do": "nodes"})["nodes"]
        except OSError:
            return {}
        return nodes

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Ids of the head and of the workers that run."""
        return [
            node
            for node, told in self._nodes().items()
            if all(told["tags"].get(name) == value for name, value in tag_filters.items())
        ]

    def is_running(self, node_id: str) -> bool:
        """Whether it is there."""
        return node_id in self._nodes()

    def is_terminated(self, node_id: str) -> bool:
        """Whether it is not."""
        return node_id not in self._nodes()

    def node_tags(self, node_id: str) -> dict[str, str]:
        """What Ray said of it."""
        tags: dict[str, str] = self._nodes().get(node_id, {}).get("tags", {})
        return tags

    def set_node_tags(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Remember more."""
        ask(self._socket, {"do": "tag", "node": node_id, "tags": dict(tags)})

    def internal_ip(self, node_id: str) -> str:
        """Where its Ray node is reached by the cluster's members."""
        address: str = self._nodes().get(node_id, {}).get("ip", "")
        return address

    def external_ip(self, node_id: str) -> str:
        """The same: nobody else reaches it."""
        return self.internal_ip(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start the cluster, when it is the head that is asked for; else lease workers."""
        if tags.get("ray-node-type") == "head":
            self._start(tags)
        else:
            self.create_node_with_resources_and_labels(node_config, tags, count, {}, {})
        return {}

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: Mapping[str, float],
        labels: Mapping[str, str],
    ) -> dict[str, Any]:
        """Have workers leased: they appear among the nodes when they run."""
        if tags.get("ray-node-type") == "head":
            return self.create_node(node_config, tags, count)
        order = {"tags": tags, "count": count, "resources": dict(resources), "labels": dict(labels)}
        ask(self._socket, {"do": "order", **order})
        return {}

    def terminate_node(self, node_id: str) -> dict[str, Any]:
        """End a lease; with the head, the whole cluster."""
        ask(self._socket, {"do": "end", "node": node_id})
        if node_id == HEAD:
            deadline = time.monotonic() + _END_S
            while self._nodes() and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        return {}

    def get_command_runner(self, *arguments: Any, **named: Any) -> CommandRunnerInterface:
        """One that has nothing to do: who made the nodes has started Ray on them."""
        del arguments, named
        return _Nothing()

    def _start(self, tags: dict[str, str]) -> None:
        log = tempfile.NamedTemporaryFile(prefix="swarmp2p-cluster-", suffix=".log", delete=False)  # noqa: SIM115
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "swarmp2p.autoscaling"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdin is not None
        with process.stdin as told:
            told.write(self.provider_config[WHOLE].encode())
        deadline = time.monotonic() + _START_S
        while not self._nodes():
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                raise RuntimeError(
                    f"the swarm's cluster did not start: {Path(log.name).read_text()[-500:]} (see {log.name})"
                )
            time.sleep(_LOOK_S)
        os.unlink(log.name)
        self.set_node_tags(HEAD, tags)

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """With itself inside, for whoever makes the head of it."""
        provider = {name: value for name, value in cluster_config["provider"].items() if name != WHOLE}
        whole = json.dumps({**cluster_config, "provider": provider})
        return {**cluster_config, "provider": {**provider, WHOLE: whole}}


class _Nothing(CommandRunnerInterface):
    """Runs nothing."""

    def run(self, *arguments: Any, **named: Any) -> str:
        return ""

    def run_rsync_up(self, *arguments: Any, **named: Any) -> None:
        pass

    def run_rsync_down(self, *arguments: Any, **named: Any) -> None:
        pass

    def remote_shell_command_str(self) -> str:
        return ""
