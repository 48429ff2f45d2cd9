from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.mdns import announced, decode_txt, encode_txt
from tests.dht.network import peer_id

LAN, OTHER, LOOPBACK = (to_multiaddr(host, 4001) for host in ("192.168.1.7", "10.0.0.7", "127.0.0.1"))


def test_loopback_addresses_are_announced_only_when_there_are_no_others() -> None:
    texts, hosts = announced(peer_id(1), [LAN, OTHER, LOOPBACK])
    assert hosts == ["192.168.1.7", "10.0.0.7"]
    assert texts[0] == f"/ip4/192.168.1.7/tcp/4001/p2p/{peer_id(1)}"
    assert announced(peer_id(1), [LOOPBACK])[1] == ["127.0.0.1"]
    assert announced(peer_id(1), []) == ([], [])


def test_what_is_announced_is_understood() -> None:
    texts, _ = announced(peer_id(1), [LAN, OTHER])
    assert decode_txt(encode_txt(texts)) == PeerInfo(peer_id(1), (LAN, OTHER))


def test_addresses_that_cannot_be_dialled_are_left_out() -> None:
    # as a Go node announces itself
    texts = [
        f"/ip4/192.168.1.7/udp/4001/quic-v1/p2p/{peer_id(1)}",
        f"/ip4/192.168.1.7/tcp/4001/p2p/{peer_id(1)}",
    ]
    assert decode_txt(encode_txt(texts)) == PeerInfo(peer_id(1), (LAN,))


def test_a_record_of_several_peers_or_none_is_nobody_s() -> None:
    assert decode_txt(encode_txt([f"/ip4/10.0.0.1/tcp/1/p2p/{peer_id(n)}" for n in (1, 2)])) is None
    assert decode_txt(b"") is None
    assert decode_txt(encode_txt(["/ip4/10.0.0.1/tcp/1"])) is None


def test_only_some_addresses_of_one_record_are_taken() -> None:
    texts = [f"/ip4/10.0.0.{n}/tcp/1/p2p/{peer_id(1)}" for n in range(40)]
    found = decode_txt(encode_txt(texts))
    assert found is not None
    assert len(found.addresses) == 8


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda raw: b"\xffdnsaddr=" + raw)))
def test_any_bytes_are_a_peer_or_nobody(data: bytes) -> None:
    found = decode_txt(data)
    assert found is None or isinstance(found.peer, PeerId)


# A network of its own: nothing that is sent in it leaves it.
_NETWORK = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
# A kernel needs no module for an interface that is there anyway.
_SET_UP = (
    "ip link set lo up multicast on && ip addr add 10.9.0.1/24 dev lo && ip route add 224.0.0.0/4 dev lo"
)
_MISSING = [command for command in ("unshare", "ip") if shutil.which(command) is None]


def _why_not() -> str:
    if _MISSING:
        return f"{_MISSING[0]} is missing: apt-get install util-linux iproute2"
    command = [*_NETWORK, "sh", "-c", _SET_UP]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        f"no network namespace can be made here ({tried.stderr.strip()}): run as root"
        if tried.returncode
        else ""
    )


@pytest.mark.slow
@pytest.mark.parametrize("listen", ["/ip4/10.9.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"])
def test_two_processes_find_each_other_in_a_network_of_their_own(listen: str) -> None:
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    python = f"exec {sys.executable} -m tests.transport.mdns_peer {listen}"
    first = [*_NETWORK, "sh", "-c", f"{_SET_UP} && {python}"]
    with subprocess.Popen(first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one_id = one.stdout.readline().strip()
        enter = ["nsenter", f"--net=/proc/{one.pid}/ns/net"]
        if os.geteuid():
            enter[1:1] = [f"--user=/proc/{one.pid}/ns/user", "--preserve-credentials"]
        with subprocess.Popen(
            [*enter, "sh", "-c", python], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as two:
            assert two.stdin is not None
            assert two.stdout is not None
            two_id = two.stdout.readline().strip()
            assert two.stdout.readline().strip() == one_id
            assert one.stdout.readline().strip() == two_id
            two.stdin.close()
            assert two.stdout.read().split() == ["MainThread"]
        one.stdin.close()
        assert one.stdout.read().split() == ["MainThread"]
    assert (one.returncode, two.returncode) == (0, 0)
