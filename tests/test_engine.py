"""The contract's own classes: small, immutable, and equal by value."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from swarmp2p import engine
from swarmp2p.engine import (
    Certified,
    Congested,
    Disconnect,
    Engine,
    Introduce,
    Located,
    Message,
    PeerDown,
    PeerInfo,
    PeerUp,
    Protect,
    Reachable,
    Received,
    Reply,
    Request,
    Send,
    Serve,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.transport.sim_peers import sim_address, sim_peer

A = sim_peer(1)
VALUES = [
    Received(A, Request(1)),
    PeerUp(A, (sim_address(1),)),
    PeerDown(A),
    Undeliverable(A, "dht", (1,)),
    Certified(A, b"record"),
    Congested(A, "pubsub", congested=True),
    Speaks(A, "dht", serving=True),
    Reachable(reachable=True),
    Located(A, (sim_address(1),)),
    Tick(),
    Send(A, Reply(1)),
    Introduce(A, (sim_address(1),)),
    Disconnect(A),
    Serve("dht", serving=True),
    Protect(A, protected=True),
    PeerInfo(A),
    Request(1),
    Reply(1),
]


def test_every_dataclass_of_the_contract_is_tried_here() -> None:
    defined = {item for item in vars(engine).values() if isinstance(item, type) and is_dataclass(item)}
    assert {type(value) for value in VALUES} == defined


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_hashable_slotted_and_frozen(value: object) -> None:
    assert hash(value) == hash(value)
    assert not hasattr(value, "__dict__")
    for field in fields(value):  # type: ignore[arg-type]
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


def test_values_are_equal_by_value_and_kind() -> None:
    assert Received(A, Request(1)) == Received(sim_peer(1), Request(1))
    assert sum(left == right for left in VALUES for right in VALUES) == len(VALUES)
    assert len(set(VALUES)) == len(VALUES)


def test_only_requests_expect_a_reply() -> None:
    assert Request.expects_reply
    assert not hasattr(Reply, "expects_reply")
    assert not hasattr(Message, "expects_reply")


def test_an_engine_cannot_be_made_without_its_two_methods() -> None:
    with pytest.raises(TypeError, match=r"deadline.*handle"):
        Engine()  # type: ignore[abstract]
