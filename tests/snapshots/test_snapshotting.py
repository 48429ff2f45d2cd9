"""Borrowers and holders over the in-memory network: who takes what, and what liars among the holders achieve."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.errors import BadMessage, NoSnapshot, UsageError
from swarmp2p.identity import PeerId
from swarmp2p.lending import RAY_SERVICE
from swarmp2p.peer import Peer
from swarmp2p.snapshots.files import SnapshotFiles
from swarmp2p.snapshots.form import Snapshot, make_snapshot
from swarmp2p.snapshots.giving import Giving, GivingConfig, give
from swarmp2p.snapshots.holders import Holders
from swarmp2p.snapshots.protocol import (
    ASK,
    GET,
    KEPT,
    NONE,
    PROTOCOL,
    SEND,
    Answer,
    Wish,
    decode_answer,
    decode_wish,
    encode_answer,
    encode_wish,
    receive_exactly,
    receive_frame,
)
from swarmp2p.snapshots.serving import Keeping
from swarmp2p.snapshots.shelf import ShelfConfig
from swarmp2p.snapshotting import Snapshots, check_snapshots
from swarmp2p.transport.network import PeerStream
from tests.test_peer import Swarm

ROOM = 400_000
REJECTED = (trio.BrokenResourceError, BadMessage)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would pass while a thread works."""

    async def run_sync(work: Callable[..., Any], *arguments: object) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


@asynccontextmanager
async def holder(
    peer: Peer, folder: Path, *, allow: Callable[[PeerId], bool] = lambda _: True
) -> AsyncGenerator[Keeping, None]:
    keeping = Keeping(SnapshotFiles(folder), ShelfConfig(ROOM), peer.now, allow, tuple)
    peer.handle(PROTOCOL, keeping.serve)
    async with peer.announce(RAY_SERVICE, {"snapshots": True}):
        yield keeping
    peer.unhandle(PROTOCOL)


@asynccontextmanager
async def liar(peer: Peer, serve: Callable[[PeerStream], Any]) -> AsyncGenerator[None, None]:
    peer.handle(PROTOCOL, serve)
    async with peer.announce(RAY_SERVICE, {"snapshots": True}):
        yield


def cluster(folder: Path, port: int = 4711) -> Path:
    (folder / "gcs").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    for name, data in {"token": "t" * 64, "gcs/log": "jobs", "port": str(port)}.items():
        (folder / name).write_text(data)
    return folder


def snapshot(peer: Peer, port: int, sequence: int) -> Snapshot:
    files = {"token": b"t" * 64, "gcs/log": b"jobs", "port": b"%d" % port}
    return make_snapshot(peer.identity, files, sequence, peer.now() + 1000)


async def given(borrower: Peer, to: Peer, what: Snapshot) -> Answer:
    return await give(lambda: borrower.open_stream(to.id, PROTOCOL), what)


async def exchange(borrower: Peer, to: Peer, data: bytes) -> Answer:
    stream = await borrower.open_stream(to.id, PROTOCOL)
    await stream.send_all(data)
    try:
        return decode_answer(await receive_frame(stream))
    finally:
        stream.reset()


@asynccontextmanager
async def giving(
    borrower: Peer, folder: Path, count: int, told: list[tuple[PeerId, str]]
) -> AsyncGenerator[tuple[Holders, Giving], None]:
    holders = Holders(count, Random(1))

    def tell(peer: PeerId, why: str) -> None:
        told.append((peer, why))

    async with trio.open_nursery() as nursery:
        each = Snapshots(borrower, None).giving(holders, folder, tell)
        nursery.start_soon(each.run)
        yield holders, each
        nursery.cancel_scope.cancel()


async def restored(borrower: Peer, folder: Path, timeout_s: float = 30.0) -> str:
    origin = await Snapshots(borrower, None).restore(folder, timeout_s)
    assert origin is not None
    return origin.text


async def test_given_to_k_and_restored(autojump_clock: MockClock, tmp_path: Path) -> None:
    told: list[tuple[PeerId, str]] = []
    kept = cluster(tmp_path / "kept")
    async with AsyncExitStack() as stack:
        borrower, *others = await stack.enter_async_context(Swarm().of(5))
        keeping = [
            await stack.enter_async_context(holder(peer, tmp_path / str(index)))
            for index, peer in enumerate(others)
        ]
        async with giving(borrower, kept, 2, told) as (holders, _):
            await trio.sleep(15)
            assert len(holders.have) == 2
            assert sum(each.held for each in keeping) == 2
            first = dict(holders.have)
            (kept / "gcs" / "log").write_text("more jobs")
            await trio.sleep(15)
            assert list(holders.have) == list(first)
            assert all(holders.have[peer] > sequence for peer, sequence in first.items())
            rested = dict(holders.have)
            await trio.sleep(60)
            assert dict(holders.have) == rested  # nothing has changed
        assert len(told) == 2
        assert "from a snapshot" in await restored(borrower, tmp_path / "elsewhere")
        assert (tmp_path / "elsewhere" / "gcs" / "log").read_text() == "more jobs"
        assert await Snapshots(borrower, None).restore(kept, 1) is None  # there is a cluster already
        with pytest.raises(NoSnapshot, match=str(others[0].id)):
            await restored(others[0], tmp_path / "nobody's", 5)
        assert not (tmp_path / "nobody's").exists()


