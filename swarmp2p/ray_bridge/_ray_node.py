"""Starts one Ray node, head or worker, without the `ray` command; the only file here that imports Ray.

A program of its own, run by `head.py` and `worker.py` under the supervisor with a JSON object as its argument
(see `Settings`). On the pipe that it finds as standard output it says how far it has come:

    {"gcs": "host:port"}     head: GCS answers, and holds what a joining node asks it for
    {"joined": "node id"}    GCS lists this node as alive
    {"gcs again 1": "why"}   head: GCS had died, and answers again; drivers and tasks have not noticed
    {"failed": "why"}        it could not start, or one of its processes has died; this program ends then

Side by side with `ray start` on two busy cores, medians of four: a head in 2.4 s instead of 7.8 s, for 1.4 s
of CPU instead of 4.3 s; a worker in 2.4 s instead of 4.6 s, for 1.4 s instead of 2.2 s. (On idle cores, either
takes 1.2 s.) Saved are the command's imports, the API server (which without a dashboard serves nothing), the
Ray client server, and sleeps: Ray looks for its own node once a second, and for a head that is still starting
once in two. It uses Ray's private API, for which setup.cfg pins Ray's version.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TypedDict

_LOOK_S = 0.02  # between two looks at GCS
_WATCH_S = 0.2  # between two looks at the node's processes
_LOGS_S = 0.2  # between two looks at what tasks and actors have printed
_MOST_GCS = 8  # times that GCS is started again; then the node ends
_PACKAGES_S = 10.0  # for the head's door to answer; it takes a round trip
_MOST_PACKAGES_BYTES = 4 << 20
_TAIL_LINES = 20  # of Ray's own logs that are kept in ours when a process dies


SINGLE_PORTS = (
    "node_manager_port",
    "object_manager_port",
    "runtime_env_agent_port",
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
)
"""Ray's parameters for the ports of a node's own processes; a head's GCS has one more."""

INDEX_LABEL = "swarmp2p.index"
"""Ray node label of a head: the port, at GCS's address, of its door to a package index (index_door.py)."""


class Settings(TypedDict):
    """The argument.

    head_address: GCS to join, host:port; "" to be the head. port: the head's GCS port, 0 for any. node_ip: the
    address that others reach this node at. ports: all that it may listen at; none for any free ones. name: shown by
    ray.nodes(). directory: Ray's own directory. memory_bytes: 0 leaves it to Ray. labels: node labels. connect_s:
    how long to try to reach the head. python: what the node's Python processes are started by; "" for Python itself.
    """

    head_address: str
    port: int
    node_ip: str
    ports: list[int]
    name: str
    directory: str
    cpus: int
    gpus: int
    memory_bytes: int
    object_store_bytes: int
    labels: dict[str, str]
    connect_s: float
    python: str


class Failed(Exception):
    """The node cannot start; the message says why in words."""


class Status:
    """The status pipe. It takes over standard output, so that nothing else can get into it."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)  # not inherited by Ray's processes
        os.dup2(2, 1)

    def tell(self, subject: str, what: str) -> None:
        """Say one thing; when nobody listens any more, the supervisor is about to end us."""
        try:
            os.write(self._descriptor, json.dumps({subject: what}).encode() + b"\n")
        except OSError:
            pass


def reach(address: str, within_s: float) -> None:
    """Wait until the head's port accepts a connection. Ray's own client would try for minutes. Raises Failed."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + within_s
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=within_s):
                return
        except (OSError, ValueError, OverflowError) as error:
            if time.monotonic() >= deadline or not isinstance(error, OSError):
                raise Failed(f"no Ray head can be reached at {address}: {error}") from error
        time.sleep(_LOOK_S)


