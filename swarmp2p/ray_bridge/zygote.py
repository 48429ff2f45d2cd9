"""A zygote: a process that has imported Ray already, from which a node's Python processes are forked.

A program of its own, run under the supervisor like `_ray_node.py`, before there is a lease:

    python -P zygote.py ORDERS DIRECTORY

Importing Ray takes 0.6 s of CPU, and a worker's node has four processes that must come that far before its first task
runs. A zygote does it once, ahead of time, and then waits, with one thread:

    warming -> warm, {"warm": PID} on standard output -> serving, once a request has come on ORDERS: that is the node
    (`_ray_node.py`), which then starts others by requests at DIRECTORY/zygote, through stand-ins -> over, when the
    node's process has ended, with its status; the supervisor ends the rest

A request is one packet (SOCK_SEQPACKET) of Python's marshal: arguments as after `python`, working directory,
environment, and the numbers of the descriptors that come with it (what it lacks of 0 to 2 is the zygote's). The zygote
forks, and the child reads the request and becomes what it says: a process as Python would have made it, but for
/proc/PID/cmdline. Nobody else can ask, for DIRECTORY is the node's own; and who is inside could fork by himself.

DIRECTORY also gets the stand-in, as an executable.

The token comes with the node's request: a zygote that waits knows no secret. It serves one lease.

To a stand-in (`stand_in.py`) goes, when its process has ended, the exit status in 4 bytes (negative: of the signal);
from it come signals, a byte each; and when it goes, its process is killed.
"""

from __future__ import annotations

import array
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

SOCKET: Final = "zygote"  # as in stand_in.py
EXECUTABLE: Final = "python"
"""Name of the stand-in in the zygote's directory."""

MOST_SHEBANG_BYTES: Final = 120  # of a script's first line, Linux before 5.1 reads 128
MOST_REQUEST_BYTES: Final = 1 << 20  # a sender's buffer, 208 KiB by default, allows less
MOST_DESCRIPTORS: Final = 64  # as in stand_in.py
MOST_CHILDREN: Final = 1024
"""Forked processes that live, and stand-ins that have not asked yet. Who asks on top of that is turned away, and
becomes Python itself."""

PRELOADED: Final = (
    # What Ray's node, agents and workers import. Not numpy, nor what imports it: that starts threads, and reads
    # settings (OMP_NUM_THREADS) that a worker gets with its request.
    "ray",
    "ray._private.async_compat",
    "ray._private.log_monitor",
    "ray._private.node",
    "ray._private.parameter",
    "ray._private.resource_isolation_config",
    "ray._private.runtime_env.agent.runtime_env_agent",
    "ray._private.runtime_env.context",
    "ray._private.runtime_env.setup_hook",
    "ray._private.worker",
    "ray._private.workers",
    "ray.core.generated.gcs_service_pb2",
    "ray.dashboard.agent",
    "ray.dashboard.utils",
    "aiohttp.web",
    "asyncio",
)

Forked = tuple[bytes, "array.array[int]"]
"""A request and its descriptors, in the process that is forked for it."""


