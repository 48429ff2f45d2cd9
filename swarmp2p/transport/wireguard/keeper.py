"""Makes a WireGuard interface, waits, and takes it away: a small program for one interface, run by `tunnel.py`.

It outlives the peer that started it by as long as it needs to remove the interface and its firewall rules, however the
peer ends: its standard input is closed then, and the peer's process handle becomes readable. With the interface its
private key is gone. `wireguard-go`, where the kernel has no WireGuard, is its child, and the kernel kills that child
when the keeper ends in whatever way.

It holds a lock on a file of the interface's name for as long as it lives. A file whose lock is free is therefore of an
interface that nobody keeps, because even the keeper was killed; `leftovers.py` sees to those.

    python -I -S keeper.py --parent PID --record FILE --interface NAME [--namespace FD] KIND...

KIND is `kernel` or `wireguard-go`, tried in this order. What it says on standard output is one line of JSON:
`{"kind": "kernel"}` once the interface is there (in the namespace, if one was given), or `{"failed": "why"}`; and
another `{"failed": "why"}` if it is lost later. Standard library only; starts in 20 ms.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Final

KINDS: Final = ("kernel", "wireguard-go")
START_S: Final = 5.0
"""Until wireguard-go has made its interface; it takes some 10 ms."""

COMMAND_S: Final = 5.0
"""Until a command that changes one interface is given up; they take 10 ms."""

KILLED_S: Final = 8.0
"""Until a wireguard-go that was killed is given up: one that the kernel cannot end. Others take milliseconds."""

ORPHAN_S: Final = 0.2
"""After the peer's sudden end: until commands that it had started have ended as well, and the rest can be removed."""

_SOCKETS: Final = "/var/run/wireguard"  # compiled into wireguard-go and wg
_WORDS_BYTES: Final = 2048  # kept of what wireguard-go says
_PR_SET_PDEATHSIG: Final = 1
_SYSTEM_PATHS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where `wg`, `ip` and `nft` are, besides what PATH says: users' own often lacks the sbin folders."""


class Failed(Exception):
    """Why there is no interface, in one line."""


