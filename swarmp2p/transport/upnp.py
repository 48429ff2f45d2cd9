"""UPnP: asks the router for its ports, so that a peer behind it can be dialled (UPnP IGD's AddPortMapping).

Only for who wants it (`open_peer(upnp=True)`): the router is found by multicast in the local network, and whoever
answers there says what our public address is. That is told to others, who will find out by dialling it whether it is
true. Nothing that goes wrong here ends the peer: it is logged once, with what may help.

Mappings are asked for an hour and renewed after half of that, so that they go by themselves when this peer is killed;
some routers know only permanent ones, and get those. In good order they are taken back. miniupnpc, which py-libp2p
brings, speaks to the router; its calls block, so that they run in a thread.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

import trio

from ..engine import Address
from ..scopes import cancel_scope
from .addresses import to_multiaddr
from .own_addresses import Origin, OwnAddresses
from .reachability import Scope, scope_of

LEASE_S: Final = 3600
_RENEW_S: Final = LEASE_S / 2
_RETRY_S: Final = 120.0  # after there was no router, or it did not want to
_DISCOVER_MS: Final = 2000
_REMOVE_S: Final = 5.0  # for all mappings, when the peer ends
_NAME: Final = "swarmp2p"
_OTHER_PORTS: Final = 3  # that are tried outside when the own one is somebody else's

_log = logging.getLogger(__name__)


class RouterError(Exception):
    """The router cannot be found, or did not do what it was asked for."""


class Router(Protocol):
    """What is asked of a router. All of it blocks, and raises RouterError."""

    def find(self) -> tuple[str, str]:
        """(own address in its network, its public address)."""
        ...

    def add(self, outside: int, inside: int) -> None:
        """Have a TCP port of the router lead to one of ours."""
        ...

    def remove(self, outside: int) -> None:
        """Take that back."""
        ...


@contextmanager
def _asking() -> Generator[None, None, None]:
    """miniupnpc raises bare Exception; here that is a RouterError."""
    try:
        yield
    except Exception as problem:  # noqa: BLE001 - see above
        raise RouterError(str(problem) or type(problem).__name__) from None


class UpnpRouter:
    """A router by miniupnpc. location: the URL of its description; None to look for it by multicast."""

    def __init__(self, location: str | None = None) -> None:
        self._location = location
        self._upnp: Any = None
        self._lan = ""

    def find(self) -> tuple[str, str]:
        """See Router."""
        upnp: Any = importlib.import_module("miniupnpc").UPnP()
        upnp.discoverdelay = _DISCOVER_MS
        with _asking():
            if self._location is None:
                upnp.discover()
                upnp.selectigd()
            else:
                upnp.selectigd(self._location)
            self._lan, public = str(upnp.lanaddr), str(upnp.externalipaddress())
        self._upnp = upnp
        return self._lan, public

    def add(self, outside: int, inside: int) -> None:
        """See Router."""
        try:
            self._add(outside, inside, LEASE_S)
        except RouterError as problem:
            if "OnlyPermanentLeasesSupported" not in str(problem):
                raise
            self._add(outside, inside, 0)

    def _add(self, outside: int, inside: int, lasts_s: int) -> None:
        """lasts_s: 0 for a permanent mapping."""
        with _asking():
            self._upnp.addportmapping(outside, "TCP", self._lan, inside, _NAME, "", lasts_s)

    def remove(self, outside: int) -> None:
        """See Router."""
        with _asking():
            self._upnp.deleteportmapping(outside, "TCP")


class Mapped:
    """The ports of one running host at its router.

    bound: (ip, port) of its listeners. make: a Router. own: is told the public addresses.
    """

    def __init__(
        self, bound: Sequence[tuple[str, int]], own: OwnAddresses, make: Callable[[], Router]
    ) -> None:
        self._bound, self._own, self._make = tuple(bound), own, make
        self._router: Router | None = None
        self._outside: dict[int, int] = {}  # our port: the router's
        self._addresses: tuple[Address, ...] = ()
        self._told = ""

    async def run(self) -> None:
        """Ask, and renew, until cancelled; then take back what was got."""
        try:
            while True:
                try:
                    await trio.to_thread.run_sync(self._map)
                    wait_s = _RENEW_S
                    self._told = ""
                except RouterError as problem:
                    wait_s = _RETRY_S
                    self._warn(str(problem))
                self._own.set(Origin.MAPPED, self._addresses)
                await trio.sleep(wait_s)
        finally:
            with cancel_scope(shield=True), trio.move_on_after(_REMOVE_S):
                run_sync = cast(Any, trio.to_thread.run_sync)  # trio-stubs are older than this keyword
                await run_sync(self._unmap, abandon_on_cancel=True)

    def _map(self) -> None:
        """In a thread. Raises RouterError; what could be got before stays."""
        self._addresses = ()
        router = self._make()
        lan, public = router.find()
        if scope_of(public) is not Scope.GLOBAL:
            raise RouterError(
                f"the router's own address, {public or 'none'}, is not a public one: there is another NAT behind it"
            )
        ports = [port for host, port in self._bound if _hears(host, lan)]
        if not ports:
            raise RouterError(
                f"this peer does not listen on {lan}, which is its address in the router's network"
            )
        self._router = router
        for port in ports:
            self._outside[port] = self._add(router, port)
            self._addresses += (to_multiaddr(public, self._outside[port]),)

    def _add(self, router: Router, port: int) -> int:
        first = self._outside.get(port, port)
        problem = RouterError("no port")
        for offset in range(1 + _OTHER_PORTS):
            outside = (
                1024 + (first - 1024 + offset * 7919) % 64_512
            )  # far from each other: neighbours are used too
            try:
                router.add(outside, port)
                return outside
            except RouterError as this:
                problem = this
        raise problem

    def _unmap(self) -> None:
        for outside in self._outside.values():
            try:
                if self._router is not None:
                    self._router.remove(outside)
            except RouterError as problem:
                _log.info("the router keeps port %d until its time is over: %s", outside, problem)

    def _warn(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            _log.warning(
                "no port of a router leads to this peer: %s; switch UPnP on in the router, or have it forward the "
                "port, or leave upnp out: without it the peer is reached through relays",
                problem,
            )


def _hears(host: str, lan: str) -> bool:
    """Whether a listener hears what comes to an address of this machine."""
    try:
        ip, at = ipaddress.ip_address(host), ipaddress.ip_address(lan)
    except ValueError:
        return False
    return ip.version == at.version and (ip.is_unspecified or ip == at)