def await_head(address: str) -> int:
    """Wait until the head's own node is listed as alive, without which Ray's Node would sleep for 2 s: those of heads
    before are there, too. Returns the port of its door to a package index, 0 where it has none. Raises Failed."""
    raylet: Any = importlib.import_module("ray._raylet")
    exceptions: Any = importlib.import_module("ray.exceptions")
    service: Any = importlib.import_module("ray.core.generated.gcs_service_pb2")
    tables: Any = importlib.import_module("ray.core.generated.gcs_pb2")
    alive = tables.GcsNodeInfo.GcsNodeState.ALIVE
    selector = service.GetAllNodeInfoRequest.NodeSelector()
    selector.is_head_node = True
    try:
        client = raylet.GcsClient(address=address)
        while not (
            heads := client.get_all_node_info(timeout=30, node_selectors=[selector], state_filter=alive)
        ):
            time.sleep(_LOOK_S)
        ports = [head.labels.get(INDEX_LABEL, "") for head in heads.values()]
        return int(next(filter(str.isdecimal, ports), "0"))
    except exceptions.AuthenticationError as error:
        raise Failed(f"the Ray head at {address} refused the token") from error
    except exceptions.RpcError as error:
        raise Failed(f"the Ray head at {address} does not answer: {error}") from error


class Packages(threading.Thread):
    """Asks the head's door (index_door.py) which package index there is, beside the node's start; from then on pip has
    it in its environment, in Ray's agent of runtime environments as in tasks. What it says is the borrower's, like all
    that runs here."""

    def __init__(self, host: str, port: int, directory: str) -> None:
        super().__init__(name="packages", daemon=True)
        self._host, self._port, self._directory = host, port, directory
        self._found: dict[str, str] = {}
        if port:
            self.start()

    def apply(self) -> None:
        """Wait for the answer, not for long, and have it in the environment of all that is started from now on."""
        if self._port:
            self.join(_PACKAGES_S)
            os.environ.update(self._found)

    def run(self) -> None:
        """The thread."""
        token = os.environ.get("RAY_AUTH_TOKEN", "").encode()
        digest = hmac.new(token, b"swarmp2p package index", hashlib.sha256)
        key = digest.hexdigest()[:32]  # as forwarding.py has it
        proxy = f"http://worker:{key}@{self._host}:{self._port}"
        shown = base64.b64encode(f"worker:{key}".encode()).decode()
        request = f"GET / HTTP/1.1\r\nProxy-Authorization: Basic {shown}\r\n\r\n".encode()
        try:
            with socket.create_connection((self._host, self._port), timeout=_PACKAGES_S) as door:
                door.sendall(request)
                answer = bytearray()
                while len(answer) < _MOST_PACKAGES_BYTES and (chunk := door.recv(65536)):
                    answer += chunk
            head, _, body = bytes(answer).partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200 "):
                self._found = self._environment(json.loads(body), proxy)
        except (OSError, ValueError, TypeError, KeyError) as problem:
            print(f"no package index: the head's door does not answer: {problem!r}", file=sys.stderr)

    def _environment(self, said: dict[str, Any], proxy: str) -> dict[str, str]:
        """What pip is told. With the null device as its configuration it reads none of the machine's."""
        index, *more = map(str, said["index"] or [""])
        found = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_PROXY": proxy,
            "PIP_INDEX_URL": index,
            "PIP_EXTRA_INDEX_URL": " ".join(more),
            "PIP_TRUSTED_HOST": " ".join(map(str, said["trusted"])),
            "PIP_RETRIES": "" if index else "0",  # it is told why by the door, once is enough
        }
        if said["certificates"]:
            path = Path(self._directory) / "certificates.pem"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(said["certificates"])
            found["PIP_CERT"] = str(path)
        return {name: value for name, value in found.items() if value}


