"""What a cluster's tasks wait for and which of its nodes are idle, as Ray's GCS tells it. Pure.

`_gcs.py` asks GCS and says it in JSON; here it becomes dataclasses. It comes from our own program, but what is in it
(resources, labels) users and lenders have named, so that nothing of it is believed to be of a sensible size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .events import LeaseId, Offer

PEER_LABEL: Final = "swarmp2p.peer"
"""Ray node label of a worker: its lender's peer id. Its value is the node's name as well."""

LEASE_LABEL: Final = "swarmp2p.lease"
"""Ray node label of a worker: its lease, as hex."""

KIND_LABEL: Final = "swarmp2p.kind"
"""Ray node label of a worker: its lender's provider kind."""

REGION_LABEL: Final = "swarmp2p.region"
"""Ray node label of a worker: its lender's region, where it names one that a label may hold."""

RAY_REGION_LABEL: Final = "ray.io/availability-region"
"""Ray's own name for the same."""

ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"
"""Ray's own label of a node's GPU type. A lender names it among its offer's labels; Ray finds it out, too."""

_LABEL_VALUE: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")  # Ray 2.60, label_utils.py
_ACCELERATOR_RESOURCE: Final = "accelerator_type:"  # what Ray makes of a task's accelerator_type option


@dataclass(frozen=True, slots=True)
class Selector:
    """A condition on a node's labels. none_of: the label must be none of the values, instead of one of them."""

    label: str
    values: tuple[str, ...]
    none_of: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels meets it; one without the label is none of the values."""
        return (labels.get(self.label) in self.values) is not self.none_of


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one task, actor, or part of a placement group takes of one node.

    resources: sorted by name, all above 0; Ray's names ("CPU", "memory" in bytes, users' own). apart: whether no other
    of its gang may be on its node.
    """

    resources: tuple[tuple[str, float], ...]
    selectors: tuple[Selector, ...] = ()
    apart: bool = False


@dataclass(frozen=True, slots=True)
class NodeState:
    """A Ray node that lives. node: Ray's id, hex. idle_s: for how long nothing has run there nor been kept in its
    object store; 0 while something is. draining: it gets no new work."""

    node: str
    labels: Mapping[str, str]
    total: Mapping[str, float]
    available: Mapping[str, float]
    idle_s: float = 0.0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What GCS said at one time.

    wants: what waits for a node, with how many times. gangs: placement groups that wait; of each, all bundles or none.
    least: what the cluster is to have room for in all, used or not (`request_resources`).
    """

    wants: tuple[tuple[Bundle, int], ...] = ()
    gangs: tuple[tuple[Bundle, ...], ...] = ()
    least: tuple[tuple[Bundle, int], ...] = ()
    nodes: tuple[NodeState, ...] = ()


def node_labels(offer: Offer, peer: str, lease: LeaseId) -> dict[str, str]:
    """Labels of a lease's worker. A region that Ray would not take for a label is left out."""
    labels = {KIND_LABEL: offer.kind, REGION_LABEL: offer.region, RAY_REGION_LABEL: offer.region}
    ours = {name: value for name, value in labels.items() if _LABEL_VALUE.fullmatch(value)}
    return {**ours, **dict(offer.labels), PEER_LABEL: peer, LEASE_LABEL: lease.hex()}


def read_state(told: Mapping[str, Any]) -> ClusterState:
    """From what `_gcs.py` tells."""
    return ClusterState(
        wants=tuple((_bundle(bundle), int(count)) for bundle, count in told["wants"]),
        gangs=tuple(tuple(map(_bundle, gang)) for gang in told["gangs"]),
        least=tuple((_bundle(bundle), int(count)) for bundle, count in told["least"]),
        nodes=tuple(
            NodeState(
                node=node["id"],
                labels=node["labels"],
                total=node["total"],
                available=node["available"],
                idle_s=node["idle_ms"] / 1000 if node["status"] == "idle" else 0.0,
                draining=node["status"] == "draining",
            )
            for node in told["nodes"]
        ),
    )


def _bundle(told: Mapping[str, Any]) -> Bundle:
    selectors = [
        Selector(label, tuple(values), operator == "not in")
        for label, operator, values in told["selectors"]
        if operator
    ]
    resources: dict[str, float] = {}
    for name, amount in told["resources"].items():
        if name.startswith(_ACCELERATOR_RESOURCE):
            selectors.append(Selector(ACCELERATOR_LABEL, (name.removeprefix(_ACCELERATOR_RESOURCE),)))
        elif amount > 0:
            resources[name] = float(amount)
    return Bundle(tuple(sorted(resources.items())), tuple(selectors), bool(told["apart"]))
