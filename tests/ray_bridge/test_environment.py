"""What Ray's processes and drivers are told, and what they are not."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from swarmp2p.errors import RayMissing, UsageError
from swarmp2p.ray_bridge.environment import (
    applied,
    driver_environment,
    head_environment,
    health_settings,
    lender_environment,
)
from swarmp2p.ray_bridge.events import JoinSecret
from swarmp2p.ray_bridge.head import LOOPBACK_IP, start_head, usable_ip
from swarmp2p.ray_bridge.node_tree import private_directory
from swarmp2p.ray_bridge.versions import check_installed, installed_versions

SECRET = JoinSecret("[::ffff:127.0.0.1]:40321", "5ec7e7")


def test_a_lender_shows_tasks_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOUD_SECRET_KEY", "RAY_ADDRESS", "SWARMP2P_TREE", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "private")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = lender_environment("5ec7e7")
    assert "private" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", "5ec7e7")


def test_a_head_hears_nothing_of_other_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("MINE", "kept")
    environment = head_environment(Path("/kept/token"), Path("/kept/gcs"))
    assert "RAY_AUTH_TOKEN" not in environment
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", "/kept/token")
    assert environment["RAY_gcs_storage_path"] == "/kept/gcs"
    assert environment["MINE"] == "kept"
    assert environment["RAY_health_check_failure_threshold"] == "4"
    assert not {"RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE"} & environment.keys()


def test_the_dead_are_told_from_the_distant_by_the_round_trip() -> None:
    near, far, absurd = (health_settings(rtt_s) for rtt_s in (0.0, 0.15, 1e9))
    assert near["RAY_health_check_period_ms"] == "500"
    assert near["RAY_health_check_timeout_ms"] == "2000"
    assert far["RAY_health_check_period_ms"] == "800"
    assert far["RAY_health_check_timeout_ms"] == "3500"
    assert absurd == health_settings(2.0)
    assert health_settings(-1.0) == near


def test_a_drivers_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "before:1")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with applied(driver_environment(SECRET)):
        assert os.environ["RAY_ADDRESS"] == "[::ffff:127.0.0.1]:40321"
        assert os.environ["RAY_AUTH_TOKEN"] == "5ec7e7"
    assert os.environ["RAY_ADDRESS"] == "before:1"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_ray_that_is_imported_already_reads_the_environment_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def initialize(_config: str) -> None:
        heard.append(os.environ.get("RAY_AUTH_MODE", "none"))

    loader = SimpleNamespace(reset_cache=lambda: heard.append("reset"))
    raylet = SimpleNamespace(
        Config=SimpleNamespace(initialize=initialize),
        AuthenticationTokenLoader=SimpleNamespace(instance=lambda: loader),
    )
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray._raylet", raylet)
    with applied(driver_environment(SECRET)):
        assert heard == ["token", "reset"]
    assert heard == ["token", "reset", "none", "reset"]


def test_of_several_clusters_the_one_entered_last_counts_in_whatever_order_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "before:1")
    first, second = (
        applied(driver_environment(SECRET)),
        applied(driver_environment(JoinSecret("second:2", "b"))),
    )
    first.__enter__()
    second.__enter__()
    assert os.environ["RAY_ADDRESS"] == "second:2"
    first.__exit__(None, None, None)
    assert os.environ["RAY_ADDRESS"] == "second:2"
    second.__exit__(None, None, None)
    assert os.environ["RAY_ADDRESS"] == "before:1"


@pytest.mark.parametrize(
    ("connected_to", "left"), [(SECRET.address, True), ("another:1", False), ("", False)]
)
def test_a_driver_leaves_the_cluster_that_ends_and_no_other(
    monkeypatch: pytest.MonkeyPatch, connected_to: str, left: bool
) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(
        is_initialized=lambda: bool(connected_to),
        get_runtime_context=lambda: SimpleNamespace(gcs_address=connected_to),
        shutdown=lambda: calls.append(os.environ["RAY_ADDRESS"]),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    with applied(driver_environment(SECRET)):
        assert calls == []
    assert calls == ([SECRET.address] if left else [])  # while it still may use the cluster


def test_the_token_is_not_shown() -> None:
    assert "5ec7e7" not in repr(SECRET)


def test_versions_are_found_without_importing_ray() -> None:
    versions = installed_versions()
    assert versions.ray == metadata.version("ray")
    assert versions.python == f"{sys.version_info[0]}.{sys.version_info[1]}"


async def test_without_ray_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(RayMissing, match="pip install"):
        async with start_head():
            pytest.fail("it started")


def test_without_ray_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr("swarmp2p.ray_bridge.versions.find_spec", lambda name: None)  # pyright: ignore
    with pytest.raises(RayMissing, match="pip install"):
        check_installed()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", LOOPBACK_IP),
        ("127.77.3.4", "127.77.3.4"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_a_heads_address_is_one_that_drivers_can_use(given: str, used: str) -> None:
    assert usable_ip(given) == used


async def test_a_port_in_use_is_refused() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="choose another"):
            async with start_head(port=taken.getsockname()[1]):
                pytest.fail("it started")


def test_a_nodes_directory_is_private_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    directory = private_directory()
    try:
        assert len(os.fsencode(directory)) <= 40
        assert directory.stat().st_mode & 0o777 == 0o700
    finally:
        directory.rmdir()
