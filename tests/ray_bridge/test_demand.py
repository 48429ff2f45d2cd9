"""What GCS tells of a cluster, read."""

from __future__ import annotations

from typing import Any

from swarmp2p.ray_bridge.demand import (
    ACCELERATOR_LABEL,
    Bundle,
    ClusterState,
    NodeState,
    Selector,
    node_labels,
    read_state,
)
from swarmp2p.ray_bridge.events import Offer


def bundle(resources: dict[str, float], *selectors: list[Any], apart: bool = False) -> dict[str, Any]:
    return {"resources": resources, "selectors": list(selectors), "apart": apart}


def test_the_state_is_read() -> None:
    node = {"id": "ab", "labels": {"x": "y"}, "total": {"CPU": 2.0}, "available": {}, "idle_ms": 1500}
    told = {
        "wants": [[bundle({"CPU": 1.0, "GPU": 0.0}, ["x", "not in", ["a", "b"]]), 7]],
        "gangs": [[bundle({"CPU": 1.0}, apart=True)]],
        "least": [[bundle({"CPU": 4.0}), 1]],
        "nodes": [{**node, "status": status} for status in ("idle", "running", "draining")],
    }
    idle = NodeState("ab", {"x": "y"}, {"CPU": 2.0}, {}, idle_s=1.5)
    assert read_state(told) == ClusterState(
        wants=((Bundle((("CPU", 1.0),), (Selector("x", ("a", "b"), none_of=True),)), 7),),
        gangs=((Bundle((("CPU", 1.0),), apart=True),),),
        least=((Bundle((("CPU", 4.0),)), 1),),
        nodes=(
            idle,
            NodeState("ab", {"x": "y"}, {"CPU": 2.0}, {}),
            NodeState("ab", {"x": "y"}, {"CPU": 2.0}, {}, draining=True),
        ),
    )


def test_an_accelerator_type_is_a_label() -> None:
    """Ray turns a task's accelerator_type into a thousandth of a resource that no node has under that name."""
    told = bundle({"GPU": 1.0, "accelerator_type:A100": 0.001})
    state = read_state({"wants": [[told, 1]], "gangs": [], "least": [], "nodes": []})
    ((read, _),) = state.wants
    assert read == Bundle((("GPU", 1.0),), (Selector(ACCELERATOR_LABEL, ("A100",)),))


def test_selectors() -> None:
    one, none = Selector("x", ("a", "b")), Selector("x", ("a", "b"), none_of=True)
    assert [one.matches(labels) for labels in ({"x": "a"}, {"x": "c"}, {})] == [True, False, False]
    assert [none.matches(labels) for labels in ({"x": "a"}, {"x": "c"}, {})] == [False, True, True]


def test_a_worker_is_labelled_with_what_its_lender_is() -> None:
    offer = Offer(kind="gaming-pc", region="eu", labels=(("x", "y"), ("swarmp2p.peer", "a lie")))
    assert node_labels(offer, "peer", b"\x01\x02") == {
        "swarmp2p.kind": "gaming-pc",
        "swarmp2p.region": "eu",
        "ray.io/availability-region": "eu",
        "x": "y",
        "swarmp2p.peer": "peer",
        "swarmp2p.lease": "0102",
    }
    assert "swarmp2p.region" not in node_labels(Offer(region="not for Ray!"), "peer", b"\x01")
