"""How much of a machine one jail may use, as files of control groups or as a command line. Pure.

What a lease was given bounds Ray's own scheduling; these bounds are the kernel's, for code that does not ask Ray.
`groups.py` finds out which way this machine has:

    control groups (cgroups(7), version 1 or 2)   where this process may make some: memory, processes, CPU
    a scope of systemd                            the same, made by the user's or the system's service manager
    a watcher (supervisor.py --memory)            elsewhere: memory, looked at 4 times a second; CPU is not bounded

The number of processes is bounded by setrlimit(2) in each case (inside.py), disk and shared memory by the sizes of the
jail's file systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .jail import Limits

NODE_BYTES: Final = 1 << 30
"""Memory of a Ray node's own processes: 0.4 GB just after its start with one worker process."""

SHARE_OF_MACHINE: Final = 0.8
"""Of a machine's memory, what all leases together get where the lender has not said."""

PROCESSES: Final = 1024
PROCESSES_A_CPU: Final = 512
"""Processes and threads: a Ray node has 60, each of its workers 25, and a numerical library one more for each CPU of
the machine in each of them."""

_STORE_SLACK_BYTES: Final = 64 << 20  # what plasma adds to its file
_PERIOD_US: Final = 100_000  # the kernel's own default


@dataclass(frozen=True, slots=True)
class Sizes:
    """What follows from a lease for its jail. limits: see Limits. scratch_bytes, shared_bytes: as Jail."""

    limits: Limits
    scratch_bytes: int
    shared_bytes: int


def lease_sizes(memory_bytes: int, cpus: float, store_bytes: int, machine_bytes: int, leases: int) -> Sizes:
    """The bounds of a worker that was given so much.

    memory_bytes: what the lease says that its tasks may use; 0 for an even part of the machine's. store_bytes: its
    object store. machine_bytes: the machine's memory. leases: how many there may be at a time. Files in the jail are
    memory too, and count as such: half of it may be files.
    """
    tasks = memory_bytes or int(machine_bytes * SHARE_OF_MACHINE / leases)
    whole = tasks + store_bytes + NODE_BYTES
    return Sizes(
        Limits(whole, PROCESSES + PROCESSES_A_CPU * math.ceil(cpus), max(1.0, float(cpus))),
        scratch_bytes=whole // 2,
        shared_bytes=max(store_bytes + _STORE_SLACK_BYTES, whole // 4),
    )


def group_files(version: int, limits: Limits) -> Mapping[str, Mapping[str, str]]:
    """What is written to the files of a group, by controller, in order. A name that ends in ? is not everywhere."""
    quota = round(limits.cpus * _PERIOD_US)
    memory, processes = str(limits.memory_bytes), str(limits.processes)
    if version == 1:
        return {
            "memory": {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes?": memory},
            "pids": {"pids.max": processes},
            "cpu": {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)},
        }
    return {
        "memory": {"memory.max": memory, "memory.swap.max?": "0"},
        "pids": {"pids.max": processes},
        "cpu": {"cpu.max": f"{quota} {_PERIOD_US}"},
    }


def scope_command(systemd_run: str, user: bool, limits: Limits, command: Sequence[str]) -> list[str]:
    """The command in a scope of systemd. user: of the user's own manager."""
    properties = {
        "MemoryMax": str(limits.memory_bytes),
        "MemorySwapMax": "0",
        "TasksMax": str(limits.processes),
        "CPUQuota": f"{round(limits.cpus * 100)}%",
    }
    told = [word for name, value in properties.items() for word in ("-p", f"{name}={value}")]
    return [
        systemd_run,
        *(["--user"] if user else []),
        "--scope",
        "--quiet",
        "--collect",
        *told,
        "--",
        *command,
    ]
