"""Which of a borrower's package indexes workers are told of, and which hosts that opens to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.ray_bridge.package_index import (
    DEFAULT_INDEX,
    MAX_URLS,
    IndexWanted,
    PackageIndex,
    PipSettings,
    endpoint,
    endpoint_text,
    index_wanted,
    is_public,
    package_index,
    read_endpoint,
)

OWN = "https://index.example/simple"


def pip(**config: str) -> PipSettings:
    named = {key.replace("__", ".").replace("_", "-"): value for key, value in config.items()}
    return PipSettings(OWN, "files.example", named, "PEM")


def told(**config: str) -> PackageIndex:
    return package_index(pip(**config), DEFAULT_INDEX)


def test_what_pip_uses_by_itself() -> None:
    found = told()
    assert found == PackageIndex(
        (OWN,), (), "PEM", (("files.example", 443), ("index.example", 443)), named=(), left_out=()
    )


def test_what_pip_is_configured_with_its_environment_counting_most() -> None:
    found = package_index(
        PipSettings(
            OWN,
            "files.example",
            {
                "global.index-url": "https://global.example/simple",
                "install.index-url": "http://Mine.example:8080/simple",
                "global.extra-index-url": "https://more.example/a\n  https://[2001:DB8::1]:444/b",
                ":env:.trusted-host": "mine.example other.example",
            },
        ),
        DEFAULT_INDEX,
    )
    assert found.urls == (
        "http://Mine.example:8080/simple",
        "https://more.example/a",
        "https://[2001:DB8::1]:444/b",
    )
    assert found.trusted == ("mine.example", "other.example")
    assert found.open == (
        ("2001:db8::1", 444),
        ("files.example", 443),
        ("mine.example", 8080),
        ("more.example", 443),
    )


def test_the_environment_overrides_a_file() -> None:
    assert told(
        global__index_url="https://a.example/", **{":env:__index_url": "https://b.example/"}
    ).urls == ("https://b.example/",)


def test_local_ones_are_left_out_without_a_word() -> None:
    found = told(global__extra_index_url="file:///opt/simple /opt/more", global__find_links="/opt/wheels")
    assert found.urls == (OWN,)
    assert found.left_out == ()


def test_nothing_takes_the_place_of_a_main_index_that_is_left_out() -> None:
    assert told(global__index_url="file:///opt/simple") == PackageIndex()
    only_more = told(
        global__index_url="file:///opt/simple", global__extra_index_url="https://more.example/simple"
    )
    assert only_more.urls == ("https://more.example/simple",)
    assert told(global__no_index="true") == PackageIndex()


def test_a_password_is_never_handed_over_silently() -> None:
    found = told(
        global__index_url="https://me:secret@private.example/simple",
        global__extra_index_url="https://token@more.example/simple https://open.example/simple",
    )
    assert found.urls == ("https://open.example/simple",)
    assert found.open == (("files.example", 443), ("open.example", 443))
    assert len(found.left_out) == 2
    assert "https://private.example/simple takes a password" in found.left_out[0]
    assert "secret" not in repr(found)
    assert "token" not in repr(found)


def test_what_the_borrower_names_counts_alone_and_as_it_is() -> None:
    wanted = index_wanted("https://me:known@private.example/simple", ["cdn.example", "other.example:8443"])
    found = package_index(pip(global__extra_index_url="https://more.example/"), wanted)
    assert found.urls == ("https://me:known@private.example/simple",)
    assert found.open == (
        ("cdn.example", 443),
        ("files.example", 443),
        ("other.example", 8443),
        ("private.example", 443),
    )
    assert set(found.named) == set(found.open) - {("files.example", 443)}
    assert package_index(pip(), index_wanted((), ())) == PackageIndex()


def test_only_what_is_asked_by_http_alone_is_plain() -> None:
    urls = ["http://a.example:81/", "http://b.example:82/", "https://b.example:82/", "http://c.example/"]
    found = package_index(pip(), index_wanted(urls, ["c.example:80"]))
    assert found.plain == (("a.example", 81),)
    assert told().plain == ()


def test_without_pip_there_is_an_index_only_where_one_is_named() -> None:
    found = package_index(PipSettings(), DEFAULT_INDEX)
    assert (found.urls, found.open) == ((), ())
    assert "--index" in found.left_out[0]
    assert package_index(PipSettings(), IndexWanted((OWN,))).open == (("index.example", 443),)


def test_the_number_of_indexes_is_bounded() -> None:
    many = " ".join(f"https://i{number}.example/" for number in range(100))
    assert len(told(global__extra_index_url=many).urls) == MAX_URLS
    with pytest.raises(UsageError, match="the most"):
        index_wanted(many.split(), ())


@pytest.mark.parametrize(
    ("urls", "hosts"),
    [
        ("ftp://index.example/", ()),
        ("index.example", ()),
        ("https:///simple", ()),
        ("https://index.example:0/", ()),
        ("https://index.example:70000/", ()),
        ("https://index.example/a b", ()),
        ("https://in\ndex.example/", ()),
        ("https://index.example\\@else.example/", ()),
        (7, ()),
        ([b"https://index.example/"], ()),
        (None, "https://host.example"),
        (None, ["host.example:"]),
        (None, ["a:b:c"]),
        (None, 3),
    ],
)
def test_what_is_no_index_is_refused(urls: object, hosts: object) -> None:
    with pytest.raises(UsageError, match="Nothing was started"):
        index_wanted(urls, hosts)


def test_an_error_does_not_repeat_a_password() -> None:
    with pytest.raises(UsageError) as problem:
        index_wanted("https://me:secret@index.example:0/simple", ())
    assert "secret" not in str(problem.value)


@given(st.text(max_size=80), st.sampled_from(["", "https://", "http://", "https://[", "http://a@"]))
def test_an_address_is_a_sound_endpoint_or_a_value_error(text: str, before: str) -> None:
    try:
        host, port = endpoint(before + text)
    except ValueError:
        return
    assert 0 < port < 65536
    assert host.isascii()
    assert host == host.lower()
    assert not set(host) & set(" /@?#[]\r\n\\")
    assert read_endpoint(endpoint_text((host, port))) == (host, port)


@given(
    st.dictionaries(st.sampled_from(["index-url", "extra-index-url", "trusted-host", "no-index"]), st.text())
)
def test_whatever_a_configuration_holds_only_its_hosts_are_open(config: dict[str, str]) -> None:
    found = package_index(pip(**{f"global__{name}": value for name, value in config.items()}), DEFAULT_INDEX)
    assert set(found.open) <= {endpoint(url) for url in found.urls} | {("files.example", 443)}
    assert bool(found.open) == bool(found.urls)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.9", "172.31.0.1", "100.64.0.1", "169.254.169.254", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::", "::1", "fd00::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "::10.0.0.1", "name", ""),
    ],
)
def test_an_address_of_ones_own(address: str) -> None:
    assert not is_public(address)