def node_class(status: Status, packages: Packages) -> Any:
    """Ray's Node, less what is not wanted, and reporting."""
    base: Any = importlib.import_module("ray._private.node").Node
    service: Any = importlib.import_module("ray.core.generated.gcs_service_pb2")
    node_id: Any = importlib.import_module("ray").NodeID

    def write_cluster_info(self: Any) -> None:
        base._write_cluster_info_to_kv(self)
        status.tell("gcs", self.gcs_address)

    def no_api_server(self: Any, **_: object) -> None:
        self._webui_url = ""

    def start_ray_processes(self: Any) -> None:
        base.start_ray_processes(self)
        selector = service.GetAllNodeInfoRequest.NodeSelector()
        selector.node_id = node_id.from_hex(self.node_id).binary()
        while not self.get_gcs_client().get_all_node_info(timeout=30, node_selectors=[selector]):
            if self.dead_processes():
                raise Failed(obituary(self))
            time.sleep(_LOOK_S)
        status.tell("joined", self.node_id)

    def start_raylet(self: Any, *arguments: object) -> None:
        packages.apply()
        persist_ports(self)
        base.start_raylet(self, *arguments)

    changes = {
        "start_raylet": start_raylet,
        "_write_cluster_info_to_kv": write_cluster_info,
        "start_api_server": no_api_server,
        "start_ray_processes": start_ray_processes,
    }
    return type("Node", (base,), changes)


def persist_ports(node: Any) -> None:
    """Tell the raylet its agents' ports, of which it otherwise learns when they are up, half a second later, and before
    that does not join. -1: there is none without a dashboard. That of runtime environments is asked when it is
    needed, and until it answers."""
    raylet: Any = importlib.import_module("ray._raylet")
    ports = dict.fromkeys(
        (
            raylet.METRICS_AGENT_PORT_NAME,
            raylet.METRICS_EXPORT_PORT_NAME,
            raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
        ),
        -1,
    )
    pinned = node._ray_params.runtime_env_agent_port
    if pinned:
        ports[raylet.RUNTIME_ENV_AGENT_PORT_NAME] = pinned
    for name, port in ports.items():
        raylet.persist_port(node.get_session_dir_path(), node.node_id, name, port)


def place(ports: list[int], head: bool) -> dict[str, object]:
    """Which of the ports is whose: one for each process of the node, the rest for workers and drivers.

    Ray gives each worker process, and each driver that joins by this node, a port of the list while it lives. When
    none is free it starts no further one: tasks and actors wait for a worker or for a port that becomes free, of which
    Ray learns a minute after the last start that found none (worker_register_timeout_seconds); a driver ends at once
    ("No available ports"). Without a dashboard, its agent and the metrics export are not there or do not listen; their
    ports are set all the same.
    """
    if not ports:
        return {}
    single = (*(("gcs_server_port",) if head else ()), *SINGLE_PORTS)
    fixed: dict[str, object] = dict(zip(single, ports, strict=False))
    return {**fixed, "worker_port_list": ",".join(map(str, ports[len(single) :]))}


def start_node(settings: Settings, status: Status, packages: Packages) -> Any:
    """Start the node's processes. Returns Ray's Node."""
    utils: Any = importlib.import_module("ray._private.utils")
    parameter: Any = importlib.import_module("ray._private.parameter")
    # With ray[default] installed, a node's agent would serve metrics and job logs to a dashboard that is not there.
    utils.get_dashboard_dependency_error = lambda: ImportError("no dashboard wanted")
    head = not settings["head_address"]
    where: dict[str, object] = (
        {"gcs_server_port": settings["port"]} if head else {"gcs_address": settings["head_address"]}
    )
    parameters = parameter.RayParams(
        node_ip_address=settings["node_ip"],
        node_name=settings["name"],
        num_cpus=settings["cpus"],
        num_gpus=settings["gpus"],
        memory=settings["memory_bytes"] or None,
        object_store_memory=settings["object_store_bytes"],
        labels=settings["labels"],
        temp_dir=settings["directory"],
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        **{"dashboard_agent_listen_port": 0, **where, **place(settings["ports"], head)},
    )
    return node_class(status, packages)(parameters, head=head, shutdown_at_exit=True, spawn_reaper=True)


