"""What a door to a package index does for whoever sends it something, and does not do."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.ray_bridge.forwarding import (
    MAX_HEAD_BYTES,
    Fetch,
    Refused,
    Tell,
    Tunnel,
    door_key,
    read_request,
    refusal,
    settings,
)
from swarmp2p.ray_bridge.package_index import PackageIndex

INDEX = PackageIndex(
    urls=("https://index.example/simple", "http://plain.example:8080/simple"),
    trusted=("plain.example",),
    certificates="PEM",
    open=(("::1", 80), ("index.example", 443), ("plain.example", 80), ("plain.example", 8080)),
    plain=(("plain.example", 8080),),
)
KEY = door_key("a token")
AUTH = "Proxy-Authorization: Basic " + base64.b64encode(f"worker:{KEY}".encode()).decode()


def asked(line: str, *fields: str, auth: str = AUTH, index: PackageIndex = INDEX) -> object:
    return read_request("\r\n".join([line, *([auth] if auth else []), *fields, "", ""]).encode(), index, KEY)


def status(answer: object) -> int:
    assert isinstance(answer, Refused), answer
    return answer.status


def test_a_key_says_nothing_of_the_token_and_is_another_for_another() -> None:
    assert len(KEY) == 32
    assert door_key("another token") != KEY


def test_what_pip_sends() -> None:
    assert asked("CONNECT index.example:443 HTTP/1.0", "Host: index.example:443") == Tunnel(
        ("index.example", 443)
    )
    assert asked("CONNECT INDEX.example:443 HTTP/1.1") == Tunnel(("index.example", 443))
    assert asked("GET / HTTP/1.1") == Tell()
    fetch = asked(
        "GET http://plain.example:8080/simple/six/?a=b HTTP/1.1",
        "Host: something.else",
        "User-Agent: pip",
        "Connection: keep-alive, X-Dropped",
        "X-Dropped: 1",
        "Accept: text/html",
    )
    assert fetch == Fetch(
        ("plain.example", 8080),
        b"GET /simple/six/?a=b HTTP/1.1\r\nHost: plain.example:8080\r\nUser-Agent: pip\r\nAccept: text/html\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert asked("HEAD http://plain.example HTTP/1.1") == Fetch(
        ("plain.example", 80), b"HEAD / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n"
    )
    assert asked("GET http://[::1]/ HTTP/1.1") == Fetch(
        ("::1", 80), b"GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "target",
    [
        "index.example:80",
        "index.example:22",
        "index.example.:443",
        "127.0.0.1:443",
        "169.254.169.254:80",
        "[::1]:443",
        "index.example.evil:443",
        "index.example%00:443",
        "plain.example:08080",
    ],
)
def test_no_tunnel_leads_to_another_host_or_port(target: str) -> None:
    assert status(asked(f"CONNECT {target} HTTP/1.1")) in (400, 403, 405)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://index.example/",
        "http://plain.example:81/",
        "http://plain.example@evil.example/",
        "http://plain.example\\@evil.example/",
        "http://plain.example#@evil.example:8080/",
        "https://index.example/",
        "ftp://plain.example/",
        "file:///etc/passwd",
        "//plain.example/",
        "/simple/",
        "*",
        "http://",
        "http://[::1/",
        "http://plain.example:8080:80/",
        "http://plain.example:-80/",
    ],
)
def test_nothing_is_fetched_from_elsewhere(target: str) -> None:
    answer = asked(f"GET {target} HTTP/1.1")
    if isinstance(answer, Fetch):  # what comes after # is no part of a host
        assert answer.to == ("plain.example", 80)
        assert b"evil" not in answer.head
    else:
        assert status(answer) in (400, 403)


def test_an_index_without_tls_takes_no_more_than_its_pages_being_read() -> None:
    assert asked("CONNECT plain.example:80 HTTP/1.1") == Tunnel(("plain.example", 80))  # of index_hosts
    assert status(asked("CONNECT plain.example:8080 HTTP/1.1")) == 405


def test_nobody_is_named_to_an_index() -> None:
    assert status(asked("GET http://someone@plain.example/ HTTP/1.1")) == 400


def test_a_refusal_says_what_helps() -> None:
    answer = asked("CONNECT cdn.example:443 HTTP/1.1")
    assert isinstance(answer, Refused)
    assert "cdn.example:443" in answer.reason
    assert "borrow(index_hosts=...)" in answer.reason
    line = refusal(answer).split(b"\r\n")[0]
    assert line == f"HTTP/1.1 403 {answer.reason}".encode()
    answer = asked("CONNECT cdn.example:443 HTTP/1.1", index=PackageIndex())
    assert isinstance(answer, Refused)
    assert "borrow(index=...)" in answer.reason


@pytest.mark.parametrize(
    "auth",
    [
        "",
        "Proxy-Authorization: Basic",
        "Proxy-Authorization: Basic " + base64.b64encode(b"worker:" + b"0" * 32).decode(),
        "Proxy-Authorization: Basic !!!",
        "Proxy-Authorization: Bearer " + KEY,
        f"{AUTH}\r\n{AUTH}",
        AUTH.replace("Proxy-", ""),
    ],
)
def test_nobody_comes_without_the_clusters_key(auth: str) -> None:
    assert status(asked("CONNECT index.example:443 HTTP/1.1", auth=auth)) == 407
    assert status(asked("GET / HTTP/1.1", auth=auth)) == 407


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("POST http://plain.example/ HTTP/1.1", ()),
        ("PUT / HTTP/1.1", ()),
        ("GET http://plain.example/ HTTP/1.1", ("Content-Length: 5",)),
        ("GET http://plain.example/ HTTP/1.1", ("Transfer-Encoding: chunked",)),
        ("GET http://plain.example/ HTTP/2.0", ()),
        ("GET  http://plain.example/ HTTP/1.1", ()),
        ("GET http://plain.example/a b HTTP/1.1", ()),
        ("GET http://plain.example/ HTTP/1.1", (" folded",)),
        ("GET http://plain.example/ HTTP/1.1", ("Bad Name: 1",)),
        ("GET http://plain.example/ HTTP/1.1", ("X: a\nInjected: 1",)),
        ("GET http://plain.example/ HTTP/1.1", ("X: a\rInjected: 1",)),
        ("GET http://plain.example/ HTTP/1.1", ("X: \x00",)),
        ("GET http://plain.example/ HTTP/1.1", ("X: \xff",)),
        ("GET http://plain.example/ HTTP/1.1", ("X: 1",) * 100),
        ("GET http://plain.example/ HTTP/1.1", ("X: " + "a" * MAX_HEAD_BYTES,)),
        ("connect index.example:443 HTTP/1.1", ()),
    ],
)
def test_what_is_unsound_is_refused(line: str, fields: tuple[str, ...]) -> None:
    assert status(asked(line, *fields)) in (400, 405)


def test_what_a_node_is_told() -> None:
    head, _, body = settings(INDEX).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == {
        "index": list(INDEX.urls),
        "trusted": ["plain.example"],
        "certificates": "PEM",
    }


def sound(answer: object) -> None:
    match answer:
        case Tunnel(to=to):
            assert to in INDEX.open
            assert to not in INDEX.plain
        case Fetch(to=to, head=head):
            assert to in INDEX.open
            assert head.endswith(b"\r\nConnection: close\r\n\r\n")
            assert head.count(b"\r\n\r\n") == 1
            assert b"\n" not in head.replace(b"\r\n", b"")
            assert b"\r" not in head.replace(b"\r\n", b"")
            assert KEY.encode() not in head
            names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
            assert names.count(b"host") == 1
            assert b"proxy-authorization" not in names
        case Refused() as refused:
            assert refused.reason.isprintable()
            assert refused.reason.isascii()
            assert refusal(refused).count(b"\r\n\r\n") == 1
        case _:
            assert answer == Tell()


@given(st.binary(max_size=300))
def test_whatever_comes_is_answered(data: bytes) -> None:
    sound(read_request(data, INDEX, KEY))
    sound(read_request(data + b"\r\n\r\n", INDEX, KEY))


_TARGETS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["http://plain.example", "http://plain.example:8080/", "index.example:443", "/", "http://"]
    ),
    st.builds("http://plain.example{}".format, st.text(max_size=30)),
    st.builds("http://{}plain.example/".format, st.text(max_size=10)),
)
_FIELDS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.builds("{}: {}".format, st.sampled_from(["Host", "Connection", "X", "TE"]), st.text(max_size=20)),
    ),
    max_size=4,
)


@given(st.sampled_from(["GET", "HEAD", "CONNECT", "POST", "get"]), _TARGETS, _FIELDS)
def test_whatever_a_member_asks_for_leads_to_open_hosts_alone(
    method: str, target: str, fields: list[str]
) -> None:
    sound(asked(f"{method} {target} HTTP/1.1", *fields))
