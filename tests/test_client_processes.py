"""`Observer` where processes begin and end: at the end of the interpreter, after a fork, at the import."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from observer_actors.client._sender import REQUEST_SECONDS
from tests.conftest import ROOT
from tests.daemon.served import Served, served
from tests.fakes.http_peer import closed_url
from tests.harness import journal_ops

LONG_S: Final = 90.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("processes") / "data") as running:
        yield running


HEAD: Final = """
import atexit, os, sys, threading, time
ended = time.monotonic()
def last():
    pass
atexit.register(lambda: (last(), print(time.monotonic() - ended)))  # the first to come is the last to be called
from observer_actors import Observer
obs = Observer(sys.argv[1], close_seconds=float(sys.argv[2]))
"""


def _unmeasured() -> dict[str, str]:
    """Give the environment without coverage, which makes a line dear, and the end of a program slow."""
    return {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}


def run_script(
    script: str, url: str, *, timeout: float = LONG_S, close_s: float = 20
) -> subprocess.CompletedProcess[str]:
    """Run a program that has `obs`, an observer; it says how long its end took after it set `ended`."""
    return _run("-c", HEAD + textwrap.dedent(script), url, str(close_s), timeout=timeout)


def run_file(path: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program from a file, which its workers import."""
    path.write_text(program)
    return _run(str(path), *arguments, timeout=LONG_S)


def _run(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**_unmeasured(), "PYTHONPATH": str(ROOT)},
    )


def names(daemon: Served, prefix: str) -> list[str]:
    return sorted(op.endpoint for op in journal_ops(daemon.data_dir) if op.endpoint.startswith(prefix))


def test_an_observer_from_before_a_reload_of_its_modules_ends_and_forks_as_ever(daemon: Served) -> None:
    ended = run_script(
        """
        import importlib
        with obs.operation("reload:before"):
            pass
        assert obs.flush(30)
        for name in [name for name in sys.modules if name.startswith("observer_actors")]:
            importlib.reload(sys.modules[name])
        if (child := os.fork()) == 0:
            assert obs.statistics().events == 0
        else:
            os.waitpid(child, 0)
        with obs.operation(f"reload:{'parent' if child else 'child'}"):
            pass
        ended = time.monotonic()
        """,
        daemon.url,
    )
    assert ended.returncode == 0, ended.stderr
    assert names(daemon, "reload:") == ["reload:before", "reload:child", "reload:parent"]


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError('the host has its own troubles')"])
def test_what_is_left_is_sent_at_the_end_of_the_interpreter(daemon: Served, ending: str) -> None:
    name = f"exit-{len(ending)}-"
    ended = run_script(
        f"""
        for number in range(1_200):
            with obs.operation("{name}" + str(number)):
                pass
        {ending}
        """,
        daemon.url,
    )
    assert len(names(daemon, name)) == 1_200
    assert ended.returncode == {"": 0, "sys.exit(3)": 3}.get(ending, 1)
    assert ("ValueError" in ended.stderr) == ("raise" in ending)