async def test_a_holder_that_leaves_is_replaced(autojump_clock: MockClock, tmp_path: Path) -> None:
    told: list[tuple[PeerId, str]] = []
    kept = cluster(tmp_path / "kept")
    async with Swarm().of(3) as (borrower, one, two):
        async with holder(one, tmp_path / "1"), giving(borrower, kept, 1, told) as (holders, _):
            await trio.sleep(15)
            assert list(holders.have) == [one.id]
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(holder(two, tmp_path / "2"))
                one.unhandle(PROTOCOL)
                await trio.sleep(200)
                assert list(holders.have) == [two.id]
        assert [(peer, "any more" in why) for peer, why in told] == [
            (one.id, False),
            (one.id, True),
            (two.id, False),
        ]


async def test_a_holder_takes_from_whom_it_lends_to(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        Swarm().of(3) as (borrower, stranger, lender),
        holder(lender, tmp_path / "held", allow=lambda peer: peer == borrower.id) as keeping,
    ):
        assert "does not lend to you" in (await given(stranger, lender, snapshot(stranger, 1, 1))).reason
        assert (await given(borrower, lender, snapshot(borrower, 1, 1))).answer == KEPT
        assert keeping.held == 1
        answer = await exchange(stranger, lender, encode_wish(Wish(GET)))
        assert (answer.answer, answer.header) == (NONE, b"")  # nobody gets another's


async def test_replays_and_forgeries_change_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        Swarm().of(3) as (borrower, thief, lender),
        holder(lender, tmp_path / "held") as keeping,
    ):
        old, new = snapshot(borrower, 1, 1), snapshot(borrower, 2, 2)
        assert (await given(borrower, lender, old)).answer == KEPT
        assert (await given(borrower, lender, new)).answer == KEPT
        assert "as new" in (await given(borrower, lender, old)).reason
        for broken in (
            encode_wish(Wish("give", old.header.envelope[:-1] + b"x")),
            encode_wish(Wish("give", b"")),
            b"\x00\x00\x00\x05hello",
            b"\xff\xff\xff\xff",
        ):
            with pytest.raises(REJECTED):
                await exchange(borrower, lender, broken)
        with pytest.raises(
            (trio.BrokenResourceError, Exception)
        ):  # signed by somebody else than who brings it
            await given(thief, lender, snapshot(borrower, 3, 3))
        newer = snapshot(borrower, 3, 3)
        with pytest.raises(REJECTED):
            await given(borrower, lender, Snapshot(newer.header, bytes(len(newer.box))))
        await restored(borrower, tmp_path / "elsewhere")
        assert (tmp_path / "elsewhere" / "port").read_text() == "2"
        assert keeping.held == 1
        assert keeping.used_bytes == new.header.size


async def test_a_borrower_that_never_sends_holds_no_place_for_long(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        Swarm().of(8) as (lender, *peers),
        holder(lender, tmp_path / "held") as keeping,
    ):
        streams = list[PeerStream]()
        for peer in peers[:6]:
            stream = await peer.open_stream(lender.id, PROTOCOL)
            await stream.send_all(encode_wish(Wish("give", snapshot(peer, 1, 1).header.envelope)))
            streams.append(stream)
        await trio.sleep(1)
        assert (await given(peers[6], lender, snapshot(peers[6], 1, 1))).reason == "busy"
        await trio.sleep(30)
        assert (await given(peers[6], lender, snapshot(peers[6], 1, 1))).answer == KEPT
        assert keeping.held == 1
        assert keeping.used_bytes == snapshot(peers[6], 1, 1).header.size
        for stream in streams:
            stream.reset()


