"""multistream-select 1.0: two sides agree on a protocol (libp2p's connections spec, "Protocol Negotiation").

`Proposal` is the side that opened, `Choice` the other; both without I/O. A proposal goes out together with the
header, so that agreeing takes one round trip, and what belongs to the protocol itself is never swallowed:
`rest` holds the bytes that came after the agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ..errors import BadMessage, ProtocolUnsupported, SwarmError
from .framing import decode_uvarint, encode_uvarint

_HEADER: Final = "/multistream/1.0.0"
_REFUSAL: Final = "na"
_MAX_LINE_BYTES: Final = 1024
_MAX_PROPOSALS: Final = 64


class NegotiationEnded(SwarmError):
    """The other side closed the stream, or the connection, before a protocol was agreed on."""


def _line(text: str) -> bytes:
    raw = text.encode() + b"\n"
    return encode_uvarint(len(raw)) + raw


class _Lines:
    """Cuts incoming bytes into lines, one at a time."""

    def __init__(self) -> None:
        self.rest = b""
        self._first = True

    def next(self) -> str | None:
        """The next line, or None when more bytes are needed; raises BadMessage."""
        header = decode_uvarint(self.rest)
        if header is None:
            return None
        length, start = header
        if not 1 <= length <= _MAX_LINE_BYTES:
            raise BadMessage(f"negotiation line of {length} bytes")
        if self._first and length != len(_HEADER) + 1:
            # It is another protocol, or of another private swarm: to wait for the rest would be to wait for nothing.
            raise BadMessage(f"negotiation begins with {length} bytes that are no header")
        self._first = False
        if len(self.rest) < start + length:
            return None
        raw, self.rest = self.rest[start : start + length], self.rest[start + length :]
        if raw[-1:] != b"\n":
            raise BadMessage("negotiation line without an end")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise BadMessage("negotiation line that is no text") from None


class Proposal:
    """The side that opened. chosen: what was agreed on, None until then. refused: nothing was."""

    def __init__(self, protocols: Sequence[str]) -> None:
        self._protocols = list(protocols)
        self._lines = _Lines()
        self._greeted = False
        self.chosen: str | None = None
        self.refused = False

    @property
    def rest(self) -> bytes:
        """Bytes that came after the agreement."""
        return self._lines.rest

    def begin(self) -> bytes:
        """What to send first."""
        return _line(_HEADER) + _line(self._protocols[0])

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes; returns what to send. Raises BadMessage."""
        self._lines.rest += chunk
        out = b""
        while self.chosen is None and not self.refused:
            text = self._lines.next()
            if text is None:
                break
            if not self._greeted:
                if text != _HEADER:
                    raise BadMessage(f"negotiation began with {text[:40]!r}")
                self._greeted = True
            elif text == self._protocols[0]:
                self.chosen = text
            elif text == _REFUSAL:
                del self._protocols[0]
                if self._protocols:
                    out += _line(self._protocols[0])
                else:
                    self.refused = True
            else:
                raise BadMessage(f"negotiation answered with {text[:40]!r}")
        return out


class Choice:
    """The side that was asked. supported: whether a protocol id is served here."""

    def __init__(self, supported: Callable[[str], bool]) -> None:
        self._supported = supported
        self._lines = _Lines()
        self._greeted = False
        self._proposals = 0
        self.chosen: str | None = None

    @property
    def rest(self) -> bytes:
        """Bytes that came after the agreement."""
        return self._lines.rest

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes; returns what to send. Raises BadMessage, also after 64 proposals."""
        self._lines.rest += chunk
        out = b""
        while self.chosen is None:
            text = self._lines.next()
            if text is None:
                break
            if not self._greeted:
                if text != _HEADER:
                    raise BadMessage(f"negotiation began with {text[:40]!r}")
                self._greeted = True
                out += _line(_HEADER)
            elif self._supported(text):
                self.chosen = text
                out += _line(text)
            else:
                self._proposals += 1
                if self._proposals >= _MAX_PROPOSALS:
                    raise BadMessage(f"negotiation proposed {_MAX_PROPOSALS} protocols that nobody serves")
                out += _line(_REFUSAL)
        return out


class Channel(Protocol):
    """What a protocol can be agreed on over."""

    async def read(self) -> bytes:
        """The next bytes, or b"" at the end."""
        ...

    def push(self, data: bytes) -> None:
        """Queue bytes; never blocks."""
        ...

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        ...


async def propose(channel: Channel, protocols: Sequence[str]) -> str:
    """Agree on the first of these that the other side serves. Raises ProtocolUnsupported,
    BadMessage, NegotiationEnded."""
    return await conclude(channel, begin(channel, protocols))


def begin(channel: Channel, protocols: Sequence[str]) -> Proposal:
    """Send a proposal. When it holds one protocol only, that protocol's first bytes may follow at once: they
    are understood when it is agreed on, and lost with the stream when not."""
    proposal = Proposal(protocols)
    channel.push(proposal.begin())
    return proposal


async def conclude(channel: Channel, proposal: Proposal) -> str:
    """Wait for the answers to a proposal. Raises ProtocolUnsupported,
    BadMessage, NegotiationEnded."""
    while proposal.chosen is None:
        chunk = await channel.read()
        if not chunk:
            raise NegotiationEnded("the other side ended the negotiation")
        out = proposal.feed(chunk)
        if out:
            channel.push(out)
        if proposal.refused:
            raise ProtocolUnsupported("the other side speaks none of the protocols that were proposed")
    if proposal.rest:
        channel.unread(proposal.rest)
    return proposal.chosen


async def choose(channel: Channel, supported: Callable[[str], bool]) -> str:
    """Agree on what the other side proposes and is served here. Raises BadMessage,
    NegotiationEnded."""
    choice = Choice(supported)
    while choice.chosen is None:
        chunk = await channel.read()
        if not chunk:
            raise NegotiationEnded("the other side ended the negotiation")
        out = choice.feed(chunk)
        if out:
            channel.push(out)
    if choice.rest:
        channel.unread(choice.rest)
    return choice.chosen