def test_an_event_that_is_made_when_the_interpreter_ends_is_sent_too(daemon: Served) -> None:
    ended = run_script(
        """
        def late():
            with obs.operation("late-1"):
                pass
        atexit.register(late)
        """,
        daemon.url,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(daemon, "late-") == ["late-1"]


LAST: Final = """
        def last():
            other = Observer(sys.argv[1], close_seconds=float(sys.argv[2]))
            for number in range(3):
                for one in (obs, other):
                    with one.operation(f"last-{number}"):
                        pass
            print(obs.statistics().accepted, obs.statistics().abandoned, obs.statistics().waiting)
            print(other.statistics().accepted, other.statistics().abandoned, other.statistics().waiting)
"""


def test_an_event_that_is_made_after_our_own_end_is_sent_too(daemon: Served) -> None:
    ended = run_script(LAST, daemon.url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[:2] == ["3 0 0", "3 0 0"]
    assert names(daemon, "last-") == sorted([f"last-{number}" for number in range(3)] * 2)


def test_an_event_that_cannot_be_sent_after_our_own_end_is_counted_and_the_limit_is_one_for_all() -> None:
    ended = run_script(LAST, closed_url(), close_s=0.3)
    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stderr.splitlines()] == ["event='events_not_taken'"] * 2, "one each"
    assert ended.stdout.splitlines()[:2] == ["0 3 0", "0 3 0"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_call_to_the_gateway_while_the_interpreter_ends_raises_nothing(host: str) -> None:
    ended = run_script(
        f"""
        def late():
            print(obs.observed("/sql", {{}}, "d", gateway_url="http://{host}:9").op.success)
        atexit.register(late)
        """,
        closed_url(),
        close_s=0.5,
    )
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "False")
    assert len(ended.stderr.splitlines()) == ("events_not_taken" in ended.stderr), "one line of the log, or none"


def test_ctrl_c_ends_a_call_to_the_gateway_at_once() -> None:
    with socket_that_hangs() as hanging:
        ended = run_script(
            """
            import signal, threading
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                obs.observed("/sql", {}, "d", gateway_url=sys.argv[1])
            except KeyboardInterrupt:
                print(time.monotonic() - began < 5, obs.statistics().events)
            """,
            hanging,
        )
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "True 0")