def follow_logs(node: Any) -> None:
    """Send what tasks and actors of this node print to their drivers, by GCS, as long as this process lives.

    Ray has a Python process for it, started with each node; here it is a thread, with Ray's own code.
    While GCS cannot be reached, what cannot be sent is lost, as it is with Ray's process.
    """
    log_monitor: Any = importlib.import_module("ray._private.log_monitor")
    raylet: Any = importlib.import_module("ray._raylet")
    monitor = log_monitor.LogMonitor(
        node.node_ip_address,
        node.get_logs_dir_path(),
        raylet.GcsClient(address=node.gcs_address),
        log_monitor.is_proc_alive,
    )

    def look() -> None:
        while True:
            try:
                monitor.update_log_filenames()
                monitor.open_closed_files()
                published = monitor.check_log_files_and_publish_updates()
            except Exception:  # noqa: BLE001  a file that is gone, GCS that is gone: the node does without
                traceback.print_exc()
                published = False
            if not published:
                time.sleep(_LOGS_S)

    threading.Thread(target=look, name="logs", daemon=True).start()


def obituary(node: Any) -> str:
    """Which of the node's processes have died. The ends of their logs go to ours, as Ray's directory will go."""
    dead: list[str] = []
    for kind, process in node.dead_processes():
        dead.append(f"{kind} ended with status {process.returncode}")
        for path in sorted(Path(node.get_logs_dir_path()).glob(f"{kind}.*")):
            lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            print(f"-- the end of {path.name} --", *lines, sep="\n", file=sys.stderr)
    return "its " + ", its ".join(dead)


def revive_gcs(node: Any) -> bool:
    """Start GCS again, at the same port and with what it stored, when it alone has died. Returns whether it was so.

    The node, its drivers and the workers' nodes find it again: they try for gcs_rpc_server_reconnect_timeout_s.
    """
    dead = [kind for kind, _ in node.dead_processes()]
    if dead != ["gcs_server"] or not node._is_rocksdb_gcs():
        return False
    del node.all_processes["gcs_server"]
    node._gcs_address = node._gcs_client = None  # as Ray's start_gcs_server wants to find them
    node.start_gcs_server()
    node.get_gcs_client()
    return True


def watch(node: Any, status: Status) -> str:
    """Until the node has to end. Returns why."""
    revived = 0
    while True:
        time.sleep(_WATCH_S)
        if node.dead_processes():
            why = obituary(node)
            if revived == _MOST_GCS or not revive_gcs(node):
                return why
            revived += 1
            status.tell(f"gcs again {revived}", why)


def run(settings: Settings, status: Status) -> str:
    """Start the node and watch it. Returns why it is over."""
    address, port = settings["head_address"], 0
    try:
        if address:
            reach(address, settings["connect_s"])
            port = await_head(address)
        packages = Packages(address.rpartition(":")[0], port, settings["directory"])
        node = start_node(settings, status, packages)
        follow_logs(node)
    except Failed as problem:
        return str(problem)
    except (AttributeError, TypeError, ImportError) as problem:
        version = getattr(sys.modules.get("ray"), "__version__", "?")
        return (
            f"this program cannot start a node of Ray {version}, install one that setup.cfg allows: {problem}"
        )
    except Exception as problem:  # noqa: BLE001  Ray raises bare Exception, RuntimeError, ValueError
        traceback.print_exc()
        return " ".join(str(problem).split()) or type(problem).__name__
    return watch(node, status)


def main() -> int:
    """The program. Returns its exit status: it ends by itself only in failure."""
    status = Status()
    settings: Settings = json.loads(sys.argv[1])
    sys.executable = settings["python"] or sys.executable  # Ray asks it
    status.tell("failed", run(settings, status))
    return 1


if __name__ == "__main__":
    sys.exit(main())
