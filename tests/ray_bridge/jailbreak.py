"""Tries to get out of a leased worker's jail, in every way that we know of. Two programs:

    python jailbreak.py swarm DIRECTORY   a lender and a borrower in one process, and what strangers must not reach
    python jailbreak.py drive FACTS       the borrower's Ray script: runs each probe as a task on the leased worker

A probe says "denied" or, of what cannot be denied, "bounded"; anything else is a hole, and so is a probe whose worker
does not live to tell. The lender looks from outside meanwhile at how much its worker has. The script prints all of them
as one JSON object, in the order in which they were tried, and what the lender saw.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmp2p.ray_bridge import processes

Facts = dict[str, Any]
Probe = Callable[[Facts], str]
PROBES: dict[str, Probe] = {}
BOUNDED = ("a fork bomb", "filling the disk", "a memory bomb")
OUTSIDE = ("processes seen from outside", "memory seen from outside")

LATE_BYTES = 1 << 30
"""Most that a bomb gets beyond its bound where nobody but the supervisor looks: 5 GB/s, 25 looks a second, a busy
machine. Control groups let it have nothing."""


def probe(tried: Probe) -> Probe:
    """Put a probe on the list, by its name in words."""
    PROBES[tried.__name__.replace("_", " ")] = tried
    return tried


def denied(*tries: Callable[[], object]) -> str:
    """ "denied" when each of them fails as what is forbidden, or is not there, does."""
    for number, each in enumerate(tries):
        try:
            found = each()
        except (OSError, ValueError, LookupError):
            continue
        return f"try {number} gave {found!r}"[:200]
    return "denied"


def contents(path: str) -> bytes:
    """A file, or b"" of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def call(number: int, *arguments: object) -> int:
    """A system call of x86_64 by its number. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def alone(code: str, *arguments: str, timeout_s: float = 60.0) -> tuple[int, str]:
    """A program of its own: its status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout.strip()


# Files ------------------------------------------------------------------------------------------------------


@probe
def files_of_the_owner(facts: Facts) -> str:
    paths = [
        facts["secret"],
        *facts["own"],
        "/etc/shadow",
        "/etc/ssh",
        "/var/lib",
        "/run/systemd",
        "/boot",
        "/sys/kernel",
    ]
    paths += [
        f"/proc/1/root{facts['secret']}",
        f"/proc/self/root{facts['secret']}",
        "/root/.ssh",
        "/mnt",
        "/media",
    ]
    return denied(
        *(lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path).read() for path in paths)
    )


@probe
def writing_to_what_is_shown(facts: Facts) -> str:
    places = [
        "/usr/bin",
        sys.prefix,
        os.path.dirname(os.__file__),
        "/etc",
        "/",
        "/dev",
        "/opt",
        facts["package"],
    ]
    return denied(*(lambda place=place: open(f"{place}/stranger", "w") for place in places))


@probe
def a_link_to_the_owners_files(facts: Facts) -> str:
    link = "/tmp/link-to-secret"
    os.symlink(facts["secret"], link)
    try:
        return denied(lambda: open(link).read(), lambda: os.link("/usr/bin/env", "/tmp/env"))
    finally:
        os.unlink(link)


@probe
def the_kernels_settings(facts: Facts) -> str:
    names = [
        "sys/kernel/core_pattern",
        "sys/vm/drop_caches",
        "sysrq-trigger",
        "sys/kernel/modprobe",
        "self/oom_adj",
    ]
    return denied(*(lambda name=name: open(f"/proc/{name}", "w").write("1") for name in names[:4]))


@probe
def open_descriptors_of_the_lender(facts: Facts) -> str:
    """Whatever is open in any process: files and folders of the jail's own, or what it is shown anyway, to read."""
    own = {os.stat(place).st_dev for place in ("/tmp", "/dev/shm", "/dev", "/dev/pts", "/proc")}
    looked = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # bubblewrap's own, of a root lender
        for number in numbers:
            place = f"/proc/{pid}/fd/{number}"
            try:
                link, found, flags = (
                    os.readlink(place),
                    os.stat(place),
                    contents(f"/proc/{pid}/fdinfo/{number}"),
                )
            except OSError:
                continue  # closed meanwhile
            looked += 1
            if found.st_dev in own or link.startswith(
                ("pipe:", "socket:", "anon_inode:", "/memfd:", "/dev/null")
            ):
                continue
            written = int(flags.split(b"flags:")[1].split()[0], 8) & (os.O_WRONLY | os.O_RDWR) if flags else 1
            if written or not link.startswith(("/usr/", sys.prefix + "/", sys.base_prefix + "/")):
                return f"{pid} has {link}"
    return "denied" if looked else "nothing was found"


