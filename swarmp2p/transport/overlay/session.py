"""The session of two members: sealed channels over one carrier connection after the other. Pure.

    WAITING --a carrier connection proves itself--> UP --it breaks--> WAITING ... --silence, or broken rules--> over

Whoever runs it gives it byte streams, one at a time on the initiator's side (the responder's may overlap: see
`carrier`), and moves bytes. It gets events, and answers: local connections become channels by `open`, their
bytes go in by `send` as far as there is `room`, and what comes out as `Data` is given credit for by `consumed`.

    carrier = session.attach(now)                       a stream stands
    events = carrier.received(n, now)                   after reading n bytes into carrier.buffer()
    buffers = carrier.outgoing(most, now)               after everything, when the stream can be written
    session.detach(carrier, now)                        the stream broke
    events = session.tick(now)                          at session.deadline(); then carrier.outgoing
    numbers = session.roomy()                           after received and outgoing: who may send again

Every byte of a channel arrives once and in order, over however many carrier connections, or the channel ends on
both sides: with `Reset`, or with the session. The session ends when the partner was silent for longer than
`SessionConfig` says (`heart`), when no carrier connection came up in time, or when the partner, proven, broke
the protocol; `Ended` is then the last event, and everything after it does nothing.

Anybody may write to a stream. What is not the partner's ends that stream and changes nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import frames
from .carrier import Carrier, CarrierState
from .channels import Channel, Windows
from .config import SessionConfig
from .crypto import Chain, Greeting
from .events import Data, Dropped, Ended, Established, Event, Finished, Opened, Reset
from .faults import Broken, Untrue
from .heart import Pulse
from .records import COUNTED, FRAMES_AT, Record
from .sending import Sending

if TYPE_CHECKING:
    from random import Random

# What is received before it is acknowledged, unless something else is sent, or the next heartbeat.
_ACKNOWLEDGE_BYTES = 1 << 20
_NUMBER_MOST = (1 << 32) - 3


class Session:
    """One member's side. initiator: it dials. rng: `random.SystemRandom()`, except in tests and simulations.

    tag: the first 16 bytes that the initiator sends on each stream; they name the session to the responder.
    over: `Ended` was or will be told.
    """

    def __init__(
        self, secret: bytes, initiator: bool, now: float, rng: Random, config: SessionConfig | None = None
    ) -> None:
        self.config = config = config or SessionConfig()
        self._initiator = initiator
        self._rng = rng
        self._chain = Chain(secret)
        self.tag = self._chain.tag
        self.over = False
        self._now = now
        self._fails_at = now + config.establish_s
        self._established = False
        self._pulse = Pulse(now, config)
        self._heart_wanted = False
        self._carriers: dict[int, Carrier] = {}
        self._present: Carrier | None = None
        self._carriers_made = 0
        self._channels: dict[int, Channel] = {}
        self._own_last = -1 if initiator else 0
        self._their_last = 0 if initiator else -1
        self._windows = Windows(config)
        self._sending = Sending(config)
        self._received = 0
        self._unsaid_bytes = 0
        self._events: list[Event] = []

    # Carrier connections.

    def attach(self, now: float) -> Carrier:
        """A byte stream to the partner stands; the initiator gives up those before, which it has to close."""
        self._run(now)
        greeting = None
        if self._initiator and not self.over:
            for other in list(self._carriers.values()):
                self._drop(other, "another carrier connection takes its place")
            greeting = Greeting(self._chain, self._rng, self.config.aes)
        else:
            unproven = [other for other in self._carriers.values() if other.state is CarrierState.GREETING]
            if len(unproven) >= self.config.unproven_most:
                self._drop(unproven[0], "too many carrier connections prove nothing")
        self._carriers_made += 1
        carrier = Carrier(self, self._carriers_made, greeting, now)
        if self.over:
            carrier.close()
        else:
            self._carriers[carrier.number] = carrier
        return carrier

    def detach(self, carrier: Carrier, now: float) -> None:
        """The stream broke or was closed. What was on its way goes out again on the next."""
        self._run(now)
        self._forget(carrier)

    def _forget(self, carrier: Carrier) -> None:
        carrier.close()
        self._carriers.pop(carrier.number, None)
        if self._present is carrier:
            self._present = None

    def _drop(self, carrier: Carrier, reason: str) -> None:
        self._forget(carrier)
        self._events.append(Dropped(carrier, reason))

    # Time.

    def deadline(self) -> float:
        """When `tick` is wanted next, in seconds; infinite when the session is over."""
        if self._events:
            return self._now
        if self.over:
            return math.inf
        due = min(self._pulse.due, self._pulse.silent_at) if self._established else self._fails_at
        for carrier in self._carriers.values():
            if carrier is not self._present:
                due = min(due, carrier.since + self.config.handshake_s)
        return due

    def tick(self, now: float) -> list[Event]:
        """Time has moved on. An early one does nothing."""
        self._run(now)
        if not self.over:
            if self._established:
                if now >= self._pulse.silent_at:
                    self._end(f"the partner has been silent for {self._pulse.silence_s(now):.1f} s")
                elif now >= self._pulse.due:
                    self._pulse.due = now + self.config.heartbeat_s
                    self._heart_wanted = self._present is not None
            elif now >= self._fails_at:
                self._end(f"no carrier connection proved itself within {self.config.establish_s:.0f} s")
            for carrier in list(self._carriers.values()):
                if carrier is not self._present and now >= carrier.since + self.config.handshake_s:
                    self._drop(carrier, "the carrier connection proved nothing in time")
        return self._told()

    def _run(self, now: float) -> None:
        if now != self._now:
            self._now = now
            self._pulse.ran(now)

    def _told(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        for carrier in list(self._carriers.values()):
            self._forget(carrier)
        for channel in self._channels.values():
            channel.gone = True
        self._channels.clear()
        self._sending = Sending(self.config)
        self._events.append(Ended(reason))

    # Channels, for their owner. A number that is gone is no error: the partner may have reset it meanwhile.

    def open(self, port: int, now: float) -> int | None:
        """A new channel to a port of the partner; data may follow at once. None: none can be opened now."""
        self._run(now)
        if self.over or len(self._channels) >= self.config.channels_most or self._own_last >= _NUMBER_MOST:
            return None
        self._own_last += 2
        number = self._own_last
        self._channels[number] = Channel(number, self.config.first_window_bytes, now)
        self._frame(frames.open_frame(number, port))
        return number

    def room(self, number: int) -> int:
        """How many bytes `send` takes now; if none, `roomy` names the channel when it does again."""
        channel = self._channels.get(number)
        if channel is None or channel.finish_wanted:
            return 0
        return self._sending.queues.room(channel)

    def send(self, number: int, data: bytes | memoryview) -> None:
        """Queue at most `room` bytes. They are kept, not copied: do not change them."""
        channel = self._channels.get(number)
        if channel is None or not data:
            return
        if channel.finish_wanted or len(data) > channel.credit - channel.queued:
            raise ValueError(f"channel {number} was handed {len(data)} bytes; ask room() first")
        self._sending.queues.put(channel, data)

    def send_at_once(self, carrier: Carrier, number: int, data: bytes, now: float) -> bytes | None:
        """The record that brings a short message of at most `room` bytes, when nothing else waits to be sent.

        It must be written at once. None, with nothing done, when the message has to wait for its turn: `send` it.
        """
        channel = self._channels.get(number)
        if (
            carrier is not self._present
            or channel is None
            or not self.still
            or not self._sending.passes(channel, data)
        ):
            return None
        self._run(now)
        out: list[bytes] = []
        carrier.seal(COUNTED, self._received, self._sending.message(channel, data), None, out, now)
        self._unsaid_bytes = 0
        return out[0]

    @property
    def still(self) -> bool:
        """Nothing waits: to be written to a carrier connection, to be told as an event or by `roomy`."""
        return (
            self._sending.quiet
            and not self._heart_wanted
            and self._unsaid_bytes < _ACKNOWLEDGE_BYTES
            and not self._events
            and not self._sending.queues.has_roomy
        )

    def finish(self, number: int) -> None:
        """Nothing more will be sent on the channel after what was."""
        channel = self._channels.get(number)
        if channel is not None and not channel.finish_wanted:
            channel.finish_wanted = True
            self._sending.finishing += 1
            self._sending.queues.lines.join(channel)

    def reset(self, number: int) -> None:
        """The channel's local connection is gone; what was not sent is dropped."""
        channel = self._channels.get(number)
        if channel is not None:
            self._gone(channel)
            self._frame(frames.reset_frame(number))

    def consumed(self, number: int, size: int) -> None:
        """The local connection took `size` bytes of what came as Data."""
        channel = self._channels.get(number)
        if channel is None:
            return
        if not 0 <= size <= channel.held:
            raise ValueError(
                f"channel {number} held {channel.held} bytes, of which {size} cannot be consumed"
            )
        if self._windows.consumed(channel, size):
            self._sending.credit(number, self._windows.credit(channel, self._pulse.rtt_s, self._now))
        if channel.finish_came and channel.over:
            self._gone(channel)

    @property
    def queued(self) -> int:
        """Bytes that wait in all channels and are not sealed yet."""
        return self._sending.queues.queued

    @property
    def held(self) -> int:
        """Bytes that came and that local connections have not taken."""
        return 0 if self.over else self._windows.held

    def shed(self) -> list[Event]:
        """Reset the channel that holds most of that: there is no room for it any more."""
        if self.held:
            self._shed()
        return self._told()

    @property
    def open_channels(self) -> int:
        """How many channels are open, on whichever side they were opened."""
        return len(self._channels)

    @property
    def kept_bytes(self) -> int:
        """What was sent and is not acknowledged, with an allowance for each record."""
        return self._sending.outbox.kept_bytes

    @property
    def rtt_s(self) -> float:
        """The smallest round-trip time of the last 10 to 20 s; 3 s before the first."""
        return self._pulse.rtt_s

    def roomy(self) -> list[int]:
        """Channels whose `room` was none and is some now."""
        return self._sending.queues.roomy()

    def _frame(self, frame: bytes) -> None:
        if not self._sending.frame(frame):
            self._end("the partner does not read what it makes us say")

    def _gone(self, channel: Channel) -> None:
        channel.gone = True
        if channel.finish_wanted and not channel.finish_sent:
            self._sending.finishing -= 1
        self._channels.pop(channel.number, None)
        self._windows.gone(channel)
        self._sending.queues.gone(channel)
        self._sending.forget(channel.number)

    # For carriers.

    def bytes_came(self, carrier: Carrier, now: float) -> list[Event]:
        """More bytes lie in a carrier connection's buffer."""
        self._run(now)
        try:
            if carrier.state is CarrierState.GREETING and not self._greet(carrier, now):
                return self._told()
            if carrier is self._present:
                self._pulse.bytes_came(now)
            while (record := carrier.next()) is not None:
                self._take(carrier, record, now)
        except Untrue as why:
            self._drop(carrier, str(why))
        except Broken as why:
            self._end(f"the partner broke the protocol: {why}")
        return self._told()

    def _greet(self, carrier: Carrier, now: float) -> bool:
        if self._initiator:
            return carrier.greeted(now)
        if not carrier.greet(self._chain, self._rng, self.config.aes, now):
            return False
        for other in list(self._carriers.values()):
            if other is not carrier:
                self._drop(other, "another carrier connection took its place")
        carrier.say_received(self._received, now)
        return True

    def _take(self, carrier: Carrier, record: Record, now: float) -> None:
        if carrier is not self._present:
            self._prove(carrier, record, now)
            return
        self._pulse.record_came(now)
        outbox = self._sending.outbox
        outbox.acknowledged(record.received)
        if not record.counted:
            heart = frames.parse_heart(record.control, FRAMES_AT)
            if heart is not None:
                self._pulse.heart_came(heart, now)
            return
        parsed = frames.parse(record.control, FRAMES_AT, record.body)
        self._received += 1
        self._unsaid_bytes += len(record.control) + (0 if record.body is None else len(record.body))
        for frame in parsed:
            if not self.over:
                self._follow(frame, now)

    def _prove(self, carrier: Carrier, record: Record, now: float) -> None:
        """The first record of a carrier connection opened: only the partner could seal it."""
        if record.counted or len(record.control) != FRAMES_AT or record.body is not None:
            raise Broken("a carrier connection's first record says more than what was received")
        self._sending.outbox.acknowledged(record.received)
        self._sending.outbox.restart()
        self._pulse.record_came(now)
        self._pulse.begin(now - carrier.asked_at, now)
        if self._initiator:
            carrier.say_received(self._received, now)
        self._unsaid_bytes = 0
        self._present = carrier
        carrier.state = CarrierState.PRESENT
        self._events.append(Established(carrier))
        self._established = True
        self._heart_wanted = True

    def _follow(self, frame: frames.Frame, now: float) -> None:
        number = frame.channel
        if frame.kind == frames.OPEN:
            self._opened(number, frame.number, now)
            return
        channel = self._channels.get(number)
        if channel is None:
            # Ours may be gone while frames for it were on their way.
            if number > (self._own_last if self._ours(number) else self._their_last):
                raise Broken(f"a frame for channel {number}, which nobody opened")
        elif frame.kind == frames.DATA:
            if channel.finish_came or not self._windows.came(channel, len(frame.data)):
                raise Broken(f"channel {number} sends more than it may")
            self._events.append(Data(number, frame.data))
            if self._windows.held > self.config.held_most_bytes:
                self._shed()
        elif frame.kind == frames.CREDIT:
            channel.credit += frame.number
            self._sending.queues.fed(channel)
        elif frame.kind == frames.FINISH:
            if channel.finish_came:
                raise Broken(f"channel {number} finishes twice")
            channel.finish_came = True
            self._events.append(Finished(number))
            if channel.over:
                self._gone(channel)
        else:
            self._gone(channel)
            self._events.append(Reset(number))

    def _ours(self, number: int) -> bool:
        return number % 2 == self._initiator

    def _opened(self, number: int, port: int, now: float) -> None:
        if number != self._their_last + 2:
            raise Broken(f"channel {number} is opened after {self._their_last}")
        self._their_last = number
        if len(self._channels) >= self.config.channels_most:
            self._frame(frames.reset_frame(number))
            return
        self._channels[number] = Channel(number, self.config.first_window_bytes, now)
        self._events.append(Opened(number, port))

    def _shed(self) -> None:
        most = max(self._channels.values(), key=lambda channel: channel.held)
        self.reset(most.number)
        self._events.append(Reset(most.number))

    def fill(self, carrier: Carrier, out: list[bytes], most: int, now: float) -> None:
        """Append to `out` what the present carrier connection should carry next."""
        self._run(now)
        size = 0
        if self._heart_wanted:
            self._heart_wanted = False
            size += carrier.seal(
                0, self._received, frames.heart_frame(self._pulse.heart(now)), None, out, now
            )
            self._unsaid_bytes = 0
        sending = self._sending
        while size < most and not sending.quiet and (record := sending.next()) is not None:
            size += carrier.seal(COUNTED, self._received, record[0], record[1], out, now)
            self._unsaid_bytes = 0
        for channel in sending.finished:
            if channel.over:
                self._gone(channel)
        sending.finished.clear()
        if self._unsaid_bytes >= _ACKNOWLEDGE_BYTES:
            self._unsaid_bytes = 0
            carrier.seal(0, self._received, b"", None, out, now)
        if sending.unread:
            self._end("the partner acknowledges nothing")
