"""How much a jail may use: what follows from a lease, and how it is told to the kernel or to systemd."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.ray_bridge.jail import Limits
from swarmp2p.ray_bridge.limits import NODE_BYTES, group_files, lease_sizes, scope_command

GIB = 1 << 30
LIMITS = Limits(3 * GIB, 100, 1.5)


@given(
    st.integers(0, 64 * GIB),
    st.floats(0.1, 64),
    st.integers(1, 8 * GIB),
    st.integers(GIB, 1 << 40),
    st.integers(1, 8),
)
def test_a_jail_has_room_for_what_was_leased_and_for_ray(
    memory: int, cpus: float, store: int, machine: int, leases: int
) -> None:
    sizes = lease_sizes(memory, cpus, store, machine, leases)
    assert sizes.limits.memory_bytes >= memory + store + NODE_BYTES
    assert sizes.shared_bytes > store
    assert sizes.limits.cpus >= max(1, cpus)
    assert sizes.limits.processes > 1024
    assert NODE_BYTES // 2 <= sizes.scratch_bytes <= sizes.limits.memory_bytes // 2


def test_leases_of_unsaid_size_share_most_of_the_machine() -> None:
    one, four = (lease_sizes(0, 1, 1, 100 * GIB, leases).limits.memory_bytes for leases in (1, 4))
    assert one == 80 * GIB + 1 + NODE_BYTES
    assert four == 20 * GIB + 1 + NODE_BYTES


def test_both_versions_of_control_groups_are_told_the_same() -> None:
    assert group_files(1, LIMITS) == {
        "memory": {"memory.limit_in_bytes": str(3 * GIB), "memory.memsw.limit_in_bytes?": str(3 * GIB)},
        "pids": {"pids.max": "100"},
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"},
    }
    assert group_files(2, LIMITS) == {
        "memory": {"memory.max": str(3 * GIB), "memory.swap.max?": "0"},
        "pids": {"pids.max": "100"},
        "cpu": {"cpu.max": "150000 100000"},
    }


def test_systemd_is_told_the_same() -> None:
    line = scope_command("/bin/systemd-run", True, LIMITS, ["bwrap", "--x"])
    assert line[:5] == ["/bin/systemd-run", "--user", "--scope", "--quiet", "--collect"]
    assert line[5:13:2] == ["-p"] * 4
    assert line[6:14:2] == ["MemoryMax=3221225472", "MemorySwapMax=0", "TasksMax=100", "CPUQuota=150%"]
    assert line[13:] == ["--", "bwrap", "--x"]
    assert "--user" not in scope_command("/bin/systemd-run", False, LIMITS, ["true"])
