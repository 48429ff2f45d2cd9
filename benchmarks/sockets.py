"""What this process's TCP connections have sent, as the kernel counts it: for each connection, so that other
processes on the machine do not matter, and without touching the libraries that own the sockets."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

# struct tcp_info of linux/tcp.h, since 4.6: tcpi_bytes_acked is the u64 at 120, tcpi_segs_out the u32 at 136.
_TCP_INFO_BYTES: Final = 192
_BYTES_ACKED: Final = 120
_SEGS_OUT: Final = 136
_HEADER_BYTES: Final = 52  # of each segment: IPv4 without options, TCP with time stamps


@dataclass(frozen=True, slots=True)
class Sent:
    """Totals of all connections that are open. segments: bare acknowledgements included."""

    bytes: int = 0
    segments: int = 0

    @property
    def on_the_wire(self) -> int:
        """Bytes with the headers of TCP and IP."""
        return self.bytes + _HEADER_BYTES * self.segments

    def since(self, before: Sent) -> Sent:
        """What was sent after `before`; right as long as no connection was closed in between."""
        return Sent(max(0, self.bytes - before.bytes), max(0, self.segments - before.segments))


def sent() -> Sent:
    """What the TCP connections that this process holds have sent so far, handshakes included."""
    total_bytes = total_segments = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
                    continue
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # closed meanwhile
            continue
        total_bytes += struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
        total_segments += struct.unpack_from("=I", info, _SEGS_OUT)[0]
    return Sent(total_bytes, total_segments)
