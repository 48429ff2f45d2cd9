"""What a lender announced against what a borrower wants."""

from __future__ import annotations

from swarmp2p.ray_bridge.elastic import Ask
from swarmp2p.ray_bridge.events import Need, Versions
from swarmp2p.ray_bridge.terms import unfit_record

HERE = Versions(ray="2.60.0", python="3.11", swarmp2p="0.1.0")
Attributes = dict[str, str | int | float | bool]
RECORD: Attributes = {
    "ray": "2.60.0",
    "python": "3.11",
    "kind": "gaming-pc",
    "region": "eu",
    "cpus": 4,
    "gpus": 0.5,
}


def why(need: Need | None = None, record: Attributes | None = None, **but: frozenset[str]) -> str:
    return unfit_record(RECORD if record is None else record, Ask(need or Need(), **but), HERE)


def test_a_record_that_fits() -> None:
    assert why() == ""
    assert why(Need(cpus=4, gpus=0.5, kind="gaming-pc", region="eu")) == ""


def test_a_record_that_says_nothing_speaks_against_nobody() -> None:
    assert why(Need(cpus=64, gpus=8, kind="gpu-cluster", region="us"), {}) == ""


def test_another_version_is_told_with_the_command_that_helps() -> None:
    assert "pip install 'ray==2.59.1'" in why(record={**RECORD, "ray": "2.59.1"})
    assert "use Python 3.12" in why(record={**RECORD, "python": "3.12"})


def test_another_kind_region_or_size() -> None:
    assert why(Need(kind="workstation")) == "its kind is gaming-pc, and workstation was asked for"
    assert why(Need(region="us")) == "its region is eu, and us was asked for"
    assert why(not_regions=frozenset({"eu"})) == "its region is eu, and another was asked for"
    assert why(not_kinds=frozenset({"gaming-pc"})) == "its kind is gaming-pc, and another was asked for"
    assert why(Need(cpus=5)) == "it lends 4 CPUs, and 5 were asked for"
    assert why(Need(gpus=1)) == "it lends 0.5 GPUs, and 1 were asked for"