@probe
def the_lenders_disk_by_its_log(facts: Facts) -> str:
    """Reserving space behind the end of what a process prints to, or making a program of it."""
    import ctypes

    libc = ctypes.CDLL(None)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            number = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        own = os.fstat(number).st_dev == os.stat("/tmp").st_dev
        if not own and libc.fallocate(number, 1, ctypes.c_long(0), ctypes.c_long(1 << 20)) == 0:
            return f"standard error of {pid} is {os.readlink(f'/proc/self/fd/{number}')}"
        os.close(number)
    return "denied"


@probe
def core_dumps_for_programs_outside(facts: Facts) -> str:
    import resource

    if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):
        return f"the limit is {resource.getrlimit(resource.RLIMIT_CORE)}"  # 0 would let pipes have them, see core(5)
    return denied(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))


# Processes --------------------------------------------------------------------------------------------------


@probe
def processes_of_the_owner(facts: Facts) -> str:
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if any(facts["mark"].encode() in contents(f"/proc/{pid}/cmdline") for pid in seen):
        return "the lender's process is seen"
    return denied(lambda: os.kill(facts["pid"], 0)) if facts["pid"] not in seen else "denied"


@probe
def ptrace(facts: Facts) -> str:
    import ctypes

    space = ctypes.create_string_buffer(64)
    return denied(
        lambda: call(101, 0, 0, 0, 0),  # PTRACE_TRACEME
        lambda: call(101, 16, 1, 0, 0),  # PTRACE_ATTACH
        lambda: call(310, os.getpid(), space, 1, space, 1, 0),  # process_vm_readv
        lambda: call(438, 3, 0, 0),  # pidfd_getfd
        lambda: open("/proc/1/mem", "rb").read(1),
    )


@probe
def priorities(facts: Facts) -> str:
    return denied(
        lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    )


