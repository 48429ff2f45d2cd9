"""What a head keeps, who may read it, and one head at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.errors import UsageError
from swarmp2p.ray_bridge.head_state import open_head_state


async def test_a_temporary_one_goes_with_its_head() -> None:
    async with open_head_state(None) as state, open_head_state(None) as other:
        assert not state.kept
        assert state.token != other.token
        assert state.token_path.read_text() == state.token
        assert state.token_path.stat().st_mode & 0o777 == 0o600
        assert state.directory.stat().st_mode & 0o777 == state.storage.stat().st_mode & 0o777 == 0o700
    assert not state.directory.exists()


async def test_a_kept_one_is_the_same_cluster_again(tmp_path: Path) -> None:
    async with open_head_state(tmp_path / "a" / "b") as state:
        assert (state.kept, state.port) == (True, 0)
        state.remember_port(4711)
        (state.storage / "CURRENT").touch()
    async with open_head_state(tmp_path / "a" / "b") as again:
        assert (again.token, again.port) == (state.token, 4711)
        assert (again.storage / "CURRENT").exists()
        assert again.token_path.stat().st_mode & 0o777 == 0o600


async def test_one_whose_head_never_answered_begins_anew(tmp_path: Path) -> None:
    async with open_head_state(tmp_path / "a") as state:
        (state.storage / "CURRENT").touch()
    async with open_head_state(tmp_path / "a") as again:
        assert again.token != state.token
        assert not list(again.storage.iterdir())


async def test_one_head_at_a_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_head_state(tmp_path / "a"):
        with pytest.raises(UsageError, match="another process runs the cluster"):
            async with open_head_state(tmp_path / "a"):
                pytest.fail("two heads of one cluster")


async def test_a_head_that_is_still_ending_is_waited_for(autojump_clock: MockClock, tmp_path: Path) -> None:
    entered = trio.Event()

    async def ending() -> None:
        async with open_head_state(tmp_path / "a"):
            entered.set()
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ending)
        await entered.wait()
        began = trio.current_time()
        async with open_head_state(tmp_path / "a"):
            assert 2.9 < trio.current_time() - began < 3.2


async def test_a_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match="chmod 700"):
        async with open_head_state(tmp_path):
            pytest.fail("others can read the token")
    assert not list(tmp_path.iterdir())


async def test_what_is_no_cluster_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "token").write_text("a subway token")
    (tmp_path / "port").write_text("Rotterdam")
    with pytest.raises(UsageError, match="does not hold a cluster"):
        async with open_head_state(tmp_path):
            pytest.fail("it is no cluster's")
    assert (tmp_path / "token").read_text() == "a subway token"
