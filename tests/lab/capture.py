"""All packets that pass a machine of the laboratory, seen through a packet socket: no tcpdump needed.

python -m tests.lab.capture FILE [INTERFACE]       until its input ends; then says how many were lost
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.namespaces import LabError, Node

_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_BUFFER_BYTES: Final = 64 << 20
_PACKET_BYTES: Final = 1 << 17  # the kernel cuts what it sends only when it leaves the machine
_PCAP: Final = struct.Struct("<IHHiIII")  # the file format of libpcap
_PCAP_PACKET: Final = struct.Struct("<IIII")


@dataclass(slots=True)
class Capture:
    """A capture. lost: packets that came too fast to be kept; known at its end. kept: the file, once it is over."""

    path: Path
    lost: int = 0
    kept: bytes = b""

    def packets(self) -> Iterator[bytes]:
        """The packets so far, with their Ethernet headers."""
        data = self.kept or self.path.read_bytes()
        at = _PCAP.size
        while at + _PCAP_PACKET.size <= len(data):
            _, _, size, _ = _PCAP_PACKET.unpack_from(data, at)
            at += _PCAP_PACKET.size
            if at + size > len(data):
                return
            yield data[at : at + size]
            at += size

    def count(self, marker: bytes) -> int:
        """How many packets contain these bytes. A marker may lie across two: send it often."""
        return sum(marker in one for one in self.packets())


@contextmanager
def capture(node: Node, interface: str = "") -> Generator[Capture, None, None]:
    """Capture what passes a machine, in both directions. interface: only there; all when empty.

    The file lives as long as the context, in the format of libpcap.
    """
    with tempfile.TemporaryDirectory(prefix="swarmp2p-lab-") as folder:
        found = Capture(Path(folder) / "packets.pcap")
        process = node.python("-m", "tests.lab.capture", found.path, *filter(None, [interface]))
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise LabError(f"{node.name}: no capture; its messages are above")
        try:
            yield found
        finally:
            process.stdin.close()
            told = process.stdout.read()
            process.wait()
        found.lost = int(told)
        found.kept = found.path.read_bytes()


def _raw() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))


def main() -> None:
    """Capture to a file."""
    with Path(sys.argv[1]).open("wb") as out, _raw() as raw:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        if len(sys.argv) > 2:
            raw.bind((sys.argv[2], _ETH_P_ALL))
        raw.setblocking(False)
        out.write(_PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, _PACKET_BYTES, 1))
        print("ready", flush=True)
        buffer = bytearray(_PACKET_BYTES)
        ended = False
        while not ended:
            ready, _, _ = select.select([raw, sys.stdin], [], [])
            ended = sys.stdin in ready  # what has come by then is still read
            while True:
                try:
                    size = raw.recv_into(buffer)
                except BlockingIOError:
                    break
                seconds, rest = divmod(time.time(), 1.0)
                out.write(_PCAP_PACKET.pack(int(seconds), int(rest * 1e6), size, size))
                out.write(memoryview(buffer)[:size])
            out.flush()
        _, lost = struct.unpack("=II", raw.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        print(lost, flush=True)


if __name__ == "__main__":
    main()
