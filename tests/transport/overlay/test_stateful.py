"""Two sessions over streams that are cut anywhere and delivered in any pieces: every byte once, in order.

The machine acts as both sides' local connections and as the network. What it holds the sessions to, after each step:
what came of a channel is a beginning of what was sent on it, nobody is accused, and nothing exceeds its bound.
At the end everything is delivered, and each channel that nobody reset has brought all that was sent.
"""

from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmp2p.transport.overlay.config import SessionConfig

from .wire import Pair

CONFIG = SessionConfig(
    first_window_bytes=3000,
    window_most_bytes=20_000,
    growth_most_bytes=30_000,
    held_most_bytes=1 << 20,
    unacknowledged_most_bytes=8000,
    queue_most_bytes=2000,
    queue_least_bytes=500,
    queues_most_bytes=5000,
    channels_most=12,
    rekey_bytes=4000,
    rekey_records=20,
)
sides = st.integers(0, 1)


@dataclass
class Flow:
    """One direction of one channel. sent: what the sender queued."""

    sent: bytearray = field(default_factory=bytearray)
    finished: bool = False


class Streams(RuleBasedStateMachine):
    """See the module."""

    @initialize(seed=st.integers(0, 2**32 - 1), aes=st.booleans())
    def begin(self, seed: int, aes: bool) -> None:
        self.rng = Random(seed)
        self.pair = Pair(CONFIG, replace(CONFIG, aes=aes), seed=seed)
        self.ends = self.pair.sides
        for end in self.ends:
            end.greedy = False
        self.pipes = [bytearray(), bytearray()]  # to a, to b
        self.flows: list[dict[int, Flow]] = [{}, {}]  # what each side sends, by channel
        self.taken: list[dict[int, int]] = [{}, {}]  # what each side has consumed, by channel
        self.given_up: dict[int, None] = {}

    @rule(side=sides, port=st.integers(0, 65535))
    def open(self, side: int, port: int) -> None:
        channel = self.ends[side].session.open(port, self.pair.now)
        if channel is not None:
            self.flows[side][channel] = Flow()

    @rule(side=sides, pick=st.integers(0, 99), size=st.integers(1, 4000))
    def send(self, side: int, pick: int, size: int) -> None:
        if (channel := self.pick(side, pick)) is None or self.flows[side][channel].finished:
            return
        session = self.ends[side].session
        size = min(size, session.room(channel))
        if size:
            data = self.rng.randbytes(size)
            session.send(channel, data)
            self.flows[side][channel].sent += data

    @rule(side=sides, pick=st.integers(0, 99), size=st.integers(1, 2000))
    def send_at_once(self, side: int, pick: int, size: int) -> None:
        """A short message, past the queues where that is allowed."""
        carrier = self.ends[side].carrier
        if carrier is None or (channel := self.pick(side, pick)) is None:
            return
        session = self.ends[side].session
        size = min(size, session.room(channel))
        if size and not self.flows[side][channel].finished:
            data = self.rng.randbytes(size)
            record = session.send_at_once(carrier, channel, data, self.pair.now)
            if record is not None:
                self.pipes[1 - side] += record
                self.flows[side][channel].sent += data

    @rule(side=sides, pick=st.integers(0, 99), how=st.sampled_from(("finish", "finish", "reset")))
    def end(self, side: int, pick: int, how: str) -> None:
        if (channel := self.pick(side, pick)) is None:
            return
        if how == "finish":
            self.ends[side].session.finish(channel)
            self.flows[side][channel].finished = True
        else:
            self.ends[side].session.reset(channel)
            self.given_up[channel] = None

    @rule(side=sides, pick=st.integers(0, 99), size=st.integers(1, 5000))
    def consume(self, side: int, pick: int, size: int) -> None:
        end = self.ends[side]
        channels = [n for n in end.got if len(end.got[n]) > self.taken[side].get(n, 0)]
        if channels:
            channel = channels[pick % len(channels)]
            self.take(side, channel, size)

    @rule(side=sides, most=st.sampled_from((1, 500, 5000, 100_000)))
    def write(self, side: int, most: int) -> None:
        self.pipes[1 - side] += self.ends[side].out(most, self.pair.now)

    @rule(side=sides, size=st.integers(1, 6000))
    def deliver(self, side: int, size: int) -> None:
        pipe = self.pipes[side]
        self.ends[side].feed(bytes(pipe[:size]), self.pair.now)
        del pipe[:size]
        self.follow()

    @rule()
    def cross(self) -> None:
        for side in (0, 1, 0, 1):
            self.write(side, 100_000)
            self.deliver(1 - side, 1 << 30)

    def cross_quietly(self) -> bool:
        """The same; whether there was anything left to say."""
        said = False
        for side in (0, 1):
            self.write(side, 100_000)
            said = said or bool(self.pipes[1 - side])
            self.deliver(1 - side, 1 << 30)
        return said

    @rule(later=st.booleans())
    def reconnect(self, later: bool) -> None:
        """The stream breaks; what was on its way is lost."""
        if later:
            self.pair.cut()
        else:
            self.pair.connect()
        for pipe in self.pipes:
            pipe.clear()

    @precondition(lambda self: self.ends[0].carrier is None or self.ends[1].carrier is None)
    @rule()
    def connect(self) -> None:
        self.reconnect(later=False)

    @rule(seconds=st.floats(0.001, 0.2))
    def wait(self, seconds: float) -> None:
        """Time passes while the stream stands; that it may run out is for `test_heart`."""
        self.cross()
        if None in [end.carrier for end in self.ends]:
            return
        self.pair.now += seconds
        for end in self.ends:
            end.take(end.session.tick(self.pair.now))
        self.follow()

    def pick(self, side: int, pick: int) -> int | None:
        """One of a side's live channels."""
        alive = [channel for channel in self.flows[side] if channel not in self.given_up]
        return alive[pick % len(alive)] if alive else None

    def take(self, side: int, channel: int, most: int) -> None:
        end = self.ends[side]
        size = min(most, len(end.got[channel]) - self.taken[side].get(channel, 0))
        self.taken[side][channel] = self.taken[side].get(channel, 0) + size
        end.session.consumed(channel, size)

    def follow(self) -> None:
        """Both sides do what their events ask for."""
        for side, end in enumerate(self.ends):
            for channel, _ in end.opened:
                self.flows[side].setdefault(channel, Flow())
            for channel in end.reset:
                self.given_up[channel] = None

    @invariant()
    def every_byte_once_in_order(self) -> None:
        if not hasattr(self, "pair"):
            return
        for side, end in enumerate(self.ends):
            for channel, got in end.got.items():
                assert self.flows[1 - side][channel].sent.startswith(got)
            for channel in end.finished:
                if channel not in self.given_up:
                    assert end.got.get(channel, b"") == self.flows[1 - side][channel].sent
            assert len(dict.fromkeys(end.finished)) == len(end.finished)

    @invariant()
    def nobody_is_accused(self) -> None:
        if hasattr(self, "pair"):
            assert [end.ended for end in self.ends] == [None, None]

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "pair"):
            return
        for side, end in enumerate(self.ends):
            assert end.session.open_channels <= CONFIG.channels_most
            assert end.session.kept_bytes <= CONFIG.unacknowledged_most_bytes + 100_000
            most = (
                CONFIG.queues_most_bytes
                + CONFIG.queue_most_bytes
                + CONFIG.channels_most * CONFIG.queue_least_bytes
            )
            assert end.session.queued <= most
            unread = sum(
                len(got) - self.taken[side].get(channel, 0)
                for channel, got in end.got.items()
                if channel not in self.given_up
            )
            assert unread <= CONFIG.channels_most * CONFIG.first_window_bytes + CONFIG.growth_most_bytes

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        self.reconnect(later=False)
        came, before = 0, -1
        while came != before or self.cross_quietly():
            self.cross()
            for side, end in enumerate(self.ends):
                for channel in end.got:
                    self.take(side, channel, 1 << 30)
            before, came = came, sum(len(got) for end in self.ends for got in end.got.values())
        self.nobody_is_accused()
        self.every_byte_once_in_order()
        for side, end in enumerate(self.ends):
            for channel, flow in self.flows[1 - side].items():
                if channel in self.given_up:
                    continue
                assert end.got.get(channel, b"") == flow.sent
                assert (channel in end.finished) == flow.finished
            assert end.session.queued == 0
        open_still = [
            channel
            for channel in self.flows[0]
            if channel not in self.given_up
            and not (
                self.flows[0][channel].finished
                and channel in self.flows[1]
                and self.flows[1][channel].finished
            )
        ]
        assert [end.session.open_channels for end in self.ends] == [len(open_still)] * 2


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
