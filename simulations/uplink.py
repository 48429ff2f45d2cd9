"""A node's way out, through which what it sends leaves one after the other.

The simulator's links know delays and losses, not sizes. Where messages are large, what takes time is their
transmission: a node that passes 96 KiB on to eight others over 100 Mbit/s needs 63 ms for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic

from swarmp2p.engine import Command, Engine, NetworkEvent, NetworkOutput, Output, Send, Tick
from swarmp2p.gossip.messages import Rpc

_OVERHEAD_BYTES = 150
"""Of an RPC and of each message in it: source, sequence number, topic, signature, framing, packet headers."""


class Uplink(Engine[Command, Output], Generic[Command, Output]):
    """An engine whose RPCs leave at a limited rate; everything else passes through at once.

    bytes_s: bytes a second. Unbounded, as a simulation's queue may be: what a real node would drop is late here.
    """

    def __init__(self, inner: Engine[Command, Output], bytes_s: float) -> None:
        self.inner = inner
        self._bytes_s = bytes_s
        self._leaving: deque[tuple[float, Send]] = deque()  # when the last byte is out, in that order
        self._free_at = 0.0

    def deadline(self) -> float:
        inner = self.inner.deadline()
        return min(inner, self._leaving[0][0]) if self._leaving else inner

    def handle(self, event: NetworkEvent | Command, now: float) -> Sequence[NetworkOutput | Output]:
        out: list[NetworkOutput | Output] = []
        while self._leaving and self._leaving[0][0] <= now:
            out.append(self._leaving.popleft()[1])
        if not isinstance(event, Tick) or self.inner.deadline() <= now:
            for output in self.inner.handle(event, now):
                if isinstance(output, Send) and isinstance(output.message, Rpc):
                    self._free_at = max(self._free_at, now) + rpc_bytes(output.message) / self._bytes_s
                    self._leaving.append((self._free_at, output))
                else:
                    out.append(output)
        return out


def rpc_bytes(rpc: Rpc) -> int:
    """About what an RPC takes on the wire."""
    size = _OVERHEAD_BYTES + sum(_OVERHEAD_BYTES + len(message.data) for message in rpc.publish)
    for have in rpc.ihave:
        size += sum(map(len, have.ids)) + 3 * len(have.ids)
    return size + sum(map(len, rpc.iwant)) + sum(map(len, rpc.idontwant))
