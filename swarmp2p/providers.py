"""The kinds of provider: defaults that a lender takes over by naming its kind.

A kind is a row of this table and no class: whatever it sets can be set otherwise, and a new kind is a new
row. The numbers are judgements, not measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from .errors import UsageError


class RankBy(Enum):
    """What makes one provider of a kind better than another, before its load."""

    LOAD = "load"
    """Nothing: the least loaded is best."""

    RTT = "rtt"
    """The measured round-trip time to the borrower."""

    REGION = "region"
    """Being in the region that was asked for."""


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """What naming a kind sets.

    description: for people who choose one. cpu_share: part of the machine's CPUs lent, 0 to 1. lease_s: term
    between renewals, in seconds: how long a lender waits for a borrower that it no longer hears. notice_s:
    warning in seconds before the owner takes the machine back. rank_by: see RankBy.
    """

    name: str
    description: str
    cpu_share: float
    lease_s: float
    notice_s: float
    rank_by: RankBy = RankBy.LOAD


DEFAULT_KIND: Final = "individual"

_ROWS: Final = (
    ProviderKind("individual", "a person's own computer: light work, may leave at any time", 0.5, 60, 5),
    ProviderKind("data-centre", "a large facility: many machines, long and intensive work", 1.0, 300, 120),
    ProviderKind("edge-provider", "compute close to users: real-time inference", 0.75, 60, 30, RankBy.RTT),
    ProviderKind("gaming-pc", "a strong GPU, lent while its owner is away", 1.0, 30, 10),
    ProviderKind("workstation", "a professional's machine: the owner's own work comes first", 0.5, 60, 30),
    ProviderKind("gpu-cluster", "aggregated GPUs: deep learning, searches over parameters", 1.0, 300, 120),
    ProviderKind("storage-centre", "large, fast storage: data sets, checkpoints, models", 0.25, 300, 120),
    ProviderKind("edge-location", "a small site near users or data", 0.75, 60, 30, RankBy.REGION),
    ProviderKind(
        "regional-hub", "gathers a region's providers and relays for them", 0.25, 120, 60, RankBy.REGION
    ),
)

KINDS: Final[Mapping[str, ProviderKind]] = MappingProxyType({row.name: row for row in _ROWS})
"""Every kind by its name."""


def kind(name: str) -> ProviderKind:
    """The kind with this name; raises UsageError that lists the names."""
    try:
        return KINDS[name]
    except KeyError:
        raise UsageError(f"there is no provider kind {name!r}; choose one of: {', '.join(KINDS)}") from None