class Keeper:
    """One interface. namespace: descriptor of the network namespace that it is moved into, -1 to leave it here."""

    def __init__(self, interface: str, record: str, namespace: int = -1, parent: int = 0) -> None:
        self._interface, self._record, self._namespace = interface, record, namespace
        self._parent, self._parent_pid = -1, parent
        self._lock = -1
        self._made = False  # whether there is an interface that no child's end takes away
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._signalled = -1

    def run(self, kinds: Sequence[str]) -> None:
        """Everything, from the lock to the end. Raises Failed."""
        if self._parent_pid:
            self._parent = watch(self._parent_pid)
        self._lock = take_record(self._record, make=True)
        # A signal must not cut short what is done below, and so be the reason why something stays.
        self._signalled, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGTERM, _noted)
        asked = False
        try:
            write_record(self._lock, self._interface, 0)
            kind = self._make(kinds)
            if self._namespace >= 0:
                there = f"/proc/{os.getpid()}/fd/{self._namespace}"
                attempt("ip", "link", "set", "dev", self._interface, "netns", there)
            say("kind", kind)
            asked = self._wait()
        finally:
            self._take_away()
            if not asked:
                time.sleep(ORPHAN_S)
                remove_table(self._interface, self._namespace)
            os.unlink(self._record)

    def _make(self, kinds: Sequence[str]) -> str:
        problems = list[str]()
        for kind in kinds:
            try:
                if kind == "kernel":
                    attempt("ip", "link", "add", "dev", self._interface, "type", "wireguard")
                    self._made = True
                else:
                    self._start_wireguard_go()
                return kind
            except Failed as problem:
                problems.append(f"{kind}: {problem}")
        raise Failed("; ".join(problems) or "no kind of WireGuard was named")

    def _start_wireguard_go(self) -> None:
        if not command(("ip", "link", "show", "dev", self._interface)):  # /sys may show another namespace's
            raise Failed("an interface of this name exists already")
        if answers(socket_path(self._interface)):  # it would be configured in place of ours
            raise Failed("an interface of this name exists already, in another network namespace")
        remove_socket(self._interface)
        me = os.getpid()

        def die_with_keeper() -> None:
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:
                os._exit(1)

        try:
            self._child = subprocess.Popen(
                ["wireguard-go", "-f", self._interface],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(),
                preexec_fn=die_with_keeper,  # this program has one thread
            )
        except OSError as problem:
            raise Failed(f"cannot run wireguard-go: {problem.strerror}") from None
        write_record(self._lock, self._interface, self._child.pid)
        deadline = time.monotonic() + START_S
        while not is_socket(socket_path(self._interface)):
            if self._child.poll() is not None:
                self._listen_to_child()
                raise Failed(f"wireguard-go ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"wireguard-go made no interface within {START_S:.0f} s")
            time.sleep(0.002)

    def _wait(self) -> bool:
        """Until the peer asks for the end (True), or it or we are ended (False). Raises Failed if wireguard-go ends."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._signalled, select.POLLIN)
        if self._parent >= 0:
            poll.register(self._parent, select.POLLIN)
        handle = words = -1
        if self._child is not None:
            assert self._child.stderr is not None
            handle, words = os.pidfd_open(self._child.pid), self._child.stderr.fileno()
            os.set_blocking(words, False)
            poll.register(handle, select.POLLIN)
            poll.register(words, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if words in ready and not self._listen_to_child():
                poll.unregister(words)
            if 0 in ready:
                return os.read(0, 64).startswith(b"stop")
            if self._parent in ready or self._signalled in ready:
                return False
            if handle in ready:
                raise Failed(f"wireguard-go ended: {self._last_words()}")

    def _listen_to_child(self) -> bool:
        """Take in what wireguard-go says, so that it never waits for us. False at the end."""
        assert self._child is not None
        assert self._child.stderr is not None
        try:
            said = os.read(self._child.stderr.fileno(), 65_536)
        except BlockingIOError:
            return True
        self._said = (self._said + said)[-_WORDS_BYTES:]
        return bool(said)

    def _last_words(self) -> str:
        lines = [line for line in self._said.decode("utf-8", "replace").splitlines() if "ERROR" in line]
        return lines[-1][:300] if lines else "it did not say why"

    def _take_away(self) -> None:
        """The interface, wireguard-go, and the rules; whatever of them there is, and nobody else's."""
        if self._made:
            remove_interface(self._interface, self._namespace)
            if self._namespace >= 0:
                remove_interface(self._interface)  # if it was not moved yet
        if self._child is not None:
            end_child(self._child)
            remove_socket(self._interface)
        remove_table(self._interface, self._namespace)


def search_path() -> str:
    """PATH, and the folders that administrators' programs are in."""
    return os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_PATHS]).strip(os.pathsep)


def environment() -> dict[str, str]:
    """What commands are run with: their words in English, of wireguard-go's only those that say what went wrong."""
    return {"PATH": search_path(), "LC_ALL": "C", "LOG_LEVEL": "error"}


