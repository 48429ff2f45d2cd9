"""Logs of leases: how many are kept, and which never go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from swarmp2p.ray_bridge import lender as lender_module
from swarmp2p.ray_bridge.events import JoinSecret, Need, Offer, StartWorker, StopWorker
from swarmp2p.ray_bridge.kept_logs import MOST_FOLDERS, WORKER_LOG, KeptLogs
from swarmp2p.ray_bridge.lender import Lender
from swarmp2p.scopes import start

from .keys import peer


def lease(number: int) -> bytes:
    """Whose folder's name has all of it."""
    return number.to_bytes(6, "big") + bytes(10)


def name(number: int) -> str:
    return lease(number).hex()[:12]


def write(folder: Path, number: int, size: int = 10, file: str = WORKER_LOG) -> Path:
    """A log, the later the higher its number."""
    path = folder / name(number) / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (1000.0 + number, 1000.0 + number))
    return path.parent


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_latest_are_kept(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, number)
    KeptLogs(tmp_path, most=4).prune()
    assert left(tmp_path) == [name(number) for number in range(6, 10)]


def test_as_many_bytes_are_kept(tmp_path: Path) -> None:
    for number, size in enumerate((10, 500, 10, 500, 100)):
        write(tmp_path, number, size)
    KeptLogs(tmp_path, most_bytes=620).prune()
    assert left(tmp_path) == [name(number) for number in (2, 3, 4)]


def test_those_of_leases_that_stand_are_kept_however_old(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in range(6):
            if number < 2:
                stack.enter_context(KeptLogs(tmp_path).of(lease(number)))
            write(tmp_path, number)
        KeptLogs(tmp_path, most=1).prune()
        assert left(tmp_path) == [name(0), name(1), name(5)]
        (tmp_path / name(5) / WORKER_LOG).unlink()
        (tmp_path / name(5)).rmdir()
    KeptLogs(tmp_path, most=1).prune()
    assert left(tmp_path) == [name(1)]


def test_what_one_that_stands_prints_takes_no_others_place(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, number)
    with KeptLogs(tmp_path).of(lease(3)):
        write(tmp_path, 3, size=1000)
        KeptLogs(tmp_path, most_bytes=500).prune()
        assert left(tmp_path) == [name(number) for number in range(4)]


def test_those_of_another_process_that_lends_are_kept_until_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from swarmp2p.ray_bridge.kept_logs import KeptLogs\n"
        "with KeptLogs(Path(sys.argv[1])).of(bytes.fromhex(sys.argv[2])):\n"
        "    print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path), lease(0).hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        write(tmp_path, 0)
        KeptLogs(tmp_path, most=0).prune()
        assert left(tmp_path) == [name(0)]
        other.kill()
        other.wait()
    KeptLogs(tmp_path, most=0).prune()
    assert left(tmp_path) == []


def test_nothing_is_deleted_that_a_lender_has_not_made(tmp_path: Path) -> None:
    """Files of others, folders with other names or other contents, links, and what else stands in a lease's folder."""
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    write(tmp_path, 0).rename(elsewhere)
    (folder / "notes").write_text("mine")
    (folder / "thesis").mkdir()
    (folder / "thesis" / WORKER_LOG).write_text("mine")
    write(folder, 1, file="other.log")
    (folder / name(2)).symlink_to(elsewhere)
    (folder / name(3)).mkdir()
    (folder / name(3) / WORKER_LOG).mkdir()
    write(folder, 4)
    write(folder, 4, file="notes")
    KeptLogs(folder, most=0).prune()
    assert left(folder) == sorted(["notes", "thesis", *(name(number) for number in range(1, 5))])
    assert left(folder / name(4)) == ["notes"]
    assert (elsewhere / WORKER_LOG).exists()
    assert (folder / name(3) / WORKER_LOG).exists()


def test_a_worker_that_never_started_leaves_nothing(tmp_path: Path) -> None:
    with KeptLogs(tmp_path).of(lease(1)) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert left(tmp_path) == []


def test_no_folder_is_no_error(tmp_path: Path) -> None:
    KeptLogs(tmp_path / "none").prune()


async def test_a_lender_keeps_so_many_over_any_number_of_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worker:
        async def died(self) -> str:
            await trio.sleep_forever()
            raise AssertionError

    @asynccontextmanager
    async def start_worker(*_: object, directory: Path, **__: object) -> AsyncGenerator[Worker, None]:
        (directory / WORKER_LOG).write_text("began")
        os.utime(directory / WORKER_LOG, (1.0, 1.0) if directory.name == name(0) else None)
        yield Worker()

    monkeypatch.setattr(lender_module, "start_worker", start_worker)
    lender = Lender(Offer(max_leases=2), "lender", tmp_path, lambda command: None)

    async def keeps(number: int) -> None:
        secret = JoinSecret("127.0.0.1:6379", "token")
        lender.handle(StartWorker(lease(number), peer(1), secret, Need()))
        while not (tmp_path / name(number) / WORKER_LOG).exists():
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        await start(nursery, lender.run)
        await keeps(0)  # it stands all the time, and its log is the oldest
        for number in range(1, MOST_FOLDERS + 20):
            await keeps(number)
            lender.handle(StopWorker(lease(number), "returned"))
            await trio.testing.wait_all_tasks_blocked()
        assert (tmp_path / name(0)).exists()
        lender.handle(StopWorker(lease(0), "returned"))
        await lender.idle()
        nursery.cancel_scope.cancel()
    assert len(left(tmp_path)) == MOST_FOLDERS
