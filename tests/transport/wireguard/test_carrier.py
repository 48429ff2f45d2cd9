"""A member's WireGuard links, for real: a partner with several endpoints is found, silence and its end are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.namespaces import Lab, Node
from tests.lab.requirements import require
from tests.transport.wireguard.tunnels import descendants

pytestmark = pytest.mark.slow
CLUSTER = os.urandom(16).hex()


class Carried:
    """A `tests.transport.wireguard.carried`."""

    def __init__(self, node: Node, host: int, runtime: Path) -> None:
        self.node, self.host, self.member = node, host, bytes([host] * 16).hex()
        self.process: subprocess.Popen[bytes] = node.python(
            "-m", "tests.transport.wireguard.carried", runtime, self.member, CLUSTER
        )
        told = self.hear()
        self.key, self.port = told["key"], told["port"]

    @property
    def place(self) -> list[Any]:
        return [f"100.66.0.{self.host}", f"127.64.0.{self.host}", 20_000 + 100 * self.host, 100]

    def follow(self, partner: Carried, *endpoints: tuple[str, int]) -> None:
        told = {"own": self.place, "partners": [[partner.member, partner.key, endpoints, *partner.place]]}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def test_links_come_up_by_the_endpoint_that_answers_and_silence_is_told(tmp_path: Path) -> None:
    require("wg", "wireguard-go")
    with Lab() as lab:
        a, b = lab.node("one"), lab.node("two")
        cable = lab.cable(a, "10.8.0.1/24", b, "10.8.0.2/24")
        one, two = Carried(a, 3, tmp_path), Carried(b, 4, tmp_path)
        one.follow(two, ("10.8.0.77", 51_820), (b.ip, two.port))
        two.follow(one)
        up = (["LinkUp", two.member], ["LinkUp", one.member])
        assert (one.hear(), two.hear()) == up
        cable.cut()
        assert (one.hear(), two.hear()) == (["LinkLost", two.member], ["LinkLost", one.member])
        cable.mend()
        assert (one.hear(), two.hear()) == up
        _, wireguard_go = descendants(one.process.pid)  # the keeper comes first
        os.kill(wireguard_go, signal.SIGKILL)
        assert one.hear()[0] == "TunnelLost"