def inside(namespace: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(words before a command that have it run in a network namespace, descriptors that it needs for that).

    namespace: its descriptor; -1 for our own, which needs neither.
    """
    if namespace < 0:
        return (), ()
    return ("nsenter", f"--net=/proc/self/fd/{namespace}", "--"), (namespace,)


def command(words: Sequence[str], namespace: int = -1, given: str = "") -> str:
    """Run a command. Returns why it failed, in one line; "" if it did not.

    namespace: as for `inside`. given: its standard input.
    """
    prefix, kept = inside(namespace)
    try:
        done = subprocess.run(
            [*prefix, *words],
            input=given.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=kept,
            env=environment(),
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} took more than {COMMAND_S:.0f} s"
    except OSError as problem:
        return f"cannot run {words[0]}: {problem.strerror}"
    if not done.returncode:
        return ""
    said = " ".join(done.stderr.decode("utf-8", "replace").split())
    return said[-300:] or f"{words[0]} failed ({done.returncode})"


def attempt(*words: str) -> None:
    """Run a command. Raises Failed."""
    problem = command(words)
    if problem:
        raise Failed(problem)


def remove_interface(interface: str, namespace: int = -1) -> None:
    """Delete an interface, if there is one of the name. namespace: as for `inside`."""
    command(("ip", "link", "delete", "dev", interface), namespace)


def remove_table(interface: str, namespace: int = -1) -> None:
    """Delete an interface's firewall rules, if there are any. namespace: as for `inside`."""
    command(("nft", "delete", "table", "inet", interface), namespace)


def socket_path(interface: str) -> str:
    """Where wireguard-go listens for `wg`."""
    return f"{_SOCKETS}/{interface}.sock"


def is_socket(path: str) -> bool:
    """Whether there is one."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def answers(path: str) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as ours:
        try:
            ours.connect(path)
        except OSError:
            return False
        return True


def remove_socket(interface: str) -> None:
    """What wireguard-go leaves when it is killed."""
    try:
        os.unlink(socket_path(interface))
    except OSError:
        pass


def end_child(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM; SIGKILL if that is not enough. Its interface goes with it, at its very end: that is waited for as long
    as the peer waits for us, since who was killed goes as soon as there is a processor for it."""
    for end, patience_s in ((child.terminate, 1.0), (child.kill, KILLED_S)):
        end()
        try:
            child.wait(patience_s)
            return
        except subprocess.TimeoutExpired:
            continue


def take_record(path: str, *, make: bool = False) -> int:
    """A descriptor of the file, locked by us. make: also where there is none yet, which else raises FileNotFoundError.
    Raises Failed when another process has it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not make:
                raise
            made = make_record(path)
            if made is None:
                continue  # somebody was faster
            return made
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Failed(f"another process keeps this interface ({path} is locked)") from None
        os.close(descriptor)  # it was removed meanwhile, and is another file


def make_record(path: str) -> int | None:
    """A new record that is locked before anybody can see it: whoever clears up takes one that is not for a dead
    keeper's (leftovers.py). None when there is one by now."""
    own = f"{path}.{os.getpid()}"
    descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.link(own, path)
        return descriptor
    except BaseException as problem:
        os.close(descriptor)
        if isinstance(problem, FileExistsError):
            return None
        raise
    finally:
        os.unlink(own)


def write_record(descriptor: int, interface: str, child: int) -> None:
    """What there is to remove when nobody else does: interface, its network namespace, pid of wireguard-go or 0."""
    record = {"interface": interface, "namespace": os.stat("/proc/self/ns/net").st_ino, "child": child}
    if child:
        record["started"] = started(child)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(record).encode(), 0)


def started(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22); -1 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return -1


def watch(pid: int) -> int:
    """A descriptor that becomes readable when our parent ends."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        raise SystemExit(1) from None
    if os.getppid() != pid:
        raise SystemExit(1)  # it ended before we looked
    return handle


def say(what: str, value: str) -> None:
    """A line for the peer; nobody may be there to read it."""
    write(1, json.dumps({what: value}).encode() + b"\n")


def write(descriptor: int, data: bytes) -> None:
    """Write, if that can be done."""
    try:
        os.write(descriptor, data)
    except OSError:
        pass


def _noted(number: int, frame: FrameType | None) -> None:
    """A signal is in the wake-up descriptor."""


def main(arguments: Sequence[str]) -> int:
    """The program. Returns the exit status."""
    options, words = dict[str, str](), list(arguments)
    while words[:1] and words[0].startswith("--"):
        name = words.pop(0)
        options[name] = words.pop(0) if words else ""
    keeper = Keeper(
        options["--interface"],
        options["--record"],
        int(options.get("--namespace", "-1")),
        int(options.get("--parent", "0")),
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keeper.run(words or KINDS)
    except (Failed, OSError) as problem:
        say("failed", str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
