"""What benchmarks/gossip.py's figures are to reach."""

from __future__ import annotations

from typing import Final

from .report import Bar

_ALL: Final = Bar("delivered", 1.0, at_least=True)
_WIRE: Final = (Bar("bytes_per_delivery", 2700.0), Bar("packets_per_delivery", 10.0))

OTHERS: Final[dict[str, tuple[Bar, ...]]] = {
    "throughput": (Bar("deliveries_per_s", 1900.0, at_least=True),),
    "memory": (_ALL, Bar("memory_growth", 1.03)),
    "slow-reader": (Bar("p99_ratio", 1.2), _ALL),
    "signals": (Bar("core_share", 0.15), Bar("taken", 0.99, at_least=True)),
}
"""By scenario; those of "rate" depend on the rate."""


def bars(scenario: str, rate: float, coalesce_ms: float) -> tuple[Bar, ...]:
    """Those of a scenario. Go's figures at 10 and 100 messages a second of 20 nodes are the source of its CPU bars."""
    if scenario != "rate":
        return OTHERS[scenario]
    if rate >= 100:
        return (_ALL, Bar("cpu_ms_per_delivery", 0.77), Bar("p99_ms", 100.0), *_WIRE)
    return (_ALL, Bar("cpu_ms_per_delivery", 1.75 if coalesce_ms >= 50 else 3.5))
