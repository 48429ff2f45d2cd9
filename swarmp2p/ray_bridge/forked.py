"""What a process that a zygote has forked does: it becomes what the request says, as Python would have made it.

Ray reads most settings from the environment again when it is told to, but a worker's job only as its library is loaded,
which in a zygote is before there is a job. So the zygote loads it with a made-up job in its environment, finds where
Ray keeps that, and each worker writes its own there. Where it is not found as expected, workers are executed anew.
"""

from __future__ import annotations

import array
import ctypes
import marshal
import os
import runpy
import sys
from collections.abc import Iterator
from typing import Any, Final

JOB: Final = "RAY_JOB_ID"
MADE_UP_JOB: Final = "5ca1ab1e"
"""As long as every job's id: 4 bytes in hex."""

PLACEHOLDERS: Final = {
    JOB: MADE_UP_JOB,
    # A worker looks whether this process is alive still, as if it were its raylet; when one of both ends, so does the
    # other (its end is the node's). By the connection to it, a worker sees the raylet's own end at once.
    "RAY_RAYLET_PID": str(os.getpid()),
}
"""Environment in which the zygote loads Ray."""

_SETUP: Final = "setup_worker.py"
_CONTEXT: Final = "--serialized-runtime-env-context="
_PYTHON_WORKER: Final = "--language=PYTHON"
_WORKER: Final = "default_worker.py"
_KEPT_LONGER: Final = ("--worker-type=SPILL_WORKER", "--worker-type=RESTORE_WORKER")
_WORD: Final = 8

_FIRST_TO_GO: Final = "1000"
"""Of 1000: how gladly the kernel takes a Python worker when memory is short. Ray gives it to the pid that it started,
which is the stand-in's here: the kernel would take a stand-in of 4 MB, and its worker with it, instead of the worker
that has all the memory."""


def become(packet: bytes, rights: array.array[int], places: list[int]) -> None:
    """Do what a request says, to the end. places: see `job_ids`."""
    arguments, directory, environment, numbers = marshal.loads(packet)
    take(rights, numbers)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    job = environment.get(JOB)
    if job is not None and not set_job(job, places):
        os.execv(sys.executable, [sys.executable, *arguments])
    raylet: Any = sys.modules["ray._raylet"]
    raylet.Config.initialize("")  # which reads the environment again
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    run(arguments)


def take(rights: array.array[int], numbers: list[int]) -> None:
    """Give descriptors their numbers."""
    above = max([*numbers, *rights, 2]) + 1
    for i, right in enumerate(rights):
        os.dup2(right, above + i)
        os.close(right)
    for i, number in enumerate(numbers):
        os.dup2(above + i, number)
        os.close(above + i)


def run(arguments: list[str]) -> None:
    """What `python ARGUMENTS` does."""
    arguments, own_folder = list(arguments), True
    while arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "-u":
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(write_through=True)  # type: ignore[union-attr]
        elif option == "-P":
            own_folder = False
    if arguments[0].endswith((_SETUP, _WORKER)) and not any(each in arguments for each in _KEPT_LONGER):
        go_first()
    if arguments[0].endswith(_SETUP):
        arguments = without_setup(arguments)
    sys.argv = arguments
    if own_folder:
        sys.path.insert(0, os.path.dirname(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")


def go_first() -> None:
    """Be the first to be killed when memory is short, and whoever this process starts likewise."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_FIRST_TO_GO)
    except OSError:
        pass  # one that is not looked at by others; then it is as gladly taken as its node


def without_setup(arguments: list[str]) -> list[str]:
    """A Python worker's own arguments. Its setup would execute Python anew, by a shell; without a runtime environment
    it does nothing else."""
    others = [each for each in arguments[1:] if not each.startswith(_CONTEXT) and each != _PYTHON_WORKER]
    contexts = [each.removeprefix(_CONTEXT) for each in arguments if each.startswith(_CONTEXT)]
    empty = all(context in ("", "{}") for context in contexts)
    return others if empty and _PYTHON_WORKER in arguments else arguments


def set_job(job: str, places: list[int]) -> bool:
    """Write a job's id where Ray has it. False when that cannot be done."""
    text = job.encode()
    if len(places) != 1 or len(text) != len(MADE_UP_JOB):
        return False
    ctypes.memmove(places[0], text, len(text))
    return True


def job_ids() -> list[int]:
    """Where in this process's memory the made-up job's id is the text of a C++ string; one place is to be expected.

    A string of libstdc++'s has its length and capacity, and in the older of two layouts a count of references, right
    before the text; in the newer one a pointer to the text, and the length.
    """
    text = bytes(MADE_UP_JOB, "ascii") + b"\0"
    found: list[int] = []
    for start, end in _writable():
        memory = ctypes.string_at(start, end - start)
        at = memory.find(text)
        while at >= 0:
            before = memory[max(0, at - 3 * _WORD) : at]
            if len(before) == 3 * _WORD:
                first, second, third = (
                    int.from_bytes(before[i * _WORD : (i + 1) * _WORD], "little") for i in range(3)
                )
                older = first == len(MADE_UP_JOB) <= second <= 64 and third & 0xFFFFFFFF < 64
                newer = second == start + at and third == len(MADE_UP_JOB)
                if older or newer:
                    found.append(start + at)
            at = memory.find(text, at + 1)
    return found


def _writable() -> Iterator[tuple[int, int]]:
    """The heap, and what else can be written of this process's memory, as address ranges."""
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    for line in lines:
        place, permissions, *_, name = line.split(maxsplit=5) if line.count(" ") > 5 else (*line.split(), "")
        if permissions.startswith("rw") and not name.startswith(("[v", "[stack")):
            start, end = place.split("-")
            yield int(start, 16), int(end, 16)
