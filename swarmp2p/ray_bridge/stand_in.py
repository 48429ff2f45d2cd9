"""Stands in for Python in a node with a zygote: has the zygote fork a process that is warm, instead of being one.

Ray starts its agents and workers by `sys.executable`. In such a node that is a copy of this file, with a first line
that runs it by `python -I -S`, next to the zygote's socket (`zygote.py` says what goes over it). It gives the zygote
its arguments, environment, working directory and descriptors, passes signals on, and ends as the forked process does;
when it ends itself, were it by SIGKILL, the forked process is killed. It takes 15 ms and 6 MB, so it imports next to
nothing: not even `socket`, whose enums take 15 ms more.

Of the two agents, that of the dashboard does nothing without one but be there, as its raylet wants: so it is this
process, waiting for the raylet's end of its standard input. That of runtime environments comes a little later than it
is asked for: the raylet tries until it answers, and the node's first worker is started meanwhile.

Whatever the zygote does not do (`python -c`, `python -m`, other options, a request of more than a packet, a zygote
that has gone) is done by the real Python, which takes this process over.
"""

from __future__ import annotations

import _socket
import array
import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SOCKET = "zygote"
"""Name of the zygote's socket, in the directory of the copy."""

PLAIN_OPTIONS = ("-u", "-P")
"""Of Python's options, those that a forked process can still heed."""

MOST_DESCRIPTORS = 64

IDLE_AGENT = ("/ray/dashboard/agent.py", "--minimal")
LATE_AGENT = "/ray/_private/runtime_env/agent/main.py"
LATE_S = 0.5
ANY_PORT = "--runtime-env-agent-port=0"
"""With which the raylet waits until the agent says its port."""

PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def wait(seconds: float) -> bool:
    """Wait so long, or until standard input ends: then False."""
    import select

    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([0], [], [], min(left, 3600.0))[0] and not os.read(0, 4096):
            return False
    return True


def wanted(arguments: list[str]) -> bool:
    """Whether these are arguments that a zygote's child can take: a script, after few options."""
    rest = list(arguments)
    while rest and rest[0] in PLAIN_OPTIONS:
        rest.pop(0)
    return bool(rest) and rest[0].endswith(".py")


def inherited() -> list[int]:
    """The descriptors that this process was started with."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # the one that listed them
    return found


def ask(path: str, arguments: list[str], descriptors: list[int]) -> _socket.socket | None:
    """The link to the zygote, once it has the request; None when it cannot be asked."""
    if not wanted(arguments) or len(descriptors) > MOST_DESCRIPTORS:
        return None
    request = marshal.dumps((arguments, os.getcwd(), dict(os.environ), descriptors))
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    rights = array.array("i", descriptors)
    try:
        link.connect(path)
        link.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    except OSError:
        link.close()
        return None
    return link


def follow(link: _socket.socket, descriptors: list[int]) -> NoReturn:
    """Pass signals on, and end as the forked process does. The descriptors are the forked process's alone."""

    def pass_on(number: int, _: object) -> None:
        try:
            link.send(bytes((number,)))
        except OSError:
            pass  # it has ended: the answer is on its way

    import signal  # only now, when nobody waits for it

    for name in PASSED_ON:
        signal.signal(getattr(signal, name), pass_on)
    for descriptor in descriptors:
        os.close(descriptor)
    answer = link.recv(4)
    if len(answer) != 4:
        os._exit(1)  # the zygote was killed, and its children go with it
    status = int.from_bytes(answer, "big", signed=True)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


def main() -> None:
    """The program."""
    script = next((each for each in sys.argv[1:] if not each.startswith("-")), "")
    if script.endswith(IDLE_AGENT[0]) and IDLE_AGENT[1] in sys.argv:
        wait(float("inf"))
        return
    if script.endswith(LATE_AGENT) and ANY_PORT not in sys.argv and not wait(LATE_S):
        return
    descriptors = inherited()
    link = ask(os.path.join(os.path.dirname(__file__), SOCKET), sys.argv[1:], descriptors)
    if link is None:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    follow(link, descriptors)


if __name__ == "__main__":
    main()
