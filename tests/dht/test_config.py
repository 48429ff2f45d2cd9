"""Settings that would fail far from where they were written are refused there."""

from __future__ import annotations

from typing import Any

import pytest

from swarmp2p import DhtConfig, NodeConfig
from swarmp2p.dht.validators import AnyValue
from swarmp2p.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"server": "yes"}, "True, False or 'auto'"),
        ({"k": 0}, "k is a count of at least 1, not 0"),
        ({"alpha": 2.5}, "alpha is a count"),
        ({"disjoint_paths": 9}, "1 to 8"),
        ({"disjoint_paths": None}, "1 to 8"),
        ({"validators": {"pk": 3}}, r"no method validate\(\)"),
        ({"validators": {"/pk": AnyValue()}}, "without slashes"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        DhtConfig(**settings)


def test_what_is_right_is_taken() -> None:
    DhtConfig(server=False, k=1, alpha=1, disjoint_paths=8, validators={"pk": AnyValue()})
    wrong: Any = 3
    with pytest.raises(UsageError, match="dht is a DhtConfig, not int"):
        NodeConfig(dht=wrong)
