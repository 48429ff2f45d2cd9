"""The filter of system calls, run by a small machine of the test's own, by the call."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.ray_bridge.seccomp import (
    ABSENT,
    AUDIT_ARCH,
    FORBIDDEN,
    LAST,
    UNCOUNTED,
    X32,
    system_call_filter,
)

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86, ARM = "x86_64", "aarch64"
machines = pytest.mark.parametrize("machine", [X86, ARM])


def judge(program: bytes, number: int, arguments: Sequence[int] = (), arch: int = AUDIT_ARCH[X86]) -> int:
    """What the kernel would do: 0 for the call, an errno, or KILL (seccomp(2), bpf(4))."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    at, value = 0, 0
    while True:
        line: tuple[int, int, int, int] = struct.unpack_from("<HBBI", program, 8 * at)
        code, if_true, if_false, operand = line
        at += 1
        match code:
            case 0x20:
                value = int.from_bytes(data[operand : operand + 4], "little")
            case 0x15:
                at += if_true if value == operand else if_false
            case 0x35:
                at += if_true if value >= operand else if_false
            case 0x45:
                at += if_true if value & operand else if_false
            case 0x06:
                if operand >> 16 == 5:
                    return operand & 0xFFFF
                assert operand in (ALLOW, KILL)
                return 0 if operand == ALLOW else KILL
            case _:
                pytest.fail(f"no such instruction: {code:#x}")


def calls(machine: str, table: dict[str, tuple[int, int]]) -> list[int]:
    return [numbers[machine == ARM] for numbers in table.values() if numbers[machine == ARM] >= 0]


@machines
@pytest.mark.parametrize("counted", [True, False])
def test_each_call_of_the_tables_is_refused_and_all_others_are_made(machine: str, counted: bool) -> None:
    program = system_call_filter(machine, counted)
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
    forbidden = set(calls(machine, FORBIDDEN))
    absent = {*calls(machine, ABSENT), *([] if counted else calls(machine, UNCOUNTED))}
    judged_by_argument = {41, 53} if machine == X86 else {198, 199}
    for number in range(LAST + 100):
        if number in judged_by_argument:
            continue
        expected = (
            errno.EPERM if number in forbidden else errno.ENOSYS if number in absent or number > LAST else 0
        )
        assert judge(program, number, arch=AUDIT_ARCH[machine]) == expected, number


@given(st.integers(LAST + 1, 2**32 - 1))
def test_a_call_that_nobody_has_considered_does_not_exist(number: int) -> None:
    assert judge(system_call_filter(X86, True), number) == errno.ENOSYS
    assert judge(system_call_filter(X86, True), X32 | 101) == errno.ENOSYS


@machines
def test_who_calls_in_another_machines_way_is_killed(machine: str) -> None:
    for arch in (0x40000003, 0, AUDIT_ARCH[ARM if machine == X86 else X86]):  # the first: i386
        assert judge(system_call_filter(machine, True), 1, arch=arch) == KILL


@pytest.mark.parametrize(("machine", "clone"), [(X86, 56), (ARM, 220)])
def test_threads_and_processes_start_and_namespaces_do_not(machine: str, clone: int) -> None:
    program, arch = system_call_filter(machine, True), AUDIT_ARCH[machine]
    thread, fork = 0x3D0F00, 0x1200011  # as glibc starts them
    assert judge(program, clone, [thread], arch) == judge(program, clone, [fork], arch) == 0
    for bit in (0x20000, *(1 << shift for shift in range(25, 31))):
        assert judge(program, clone, [fork | bit], arch) == errno.EPERM


@machines
@given(family=st.integers(0, 60), protocol=st.integers(0, 300), rest=st.integers(0, 2**32 - 1))
def test_sockets_are_of_the_cluster_the_jail_and_the_interfaces(
    machine: str, family: int, protocol: int, rest: int
) -> None:
    program, arch = system_call_filter(machine, False), AUDIT_ARCH[machine]
    made = judge(program, 41 if machine == X86 else 198, [family | rest << 32, 1, protocol], arch)
    good = {1: range(301), 2: (0, 1, 6, 17, 58), 10: (0, 1, 6, 17, 58), 16: (0,)}
    expected = errno.EPROTONOSUPPORT if family in good else errno.EAFNOSUPPORT
    assert made == (0 if protocol in good.get(family, ()) else expected)
    pair = judge(program, 53 if machine == X86 else 199, [family], arch)
    assert pair == (0 if family == 1 else errno.EAFNOSUPPORT)


@pytest.mark.parametrize(("machine", "ioctl", "personality"), [(X86, 16, 135), (ARM, 29, 92)])
def test_nobody_types_for_others_or_changes_how_programs_are_run(
    machine: str, ioctl: int, personality: int
) -> None:
    program, arch = system_call_filter(machine, True), AUDIT_ARCH[machine]
    assert judge(program, ioctl, [0, 0x5401], arch) == 0  # TCGETS
    assert judge(program, ioctl, [0, 0x5412], arch) == judge(program, ioctl, [0, 0x541C], arch) == errno.EPERM
    assert judge(program, personality, [0xFFFFFFFF], arch) == judge(program, personality, [0], arch) == 0
    assert judge(program, personality, [0x40000], arch) == errno.EPERM


@pytest.mark.parametrize(("machine", "setrlimit", "prlimit"), [(X86, 160, 302), (ARM, 164, 261)])
def test_what_is_set_of_core_dumps_stays(machine: str, setrlimit: int, prlimit: int) -> None:
    program, arch = system_call_filter(machine, True), AUDIT_ARCH[machine]
    core, files = 4, 7
    assert judge(program, setrlimit, [core, 1], arch) == errno.EPERM
    assert judge(program, setrlimit, [files, 1], arch) == judge(program, prlimit, [0, files, 1], arch) == 0
    assert judge(program, prlimit, [0, core, 0, 1], arch) == 0  # asks only
    for new in (1, 1 << 32, 0x7FFF_1234_0000):
        assert judge(program, prlimit, [0, core, new, 0], arch) == errno.EPERM
