"""What benchmarks/mesh.py measures on a path. Each scenario builds its path, and returns figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .mesh_paths import OURS, PATHS, expect, told
from .report import Figures

RTT_MS: Final = 50.0
_SHARE: Final[Mapping[str, float]] = {OURS: 1.0, "plain": 4.0, "wireguard-go": 0.4, "libp2p-stream": 0.2}
"""Of the bytes that are sent over a path: so that each takes about as long."""

_AWAY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How much of everything. mb: bytes in bulk over our path, in 10^6. seconds: of each turn with many connections."""

    mb: int = 512
    echoes: int = 2000
    firsts: int = 20
    connections: int = 200
    seconds: float = 0.5
    idle: int = 1000
    cuts: int = 3


def direct(side: str, options: Options) -> Figures:
    """Bulk, its CPU, and echoes, between neighbours."""
    size = int(options.mb * _SHARE[side]) * 10**6
    with PATHS[side](None) as path:
        path.serve()
        path.measure("bulk", size // 10)
        before = path.cpu_s()
        figures = {"mb_per_s": path.measure("bulk", size)}
        if path.carriers:
            figures["cpu_s_per_gb"] = (path.cpu_s() - before) / (size / 1e9)
        figures["rtt_p50_ms"] = path.measure("echo", options.echoes)
    return figures


def far(side: str, options: Options) -> Figures:
    """Bulk, and a new connection's first byte, at 50 ms."""
    size = int(options.mb * min(1.0, _SHARE[side])) * 10**6
    with PATHS[side](RTT_MS) as path:
        path.serve()
        first_ms = path.measure("first", options.firsts)
        path.measure("bulk", size // 4)
        return {"first_byte_rtts": first_ms / RTT_MS, "far_mb_per_s": path.measure("bulk", size)}


def stalled(side: str, options: Options) -> Figures:
    """Many connections, one of which nobody reads."""
    with PATHS[side](None) as path:
        path.serve()
        return {"stalled_share": path.measure("many", options.connections, options.seconds)}


def cut(side: str, options: Options) -> Figures:
    """The carrier's connection is reset in the midst of 100 MB, and can be made again half a second later."""
    whole = 0.0
    for _ in range(options.cuts):
        with PATHS[side](0.0) as path:
            assert path.proxy is not None
            path.serve()
            client = path.load("hashed", 100_000_000)
            expect(client, "going", "a client of the load")
            path.proxy.cut()
            time.sleep(_AWAY_S)
            path.proxy.mend()
            whole += told(client)
    return {"cut_whole": whole / options.cuts}


def silent(side: str, options: Options) -> Figures:
    """Packets stop passing: until the sockets are reset at both ends, the later of the two; next door and far away."""
    figures: Figures = {}
    for name, rtt_ms in (("silent_reset_s", None), ("far_silent_reset_s", RTT_MS)):
        with PATHS[side](rtt_ms) as path:
            server = path.serve()
            client = path.load("idle", 10)
            expect(client, "going", "a client of the load")
            time.sleep(1.0)  # so that heartbeats have measured the round trip
            path.cable.cut()
            began = time.monotonic()
            figures[name] = max(told(client), *(told(server) for _ in range(10))) - began
    return figures


def idle(side: str, options: Options) -> Figures:
    """Memory of the larger carrier, with many connections that say nothing."""
    with PATHS[side](None) as path:
        path.serve()
        before = path.memory_mb()
        client = path.load("idle", options.idle)
        expect(client, "going", "a client of the load")
        time.sleep(0.5)
        after = path.memory_mb()
    return {"idle_forwards_mb": after, "idle_forwards_more_mb": after - before}


SCENARIOS: Final[Mapping[str, tuple[Callable[[str, Options], Figures], tuple[str, ...]]]] = {
    "direct": (direct, tuple(PATHS)),
    "far": (far, (OURS, "plain", "libp2p-stream")),
    "stalled": (stalled, (OURS,)),
    "cut": (cut, (OURS,)),
    "silent": (silent, (OURS,)),
    "idle": (idle, (OURS,)),
}
"""By name: what measures it, and the sides that take part."""