def test_an_event_that_is_made_after_a_close_is_sent_too(daemon: Served) -> None:
    ended = run_script(
        """
        obs.close()
        with obs.operation("closed-1"):
            pass
        """,
        daemon.url,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(daemon, "closed-") == ["closed-1"]


def test_a_daemon_that_is_away_or_hangs_delays_the_end_no_longer_than_the_limit() -> None:
    script = """
        with obs.operation("a"):
            pass
        time.sleep(0.8)
        ended = time.monotonic()
        """
    with socket_that_hangs() as hanging:
        for url in (closed_url(), hanging):
            said = run_script(script, url, close_s=4)  # longer than by default, and shorter than a request may take
            assert said.returncode == 0
            assert len(said.stderr.splitlines()) == ("events_not_taken" in said.stderr), "one line of the log, or none"
            assert 3 < float(said.stdout) < REQUEST_SECONDS


def test_many_observers_of_a_daemon_that_hangs_delay_the_end_no_longer_than_one() -> None:
    with socket_that_hangs() as hanging:
        said = run_script(
            """
            many = [Observer(sys.argv[1], close_seconds=1) for _ in range(100)]
            for one in many:
                with one.operation("a"):
                    pass
            time.sleep(0.8)
            ended = time.monotonic()
            """,
            hanging,
        )
    assert said.returncode == 0
    assert float(said.stdout) < REQUEST_SECONDS / 2, "each had a tenth of a second more, one after the other"


@pytest.mark.parametrize("close_s", [0, 0.5])
@pytest.mark.parametrize("trouble", ["nobody", "hangs", "hangs before", "address"])
def test_a_short_program_says_that_what_it_reports_is_not_taken(trouble: str, close_s: float) -> None:
    script = f"""
        with obs.operation("a"):
            pass
        time.sleep({0.8 if trouble == "hangs before" else 0})
        """
    with socket_that_hangs() as hanging:
        ended = run_script(
            script, {"nobody": closed_url(), "address": "nonsense"}.get(trouble, hanging), close_s=close_s
        )
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("event='events_not_taken' actor='client' error=")


@contextmanager
def socket_that_hangs() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_child_process_reports_what_is_its_own_and_its_parent_the_rest(daemon: Served) -> None:
    ended = run_script(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        stop = threading.Event()
        def busy():  # so that locks are held when it forks
            while not stop.is_set():
                obs.statistics()
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        with obs.operation("fork-before"):
            pass
        children = []
        for number in range(10):
            child = os.fork()
            if not child:
                assert obs.statistics().events == 0
                with obs.operation(f"fork-child-{number}"):
                    pass
                obs.close()
                os._exit(0 if obs.statistics().accepted == 1 else 9)
            children.append(child)
        with obs.operation("fork-after"):
            pass
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 10
        stop.set()
        """,
        daemon.url,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(daemon, "fork-") == sorted(["fork-before", "fork-after", *(f"fork-child-{n}" for n in range(10))])


WORKER: Final = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from observer_actors import Observer

obs = None
def work(number):
    global obs
    obs = obs or Observer(sys.argv[1], close_seconds=20)
    with obs.operation(f"worker-{sys.argv[2]}-{number}"):
        pass

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(work, range(20)))
    alone = context.Process(target=work, args=(20,))
    alone.start()
    alone.join()
    assert alone.exitcode == 0
"""


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_what_is_left_is_sent_at_the_end_of_a_worker(daemon: Served, tmp_path: Path, start: str) -> None:
    ended = run_file(tmp_path / "worker.py", WORKER, daemon.url, start)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(daemon, f"worker-{start}-") == sorted(f"worker-{start}-{number}" for number in range(21))


LOADING: Final = """
import multiprocessing, sys
from observer_actors import Observer

obs = Observer(sys.argv[1], close_seconds=20)
with obs.operation(f"loading-{sys.argv[2]}-{__name__}"):
    pass
def work(number):
    if number:
        with obs.operation(f"loading-{sys.argv[2]}-{number}"):
            pass

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    context.set_forkserver_preload([])  # each worker loads it
    for number in range(2):
        alone = context.Process(target=work, args=(number,))
        alone.start()
        alone.join()
        assert alone.exitcode == 0
"""


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_what_a_worker_reports_while_it_loads_its_module_and_then_is_sent_too(
    daemon: Served, tmp_path: Path, start: str
) -> None:
    ended = run_file(tmp_path / "loading.py", LOADING, daemon.url, start)
    assert (ended.returncode, ended.stderr) == (0, "")
    loads = [] if start == "fork" else 2 * ["__mp_main__"]
    assert names(daemon, f"loading-{start}-") == sorted(f"loading-{start}-{one}" for one in ["1", "__main__", *loads])


OUTLIVED: Final = """
import multiprocessing, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from observer_actors import Observer

obs = Observer(sys.argv[1], close_seconds=0.5)
pool = ThreadPoolExecutor(1)
def work(name):
    for number in range(3):
        time.sleep(0.4)  # in all, longer than what is left may take
        with obs.operation(f"outlived-{sys.argv[2]}-{name}-{number}"):
            pass
def target(name):
    if name == "later":
        with obs.operation(f"outlived-{sys.argv[2]}-{name}-first"):
            pass
    if name == "pool":
        pool.submit(work, name)
    else:
        threading.Thread(target=work, args=(name,)).start()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    workers = [context.Process(target=target, args=(name,)) for name in ("later", "alone", "pool")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_threads_report_that_outlive_a_workers_function_is_sent_too(
    daemon: Served, tmp_path: Path, start: str
) -> None:
    ended = run_file(tmp_path / "outlived.py", OUTLIVED, daemon.url, start)
    assert (ended.returncode, ended.stderr) == (0, "")
    reported = [f"{name}-{number}" for name in ("later", "alone", "pool") for number in range(3)]
    assert names(daemon, f"outlived-{start}-") == sorted(
        f"outlived-{start}-{one}" for one in ["later-first", *reported]
    )


IMPORTED: Final = """
class Spy:
    def find_spec(self, name, path=None, target=None):
        if watched or threading.current_thread() is not threading.main_thread():
            print("imported:", threading.current_thread().name, name, file=sys.stderr)
watched = False
sys.meta_path.insert(0, Spy())
"""
"""Says what is imported in a thread, and while `watched`."""


def test_no_thread_of_ours_imports_anything_and_neither_does_advice(daemon: Served) -> None:
    ended = run_script(
        IMPORTED
        + f"""
watched = True
with obs.operation("importing-é") as op:
    op.output_summary = {{"ü": "客"}}
assert obs.flush(20)
obs.advice("importing", input="客")
watched = False
obs.observed("/sql", {{}}, "", gateway_url="{daemon.url.replace("127.0.0.1", "localhost")}")
""",
        daemon.url.replace("127.0.0.1", "localhost"),
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_thread_of_an_async_observer_imports_anything(daemon: Served) -> None:
    ended = run_script(
        IMPORTED
        + """
import trio
from observer_actors import AsyncObserver
async def agent():
    async with AsyncObserver(sys.argv[1]) as asynchronous:
        await asynchronous.advice("importing", input="客")
        with asynchronous.operation("importing-async"):
            pass
trio.run(agent)
""",
        daemon.url.replace("127.0.0.1", "localhost"),
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("working", ["obs.advice('a')", "str(Advice('a', (AdviceEntry('e'),)))"])
def test_a_fork_at_any_moment_leaves_a_child_that_can_ask_and_report(working: str) -> None:
    # Each round is a process of its own, in which nothing has been imported that comes later.
    script = f"""
        import signal
        for number in range(12):
            generation = os.fork()
            if not generation:
                from observer_actors.client import Advice, AdviceEntry
                obs = Observer("http://127.0.0.1:9", linger_seconds=0, close_seconds=0.1)
                with obs.operation("a"):
                    pass
                threading.Thread(target=lambda: {working}, daemon=True).start()
                time.sleep(0.002 * number)
                child = os.fork()
                if not child:
                    signal.alarm(60)
                    obs.advice("a")
                    str(Advice("a", (AdviceEntry("e"),)))
                    with obs.operation("b"):
                        pass
                    obs.close()
                    os._exit(0)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
            assert os.waitstatus_to_exitcode(os.waitpid(generation, 0)[1]) == 0, number
        """
    ended = run_script(script, closed_url())
    assert ended.returncode == 0, ended.stderr


def test_a_signal_handler_and_a_finalizer_may_report_in_the_middle_of_a_report(daemon: Served) -> None:
    ended = run_script(
        """
        import gc, signal
        def report(name):
            with obs.operation("within-" + name, run="r"):
                pass
        class Finalized:
            def __init__(self):
                self.me = self
            def __del__(self):
                report("finalizer")
        signal.signal(signal.SIGALRM, lambda number, frame: report("handler"))
        gc.set_threshold(7)
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            with obs.operation("within-main", attrs={"it": Finalized() and 1}):
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert obs.flush(20)
        """,
        daemon.url,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(names(daemon, "within-")) == {"within-main", "within-handler", "within-finalizer"}


def test_advice_is_put_into_a_prompt_without_an_import() -> None:
    ended = run_script(
        """
        from observer_actors.client import Advice, AdviceEntry
        before = set(sys.modules)
        said = str(Advice("a1", (AdviceEntry("e1", "do", "add LIMIT", "sql:run"),)))
        assert said.endswith("- **Do** at `sql:run`: `add LIMIT`"), said
        assert set(sys.modules) == before, sorted(set(sys.modules) - before)
        """,
        "http://127.0.0.1:9",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_import_is_cheap_and_the_host_gets_no_event_loop_and_no_http_client() -> None:
    heavy = "('anyio', 'asyncio', 'httpx', 'structlog', 'trio', 'quart', 'http')"
    ended = run_script(
        f"""
        with obs.operation("a"):
            pass
        found = sorted(name for name in sys.modules if name.partition(".")[0] in {heavy})
        os._exit(len(found) and print(found, file=sys.stderr, flush=True) or 0)
        """,
        "http://127.0.0.1:9",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
