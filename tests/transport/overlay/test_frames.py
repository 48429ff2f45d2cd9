"""Frames: what is written is read, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.overlay import frames
from swarmp2p.transport.overlay.faults import Broken

channels = st.integers(0, 2**32 - 1)
bare = st.just(0), st.just(b"")
written = st.lists(
    st.one_of(
        st.builds(frames.Frame, st.just(frames.OPEN), channels, st.integers(0, 65535), bare[1]),
        st.builds(frames.Frame, st.just(frames.CREDIT), channels, st.integers(0, 2**32 - 1), bare[1]),
        st.builds(frames.Frame, st.sampled_from((frames.FINISH, frames.RESET)), channels, *bare),
        st.builds(frames.Frame, st.just(frames.DATA), channels, bare[0], st.binary(max_size=50)),
    )
)


def encoded(frame: frames.Frame) -> bytes:
    match frame.kind:
        case frames.OPEN:
            return frames.open_frame(frame.channel, frame.number)
        case frames.CREDIT:
            return frames.credit_frame(frame.channel, frame.number)
        case frames.FINISH:
            return frames.finish_frame(frame.channel)
        case frames.RESET:
            return frames.reset_frame(frame.channel)
        case _:
            return frames.data_head(frame.channel, len(frame.data)) + frame.data


@given(written, channels)
def test_what_is_written_is_read(several: list[frames.Frame], channel: int) -> None:
    control = b"".join(encoded(frame) for frame in several)
    assert frames.parse(control, 0, None) == several
    assert frames.parse(b"12345678" + control, 8, None) == several
    body = frames.Frame(frames.DATA, channel, 0, b"body")
    assert frames.parse(control + frames.body_frame(channel), 0, b"body") == [*several, body]


@given(written.filter(bool), st.data())
def test_what_ends_early_is_broken_or_fewer_frames(several: list[frames.Frame], data: st.DataObject) -> None:
    control = b"".join(encoded(frame) for frame in several)
    cut = control[: data.draw(st.integers(0, len(control) - 1))]
    try:
        read = frames.parse(cut, 0, None)
    except Broken:
        return
    assert read == several[: len(read)]


@given(st.binary(max_size=200), st.none() | st.binary(min_size=1, max_size=20))
def test_any_bytes_are_frames_or_broken(control: bytes, body: bytes | None) -> None:
    try:
        read = frames.parse(control, 0, body)
    except Broken:
        return
    assert len(read) <= len(control) // 5


def test_a_body_needs_one_frame_and_a_frame_a_body() -> None:
    with pytest.raises(Broken, match="no frame speaks of"):
        frames.parse(b"", 0, b"body")
    with pytest.raises(Broken, match="no frame of type 3"):
        frames.parse(frames.body_frame(1), 0, None)
    with pytest.raises(Broken, match="no frame of type 3"):
        frames.parse(frames.body_frame(1) + frames.body_frame(3), 0, b"body")


def test_a_heartbeat_stands_alone() -> None:
    heart = frames.Heart(1, 2, 3)
    assert frames.parse_heart(frames.heart_frame(heart), 0) == heart
    assert frames.parse_heart(b"12345678", 8) is None
    for wrong in (frames.heart_frame(heart) + b"\x05\0\0\0\1", frames.finish_frame(1), b"\x07"):
        with pytest.raises(Broken, match="more than a heartbeat"):
            frames.parse_heart(wrong, 0)
    with pytest.raises(Broken, match="no frame of type 7"):
        frames.parse(frames.heart_frame(heart), 0, None)
