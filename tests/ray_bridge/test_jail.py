"""The jail's command line, as text: what is shown, what can be written to, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

from swarmp2p.ray_bridge import inside
from swarmp2p.ray_bridge.inside import INSIDE_USER
from swarmp2p.ray_bridge.jail import (
    HOME,
    NODE,
    SCRATCH,
    WORK,
    Jail,
    Limits,
    System,
    jail_command,
    jail_environment,
)

SYSTEM = System(
    bubblewrap="/usr/bin/bwrap",
    python="/opt/venv/bin/python",
    package="/home/owner/src/swarmp2p",
    shown=("/usr", "/opt/venv", "/home/owner/.pyenv/3.11"),
    links=(("/bin", "usr/bin"),),
)
AS_ROOT = System(
    **{name: getattr(SYSTEM, name) for name in SYSTEM.__slots__ if name != "as_root"}, as_root=True
)


def options(line: list[str], name: str, count: int) -> list[tuple[str, ...]]:
    """The arguments of each use of an option of bwrap."""
    own = line[: line.index("--")]
    return [tuple(own[at + 1 : at + 1 + count]) for at, word in enumerate(own) if word == name]


def orders(line: list[str]) -> dict[str, object]:
    """What inside.py is told."""
    at = line.index(f"{SYSTEM.package}/ray_bridge/inside.py")
    told: dict[str, object] = json.loads(line[at + 1])
    return told


def test_the_command_comes_last_after_the_program_that_gives_rights_up() -> None:
    line = jail_command(Jail(SYSTEM), ["sleep", "--", "5"])
    after = line[line.index("--") + 1 :]
    assert after[:4] == ["/opt/venv/bin/python", "-I", "-S", f"{SYSTEM.package}/ray_bridge/inside.py"]
    assert after[5:] == ["sleep", "--", "5"]


def test_what_is_shown_is_read_only_and_the_rest_is_in_memory_and_sized() -> None:
    line = jail_command(Jail(SYSTEM, scratch_bytes=7, shared_bytes=5), ["true"])
    shown = options(line, "--ro-bind", 2)
    assert [where for _, where in shown if not where.startswith("/etc/")] == [*SYSTEM.shown, SYSTEM.package]
    assert {where for _, where in shown if where.startswith("/etc/")} == {
        "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf",
    }  # fmt: skip
    assert not options(line, "--bind", 2)
    assert options(line, "--tmpfs", 1) == [("/dev/shm",), (SCRATCH,)]
    assert options(line, "--size", 1) == [("5",), ("7",)]
    # what is made read-only has everything in it already
    assert options(line, "--remount-ro", 1) == [("/dev",), ("/",)]
    assert line.index("--remount-ro") > line.index("/dev/shm")
    assert line[line.index("--") - 4 : line.index("--") - 2] == ["--remount-ro", "/"]


def test_directories_above_what_is_shown_are_open_and_empty() -> None:
    made = {where for (where,) in options(jail_command(Jail(SYSTEM), ["true"]), "--dir", 1)}
    assert {"/home", "/home/owner", "/home/owner/.pyenv", "/opt", "/etc", "/home/owner/src"} <= made
    assert not made & {"/", "/usr", "/dev", SCRATCH}


def test_devices_and_sysfs_are_shown_when_they_are_lent() -> None:
    plain = jail_command(Jail(SYSTEM), ["true"])
    assert not options(plain, "--dev-bind", 2)
    assert not [where for where, _ in options(plain, "--ro-bind", 2) if where.startswith("/sys")]
    line = jail_command(
        Jail(SYSTEM, devices=("/dev/nvidia0", "/dev/nvidiactl"), drivers=("/sys/bus/pci",)), ["true"]
    )
    assert options(line, "--dev-bind", 2) == [("/dev/nvidia0",) * 2, ("/dev/nvidiactl",) * 2]
    assert ("/sys/bus/pci", "/sys/bus/pci") in options(line, "--ro-bind", 2)
    assert line.index("/dev/nvidia0") < line.index("--remount-ro")


def test_without_root_bubblewrap_makes_the_user_namespace() -> None:
    line = jail_command(Jail(SYSTEM), ["true"])
    assert options(line, "--uid", 1) == [(str(INSIDE_USER),)]
    assert "--unshare-user" in line
    assert "--disable-userns" in line
    assert not options(line, "--cap-add", 1)
    assert orders(line)["user"] == 0


def test_as_root_the_worker_becomes_a_user_that_nobody_is() -> None:
    line = jail_command(Jail(AS_ROOT, user=2_000_000_007), ["true"])
    assert "--unshare-user" not in line
    assert [name for (name,) in options(line, "--cap-add", 1)] == ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    assert orders(line)["user"] == 2_000_000_007


def test_limits_are_told_to_the_program_inside() -> None:
    line = jail_command(Jail(SYSTEM, 7, 3, Limits(1, 9), open_files=8, system_calls=b"\x06\0"), ["true"])
    assert orders(line)["limits"] == {
        "NPROC": 9, "NOFILE": 8, "CORE": 1, "FSIZE": 7, "SIGPENDING": 4096, "MSGQUEUE": 65536,
    }  # fmt: skip
    assert orders(line)["filter"] == "BgA="


def test_an_environment_names_places_of_the_jail() -> None:
    told = {
        "PATH": "/home/owner/bin",
        "HOME": "/home/owner",
        "PYTHONPATH": "/x",
        "RAY_AUTH_TOKEN": "t",
        "LANG": "C",
    }
    assert jail_environment(SYSTEM, {**told, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus"}) == {
        "RAY_AUTH_TOKEN": "t",
        "LANG": "C",
        "HOME": HOME,
        "LOGNAME": "worker",
        "USER": "worker",
        "SHELL": "/bin/sh",
        "TMPDIR": "/tmp/tmp",
        "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
    }
    assert all(place.startswith(SCRATCH) for place in (HOME, WORK, NODE))


def test_the_jails_own_files_name_its_user() -> None:
    etc = Path(inside.__file__).parent / "etc"
    assert f"worker:x:{INSIDE_USER}:{INSIDE_USER}:worker:{HOME}:/bin/sh" in (etc / "passwd").read_text()
    assert f"worker:x:{INSIDE_USER}:" in (etc / "group").read_text()
