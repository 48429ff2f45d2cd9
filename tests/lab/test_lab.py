"""The laboratory is what it says: who reaches whom, through which NAT, what is seen on the way, and what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.lab.capture import capture
from tests.lab.delay import delay
from tests.lab.namespaces import Lab, LabError, Node
from tests.lab.nat import NatKind, firewall, nat
from tests.lab.requirements import require
from tests.lab.scan import open_ports

pytestmark = pytest.mark.slow

_SERVE = """
import json, socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    one, address = server.accept()
    one.sendall(json.dumps(address).encode() + b"\\n")
    while data := one.recv(1 << 16):
        one.sendall(data)
    one.close()
"""
# Says from which port it connects, where it was seen from, and, with a size, what came back of so many bytes.
_CONNECT = """
import hashlib, json, socket, sys, threading, time
host, port, own, size = sys.argv[1], *map(int, sys.argv[2:])
one = socket.socket()
one.settimeout(0.5)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("0.0.0.0", own))
began = time.monotonic()
one.connect((host, port))
seen = one.makefile("rb").readline() if not size else b""
first = time.monotonic() - began
told = hashlib.sha256()
sent = bytes(range(251)) * (size // 251)
if size:
    one.settimeout(None)
    while one.recv(1) != b"\\n":
        pass
    threading.Thread(target=one.sendall, args=(sent,)).start()
    left = len(sent)
    while left:
        data = one.recv(1 << 18)
        left -= len(data)
        told.update(data)
print(json.dumps([seen.decode(), first, told.hexdigest() == hashlib.sha256(sent).hexdigest()]))
"""


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require(root=False)
    with Lab() as found:
        yield found


def serve(node: Node, port: int) -> None:
    process = node.python("-c", _SERVE, str(port))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


def connect(node: Node, address: str, port: int, own: int = 0, size: int = 0) -> tuple[str, float, bool]:
    seen, first_s, same = json.loads(
        node.run(sys.executable, "-c", _CONNECT, address, str(port), str(own), str(size))
    )
    return seen, first_s, same


def seen_from(node: Node, address: str, port: int, own: int) -> tuple[str, int]:
    host, port = json.loads(connect(node, address, port, own)[0])
    return host, port


def test_cones_are_seen_from_the_port_they_chose_and_others_from_any(lab: Lab) -> None:
    internet = lab.segment("internet")
    servers = [lab.node(f"server {n}") for n in range(2)]
    for n, one in enumerate(servers):
        internet.join(one, f"5.0.0.{100 + n}/24")
        serve(one, 80)
    seen = {}
    for n, kind in enumerate(NatKind):
        router = nat(lab, kind.value, kind, internet, f"5.0.0.{n + 1}/24", "10.1.0.1/24")
        laptop = lab.node("laptop")
        router.join(laptop, "10.1.0.2/24")
        seen[kind] = [seen_from(laptop, one.ip, 80, 4001) for one in servers]
        assert [host for host, _ in seen[kind]] == [f"5.0.0.{n + 1}"] * 2
        serve(laptop, 81)
        for address in (f"5.0.0.{n + 1}", "10.1.0.2"):
            with pytest.raises(LabError):
                connect(servers[0], address, 81)
        if kind is NatKind.CONE:
            router.forward(81, "10.1.0.2")
            assert seen_from(servers[0], f"5.0.0.{n + 1}", 81, 4002) == ("5.0.0.100", 4002)
    assert [port for _, port in seen[NatKind.CONE]] == [4001, 4001]
    ports = [port for _, port in seen[NatKind.SYMMETRIC]]
    assert ports[0] != ports[1]
    assert 4001 not in ports


def test_a_cut_is_silent_and_is_undone(lab: Lab) -> None:
    switch = lab.segment("switch")
    a, b, c = (lab.node(name) for name in "abc")
    ends = [switch.join(one, f"10.0.0.{n + 1}/24") for n, one in enumerate((a, b, c))]
    serve(b, 80)
    serve(c, 80)
    ends[0].cut(b.ip)
    with pytest.raises(LabError, match="timed out"):
        connect(a, b.ip, 80)
    connect(a, c.ip, 80)
    connect(c, b.ip, 80)
    ends[0].cut()
    with pytest.raises(LabError, match="timed out"):
        connect(a, c.ip, 80)
    ends[0].mend()
    connect(a, b.ip, 80)


def test_firewalls_let_out_and_not_in_and_scans_see_what_is_open(lab: Lab) -> None:
    a, b = lab.node("a"), lab.node("b")
    end = lab.cable(a, "10.0.0.1/24", b, "10.0.0.2/24")
    for port in (22, 4001, 60000):
        serve(a, port)
    serve(b, 80)
    assert open_ports(b, a.ip) == [22, 4001, 60000]
    firewall(end)
    assert open_ports(b, a.ip, 22, 22) == []
    connect(a, b.ip, 80)


def test_captures_see_what_passes(lab: Lab) -> None:
    a, b = lab.node("a"), lab.node("b")
    lab.cable(a, "10.0.0.1/24", b, "10.0.0.2/24")
    serve(b, 80)
    with capture(b) as traffic:
        assert connect(a, b.ip, 80, size=1_000_000)[2]
    assert traffic.count(bytes(range(251))) > 10
    assert traffic.count(b"no such thing") == 0
    assert traffic.lost == 0


def test_a_delay_keeps_bytes_and_counts_the_handshake(lab: Lab) -> None:
    a, router, b = lab.node("a"), lab.node("router"), lab.node("b")
    lab.cable(router, "10.0.1.1/24", a, "10.0.1.2/24")
    lab.cable(router, "10.0.2.1/24", b, "10.0.2.2/24")
    a.route("default", "10.0.1.1")
    b.route("default", "10.0.2.1")
    router.forward()
    serve(b, 80)
    with delay(router, 40.0):
        assert connect(a, b.ip, 80, size=5_000_000)[2]
        assert connect(a, b.ip, 80)[1] >= 0.08
    assert connect(a, b.ip, 80)[0].startswith('["10.0.1.2"')
    with delay(router, 0.0, to=(b.ip, 80)) as proxy:
        assert connect(a, router.ip, proxy.port, size=5_000_000)[2]
        proxy.cut()
        time.sleep(0.05)  # until the proxy has read that
        with pytest.raises(LabError):
            connect(a, router.ip, proxy.port)
        proxy.mend()
        time.sleep(0.05)
        assert connect(a, router.ip, proxy.port, size=1000)[2]


_DIES = """
import sys, time
from tests.lab.namespaces import Lab
lab = Lab()
node = lab.node("a")
process = node.start("sleep", "600")
time.sleep(0.1)
print(node.pid, process.pid, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_run_that_is_killed() -> None:
    require(root=False)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _DIES]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        left = [Path(f"/proc/{int(pid)}/stat") for pid in run.stdout.readline().split()]
        assert len(left) == 2
        assert all(one.exists() for one in left)
        run.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10.0
    while time.monotonic() < until and not all(gone(one) for one in left):
        time.sleep(0.01)
    assert all(gone(one) for one in left)


def gone(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"  # nobody has waited for it yet
    except (FileNotFoundError, ProcessLookupError):
        return True
