from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing

from swarmp2p.engine import NetworkEvent
from swarmp2p.errors import UsageError
from swarmp2p.identity import Identity
from swarmp2p.opening import open_peer
from swarmp2p.scopes import start
from swarmp2p.transport import host as host_module
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.config import HostConfig
from swarmp2p.transport.host import Host
from swarmp2p.transport.own_addresses import OwnAddresses
from swarmp2p.transport.upnp import LEASE_S, Mapped, RouterError, UpnpRouter
from tests.transport.igd import Igd, router
from tests.transport.toy import TOYS

BOUND = [("0.0.0.0", 4001), ("::", 4002)]


class Fake:
    """A router of a test. wrong: what find or add raise, by name."""

    def __init__(self, public: str = "11.22.33.44", lan: str = "192.168.1.7") -> None:
        self.public, self.lan = public, lan
        self.wrong: dict[str, str] = {}
        self.mapped: dict[int, int] = {}
        self.finds = 0

    def find(self) -> tuple[str, str]:
        self.finds += 1
        self._check("find")
        return self.lan, self.public

    def add(self, outside: int, inside: int) -> None:
        self._check("add")
        self.mapped[outside] = inside

    def remove(self, outside: int) -> None:
        self._check("remove")
        del self.mapped[outside]

    def _check(self, name: str) -> None:
        if name in self.wrong:
            raise RouterError(self.wrong[name])


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours
            await trio.sleep(0.01)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a thread runs in place: a clock that jumps does not wait for threads."""

    async def run_sync(call: Callable[[], object], abandon_on_cancel: bool = False) -> object:
        await trio.lowlevel.checkpoint()
        return call()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@pytest.mark.usefixtures("at_once")
async def test_a_port_is_told_as_an_address_renewed_and_given_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    own, fake = OwnAddresses([to_multiaddr("192.168.1.7", 4001)]), Fake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Mapped(BOUND, own, lambda: fake).run)
        await until(lambda: bool(fake.mapped))
        await trio.sleep(1)
        assert own.all[0] == to_multiaddr("11.22.33.44", 4001), "public ones first"
        assert fake.mapped == {4001: 4001}, "nothing for the listener of another IP version"
        fake.public = "11.22.33.55"  # a new day, a new address
        await trio.sleep(LEASE_S / 2)
        assert fake.finds == 2
        assert own.all[0] == to_multiaddr("11.22.33.55", 4001)
        nursery.cancel_scope.cancel()
    assert fake.mapped == {}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"find": "no device"}, "no device"),
        ({"add": "NotAuthorized"}, "NotAuthorized"),
        ({"public": "10.1.1.1"}, "another NAT"),
        ({"public": ""}, "another NAT"),
        ({"public": "<script>"}, "another NAT"),
        ({"lan": "10.9.9.9", "bound": "192.168.1.7"}, "does not listen on 10.9.9.9"),
    ],
)
async def test_what_goes_wrong_is_said_once_and_tried_again(
    change: dict[str, str],
    words: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    fake = Fake(change.get("public", "11.22.33.44"), change.get("lan", "192.168.1.7"))
    fake.wrong = {name: change[name] for name in ("find", "add") if name in change}
    own = OwnAddresses([])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Mapped([(change.get("bound", "0.0.0.0"), 4001)], own, lambda: fake).run)
        await trio.sleep(1000)
        assert fake.finds > 3
        assert not own.all
        assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
        assert words in caplog.text
        assert "leave upnp out" in caplog.text
        fake.wrong.clear()
        fake.public, fake.lan = "11.22.33.44", "192.168.1.7"
        await trio.sleep(200)
        assert list(own.all) == [to_multiaddr("11.22.33.44", 4001)]
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("at_once")
async def test_a_router_that_keeps_the_port_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    fake = Fake()
    fake.wrong["remove"] = "no"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Mapped(BOUND, OwnAddresses([]), lambda: fake).run)
        await until(lambda: bool(fake.mapped))
        nursery.cancel_scope.cancel()


def found(igd: Igd) -> UpnpRouter:
    real = UpnpRouter(igd.location)
    assert real.find() == ("127.0.0.1", igd.public)
    return real


def test_a_real_conversation() -> None:
    with router() as igd:
        real = found(igd)
        real.add(5001, 4001)
        assert igd.mapped == {5001: (4001, LEASE_S)}
        real.remove(5001)
        assert igd.mapped == {}
        with pytest.raises(RouterError):
            real.remove(5001)
        igd.taken.add(5001)
        with pytest.raises(RouterError, match="Conflict"):
            real.add(5001, 4001)


def test_a_router_that_knows_permanent_mappings_only_gives_those() -> None:
    with router() as igd:
        igd.permanent = True
        found(igd).add(5001, 4001)
        assert igd.mapped == {5001: (4001, 0)}


def test_where_no_router_answers_the_error_says_so() -> None:
    with pytest.raises(RouterError, match=r"UPnP|HTTP"):
        UpnpRouter("http://127.0.0.1:1/none").find()


async def test_a_host_tells_its_public_address_and_gives_the_port_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with router() as igd:
        monkeypatch.setattr(host_module, "UpnpRouter", partial(UpnpRouter, igd.location))
        host = Host(Identity.generate(), ["/ip4/127.0.0.1/tcp/0"], TOYS, HostConfig(upnp=True))
        events: list[NetworkEvent] = []
        async with trio.open_nursery() as nursery:
            await start(nursery, host.run, events.append)
            own = host.addresses[0]
            port = int.from_bytes(own[-2:], "big")
            igd.taken.add(
                port
            )  # it may have been mapped already: then nothing is asked for again in this test
            await until(lambda: len(host.addresses) == 2)
            (outside,) = igd.mapped
            assert igd.mapped[outside][0] == port
            assert host.addresses[0] == to_multiaddr("11.22.33.44", outside)
            nursery.cancel_scope.cancel()
        assert igd.mapped == {}


async def test_a_peer_is_asked_for_it_by_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    with router() as igd:
        monkeypatch.setattr(host_module, "UpnpRouter", partial(UpnpRouter, igd.location))
        async with open_peer(upnp=True) as peer:
            await until(lambda: any("11.22.33.44" in str(address) for address in peer.addresses))
    with pytest.raises(UsageError, match="upnp is True or False"):
        async with open_peer(upnp="yes"):  # type: ignore[arg-type]
            pass
