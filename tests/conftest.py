"""What every test may use, and one rule: where nothing may be missing, a skipped test is a failed one."""

import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest
import structlog
from hypothesis import settings

from tests.fakes.event_loops import RUNTIMES, Runtime

ROOT: Final = Path(__file__).parent.parent

NO_SKIP_VARIABLE: Final = "OBSERVER_TEST_NO_SKIP"
"""Set to 1 by `.ci/run`, which installs all that tests can use: a skip there would hide a check."""

SHARED_VARIABLE: Final = "OBSERVER_SHARED"
"""The folder of real data; without it, `shared` beside the repository."""

settings.register_profile("timeless", deadline=None)  # how long an example takes decides nothing
settings.register_profile("gate", settings.get_profile("timeless"), derandomize=True, max_examples=50)
settings.load_profile("timeless")
if os.environ.get(NO_SKIP_VARIABLE):
    # The gate decides the same way twice. Chance has its place elsewhere: in every other run, and in `make faults`.
    settings.load_profile("gate")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As of what a shell runs in the background. All that tests start would have it ignored, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[variable]  # a proxy does not find what a test starts: all of that is on this machine

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_xdist_auto_num_workers() -> int:
    """Give how many files of tests run at once: one more than cores, as most tests wait for daemons, or for time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """End what a test has set up of the log with it: it is one of the process, and may lead to a closed file."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data, or skip: it is not part of the repository."""
    folder = Path(os.environ.get(SHARED_VARIABLE) or ROOT.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set {SHARED_VARIABLE} to the folder that holds data/")
    return folder


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Run a coroutine function on each kind of event loop."""
    chosen: Runtime = request.param
    return chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skipped where nothing may be missing."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a file that skipped as a whole where nothing may be missing."""
    return _refuse_skip((yield))


def _refuse_skip(report: Report) -> Report:
    expected_to_fail = hasattr(report, "wasxfail")
    if report.skipped and not expected_to_fail and os.environ.get(NO_SKIP_VARIABLE) == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (refused: {NO_SKIP_VARIABLE} is set)"
    return report
