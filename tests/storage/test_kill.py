"""A real peer that is killed with SIGKILL while it takes records, again and again, and what is left of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer

ROUNDS = 3


class Holder:
    """The process of holder.py."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.storage.holder", str(folder / "key"), str(folder / "state")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    async def line(self) -> dict[str, str | int]:
        stdout = self.process.stdout
        assert stdout is not None
        line: str = await trio.to_thread.run_sync(stdout.readline)
        assert line, "the holder ended"
        found: dict[str, str | int] = json.loads(line)
        return found

    async def kept(self, count: int) -> None:
        """Until it has so many records on its disk."""
        while int((await self.line()).get("kept", 0)) < count:
            pass

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def provided(peer: Peer, keys: list[bytes]) -> None:
    for key in keys:
        await peer.dht.provide(key)


async def providers(address: str, keys: list[bytes]) -> list[int]:
    """How many providers a newcomer finds of each key."""
    async with open_peer(bootstrap=address) as finder:
        return [len([found async for found in finder.dht.find_providers(key)]) for key in keys]


@pytest.mark.slow
async def test_a_killed_peer_serves_what_it_had_committed(tmp_path: Path) -> None:
    committed: list[bytes] = []
    with trio.fail_after(120):
        for number in range(ROUNDS):
            holder = Holder(tmp_path)
            try:
                address = str((await holder.line())["address"])
                if committed:
                    assert await providers(address, committed) == [1] * len(committed), f"in round {number}"
                async with open_peer(bootstrap=address) as provider, trio.open_nursery() as nursery:
                    keys = [b"%d/%d" % (number, index) for index in range(5)]
                    await provided(provider, keys)
                    await holder.kept(len(committed) + len(keys))
                    committed += keys
                    more = [b"%d/more/%d" % (number, index) for index in range(100)]
                    nursery.start_soon(provided, provider, more)
                    await trio.sleep(0.01 * number)  # at another moment each time
                    holder.kill()
                    nursery.cancel_scope.cancel()
            finally:
                holder.kill()
