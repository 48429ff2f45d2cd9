"""Streams that other peers open: which protocol they are for, and who serves it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio

from ..engine import Address
from ..errors import BadMessage, UsageError
from ..wire import WireProtocol
from . import autonat
from .circuit_wire import HOP_ID, PUNCH_ID, STOP_ID
from .config import HostConfig
from .identify import PROTOCOL_ID as IDENTIFY_ID
from .identify import PUSH_ID, Introduction
from .multistream import NegotiationEnded, choose
from .muxer import MuxedStream
from .network import StreamHandler
from .own_addresses import OwnAddresses
from .peers import Peers
from .replies import Desk
from .streams import Libp2pStream
from .swarm import LibP2P

OWN_IDS: Final = (IDENTIFY_ID, PUSH_ID, autonat.PROTOCOL_ID, HOP_ID, STOP_ID, PUNCH_ID)
"""Protocols that the host serves by itself."""

_log = logging.getLogger(__name__)


class Service(Protocol):
    """What the host does for others, besides saying who it is."""

    @property
    def serving(self) -> bool:
        """Whether it does now."""
        ...

    async def serve(self, stream: MuxedStream) -> None:
        """Serve one stream. Raises BadMessage, trio.BrokenResourceError, trio.TooSlowError."""
        ...


class Handlers:
    """Who serves which protocol: the engines and embedders' handlers. It outlives a host's runs."""

    def __init__(self, protocols: Sequence[WireProtocol]) -> None:
        self.protocols = tuple(protocols)
        self.engines = {one: protocol for protocol in protocols for one in protocol.ids}
        self.embedders: dict[str, StreamHandler] = {}

    def add(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol; raises UsageError when the host does."""
        own = [one for wire in self.protocols for one in wire.ids]
        if protocol in (*own, *OWN_IDS):
            raise UsageError(
                f"{protocol} is served by the host itself; choose another id. Nothing was changed"
            )
        self.embedders[protocol] = handler

    def serve(self, name: str, serving: bool) -> None:
        """Serve a protocol of the engines, or do not."""
        for protocol in self.protocols:
            if protocol.name == name:
                for one in protocol.ids:
                    self.engines.pop(one, None)
                    if serving:
                        self.engines[one] = protocol

    def remove(self, protocol: str) -> None:
        """Stop serving a protocol."""
        self.embedders.pop(protocol, None)


class Reception:
    """Takes the streams that come in while a host runs. record: signs a peer record of these addresses."""

    def __init__(
        self,
        handlers: Handlers,
        libp2p: LibP2P,
        peers: Peers,
        desk: Desk,
        services: Mapping[str, Service],
        config: HostConfig,
        own: OwnAddresses,
        record: Callable[[Sequence[Address]], bytes],
        nursery: trio.Nursery,
    ) -> None:
        self._handlers, self._libp2p, self._peers, self._desk = handlers, libp2p, peers, desk
        self._config, self._own, self._nursery = config, own, nursery
        self._seal = record
        self._recorded: tuple[Address, ...] = own.all
        self._record = record(own.all)
        self.services = services
        self._introduction = self._introduce()

    def changed(self) -> None:
        """The handlers, or our addresses, changed: say so to who asks next."""
        self._introduction = self._introduce()

    @property
    def introduction(self) -> Introduction:
        """What we say of ourselves now."""
        return self._introduction

    def take(self, stream: MuxedStream) -> None:
        """A stream was opened."""
        self._nursery.start_soon(self._talk, stream)

    async def _talk(self, stream: MuxedStream) -> None:
        """Agree on the protocol, and hand the stream to whom it concerns."""
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                stream.protocol = await choose(stream, self._serves)
            await self._hand_over(stream)
        except (BadMessage, NegotiationEnded, trio.BrokenResourceError, trio.TooSlowError) as problem:
            stream.reset()
            if isinstance(problem, BadMessage):
                self._peers.punish(stream.peer, str(problem))

    def _serves(self, protocol: str) -> bool:
        return (
            protocol in self._handlers.engines
            or protocol in self._handlers.embedders
            or protocol in self._own_ids()
            or self._libp2p.serves(protocol)
        )

    async def _hand_over(self, stream: MuxedStream) -> None:
        protocol = self._handlers.engines.get(stream.protocol)
        handler = self._handlers.embedders.get(stream.protocol)
        if stream.protocol == IDENTIFY_ID:
            self._introduction.answer(stream)
            return
        service = self.services.get(stream.protocol)
        if service is not None:
            await service.serve(stream)
            return
        if protocol is None and handler is None and stream.protocol != PUSH_ID:
            await self._serve_for_libp2p(stream)
            return
        session = await self._peers.ready(stream.peer)
        if session is None or session.nursery is None:
            stream.reset()
        elif protocol is not None:
            session.nursery.start_soon(session.serve, protocol, stream, self._desk)
        elif handler is None:
            self._peers.take_push(session, stream)
        else:
            session.nursery.start_soon(_serve, handler, Libp2pStream(stream))

    async def _serve_for_libp2p(self, stream: MuxedStream) -> None:
        try:
            await self._libp2p.serve(stream, stream.protocol)
        except Exception as problem:  # noqa: BLE001 - py-libp2p's services raise what they meet
            _log.debug("py-libp2p's %s: %s", stream.protocol, problem)
            stream.reset()

    def _own_ids(self) -> list[str]:
        """What the host serves by itself now."""
        return [IDENTIFY_ID, PUSH_ID, *(one for one, service in self.services.items() if service.serving)]

    def _introduce(self) -> Introduction:
        handlers, addresses = self._handlers, self._own.all
        if addresses != self._recorded:
            self._recorded, self._record = addresses, self._seal(addresses)
        served = [*handlers.engines, *handlers.embedders, *self._own_ids(), *self._libp2p.services()]
        key = self._libp2p.keys.public_key.serialize()
        return Introduction(key, self._config.agent, addresses, served, self._record)


async def _serve(handler: StreamHandler, stream: Libp2pStream) -> None:
    """Run an embedder's handler; what it raises ends its own stream and nothing else."""
    try:
        await handler(stream)
        await stream.aclose()
    except trio.BrokenResourceError:
        _log.debug("the other side reset a stream of %s", stream.protocol)
    except Exception:  # noqa: BLE001 - an embedder's bug, whatever it is
        _log.exception("the handler of %s raised; its stream to %s was reset", stream.protocol, stream.peer)
    finally:
        stream.reset()  # nothing happens when it was closed