async def test_what_is_held_outlives_the_holders_process(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Swarm().of(2) as (borrower, lender):
        async with holder(lender, tmp_path / "held"):
            await given(borrower, lender, snapshot(borrower, 7, 1))
        (tmp_path / "held" / "stray").write_text("x")
        (tmp_path / "held" / f"{lender.id}.snapshot").write_bytes(b"\x00\x05hello")
        async with holder(lender, tmp_path / "held") as keeping:
            assert keeping.held == 1
            assert [path.stem for path in (tmp_path / "held").iterdir()] == [str(borrower.id)]
            await restored(borrower, tmp_path / "elsewhere")
        assert (tmp_path / "elsewhere" / "port").read_text() == "7"


async def test_liars_cost_time_and_nothing_else(autojump_clock: MockClock, tmp_path: Path) -> None:
    """One forges a header, one has the newest header with a damaged box, one stalls, one says nonsense, one withholds:
    the honest one's is taken, and the two that forged are named."""
    async with AsyncExitStack() as stack:
        borrower, honest, forger, damager, staller, babbler, withholder = await stack.enter_async_context(
            Swarm().of(7)
        )
        newest = snapshot(borrower, 9, 9)

        async def forge(stream: PeerStream) -> None:
            await receive_frame(stream)
            await stream.send_all(encode_answer(Answer(KEPT, snapshot(forger, 1, 2**62).header.envelope)))

        async def damage(stream: PeerStream) -> None:
            wish = decode_wish(await receive_frame(stream))
            await stream.send_all(encode_answer(Answer(KEPT, newest.header.envelope)))
            if wish.op == GET:
                await stream.send_all(newest.box[:-1] + b"\0")

        async def stall(stream: PeerStream) -> None:
            await trio.sleep_forever()

        async def babble(stream: PeerStream) -> None:
            await stream.send_all(b"\xff" * 100_000)

        async def withhold(stream: PeerStream) -> None:
            assert decode_wish(await receive_frame(stream)).op == ASK
            await stream.send_all(encode_answer(Answer(NONE)))

        await stack.enter_async_context(holder(honest, tmp_path / "held"))
        await given(borrower, honest, snapshot(borrower, 8, 8))
        liars = [
            (forger, forge),
            (damager, damage),
            (staller, stall),
            (babbler, babble),
            (withholder, withhold),
        ]
        for peer, serve in liars:
            await stack.enter_async_context(liar(peer, serve))
        began = trio.current_time()
        text = await restored(borrower, tmp_path / "elsewhere")
        assert trio.current_time() - began < 15
        assert (tmp_path / "elsewhere" / "port").read_text() == "8"
        assert f"{damager.id.short} gave a damaged snapshot" in text
        assert f"{forger.id.short} gave a forged header" in text


async def test_liars_alone_restore_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Swarm().of(2) as (borrower, forger):

        async def forge(stream: PeerStream) -> None:
            await receive_frame(stream)
            await stream.send_all(encode_answer(Answer(KEPT, snapshot(forger, 1, 5).header.envelope)))

        async with liar(forger, forge):
            with pytest.raises(NoSnapshot, match="forged header") as caught:
                await restored(borrower, tmp_path / "elsewhere", 20)
        assert [peer for peer, _ in caught.value.faults] == [str(forger.id)]
        assert not (tmp_path / "elsewhere").exists()


async def test_a_clock_that_was_set_back_does_not_stop_snapshots(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The holder has one of this borrower's from the future; the next one is later than that."""
    told: list[tuple[PeerId, str]] = []
    async with (
        Swarm().of(2) as (borrower, lender),
        holder(lender, tmp_path / "held"),
    ):
        ahead = int(borrower.now() * 1000) + 10**9
        await given(borrower, lender, snapshot(borrower, 1, ahead))
        async with giving(borrower, cluster(tmp_path / "kept", 2), 1, told) as (holders, _):
            await trio.sleep(30)
            assert holders.have == {lender.id: ahead + 1}


async def test_a_holder_that_lies_about_what_it_has_moves_no_sequence(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with Swarm().of(2) as (borrower, forger):

        async def refuse(stream: PeerStream) -> None:
            await receive_frame(stream)
            forged = snapshot(forger, 1, 2**62).header.envelope
            await stream.send_all(encode_answer(Answer("refused", forged, "there is one that is as new")))

        async def found(took: Callable[[PeerId], None]) -> None:
            took(forger.id)

        async with liar(forger, refuse):
            holders = Holders(1, Random(1))
            each = Giving(
                borrower.identity,
                cluster(tmp_path / "kept"),
                holders,
                borrower.open_stream,
                found,
                borrower.now,
                lambda peer, why: None,
                GivingConfig(),
            )
            await each.step()
            assert holders.have == {}
            assert each._sequence < 2**61  # pyright: ignore[reportPrivateUsage]


async def test_what_was_given_is_taken_back(autojump_clock: MockClock, tmp_path: Path) -> None:
    """By all who can be reached, also one that was replaced meanwhile; and a copy that is under way comes too late."""
    told: list[tuple[PeerId, str]] = []
    kept = cluster(tmp_path / "kept")
    async with AsyncExitStack() as stack:
        borrower, one, two, three, away = await stack.enter_async_context(Swarm().of(5))
        first = await stack.enter_async_context(holder(one, tmp_path / "1"))
        async with giving(borrower, kept, 3, told) as (holders, each):
            await trio.sleep(15)
            one.unhandle(PROTOCOL)
            others = [
                await stack.enter_async_context(holder(peer, tmp_path / str(peer.id)))
                for peer in (two, three, away)
            ]
            await trio.sleep(200)
            assert sum(keeping.held for keeping in (first, *others)) == 4
            assert len(holders.have) == 3
            one.handle(PROTOCOL, first.serve)
            away.unhandle(PROTOCOL)
            (kept / "gcs" / "log").write_text("more jobs")
            began = trio.current_time()
            assert await each.withdraw() == (away.id,)
            assert trio.current_time() - began <= 7.0
            assert list(holders.have) == [away.id]
            await trio.sleep(60)
        assert [keeping.held for keeping in (first, *others)] == [0, 0, 0, 1]
        assert not list((tmp_path / "1").iterdir())
        with pytest.raises(NoSnapshot):
            await restored(borrower, tmp_path / "elsewhere", 5)


async def test_a_holder_that_was_busy_is_asked_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Swarm().of(2) as (borrower, lender), holder(lender, tmp_path / "held") as keeping:
        async with giving(borrower, cluster(tmp_path / "kept"), 1, []) as (_, each):
            await trio.sleep(15)
            busy = [await borrower.open_stream(lender.id, PROTOCOL) for _ in range(2)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(each.withdraw)
                await trio.sleep(0.1)
                assert keeping.held == 1
                for stream in busy:
                    stream.reset()
        assert keeping.held == 0


async def test_what_was_never_given_is_not_taken_back(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Swarm().of(2) as (borrower, lender), holder(lender, tmp_path / "held"):
        (tmp_path / "none").mkdir(mode=0o700)
        each = Snapshots(borrower, None).giving(Holders(1, Random(1)), tmp_path / "none", lambda _, __: None)
        assert await each.withdraw() == ()


async def test_nobody_takes_back_what_is_newer_or_anothers(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The former machine wakes up, and its cluster is ended, while the cluster goes on elsewhere."""
    async with (
        Swarm().of(3) as (borrower, thief, lender),
        holder(lender, tmp_path / "held") as keeping,
    ):
        old, new = snapshot(borrower, 1, 1), snapshot(borrower, 2, 2)
        assert (await given(borrower, lender, new)).answer == KEPT
        answer = await exchange(borrower, lender, encode_wish(Wish("drop", old.header.envelope)))
        assert (answer.answer, answer.header) == (KEPT, new.header.envelope)
        mine = snapshot(thief, 3, 3).header.envelope
        assert (await exchange(thief, lender, encode_wish(Wish("drop", mine)))).answer == NONE
        for peer, header in ((thief, new.header.envelope), (borrower, mine), (borrower, b"")):
            with pytest.raises(REJECTED):
                await exchange(peer, lender, encode_wish(Wish("drop", header)))
        assert keeping.held == 1
        dropped = await exchange(borrower, lender, encode_wish(Wish("drop", new.header.envelope)))
        assert dropped.answer == NONE
        assert keeping.held == 0
        assert keeping.used_bytes == 0


async def test_a_holder_that_knows_of_no_taking_back_keeps_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with Swarm().of(2) as (borrower, former):

        async def serve(stream: PeerStream) -> None:
            wish = decode_wish(await receive_frame(stream))
            if wish.op == "give":
                await stream.send_all(encode_answer(Answer(KEPT, wish.header)))
            else:
                stream.reset()

        async with (
            liar(former, serve),
            giving(borrower, cluster(tmp_path / "kept"), 1, []) as (holders, each),
        ):
            await trio.sleep(15)
            assert list(holders.have) == [former.id]
            assert await each.withdraw() == (former.id,)


async def test_a_box_comes_only_when_it_is_asked_for(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with Swarm().of(2) as (borrower, lender), holder(lender, tmp_path / "held"):
        what = snapshot(borrower, 1, 1)
        stream = await borrower.open_stream(lender.id, PROTOCOL)
        await stream.send_all(encode_wish(Wish("give", what.header.envelope)))
        assert decode_answer(await receive_frame(stream)).answer == SEND
        await stream.send_all(what.box)
        assert decode_answer(await receive_frame(stream)).answer == KEPT
        stream = await borrower.open_stream(lender.id, PROTOCOL)
        await stream.send_all(encode_wish(Wish(GET)))
        assert decode_answer(await receive_frame(stream)).header == what.header.envelope
        assert await receive_exactly(stream, what.header.size) == what.box


def test_arguments_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="cluster_state"):
        check_snapshots(None, 2, False)
    with pytest.raises(UsageError, match="cluster_state"):
        check_snapshots(None, 0, True)
    with pytest.raises(UsageError, match="at most 16"):
        check_snapshots(Path("x"), 17, False)
    check_snapshots(None, 0, False)
