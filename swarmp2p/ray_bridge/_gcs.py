"""Watches one cluster's GCS for its borrower: what tasks wait for, which nodes are idle; drains nodes that will go.

A program of its own, run by `gcs.py` under a supervisor, because who asks GCS has to import Ray, and Ray reads its
configuration once a process and ends a process that GCS has not answered for a minute. Its arguments are GCS's address
and the descriptor of a socket. On that, JSON objects, one a line:

    in   {"every": seconds}                                     tell the cluster's state so often
    in   {"drain": lease, "idle": bool, "ends": ms, "why": text}  ends: Unix time in ms; 0 for none
    out  {"state": {...}}                                       see `state`
    out  {"drained": lease, "problem": ""}                      problem: why Ray will not, in words

A poll costs 0.5 ms. It ends when the socket does; whoever finds it ended starts another.
"""

from __future__ import annotations

import importlib
import json
import select
import socket
import sys
import time
from typing import Any, Final

_MOST_SHAPES: Final = 256  # of pending requests told, those with the most waiting first
_MOST_GANGS: Final = 64
_MOST_BUNDLES: Final = 256  # of one gang
_MOST_NODES: Final = 1024
_TIMEOUT_S: Final = 5.0
_OPERATORS: Final = {1: "in", 2: "not in"}
_STATES: Final = {1: "running", 2: "dead", 3: "idle", 4: "draining"}
_LEASE_LABEL: Final = "swarmp2p.lease"  # as demand.py has it


def request(one: Any) -> dict[str, Any]:
    """A bundle. apart: whether no other of its gang may share its node. selectors: the first that Ray would take."""
    selectors = [
        [constraint.label_key, _OPERATORS.get(constraint.operator, ""), sorted(constraint.label_values)]
        for selector in one.label_selectors[:1]
        for constraint in selector.label_constraints
    ]
    apart = any(constraint.HasField("anti_affinity") for constraint in one.placement_constraints)
    return {"resources": dict(one.resources_bundle), "selectors": selectors, "apart": apart}


def state(reply: Any) -> dict[str, Any]:
    """What GCS says, as JSON has it.

    wants: [bundle, count]. gangs: lists of bundles that are had together. least: [bundle, count] that the cluster is
    to have room for in all (ray.autoscaler.sdk.request_resources). nodes: those that live.
    """
    shapes = sorted(reply.pending_resource_requests, key=lambda each: -each.count)[:_MOST_SHAPES]
    gangs: list[list[dict[str, Any]]] = []
    for gang in reply.pending_gang_resource_requests[:_MOST_GANGS]:
        bundles = gang.bundle_selectors[0].resource_requests if gang.bundle_selectors else gang.requests
        gangs.append([request(each) for each in bundles[:_MOST_BUNDLES]])
    return {
        "wants": [[request(each.request), each.count] for each in shapes],
        "gangs": gangs,
        "least": [
            [request(each.request), each.count]
            for constraint in reply.cluster_resource_constraints
            for each in constraint.resource_requests[:_MOST_SHAPES]
        ],
        "nodes": [
            {
                "id": node.node_id.hex(),
                "labels": dict(node.labels),
                "status": _STATES.get(node.status, ""),
                "idle_ms": node.idle_duration_ms,
                "total": dict(node.total_resources),
                "available": dict(node.available_resources),
            }
            for node in reply.node_states[:_MOST_NODES]
            if _STATES.get(node.status) != "dead"
        ],
    }


class Gcs:
    """Ray's client of one GCS, made anew after it failed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._raylet: Any = importlib.import_module("ray._raylet")
        self._pb2: Any = importlib.import_module("ray.core.generated.autoscaler_pb2")
        self._errors: Any = importlib.import_module("ray.exceptions").RpcError
        self._client: Any = None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._raylet.GcsClient(address=self._address)
        return self._client

    def _reply(self) -> Any:
        told = self._connected().get_cluster_resource_state(timeout_s=_TIMEOUT_S)
        reply = self._pb2.GetClusterResourceStateReply()
        reply.ParseFromString(told)
        return reply.cluster_resource_state

    def state(self) -> dict[str, Any] | None:
        """See `state`; None while GCS does not answer."""
        try:
            return state(self._reply())
        except self._errors:
            self._client = None
            return None

    def drain(self, lease: str, idle: bool, ends_ms: int, why: str) -> str:
        """Have Ray give a lease's node no more work. Returns why it does not; "" when it does.

        idle: only if it is idle; otherwise it is about to be gone, at `ends_ms`.
        """
        name = "DRAIN_NODE_REASON_IDLE_TERMINATION" if idle else "DRAIN_NODE_REASON_PREEMPTION"
        try:
            for node in self._reply().node_states:
                if node.labels.get(_LEASE_LABEL) == lease and _STATES.get(node.status) != "dead":
                    reason = self._pb2.DrainNodeReason.Value(name)
                    accepted, problem = self._connected().drain_node(node.node_id.hex(), reason, why, ends_ms)
                    return "" if accepted else str(problem) or "Ray refuses it"
        except self._errors as failed:
            self._client = None
            return " ".join(str(failed).split()) or "GCS does not answer"
        return "no living node of Ray's is that lease's"


def main() -> int:
    """The program. Returns its exit status."""
    gcs = Gcs(sys.argv[1])
    with socket.socket(fileno=int(sys.argv[2])) as line:
        buffer, every, due = b"", 0.0, 0.0
        while True:
            wait = max(0.0, due - time.monotonic()) if every else None
            if select.select([line], [], [], wait)[0]:
                chunk = line.recv(65536)
                if not chunk:
                    return 0
                *lines, buffer = (buffer + chunk).split(b"\n")
                for order in map(json.loads, lines):
                    if "drain" in order:
                        problem = gcs.drain(order["drain"], order["idle"], order["ends"], order["why"])
                        tell(line, {"drained": order["drain"], "problem": problem})
                    every = float(order.get("every", every))
            if every and time.monotonic() >= due:
                due = time.monotonic() + every
                now = gcs.state()
                if now is not None:
                    tell(line, {"state": now})


def tell(line: socket.socket, what: object) -> None:
    """Say one thing."""
    line.sendall(json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