@probe
def a_fork_bomb(facts: Facts) -> str:
    code = """
import os, signal, sys
count = 0
try:
    while count < 20_000:
        if not os.fork():
            signal.pause()
        count += 1
except BlockingIOError:
    pass
print(count, flush=True)
os.killpg(0, signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=100,
    )
    return "bounded" if 0 < int(done.stdout) < facts["processes"] else f"{done.stdout} processes"


# Rights -----------------------------------------------------------------------------------------------------


@probe
def capabilities(facts: Facts) -> str:
    status = dict(line.split(":", 1) for line in contents("/proc/self/status").decode().splitlines())
    held = [name for name in ("CapEff", "CapPrm", "CapInh", "CapAmb") if int(status[name], 16)]
    if held or status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
        return f"{held}, NoNewPrivs {status['NoNewPrivs']}, Seccomp {status['Seccomp']}"
    return denied(lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chroot("/tmp"))


@probe
def programs_that_are_roots(facts: Facts) -> str:
    code = "import os; os.execvp('su', ['su', '-c', 'id', 'root'])"
    status, said = alone(code)
    return "denied" if status and "uid=0" not in said else said or "su ended well"


@probe
def mount(facts: Facts) -> str:
    import ctypes

    name = ctypes.c_char_p(b"tmpfs")
    place = ctypes.c_char_p(b"/tmp")
    return denied(
        lambda: call(165, name, place, name, 0, 0),
        lambda: call(166, place, 2),  # umount2
        lambda: call(428, -100, place, 1),  # open_tree(OPEN_TREE_CLONE)
        lambda: call(430, name, 0),  # fsopen
        lambda: call(155, place, place),  # pivot_root
    )


@probe
def new_namespaces(facts: Facts) -> str:
    flags = [0x20000, *(1 << bit for bit in range(25, 31)), 0x80]
    unshared = [lambda flag=flag: call(272, flag) for flag in flags]
    cloned = [lambda flag=flag: call(56, flag | 17, 0, 0, 0, 0) for flag in flags[:-1]]
    joined = [
        lambda kind=kind: call(308, os.open(f"/proc/1/ns/{kind}", 0), 0) for kind in ("net", "mnt", "user")
    ]
    return denied(*unshared, *cloned, *joined, lambda: call(435, 0, 0))  # clone3


@probe
def keyrings(facts: Facts) -> str:
    import ctypes

    word = ctypes.c_char_p(b"user")
    return denied(
        lambda: call(248, word, word, word, 4, -3),  # add_key
        lambda: call(249, word, word, 0, 0),  # request_key
        lambda: call(250, 0, -3, 1),  # keyctl
        lambda: call(250, 1, word),  # a new session keyring
    )


@probe
def calls_into_the_kernel(facts: Facts) -> str:
    numbers = {
        "bpf": 321,
        "perf_event_open": 298,
        "io_uring_setup": 425,
        "userfaultfd": 323,
        "kexec_load": 246,
    }
    numbers |= {"init_module": 175, "open_by_handle_at": 304, "memfd_secret": 447, "reboot": 169, "acct": 163}
    numbers |= {
        "sethostname": 170,
        "clock_settime": 227,
        "syslog": 103,
        "swapon": 167,
        "move_pages": 279,
        "not yet": 999,
    }
    return denied(*(lambda number=number: call(number, 0, 0, 0, 0, 0) for number in numbers.values()))


# Devices ----------------------------------------------------------------------------------------------------


@probe
def device_nodes(facts: Facts) -> str:
    import stat

    known = {
        "core",
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
    }
    more = set(os.listdir("/dev")) - known - {"zero", "console"}
    if more:
        return f"/dev has {sorted(more)}"
    disk, memory = os.makedev(8, 0), os.makedev(1, 1)
    return denied(
        lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o666, disk),
        lambda: os.mknod("/tmp/memory", stat.S_IFCHR | 0o666, memory),
        *(
            lambda name=name: open(f"/dev/{name}")
            for name in ("mem", "kmsg", "kvm", "fuse", "sda", "vda", "vsock")
        ),
    )


@probe
def modes_of_device_nodes(facts: Facts) -> str:
    """They are the machine's own nodes, bound here. Asks for what they have, which nobody but their owner may."""
    nodes = [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    return denied(
        *(lambda node=node: os.chmod(node, os.stat(node).st_mode & 0o7777) for node in nodes),
        *(lambda node=node: os.chown(node, os.geteuid(), -1) for node in nodes),
        *(lambda node=node: os.utime(node, (0, 0)) for node in nodes),
    )


@probe
def typing_into_a_terminal(facts: Facts) -> str:
    import fcntl
    import pty

    _, terminal = pty.openpty()
    return denied(
        lambda: fcntl.ioctl(terminal, 0x5412, b"x"),  # TIOCSTI
        lambda: fcntl.ioctl(terminal, 0x541C, b"\x03"),  # TIOCLINUX
    )


# Network ----------------------------------------------------------------------------------------------------


@probe
def the_owners_network(facts: Facts) -> str:
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        return f"interfaces {socket.if_nameindex()}"
    places: list[tuple[str, int]] = [
        (host, facts["port"]) for host in ("127.0.0.1", "127.0.0.9", *facts["addresses"])
    ]
    places += [("192.0.2.1", 80), ("1.1.1.1", 443)]
    places += [("169.254.169.254", 80), ("100.100.100.200", 80), ("127.0.0.1", facts["swarm"])]
    return denied(*(partial(socket.create_connection, place, 2) for place in places))


@probe
def names_of_the_internet(facts: Facts) -> str:
    def ask() -> object:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            return asker.sendto(b"\0" * 12, ("1.1.1.1", 53))

    return denied(lambda: socket.getaddrinfo("example.com", 80), ask, lambda: open("/etc/resolv.conf"))


@probe
def odd_sockets(facts: Facts) -> str:
    families = (17, 40, 38, 31, 29, 15, 30, 44)  # packet, vsock, alg, bluetooth, CAN, key, TIPC, XDP
    return denied(
        *(lambda family=family: socket.socket(family, socket.SOCK_DGRAM) for family in families),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
    )


@probe
def unix_sockets(facts: Facts) -> str:
    def connect(address: str | bytes) -> Callable[[], object]:
        def tried() -> object:
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(address)
                return "a connection"

        return tried

    others = [
        "/run/dbus/system_bus_socket",
        "/var/run/docker.sock",
        "/run/systemd/private",
        "/tmp/.X11-unix/X0",
    ]
    return denied(connect(facts["unix"]), connect(b"\0" + facts["abstract"].encode()), *map(connect, others))


# Secrets ----------------------------------------------------------------------------------------------------


@probe
def the_owners_environment(facts: Facts) -> str:
    found = [
        name for name in os.environ if name in ("OWNERS_SECRET", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS")
    ]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if b"OWNERS_SECRET" in contents(f"/proc/{pid}/environ"):
            found.append(pid)
    return f"found in {found}" if found else "denied"


# What cannot be denied --------------------------------------------------------------------------------------


@probe
def filling_the_disk(facts: Facts) -> str:
    code = """
import os, sys
count = 0
try:
    with open(sys.argv[1], "wb", buffering=0) as file:
        while count < 1 << 36:
            count += file.write(b"x" * (1 << 20))
except OSError:
    pass
os.unlink(sys.argv[1])
print(count)
"""
    for place in ("/tmp/fill", "/dev/shm/fill"):
        status, said = alone(code, place)
        if status or not 0 < int(said) <= facts["memory"]:
            return f"{place}: {said} bytes, status {status}"
    return "bounded"


@probe
def a_memory_bomb(facts: Facts) -> str:
    code = """
import sys
kept = []
while len(kept) < 4096:
    kept.append(bytearray(b"x") * (16 << 20))
    print(len(kept) * (16 << 20), flush=True)
"""
    status, said = alone(code)
    reached = int((said.splitlines() or ["0"])[-1])
    return "bounded" if status and reached <= facts["memory"] else f"{reached} bytes, status {status}"


class Seen:
    """The most that one jail of this process's had at a time, as seen from outside, where nobody inside can lie."""

    def __init__(self) -> None:
        self.processes = self.memory = 0

    async def watch(self, facts: Facts) -> None:
        """Look, until cancelled."""
        import trio

        while True:
            await trio.to_thread.run_sync(self.look, facts)
            await trio.sleep(0.1)

    def look(self, facts: Facts) -> None:
        """Once. Threads count as processes; memory is what was written, files in memory included."""
        for jail in processes.descendants(os.getpid()):
            if b"\0--jailed\0" not in contents(f"/proc/{jail.pid}/cmdline"):
                continue
            tree = processes.descendants(jail.pid)
            jailed = processes.inside_of(tree[0].pid, tree) if tree else []
            if not jailed:
                continue  # still being made: bubblewrap's own root is the machine's
            inside = [process.pid for process in tree]
            lines = b"".join(contents(f"/proc/{pid}/status") for pid in inside).splitlines()
            threads = sum(int(line.split()[1]) for line in lines if line.startswith(b"Threads:"))
            memory = sum(map(processes.memory_of, inside))
            if memory > facts["memory"] / 2:  # what forked processes share counted for each of them
                memory = sum(processes.memory_of(pid, exact=True) for pid in inside)
            roots = [f"/proc/{jailed[0].pid}/root/{place}" for place in ("tmp", "dev/shm")]
            memory += sum(map(processes.file_bytes, roots))
            self.processes, self.memory = max(self.processes, threads), max(self.memory, memory)

    def verdict(self, facts: Facts) -> dict[str, str]:
        """Both as a probe would say it. Too few is a bomb that did not burst."""
        good = (
            200 <= self.processes <= facts["processes"] + 16,  # bubblewrap's own among them
            facts["memory"] / 4 <= self.memory <= facts["memory"] + LATE_BYTES,
        )
        seen = (f"{self.processes} processes and threads", f"{self.memory} bytes")
        return {
            name: "bounded" if well else told for name, well, told in zip(OUTSIDE, good, seen, strict=True)
        }


def drive(facts: Facts) -> None:
    """Run every probe on the leased worker."""
    import ray
    from ray.exceptions import RayError

    ray.init(logging_level=logging.ERROR, log_to_driver=False)

    @ray.remote(
        num_cpus=1, max_retries=0
    )  # a bomb that takes its own worker along is not told from one that takes all
    def attempt(tried: Probe, known: Facts) -> str:
        try:
            return tried(known)
        except Exception as problem:  # noqa: BLE001  a probe that fails in its own way is not a denial
            return f"{type(problem).__name__}: {problem}"

    found: dict[str, str] = {}
    for name, tried in PROBES.items():
        try:
            found[name] = ray.get(attempt.remote(tried, facts), timeout=60)
        except (RayError, TimeoutError) as problem:
            found[name] = f"{type(problem).__name__}: {problem}"
    print(json.dumps(found))


def swarm(directory: str) -> None:
    """Lend and borrow, and have the probes run."""
    import trio

    import swarmp2p
    from swarmp2p import Need, Offer, open_peer

    os.environ["OWNERS_SECRET"] = "of the lender"
    secret, unix = os.path.join(directory, "secret"), os.path.join(directory, "socket")
    with open(secret, "w") as file:
        file.write("of the owner")
    abstract = f"swarmp2p-{os.getpid()}"

    async def run() -> None:
        with (
            socket.create_server(("0.0.0.0", 0)) as service,
            socket.socket(socket.AF_UNIX) as by_path,
            socket.socket(socket.AF_UNIX) as by_name,
        ):
            for listener, address in ((by_path, unix), (by_name, "\0" + abstract)):
                listener.bind(address)
                listener.listen()
            offer, need = Offer(memory_bytes=256 << 20), Need(memory_bytes=256 << 20)
            async with (
                open_peer() as lender,
                open_peer(bootstrap=lender.addresses) as borrower,
                lender.lend(offer, allow=[borrower.id], logs=os.path.join(directory, "logs")),
                borrower.borrow(need, lenders=[lender.id], timeout_s=120.0) as cluster,
            ):
                assert [worker.isolation for worker in cluster.workers] == ["jail"]
                facts: Facts = {
                    "secret": secret,
                    "own": own_files(),
                    "unix": unix,
                    "abstract": abstract,
                    "port": service.getsockname()[1],
                    "swarm": int(str(lender.addresses[0]).split("/tcp/")[1].split("/")[0]),
                    "addresses": addresses(),
                    "pid": os.getpid(),
                    "mark": directory,
                    "package": os.path.dirname(swarmp2p.__file__),
                    "processes": 1024 + 512,
                    "memory": (256 + 256 + 1024) << 20,
                }
                seen = Seen()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(seen.watch, facts)
                    done = await trio.run_process(
                        [sys.executable, __file__, "drive", json.dumps(facts)],
                        env={**os.environ, **cluster.environment},
                        capture_stdout=True,
                    )
                    nursery.cancel_scope.cancel()
                lines = done.stdout.decode().splitlines()  # others are Ray's, of workers that died
                found = json.loads(next(line for line in lines if line.startswith("{")))
                print(json.dumps({**found, **seen.verdict(facts)}))

    trio.run(run)


def own_files() -> list[str]:
    """What is in this user's home, without what leads to Python."""
    home = os.path.expanduser("~")
    found = [os.path.join(home, name) for name in sorted(os.listdir(home))]
    shown = (os.path.realpath(sys.base_prefix), sys.prefix, os.path.abspath(__file__))
    return [path for path in found if not any(place.startswith(path) for place in shown)]


def addresses() -> list[str]:
    """Addresses of this machine that are not loopback's."""
    found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    return sorted({str(entry[4][0]) for entry in found if not str(entry[4][0]).startswith("127.")})


if __name__ == "__main__":
    if sys.argv[1] == "swarm":
        swarm(sys.argv[2])
    else:
        drive(json.loads(sys.argv[2]))
