"""The whole suite: Hypothesis without deadlines, since it runs beside others on two busy cores; several tests at a time
(`make test`); a folder of its own for what commands keep; in CI, no skips."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so would all that tests start and interrupt


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """Neither the user's own keys and states, nor those of tests in other processes, of which a peer locks its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARMP2P_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, since whole systems wait much; more than six do not shorten the longest."""
    return min((os.cpu_count() or 1) + 1, 6)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several run at a time, the long ones come first: at the end no process has nothing left to do."""
    if hasattr(config, "workerinput"):  # a process of pytest-xdist's
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With SWARMP2P_NO_SKIPS in the environment, which .ci/run sets, a test that would be skipped fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and "SWARMP2P_NO_SKIPS" in os.environ:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CI has to run {item.name}: {reason}"
    return report
