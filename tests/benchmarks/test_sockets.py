"""What the kernel says that connections have sent."""

from __future__ import annotations

import socket

from benchmarks.sockets import Sent, sent


def test_what_is_sent_over_tcp_is_counted_with_its_headers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as one:
            other, _ = listener.accept()
            with other:
                before = sent()
                one.sendall(bytes(1000))
                got = 0
                while got < 1000:
                    got += len(other.recv(4096))
                other.sendall(b"thanks")  # acknowledges what came before
                assert one.recv(16) == b"thanks"
                found = sent().since(before)
    assert found.bytes >= 1000
    assert found.segments >= 1
    assert found.on_the_wire == found.bytes + 52 * found.segments


def test_closed_connections_do_not_make_it_negative() -> None:
    assert Sent(1, 1).since(Sent(5, 5)) == Sent(0, 0)
