"""Settings are checked where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from swarmp2p import (
    GossipConfig,
    LoadConfig,
    LoadSignal,
    PeerInfo,
    ScoreConfig,
    TopicConfig,
    TopicScoreConfig,
)
from swarmp2p.errors import UsageError
from swarmp2p.gossip.doubts import ConfirmConfig
from swarmp2p.gossip.load_interest import ShardConfig
from swarmp2p.gossip.load_members import MemberConfig
from swarmp2p.gossip.load_sender import SenderConfig
from swarmp2p.gossip.load_snapshots import SnapshotConfig
from swarmp2p.gossip.load_table import TableConfig
from swarmp2p.gossip.suspicion import SuspicionConfig
from swarmp2p.settings import check_settings, check_types

GOSSIP: tuple[type[Any], ...] = (
    *(GossipConfig, TopicConfig, ScoreConfig, TopicScoreConfig),
    *(LoadConfig, SenderConfig, ShardConfig, SnapshotConfig, MemberConfig),
    *(TableConfig, SuspicionConfig, ConfirmConfig),
)


@dataclass(frozen=True, slots=True)
class Inner:
    pass


@dataclass(frozen=True, slots=True)
class Example:
    count: int = 1
    wait_s: float = 0.5
    share: float | None = None
    on: bool = False
    name: str = ""
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 1.5}, "Example.count is a whole number, not 1.5"),
        ({"count": True}, "Example.count is a whole number, not True"),
        ({"count": -1}, "Example.count is a whole number of at least 0, not -1"),
        ({"wait_s": "1"}, "Example.wait_s is a number of seconds, not '1'"),
        ({"wait_s": None}, "Example.wait_s is a number of seconds, not None"),
        ({"wait_s": math.nan}, "Example.wait_s is a number of seconds, not nan"),
        ({"wait_s": 0}, "Example.wait_s is a number of seconds above 0, not 0"),
        ({"wait_s": math.inf}, "Example.wait_s is a number of seconds above 0, not inf"),
        ({"share": "x"}, "Example.share is a number, or None, not 'x'"),
        ({"on": 1}, "Example.on is True or False, not 1"),
        ({"name": b"x"}, "Example.name is text, not b'x'"),
        ({"inner": 3}, "Example.inner is of type Inner, not 3"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_settings(Example(**values), above_zero=("wait_s",))
    assert str(caught.value) == said


def test_what_is_right_passes() -> None:
    check_settings(Example(count=0, wait_s=1, share=None, on=True), above_zero=("wait_s",))
    check_types(Example(count=-1, wait_s=math.inf, share=-0.5))


@pytest.mark.parametrize("kind", GOSSIP)
@pytest.mark.parametrize("wrong", ["x", b"x", [1], math.nan, {}])
def test_no_setting_of_gossip_takes_anything(kind: type[Any], wrong: object) -> None:
    """Nor fails with anything but UsageError."""
    for each in fields(kind):
        if each.name == "topics" and wrong == {}:
            continue  # which is none
        with pytest.raises(UsageError):
            kind(**{each.name: wrong})


@pytest.mark.parametrize(
    "values",
    [
        {"cpus_free": "4"},
        {"in_flight": None},
        {"kind": 3},
        {"kind": [1]},
        {"region": None},
        {"coordinate": 1.0},
    ],
)
def test_a_load_signal_of_other_types_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        LoadSignal(**values)


async def asks_somebody(message: object, now: float) -> None:
    """As no engine could call it."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GossipConfig(topics={"news": 3}), "maps names"),  # type: ignore[dict-item]
        (lambda: GossipConfig(topics={"a/*/b": TopicConfig()}), "at the end only"),
        (lambda: GossipConfig(direct_peers=("12D3KooW",)), "peer_info"),  # type: ignore[arg-type]
        (lambda: GossipConfig(direct_peers=(PeerInfo("12D3KooW"),)), "peer_info"),  # type: ignore[arg-type]
        (lambda: GossipConfig(gossip_factor=25), "share"),
        (lambda: TopicConfig(validator=asks_somebody), "Peer.validate"),  # type: ignore[arg-type]
        (lambda: TopicConfig(score=ScoreConfig()), "TopicScoreConfig"),  # type: ignore[arg-type]
    ],
)
def test_what_names_topics_and_peers_is_checked(make: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()