class Zygote:
    """See the module. orders: the peer's socket. directory: of the socket for stand-ins."""

    def __init__(self, orders: socket.socket, directory: Path) -> None:
        self._orders = orders
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(directory / SOCKET))
        self._listener.listen(128)
        self._wake, self._wake_write = os.pipe()
        for end in (self._wake, self._wake_write):
            os.set_blocking(end, False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._poll = select.poll()
        for descriptor in (self._wake, orders.fileno(), self._listener.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        self._links: dict[int, socket.socket] = {}  # to stand-ins, by descriptor
        self._children: dict[int, int] = {}  # pids by their link's descriptor
        self._node: int | None = None

    def run(self) -> Forked | int:
        """Until the node's process has ended: its exit status. In a forked process: what it is to become."""
        while True:
            for descriptor, _ in self._poll.poll():
                outcome: Forked | int | None = None
                if descriptor == self._wake:
                    outcome = self._woken()
                elif descriptor == self._listener.fileno():
                    link, _ = self._listener.accept()
                    if len(self._links) < MOST_CHILDREN:
                        self._links[link.fileno()] = link
                        self._poll.register(link, select.POLLIN)
                    else:
                        link.close()
                elif descriptor == self._orders.fileno():
                    outcome = self._ordered()
                elif descriptor in self._children:
                    self._pass_on(descriptor)
                elif descriptor in self._links:
                    outcome = self._asked(descriptor)
                if outcome is not None:
                    return outcome

    def _ordered(self) -> Forked | None:
        """The peer's request; or it lets go, and the supervisor ends us."""
        packet, rights = receive(self._orders)
        self._poll.unregister(self._orders)
        if packet:
            self._node = fork()
            if self._node == 0:
                self._leave()
                return packet, rights
        return None

    def _asked(self, descriptor: int) -> Forked | None:
        """A stand-in's request."""
        packet, rights = receive(self._links[descriptor])
        try:
            pid = fork() if packet else -1
        except OSError:
            pid = -1  # there may be no more processes
        if pid == 0:
            self._leave()
            return packet, rights
        for number in rights:
            os.close(number)
        if pid > 0:
            self._children[descriptor] = pid
        else:
            self._let_go(descriptor)
        return None

    def _pass_on(self, descriptor: int) -> None:
        """A stand-in's signals; or it was killed, and takes its process along, which is ours until it is reaped."""
        try:
            numbers = self._links[descriptor].recv(1)
        except OSError:
            numbers = b""
        if not numbers:
            self._poll.unregister(descriptor)
        os.kill(self._children[descriptor], numbers[0] if numbers else signal.SIGKILL)

    def _woken(self) -> int | None:
        """Signals have come. Returns the node's exit status once it has ended."""
        if signal.SIGTERM in os.read(self._wake, 512):
            if self._node is None:
                return 128 + signal.SIGTERM
            os.kill(self._node, signal.SIGTERM)
        while self._children or self._node is not None:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            if pid == self._node:
                for child in self._children.values():  # else they try for seconds to reach who has gone
                    os.kill(child, signal.SIGKILL)
                return code if code >= 0 else 128 - code
            for descriptor, child in self._children.items():
                if child == pid:
                    try:
                        self._links[descriptor].send(code.to_bytes(4, "big", signed=True))
                    except OSError:
                        pass  # it was killed
                    self._let_go(descriptor)
                    break
        return None

    def _let_go(self, descriptor: int) -> None:
        try:
            self._poll.unregister(descriptor)
        except KeyError:
            pass
        self._children.pop(descriptor, None)
        self._links.pop(descriptor).close()

    def _leave(self) -> None:
        """In a forked process: keep nothing of the zygote's."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for sock in (self._orders, self._listener, *self._links.values()):
            sock.close()
        os.close(self._wake)
        os.close(self._wake_write)


def fork() -> int:
    """fork(2), with nothing left in buffers that both would write."""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fork()


def receive(link: socket.socket) -> tuple[bytes, array.array[int]]:
    """A request and its descriptors; b"" when the other end has gone."""
    rights = array.array("i")
    try:
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * rights.itemsize)
        packet, ancillary, _, _ = link.recvmsg(MOST_REQUEST_BYTES, room)
    except OSError:
        return b"", rights
    for _, _, data in ancillary:
        rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
    return packet, rights


def put_stand_in(path: Path) -> None:
    """Make an executable stand-in. Raises OSError where Python's own path does not fit into a script's first line."""
    first = f"#!{sys.executable} -IS\n"
    if len(os.fsencode(first)) > MOST_SHEBANG_BYTES or any(each.isspace() for each in sys.executable):
        raise OSError(f"Python's path is too long for a script's first line, or has spaces: {sys.executable}")
    path.write_text(first + Path(__file__).with_name("stand_in.py").read_text())
    path.chmod(0o700)


def load(name: str) -> Any:
    """A module beside this one. (Neither the package nor this folder is where this program imports from.)"""
    spec = importlib.util.spec_from_file_location(f"_swarmp2p_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> int:
    """The program. Returns the exit status; in forked processes, theirs."""
    orders, directory = socket.socket(fileno=int(arguments[0])), Path(arguments[1])
    directory.mkdir(mode=0o700)
    try:
        put_stand_in(directory / EXECUTABLE)
    except OSError as problem:
        tell("failed", str(problem))
        return 1
    forked = load("forked")
    os.environ.update(forked.PLACEHOLDERS)
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # of an optional part of Ray's; whoever needs it will say so
    job_ids = forked.job_ids()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        tell("failed", f"importing Ray has started {threads - 1} threads, which no forked process would have")
        return 1
    zygote = Zygote(orders, directory)
    gc.collect()
    gc.freeze()
    tell("warm", os.getpid())
    outcome = zygote.run()
    if isinstance(outcome, int):
        return outcome
    del zygote, orders
    forked.become(*outcome, job_ids)
    return 0


def tell(subject: str, what: object) -> None:
    """A status line for the peer."""
    os.write(1, json.dumps({subject: what}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
